// SPDX-License-Identifier: Apache-2.0
//! config.json: what it says about the time namespace, and how to change only that.

mod file;

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};

pub use file::{Config, LARGEST, declares_time};

use crate::json::{self, Below, Found, Splice};
use crate::settings::{self, Annotations, Settings};
use crate::text::printable;
use crate::timens::Offsets;

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

/// What `linux.namespaces` says of the pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    /// No entry: the engine's own.
    Absent,
    /// A new one of the container's own.
    New,
    /// An existing one, by path.
    Joined,
}

/// What the decision needs to know of a config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// There is nothing to read: the runtime will say so better.
    Missing,
    /// A pipe or a device, from which the runtime would read nothing any more.
    Unreadable,
    /// It could be read in more than one way, or in none; the text says why.
    NotUnderstood(&'static str),
    /// No `linux.namespaces`, where an entry could stand.
    NoNamespaces,
    /// It is understood.
    Understood {
        /// Its time namespace.
        declared: Declared,
        /// Its pid namespace.
        pid: PidNamespace,
        /// The container has or joins a user namespace.
        user_namespace: bool,
    },
}

/// What a config.json says of time.
#[derive(Debug)]
pub struct Reading<'a> {
    /// For the decision.
    pub view: View,
    /// The object `annotations`.
    annotations: Option<&'a str>,
    places: Option<Places<'a>>,
}

/// Slices of the text that a change is about.
#[derive(Debug)]
struct Places<'a> {
    text: &'a str,
    /// `linux.namespaces`.
    array: &'a str,
    elements: Vec<&'a str>,
    /// Which element is the time namespace.
    time: Option<usize>,
    /// `linux.timeOffsets`, also where it is null or empty.
    offsets: Option<&'a str>,
}

impl<'a> Reading<'a> {
    /// Reads the text of a config.json.
    pub fn of(text: &'a [u8]) -> Self {
        let not_understood = |why| Self { view: View::NotUnderstood(why), annotations: None, places: None };
        let Ok(text) = std::str::from_utf8(text) else { return not_understood("it is not UTF-8") };
        read(text).unwrap_or_else(|_| not_understood("it is not JSON"))
    }

