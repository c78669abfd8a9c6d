// SPDX-License-Identifier: Apache-2.0
//! What people can set: in /etc/tns-shim/config.toml (the user's own file when not root), and for a single container by
//! annotations in its config.json, which win over the file.

mod file;
mod honoured;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use serde::{Deserialize, Serialize};

use crate::clocks::{Clocks, Here};
use crate::text::printable;
use crate::timens::Offsets;

pub use file::{holds_for_all, is_mistaken, log_to, path, runtime, trouble, warn_of_lost_runtime};
pub use honoured::{Honoured, Name, Rule};

/// The file. What it does not say is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The runtime to wrap: an absolute path, or a name to look for in PATH.
    pub runtime: Option<PathBuf>,
    /// Whether containers get a time namespace of their own.
    pub mode: Option<Mode>,
    /// Where the clocks of a new container begin.
    pub uptime: Option<Uptime>,
    /// What holds at checkpoint.
    pub checkpoint: CheckpointSettings,
    /// What holds at restore.
    pub restore: RestoreSettings,
    /// Where warnings and refusals go besides the log that the engine asks for.
    pub log: Option<LogTo>,
    /// Which annotations of a container are honoured.
    pub annotations: Option<Honoured>,
}

/// The keys `checkpoint.*` of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// What becomes of a container whose processes disagree about time.
    pub mixed: Option<MixedTree>,
}

/// The keys `restore.*` of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestoreSettings {
    /// Which clocks a restored container has.
    pub clocks: Option<RestoredClocks>,
    /// What becomes of an image whose processes disagree about time.
    pub mixed: Option<MixedImage>,
}

/// `mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A container gets a time namespace of its own where that is possible.
    #[default]
    Auto,
    /// It gets one, or does not start.
    Private,
    /// It gets none, and one that its config.json declares is taken out.
    Host,
    /// Nothing is changed: it gets what its config.json says, if the runtime can.
    Leave,
}

/// `uptime`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Uptime {
    /// A new container's monotonic and boottime clocks are the host's.
    #[default]
    Host,
    /// They begin at zero.
    Zero,
}

/// `checkpoint.mixed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MixedTree {
    /// It keeps running, and the call fails.
    #[default]
    Refuse,
    /// It is checkpointed with a warning, into an image that has to be repaired.
    Warn,
}

/// `restore.clocks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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
    fn is_forced(self) -> bool {
        self == Self::HostForce
    }
}

/// `restore.mixed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MixedImage {
    /// It is repaired, with a warning.
    #[default]
    Repair,
    /// The restore fails before the runtime is called.
    Refuse,
}

/// `log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTo {
    /// The system's log.
    #[default]
    System,
    /// Nowhere.
    None,
}

/// What all annotations of tns-shim begin with.
pub const ANNOTATIONS: &str = "org.tns-shim.";

/// What a container's own annotations say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// `org.tns-shim.mode`.
    pub mode: Option<Mode>,
    /// `org.tns-shim.uptime`.
    pub uptime: Option<Uptime>,
    /// `org.tns-shim.offset.monotonic` and `.boottime`: by how much the container's clocks are ahead of the host's.
    pub offsets: Option<Offsets>,
    /// `org.tns-shim.restore.clocks`.
    pub restore_clocks: Option<RestoredClocks>,
}

