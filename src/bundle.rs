// SPDX-License-Identifier: Apache-2.0
//! config.json: what it says about the time namespace, and how to change only that.

use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::invocation::Operands;
use crate::json::{self, Found, Splice};
use crate::replacement::Replacement;

/// The element that declares a time namespace of the container's own, as the OCI runtime specification has it.
const TIME_NAMESPACE: &str = r#"{"type":"time"}"#;

/// What `linux.namespaces` says of the time namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// No entry.
    No,
    /// A new one, with the engine's own clocks: no path, no offsets.
    Plain,
    /// A new one whose clocks are shifted by `linux.timeOffsets`.
    Offsets,
    /// An existing one, by path.
    Path,
}

/// What the decision needs to know of a config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// There is nothing to read: the runtime will say so better.
    Missing,
    /// A pipe or a device, from which the runtime would read nothing any more.
    Unreadable,
    /// It could be read in more than one way, or in none; the text says which key.
    NotUnderstood(&'static str),
    /// No `linux.namespaces`, where an entry could stand.
    NoNamespaces,
    /// It is understood.
    Understood {
        /// Its time namespace.
        declared: Declared,
        /// The container joins a pid namespace that exists already.
        joins_pid_namespace: bool,
        /// The container has or joins a user namespace.
        user_namespace: bool,
    },
}

/// A config.json, read once.
#[derive(Debug)]
pub struct Config {
    path: PathBuf,
    text: Vec<u8>,
    /// Of the file as it was read.
    metadata: fs::Metadata,
    /// The path is a symbolic link, and so may name a file that belongs to others, too.
    is_link: bool,
}

impl Config {
    /// Reads the config.json that the runtime will read: crun's `--config`, or the one in `--bundle`, or that in the
    /// working folder. None if it is no regular file: reading would take from a pipe what the runtime needs.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(operands: &Operands<'_>) -> Result<Option<Self>> {
        let path = match (operands.config, operands.bundle) {
            // The name itself is crun's default, and means the bundle's.
            (Some(config), _) if config != "config.json" => PathBuf::from(config),
            (_, bundle) => Path::new(bundle.unwrap_or(".".as_ref())).join("config.json"),
        };
        Self::read_file(path)
    }

    fn read_file(path: PathBuf) -> Result<Option<Self>> {
        let context = || format!("read {}", path.display());
        // Asked before, because opening a FIFO has effects, and again after, because it may be another file by then.
        if !fs::metadata(&path).with_context(context)?.is_file() {
            return Ok(None);
        }
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).with_context(context)?;
        let metadata = file.metadata().with_context(context)?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let mut text = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
        file.read_to_end(&mut text).with_context(context)?;
        let is_link = fs::symlink_metadata(&path).with_context(context)?.is_symlink();
        Ok(Some(Self { path, text, metadata, is_link }))
    }

    /// What it says, and the change that would make it say otherwise.
    pub fn view(&self) -> (View, Option<Splice>) {
        let Ok(text) = std::str::from_utf8(&self.text) else {
            return (View::NotUnderstood("it is not UTF-8"), None);
        };
        view(text).unwrap_or((View::NotUnderstood("it is not JSON"), None))
    }

    /// The value of an annotation; none if it is not there, or config.json is not understood at all.
    ///
    /// # Errors
    /// It is there twice, or no text.
    pub fn annotation(&self, key: &str) -> Result<Option<Cow<'_, str>>> {
        let Ok(text) = std::str::from_utf8(&self.text) else { return Ok(None) };
        let Ok([Found::One(annotations)]) = json::members(text, ["annotations"]) else { return Ok(None) };
        match json::members(annotations, [key]) {
            Ok([Found::One(value)]) => {
                json::string(value).map(Some).with_context(|| format!("the annotation {key} in config.json is no text"))
            }
            Ok([Found::Ambiguous]) => bail!("the annotation {key} is in config.json twice, or in another letter case"),
            Ok([Found::Absent]) | Err(_) => Ok(None),
        }
    }

    /// Replaces the file by the changed text, atomically: mode and owner stay, other names and extended attributes of the
    /// old file do not come along.
    ///
    /// # Errors
    /// The path is a symbolic link, or its folder cannot be written; then nothing has changed.
    pub fn replace(&self, splice: &Splice) -> Result<()> {
        ensure!(!self.is_link, "{} is a symbolic link", self.path.display());
        Replacement::write(&self.path, &self.metadata, &splice.pieces(&self.text))
            .and_then(Replacement::take_place)
            .with_context(|| format!("replace {}", self.path.display()))
    }
}

