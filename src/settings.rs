// SPDX-License-Identifier: Apache-2.0
//! What people can set: in /etc/tns-shim/config.toml (the user's own file when not root), and for a single container by
//! annotations in its config.json, which win over the file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::unistd::geteuid;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

/// Set when building, see the Makefile.
const SYSTEM_FOLDER: &str = match option_env!("SYSCONFDIR") {
    Some(folder) => folder,
    None => "/etc",
};

/// The file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The runtime to wrap: an absolute path, or a name to look for in PATH.
    pub runtime: Option<PathBuf>,
    /// What holds at checkpoint.
    pub checkpoint: Checkpoint,
    /// What holds at restore.
    pub restore: Restore,
}

/// The keys `checkpoint.*`.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoint {
    /// What becomes of a container whose processes disagree about time.
    pub mixed: MixedTree,
}

/// `checkpoint.mixed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixedTree {
    /// It keeps running, and the call fails.
    #[default]
    Refuse,
    /// It is checkpointed with a warning, into an image that has to be repaired.
    Warn,
}

/// The keys `restore.*`.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restore {
    /// Which clocks a restored container has.
    pub clocks: RestoredClocks,
    /// What becomes of an image whose processes disagree about time.
    pub mixed: MixedImage,
}

/// `restore.clocks`, and the annotation [`RestoredClocks::ANNOTATION`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoredClocks {
    /// They go on from the checkpoint, in a time namespace that CRIU makes.
    #[default]
    Continue,
    /// The host's: the container stays in the time namespace of whoever restores it. Not if a clock would go back.
    Host,
    /// The same, even if a clock goes back.
    HostForce,
}

impl RestoredClocks {
    /// The annotation that sets it for one container.
    pub const ANNOTATION: &str = "org.tns-shim.restore.clocks";

    /// The value of the annotation, if it has one, else this one.
    ///
    /// # Errors
    /// It is none of the values.
    pub fn or_annotated(self, annotation: Option<&str>) -> Result<Self> {
        annotation.map_or(Ok(self), |value| parse(Self::ANNOTATION, value))
    }
}

/// `restore.mixed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixedImage {
    /// It is repaired, with a warning.
    #[default]
    Repair,
    /// The restore fails before the runtime is called.
    Refuse,
}

/// Reads an annotation by the same rules as a value in the file.
fn parse<T: for<'de> Deserialize<'de>>(annotation: &str, value: &str) -> Result<T> {
    T::deserialize(IntoDeserializer::<ValueError>::into_deserializer(value))
        .map_err(|error| anyhow!("the annotation {annotation} in config.json: {error}"))
}

impl Settings {
    /// Reads the file; there need not be one.
    ///
    /// # Errors
    /// It cannot be read, or holds an unknown key or a bad value; the message names the line.
    pub fn read() -> Result<Self> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        toml::from_str(&text).with_context(|| format!("understand {}", path.display()))
    }
}

/// Where the file is. Root's place does not follow the environment, which whoever calls could have set.
pub fn path() -> Option<PathBuf> {
    if geteuid().is_root() {
        return Some(Path::new(SYSTEM_FOLDER).join("tns-shim/config.toml"));
    }
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("tns-shim/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_has_its_default() {
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
        let some: Settings =
            toml::from_str("restore.clocks = \"host-force\"\n[checkpoint]\nmixed = \"warn\"\n").unwrap();
        assert_eq!(some.restore, Restore { clocks: RestoredClocks::HostForce, mixed: MixedImage::Repair });
        assert_eq!(some.checkpoint.mixed, MixedTree::Warn);
        assert_eq!(some.runtime, None);
    }

    #[test]
    fn an_unknown_key_or_value_is_an_error_that_names_it_and_its_line() {
        for (text, named) in [
            ("runtime = \"crun\"\nruntmie = \"runc\"\n", "runtmie"),
            ("[restore]\nclock = \"host\"\n", "clock"),
            ("\nrestore.clocks = \"Host\"\n", "`continue`, `host`, `host-force`"),
            ("[restore]\nmixed = true\n", "mixed"),
        ] {
            let error = toml::from_str::<Settings>(text).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(named), "{error}");
        }
    }

    #[test]
    fn an_annotation_wins_over_the_file() {
        let file = RestoredClocks::Host;
        assert_eq!(file.or_annotated(None).unwrap(), RestoredClocks::Host);
        assert_eq!(file.or_annotated(Some("continue")).unwrap(), RestoredClocks::Continue);
        let error = file.or_annotated(Some("hsot")).unwrap_err().to_string();
        assert!(error.contains(RestoredClocks::ANNOTATION) && error.contains("`host-force`"), "{error}");
    }
}