impl Annotations {
    /// From those annotations of a container whose names begin with [`ANNOTATIONS`], as far as the settings honour them: one
    /// that they do not is a warning.
    ///
    /// # Errors
    /// A name or a value is unknown, or two contradict each other; the message names it.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, settings: &Settings) -> Result<Self> {
        let mut annotations = Self::default();
        for (name, value) in pairs {
            let key = name.strip_prefix(ANNOTATIONS).unwrap_or(name);
            let name = printable(name, 128);
            if let Some(why) = settings.lock_on(key, value) {
                let value = printable(value, 128);
                log::warn!("the annotation {name} in config.json, {value}, is not honoured: {why}");
                continue;
            }
            let mut set = || -> Result<()> {
                match key {
                    "mode" => annotations.mode = Some(parse(value)?),
                    "uptime" => annotations.uptime = Some(parse(value)?),
                    "restore.clocks" => annotations.restore_clocks = Some(parse(value)?),
                    "offset.monotonic" => annotations.offsets.get_or_insert(Offsets::NONE).monotonic_ns = span(value)?,
                    "offset.boottime" => annotations.offsets.get_or_insert(Offsets::NONE).boottime_ns = span(value)?,
                    _ => bail!(
                        "there is no such setting: expected one of mode, uptime, offset.monotonic, offset.boottime, \
                         restore.clocks after {ANNOTATIONS}"
                    ),
                }
                Ok(())
            };
            set().with_context(|| format!("the annotation {name} in config.json"))?;
        }
        ensure!(
            annotations.uptime != Some(Uptime::Zero) || annotations.offsets.is_none(),
            "the annotations in config.json ask for an uptime of zero and for offsets: leave one of them out"
        );
        let shifts = annotations.uptime == Some(Uptime::Zero) || annotations.offsets.is_some();
        ensure!(
            !shifts || !matches!(annotations.mode, Some(Mode::Host | Mode::Leave)),
            "the annotations in config.json ask for shifted clocks and for a mode that makes no time namespace: leave one of \
             them out"
        );
        Ok(annotations)
    }
}

/// Reads a value by the same rules as in the file.
fn parse<T: for<'de> Deserialize<'de>>(value: &str) -> Result<T> {
    T::deserialize(IntoDeserializer::<ValueError>::into_deserializer(value))
        .map_err(|error| anyhow!(printable(&error.to_string(), 400)))
}

/// `[-]SECONDS[.FRACTION]` in nanoseconds.
fn span(value: &str) -> Result<i64> {
    let read = || {
        let (sign, size) = value.strip_prefix('-').map_or((1, value), |size| (-1, size));
        let (seconds, fraction) = size.split_once('.').unwrap_or((size, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
            return None;
        }
        let seconds: i64 = seconds.parse().ok()?;
        let nanoseconds: i64 = format!("{fraction:0<9}").parse().ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?.checked_mul(sign)
    };
    read().with_context(|| format!("{} is no time in seconds, such as 3600 or -0.5", printable(value, 128)))
}

/// How a new container's clocks shall differ from the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shift {
    /// Not at all.
    #[default]
    None,
    /// They begin at zero, because the file says so for all containers.
    ZeroForAll,
    /// They begin at zero, because the container asks for it.
    Zero,
    /// By this much, because the container asks for it.
    By(Offsets),
}

impl Shift {
    /// The container's own annotation asks for it, so that it must not start without.
    pub fn is_asked_for(self) -> bool {
        matches!(self, Self::Zero | Self::By(_))
    }
}

/// What holds for one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether it gets a time namespace of its own.
    pub mode: Mode,
    /// How its clocks differ from the host's.
    pub shift: Shift,
    /// At restore.
    pub restore: Restore,
}

/// What holds at restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// Which clocks the restored container has.
    pub clocks: RestoredClocks,
    /// What becomes of an image whose processes disagree about time.
    pub mixed: MixedImage,
}

impl Shift {
    /// What to write into `linux.timeOffsets`, which counts from the initial time namespace, where the host may be in another.
    ///
    /// # Errors
    /// The kernel has no time namespaces.
    pub fn offsets(self) -> Result<Offsets> {
        let here = Here::look()?;
        let clocks = match self {
            Self::By(offsets) => here.own_offsets().map(|own| own.plus(Clocks::from(offsets))),
            Self::Zero | Self::ZeroForAll | Self::None => here.offsets_to(Clocks::ZERO),
        };
        clocks.map(Offsets::from).context("this kernel has no time namespaces")
    }
}