/// Whether the config.json at `path` declares a time namespace, as far as it is understood.
pub fn declares_time(path: &Path) -> bool {
    let config = Config::read_file(path.to_owned()).ok().flatten();
    let view = config.as_ref().map(|config| config.view().0);
    matches!(view, Some(View::Understood { declared, .. }) if declared != Declared::No)
}

/// The view of a config.json's text; the splice declares a time namespace where none is declared, and takes a plain one out.
fn view(text: &str) -> serde_json::Result<(View, Option<Splice>)> {
    let not_understood = |key| Ok((View::NotUnderstood(key), None));
    let linux = match json::members(text, ["linux"])? {
        [Found::One(linux)] => linux,
        [Found::Absent] => return Ok((View::NoNamespaces, None)),
        [Found::Ambiguous] => return not_understood("the key linux is there twice or in another letter case"),
    };
    let [namespaces, offsets] = json::members(linux, ["namespaces", "timeOffsets"])?;
    let array = match namespaces {
        Found::One(array) => array,
        Found::Absent => return Ok((View::NoNamespaces, None)),
        Found::Ambiguous => return not_understood("the key linux.namespaces is there twice or in another letter case"),
    };
    let offsets = match offsets {
        Found::Absent => false,
        Found::One(object) => !is_empty_object(object),
        Found::Ambiguous => {
            return not_understood("the key linux.timeOffsets is there twice or in another letter case");
        }
    };

    let elements = json::elements(array)?;
    let mut time = None;
    let mut joins_pid_namespace = false;
    let mut user_namespace = false;
    for (index, element) in elements.iter().enumerate() {
        let Ok([Found::One(kind), path]) = json::members(element, ["type", "path"]) else {
            return not_understood("an entry of linux.namespaces has no type, or more than one");
        };
        let path = match path {
            Found::Absent => false,
            Found::One(path) => json::string(path).is_none_or(|path| !path.is_empty()),
            Found::Ambiguous => return not_understood("an entry of linux.namespaces has more than one path"),
        };
        match json::string(kind).as_deref() {
            Some("time") if time.is_some() => return not_understood("linux.namespaces lists time twice"),
            Some("time") => time = Some((index, path)),
            Some("pid") => joins_pid_namespace |= path,
            Some("user") => user_namespace = true,
            _ => {}
        }
    }

    let (declared, splice) = match time {
        Some((_, true)) => (Declared::Path, None),
        _ if offsets => (Declared::Offsets, None),
        None => (Declared::No, Some(Splice::append(text, array, &elements, TIME_NAMESPACE))),
        Some((index, false)) => (Declared::Plain, Some(Splice::take_out(text, &elements, index))),
    };
    Ok((View::Understood { declared, joins_pid_namespace, user_namespace }, splice))
}