    /// The container's own annotations about time, as far as the settings honour them; none where config.json is not
    /// understood.
    ///
    /// # Errors
    /// One is there twice, is no text, or is not understood.
    pub fn annotations(&self, settings: &Settings) -> Result<Annotations> {
        let pairs = self.annotations.and_then(|object| json::members_with_prefix(object, settings::ANNOTATIONS).ok());
        let mut texts: Vec<(String, Cow<'_, str>)> = Vec::new();
        for (name, value) in pairs.unwrap_or_default() {
            let shown = printable(&name, 128);
            ensure!(texts.iter().all(|(other, _)| *other != name), "the annotation {shown} is in config.json twice");
            let value =
                json::string(value).with_context(|| format!("the annotation {shown} in config.json is no text"))?;
            texts.push((name, value));
        }
        Annotations::of(texts.iter().map(|(name, value)| (name.as_str(), value.as_ref())), settings)
    }

    /// Makes it declare a time namespace of the container's own whose clocks are ahead of the initial one's by `offsets`;
    /// none: with the clocks of whoever calls the runtime. Nothing where it is not understood.
    pub fn declare(&self, offsets: Option<Offsets>) -> Vec<Splice> {
        let Some(Places { text, array, elements, time, offsets: old }) = &self.places else { return Vec::new() };
        let mut change = Vec::new();
        if time.is_none() {
            change.push(Splice::append(text, array, elements, TIME_NAMESPACE));
        }
        if let Some(offsets) = offsets {
            let value = time_offsets(offsets);
            change.push(match old {
                Some(old) => Splice::replace(text, old, value),
                None => Splice::behind(text, array, &format!("\"timeOffsets\":{value}")),
            });
        }
        change
    }

    /// Makes it declare a namespace that no runtime knows, so that every runtime refuses it and says `why`, which is its
    /// name. Nothing where it is not understood.
    pub fn refuse(&self, why: &str) -> Vec<Splice> {
        let Some(Places { text, array, elements, .. }) = &self.places else { return Vec::new() };
        let entry = serde_json::json!({ "type": why }).to_string();
        vec![Splice::append(text, array, elements, &entry)]
    }

    /// Takes a declared time namespace out of it, with its offsets.
    pub fn undeclare(&self) -> Vec<Splice> {
        let Some(Places { text, elements, time, offsets, .. }) = &self.places else { return Vec::new() };
        let entry = time.map(|index| Splice::take_out(text, elements, index));
        let offsets = offsets.filter(|object| has_members(object)).map(|object| Splice::replace(text, object, "null"));
        entry.into_iter().chain(offsets).collect()
    }
}

/// `linux.timeOffsets` as the OCI runtime specification has it. The runtimes hand the numbers to the kernel, which counts
/// from the initial time namespace and takes nanoseconds only from 0 to 999999999.
fn time_offsets(Offsets { monotonic_ns, boottime_ns }: Offsets) -> String {
    let clock = |nanoseconds: i64| {
        let [seconds, rest] = [nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000)];
        format!(r#"{{"secs":{seconds},"nanosecs":{rest}}}"#)
    };
    format!(r#"{{"monotonic":{},"boottime":{}}}"#, clock(monotonic_ns), clock(boottime_ns))
}

fn read(text: &str) -> serde_json::Result<Reading<'_>> {
    let ([annotations], linux) =
        json::members_and_below(text, ["annotations"], ("linux", ["namespaces", "timeOffsets"]))?;
    let (view, places) = match linux {
        Below::Members(linux) => read_linux(text, linux)?,
        Below::Absent => (View::NoNamespaces, None),
        Below::Ambiguous => (View::NotUnderstood("the key linux is there twice or in another letter case"), None),
    };
    let annotations = if let Found::One(annotations) = annotations { Some(annotations) } else { None };
    Ok(Reading { view, annotations, places })
}

fn read_linux<'a>(
    text: &'a str,
    [namespaces, offsets]: [Found<'a>; 2],
) -> serde_json::Result<(View, Option<Places<'a>>)> {
    let not_understood = |key| Ok((View::NotUnderstood(key), None));
    let array = match namespaces {
        Found::One(array) => array,
        Found::Absent | Found::Null(_) => return Ok((View::NoNamespaces, None)),
        Found::Ambiguous => return not_understood("the key linux.namespaces is there twice or in another letter case"),
    };
    let offsets = match offsets {
        Found::Absent => None,
        Found::One(object) | Found::Null(object) => Some(object),
        Found::Ambiguous => {
            return not_understood("the key linux.timeOffsets is there twice or in another letter case");
        }
    };

    let elements = json::elements(array)?;
    let mut time = None;
    let mut pid = PidNamespace::Absent;
    let mut user_namespace = false;
    for (index, element) in elements.iter().enumerate() {
        let Ok([Found::One(kind), path]) = json::members(element, ["type", "path"]) else {
            return not_understood("an entry of linux.namespaces has no type, or more than one");
        };
        let path = match path {
            Found::Absent | Found::Null(_) => false,
            Found::One(path) => json::string(path).is_none_or(|path| !path.is_empty()),
            Found::Ambiguous => return not_understood("an entry of linux.namespaces has more than one path"),
        };
        match json::string(kind).as_deref() {
            Some("time") if time.is_some() => return not_understood("linux.namespaces lists time twice"),
            Some("time") => time = Some((index, path)),
            Some("pid") if path || pid == PidNamespace::Joined => pid = PidNamespace::Joined,
            Some("pid") => pid = PidNamespace::New,
            Some("user") => user_namespace = true,
            _ => {}
        }
    }

    let declared = match time {
        Some((_, true)) => Declared::Path,
        _ if offsets.is_some_and(has_members) => Declared::Offsets,
        Some((_, false)) => Declared::Plain,
        None => Declared::No,
    };
    let view = View::Understood { declared, pid, user_namespace };
    let time = time.map(|(index, _)| index);
    Ok((view, Some(Places { text, array, elements, time, offsets })))
}

/// Whether it is anything else than null or an empty object.
fn has_members(text: &str) -> bool {
    text != "null" && !is_empty_object(text)
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

    fn view(text: &str) -> serde_json::Result<View> {
        read(text).map(|reading| reading.view)
    }

    fn apply(text: &str, mut change: Vec<Splice>) -> String {
        String::from_utf8(json::pieces(text.as_bytes(), &mut change).concat()).unwrap()
    }

    /// Declares what is not declared, and takes out what is.
    fn changed(text: &str) -> String {
        let reading = read(text).unwrap();
        let View::Understood { declared, .. } = reading.view else { panic!("{text}: {:?}", reading.view) };
        let change = if declared == Declared::No { reading.declare(None) } else { reading.undeclare() };
        assert_eq!(change.len(), 1, "{text}");
        apply(text, change)
    }

    #[test]
    fn what_is_declared() {
        use PidNamespace::{Absent, Joined, New};
        let understood = |declared, pid| View::Understood { declared, pid, user_namespace: false };
        let user = config(r#"{"namespaces":[{"type":"user"}]}"#);
        let expected = View::Understood { declared: Declared::No, pid: Absent, user_namespace: true };
        assert_eq!(view(&user).unwrap(), expected);
        for (linux, expected) in [
            (r#"{"namespaces":[]}"#, understood(Declared::No, Absent)),
            (r#"{"namespaces":[{"type":"pid"},{"type":"mount"}]}"#, understood(Declared::No, New)),
            (r#"{"namespaces":[{"type":"pid","path":""}]}"#, understood(Declared::No, New)),
            (r#"{"namespaces":[{"type":"pid","path":"/proc/7/ns/pid"}]}"#, understood(Declared::No, Joined)),
            (r#"{"namespaces":[{"type":"pid","path":"/p"},{"type":"pid"}]}"#, understood(Declared::No, Joined)),
            (r#"{"namespaces":[{"type":"time"}]}"#, understood(Declared::Plain, Absent)),
            (
                r#"{"namespaces":[{"type":"t\u0069me","path":null}],"timeOffsets":{}}"#,
                understood(Declared::Plain, Absent),
            ),
            (r#"{"namespaces":[{"type":"time"}],"timeOffsets":null}"#, understood(Declared::Plain, Absent)),
            (
                r#"{"namespaces":[{"type":"time"}],"timeOffsets":{"boottime":{"secs":1}}}"#,
                understood(Declared::Offsets, Absent),
            ),
            (r#"{"namespaces":[],"timeOffsets":{"boottime":{"secs":1}}}"#, understood(Declared::Offsets, Absent)),
            (r#"{"namespaces":[{"type":"time","path":"/proc/7/ns/time"}]}"#, understood(Declared::Path, Absent)),
            (r#"{"namespaces":[{"type":"unheard-of"}]}"#, understood(Declared::No, Absent)),
            ("{}", View::NoNamespaces),
            (r#"{"namespaces":null}"#, View::NoNamespaces),
            ("null", View::NoNamespaces),
        ] {
            assert_eq!(view(&config(linux)).unwrap(), expected, "{linux}");
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
            let reading = read(text).unwrap();
            assert!(matches!(reading.view, View::NotUnderstood(_)), "{text}: {reading:?}");
            assert!(reading.declare(None).is_empty() && reading.undeclare().is_empty(), "{text}");
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

    #[test]
    fn offsets_come_with_the_entry_and_go_with_it() {
        let offsets = Offsets { monotonic_ns: -1, boottime_ns: 3_000_000_005 };
        let value = r#"{"monotonic":{"secs":-1,"nanosecs":999999999},"boottime":{"secs":3,"nanosecs":5}}"#;
        let declared = |linux: &str| {
            let text = config(linux);
            apply(&text, read(&text).unwrap().declare(Some(offsets)))
        };
        let inner = format!(r#"{{"namespaces":[{{"type":"time"}}],"timeOffsets":{value}}}"#);
        assert_eq!(declared(r#"{"namespaces":[]}"#), config(&inner));
        assert_eq!(declared(r#"{"namespaces":[{"type":"time"}]}"#), config(&inner));
        // A second key of that name would be read by one parser and not by the other.
        for empty in ["null", "{}", "{ }"] {
            let before = format!(r#"{{"namespaces":[{{"type":"time"}}], "timeOffsets" : {empty}}}"#);
            let after = format!(r#"{{"namespaces":[{{"type":"time"}}], "timeOffsets" : {value}}}"#);
            assert_eq!(declared(&before), config(&after));
        }
        let without = apply(&config(&inner), read(&config(&inner)).unwrap().undeclare());
        assert_eq!(without, config(r#"{"namespaces":[],"timeOffsets":null}"#));
        let joined = config(r#"{"namespaces":[{"type":"time","path":"/p"}]}"#);
        assert_eq!(apply(&joined, read(&joined).unwrap().undeclare()), config(r#"{"namespaces":[]}"#));
    }

    #[test]
    fn annotations_are_the_container_s_own() {
        let annotations = |text: &str| read(text).unwrap().annotations(&Settings::default());
        let some = r#"{"annotations":{"org.tns-shim.mode":"private","io.x":"y"},"linux":{}}"#;
        assert_eq!(annotations(some).unwrap().mode, Some(settings::Mode::Private));
        for none in [
            "{}",
            r#"{"annotations":null}"#,
            r#"{"annotations":{"a":1}}"#,
            r#"{"Annotations":{"org.tns-shim.mode":"host"}}"#,
        ] {
            assert_eq!(annotations(none).unwrap(), Annotations::default(), "{none}");
        }
        for (wrong, said) in [
            (r#"{"annotations":{"org.tns-shim.mode":"host","org.tns-shim.mode":"auto"}}"#, "twice"),
            (r#"{"annotations":{"org.tns-shim.mode":1}}"#, "no text"),
            (r#"{"annotations":{"org.tns-shim.x":"1"}}"#, "org.tns-shim.x"),
        ] {
            let error = format!("{:#}", annotations(wrong).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