impl Wanted {
    /// What the file and the container say together.
    pub fn of(settings: &Settings, annotations: Annotations) -> Self {
        let mode = annotations.mode.or(settings.mode).unwrap_or_default();
        let shift = match (annotations.offsets, annotations.uptime, settings.uptime) {
            (Some(offsets), ..) => Shift::By(offsets),
            (None, Some(Uptime::Zero), _) => Shift::Zero,
            (None, None, Some(Uptime::Zero)) => Shift::ZeroForAll,
            _ => Shift::None,
        };
        // A container that is to have the host's clocks is to have them after a restore, too.
        let of_mode = if mode == Mode::Host { RestoredClocks::Host } else { RestoredClocks::Continue };
        let clocks = annotations.restore_clocks.or(settings.restore.clocks).unwrap_or(of_mode);
        Self { mode, shift, restore: Restore { clocks, mixed: settings.restore.mixed.unwrap_or_default() } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    fn annotated(pairs: &[(&str, &str)]) -> Result<Annotations> {
        Annotations::of(pairs.iter().copied(), &Settings::default())
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        assert_eq!(Wanted::of(&file(""), Annotations::default()), Wanted::default());
        let some = file("restore.clocks = \"host-force\"\n[checkpoint]\nmixed = \"warn\"\n");
        assert_eq!(some.checkpoint.mixed, Some(MixedTree::Warn));
        let wanted = Wanted::of(&some, Annotations::default());
        assert_eq!(wanted.restore, Restore { clocks: RestoredClocks::HostForce, mixed: MixedImage::Repair });
    }

    #[test]
    fn an_annotation_wins_over_the_file() {
        let settings = file("mode = \"leave\"\nuptime = \"zero\"\nrestore.clocks = \"host\"\n");
        let without = Wanted::of(&settings, Annotations::default());
        assert_eq!((without.mode, without.shift), (Mode::Leave, Shift::ZeroForAll));
        assert_eq!(without.restore.clocks, RestoredClocks::Host);
        let own = annotated(&[
            ("org.tns-shim.mode", "private"),
            ("org.tns-shim.uptime", "host"),
            ("org.tns-shim.restore.clocks", "continue"),
        ]);
        let with = Wanted::of(&settings, own.unwrap());
        assert_eq!((with.mode, with.shift), (Mode::Private, Shift::None));
        assert_eq!(with.restore.clocks, RestoredClocks::Continue);
        let zero = Wanted::of(&file(""), annotated(&[("org.tns-shim.uptime", "zero")]).unwrap()).shift;
        assert!(zero.is_asked_for() && !Shift::ZeroForAll.is_asked_for());
    }

    #[test]
    fn the_host_s_clocks_are_kept_over_a_restore_unless_others_are_asked_for() {
        let clocks = |text| Wanted::of(&file(text), Annotations::default()).restore.clocks;
        assert_eq!(clocks("mode = \"host\""), RestoredClocks::Host);
        assert_eq!(clocks("mode = \"host\"\nrestore.clocks = \"continue\""), RestoredClocks::Continue);
    }

    #[test]
    fn offsets_are_seconds_with_a_fraction() {
        let offsets = annotated(&[("org.tns-shim.offset.boottime", "-3600.25")]).unwrap().offsets.unwrap();
        assert_eq!((offsets.monotonic_ns, offsets.boottime_ns), (0, -3_600_250_000_000));
        assert_eq!(span("0.000000001").unwrap(), 1);
        assert_eq!(span("12").unwrap(), 12_000_000_000);
        for wrong in ["", "-", "+1", "1.", ".5", "1e3", "--1", "1.0000000001", "9999999999999", " 1"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_annotation_is_an_error_that_names_it() {
        for (pairs, named) in [
            (&[("org.tns-shim.restore.clocks", "hsot")][..], "`host-force`"),
            (&[("org.tns-shim.restore.clocks", "hsot")], "org.tns-shim.restore.clocks"),
            (&[("org.tns-shim.mdoe", "host")], "org.tns-shim.mdoe"),
            (&[("org.tns-shim.offset.monotonic", "soon")], "soon is no time in seconds"),
            (&[("org.tns-shim.offset.monotonic", "a\u{1b}[2J\nb")], "a\\u{1b}[2J\\nb is no time"),
            (&[("org.tns-shim.mode", "a\u{1b}[2J\nb")], "unknown variant `a\\u{1b}[2J\\nb`"),
            (&[("org.tns-shim.\u{1b}[2J", "x")], "org.tns-shim.\\u{1b}[2J"),
            (&[("org.tns-shim.uptime", "zero"), ("org.tns-shim.offset.boottime", "1")], "leave one of them out"),
            (&[("org.tns-shim.mode", "host"), ("org.tns-shim.uptime", "zero")], "leave one of them out"),
        ] {
            let error = format!("{:#}", annotated(pairs).unwrap_err());
            assert!(error.contains(named) && !error.contains(char::is_control), "{error:?}");
        }
    }
}