fn is_empty_object(text: &str) -> bool {
    text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).is_some_and(|inner| inner.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(linux: &str) -> String {
        format!(r#"{{"ociVersion":"1.0.2","linux":{linux},"process":{{}}}}"#)
    }

    fn changed(text: &str) -> String {
        let (_, splice) = view(text).unwrap();
        String::from_utf8(splice.unwrap().pieces(text.as_bytes()).concat()).unwrap()
    }

    #[test]
    fn what_is_declared() {
        let understood =
            |declared, joins_pid_namespace| View::Understood { declared, joins_pid_namespace, user_namespace: false };
        let user = config(r#"{"namespaces":[{"type":"user"}]}"#);
        let expected = View::Understood { declared: Declared::No, joins_pid_namespace: false, user_namespace: true };
        assert_eq!(view(&user).unwrap().0, expected);
        for (linux, expected) in [
            (r#"{"namespaces":[]}"#, understood(Declared::No, false)),
            (r#"{"namespaces":[{"type":"pid"},{"type":"mount"}]}"#, understood(Declared::No, false)),
            (r#"{"namespaces":[{"type":"pid","path":""}]}"#, understood(Declared::No, false)),
            (r#"{"namespaces":[{"type":"pid","path":"/proc/7/ns/pid"}]}"#, understood(Declared::No, true)),
            (r#"{"namespaces":[{"type":"time"}]}"#, understood(Declared::Plain, false)),
            (
                r#"{"namespaces":[{"type":"t\u0069me","path":null}],"timeOffsets":{}}"#,
                understood(Declared::Plain, false),
            ),
            (r#"{"namespaces":[{"type":"time"}],"timeOffsets":null}"#, understood(Declared::Plain, false)),
            (
                r#"{"namespaces":[{"type":"time"}],"timeOffsets":{"boottime":{"secs":1}}}"#,
                understood(Declared::Offsets, false),
            ),
            (r#"{"namespaces":[],"timeOffsets":{"boottime":{"secs":1}}}"#, understood(Declared::Offsets, false)),
            (r#"{"namespaces":[{"type":"time","path":"/proc/7/ns/time"}]}"#, understood(Declared::Path, false)),
            (r#"{"namespaces":[{"type":"unheard-of"}]}"#, understood(Declared::No, false)),
            ("{}", View::NoNamespaces),
            (r#"{"namespaces":null}"#, View::NoNamespaces),
            ("null", View::NoNamespaces),
        ] {
            assert_eq!(view(&config(linux)).unwrap().0, expected, "{linux}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_understood() {
        for text in [
            r#"{"linux":{"namespaces":[]},"linux":{"namespaces":[]}}"#,
            r#"{"Linux":{"namespaces":[]}}"#,
            r#"{"linux":{"namespaces":[],"Namespaces":[]}}"#,
            r#"{"linux":{"namespaces":[],"timeoffsets":{}}}"#,
            r#"{"linux":{"namespaces":[{"type":"time"},{"type":"time"}]}}"#,
            r#"{"linux":{"namespaces":[{"type":"pid","type":"time"}]}}"#,
            r#"{"linux":{"namespaces":[{"Type":"time"}]}}"#,
            r#"{"linux":{"namespaces":["time"]}}"#,
        ] {
            let (view, splice) = view(text).unwrap();
            assert!(matches!(view, View::NotUnderstood(_)), "{text}: {view:?}");
            assert_eq!(splice, None, "{text}");
        }
        for text in ["", "[]", "{", r#"{"linux":[]}"#, r#"{"linux":{"namespaces":{}}}"#, "\u{feff}{}"] {
            assert!(view(text).is_err(), "{text}");
        }
    }

    #[test]
    fn declaring_and_undeclaring_change_only_the_entry() {
        let spaced =
            "{ \"linux\": {\n\t\"namespaces\" : [ {\"type\":\"pid\"} ,\r\n {\"type\":\"mount\"}\n ] } } trailing";
        assert_eq!(changed(spaced), spaced.replace("\"mount\"}", "\"mount\"},{\"type\":\"time\"}"));
        assert_eq!(changed(&changed(spaced)), spaced);
        let first = r#"{"linux":{"namespaces":[{"type":"time"}, {"type":"pid"}]}}"#;
        assert_eq!(changed(first), r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#);
        let only = r#"{"linux":{"namespaces":[{"type":"time"}]}}"#;
        assert_eq!(changed(only), r#"{"linux":{"namespaces":[]}}"#);
        assert_eq!(changed(&changed(only)), only);
    }
}
