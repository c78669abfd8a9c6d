// SPDX-License-Identifier: Apache-2.0
//! `annotations`: which of a container's annotations are honoured.
//!
//! Whoever makes a container writes them, and not only they: Podman and CRI-O copy those of the image into config.json. All
//! that an annotation of tns-shim can change is that one container's own clocks and the care that is taken of them, so by
//! default a container may choose for itself. What it may not is take back a protection that the administrator has asked
//! for by name: of `mode = "private"` nothing less, and from `restore.clocks` no `host-force`. More or less than that is for
//! the file to say, and only for the file.

use std::fmt;

use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Mode, Settings};

/// `annotations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Honoured {
    /// By a rule.
    By(Rule),
    /// These, and no others.
    Only(Vec<Name>),
}

/// Which ones are honoured, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// All but those that take back a protection which the file asks for by name.
    #[default]
    Safe,
    /// All: a container has the last word.
    All,
    /// None: the file has the only word.
    None,
}

/// An annotation, by what its name has after `org.tns-shim.`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Name {
    /// `mode`
    #[serde(rename = "mode")]
    Mode,
    /// `uptime`
    #[serde(rename = "uptime")]
    Uptime,
    /// `offset.monotonic` and `offset.boottime`
    #[serde(rename = "offset")]
    Offset,
    /// `restore.clocks`
    #[serde(rename = "restore.clocks")]
    RestoreClocks,
}

impl Name {
    fn is_of(self, key: &str) -> bool {
        match self {
            Self::Mode => key == "mode",
            Self::Uptime => key == "uptime",
            Self::Offset => key.starts_with("offset."),
            Self::RestoreClocks => key == "restore.clocks",
        }
    }
}

impl Default for Honoured {
    fn default() -> Self {
        Self::By(Rule::default())
    }
}

impl<'de> Deserialize<'de> for Honoured {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrList;
        impl<'de> Visitor<'de> for WordOrList {
            type Value = Honoured;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`safe`, `all`, `none`, or a list of names such as [\"uptime\"]")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Honoured, E> {
                Rule::deserialize(StrDeserializer::new(word)).map(Honoured::By)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Honoured, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(names)).map(Honoured::Only)
            }
        }
        deserializer.deserialize_any(WordOrList)
    }
}

impl Settings {
    /// Why an annotation is not honoured, `key` being its name after `org.tns-shim.`; none if it is.
    pub(super) fn lock_on(&self, key: &str, value: &str) -> Option<&'static str> {
        match self.annotations.as_ref().unwrap_or(&Honoured::default()) {
            Honoured::By(Rule::All) => None,
            Honoured::By(Rule::None) => Some("the settings honour none"),
            Honoured::Only(names) if names.iter().any(|name| name.is_of(key)) => None,
            Honoured::Only(_) => Some("the settings do not list it"),
            Honoured::By(Rule::Safe) => match (key, value) {
                ("mode", "private") | ("restore.clocks", "continue") => None,
                ("mode" | "restore.clocks", _) if self.mode == Some(Mode::Private) => {
                    Some("the settings say mode = \"private\"")
                }
                ("restore.clocks", "host-force") if self.restore.clocks.is_some_and(|clocks| !clocks.is_forced()) => {
                    Some("the settings say which restore.clocks, and nothing of force")
                }
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Annotations;

    #[test]
    fn the_file_says_which_annotations_are_honoured() {
        const PRIVATE: &str = "mode = \"private\"";
        const CONTINUE: &str = "restore.clocks = \"continue\"";
        const HOST: &str = "restore.clocks = \"host\"";
        // (the file, an annotation, whether it is honoured)
        for (file, key, value, honoured) in [
            ("", "mode", "host", true),
            ("", "restore.clocks", "host-force", true),
            ("mode = \"host\"", "mode", "auto", true),
            ("mode = \"auto\"", "mode", "leave", true),
            (PRIVATE, "mode", "host", false),
            (PRIVATE, "mode", "leave", false),
            (PRIVATE, "mode", "auto", false),
            (PRIVATE, "mode", "private", true),
            (PRIVATE, "restore.clocks", "host", false),
            (PRIVATE, "restore.clocks", "host-force", false),
            (PRIVATE, "restore.clocks", "continue", true),
            (PRIVATE, "uptime", "zero", true),
            (CONTINUE, "restore.clocks", "host-force", false),
            (CONTINUE, "restore.clocks", "host", true),
            (HOST, "restore.clocks", "host-force", false),
            (HOST, "restore.clocks", "continue", true),
            ("restore.clocks = \"host-force\"", "restore.clocks", "host-force", true),
            ("uptime = \"zero\"", "uptime", "host", true),
            ("annotations = \"safe\"\nmode = \"private\"", "mode", "host", false),
            ("annotations = \"all\"\nmode = \"private\"", "mode", "host", true),
            ("annotations = \"none\"", "uptime", "zero", false),
            ("annotations = \"none\"", "mode", "nonsense", false),
            ("annotations = [\"uptime\"]", "uptime", "zero", true),
            ("annotations = [\"uptime\"]", "mode", "private", false),
            ("annotations = [\"offset\"]", "offset.boottime", "1", true),
            ("annotations = [\"mode\"]\nmode = \"private\"", "mode", "host", true),
            ("annotations = []", "mdoe", "private", false),
        ] {
            let settings: Settings = toml::from_str(file).unwrap();
            let name = format!("org.tns-shim.{key}");
            let annotations = Annotations::of([(name.as_str(), value)], &settings).unwrap();
            assert_eq!(annotations != Annotations::default(), honoured, "{file}: {key} = {value}");
        }
    }

    #[test]
    fn a_rule_or_a_name_that_there_is_not_is_an_error_that_names_the_right_ones() {
        for (text, named) in [
            ("annotations = \"some\"", "`safe`, `all`, `none`"),
            ("annotations = [\"restore\"]", "`restore.clocks`"),
            ("annotations = true", "or a list of names"),
        ] {
            let error = toml::from_str::<Settings>(text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
