// SPDX-License-Identifier: Apache-2.0
//! What a runtime can do with time namespaces: asked once per binary, then remembered.
//!
//! A probe costs two short runs of the runtime, several times the cost of the shim itself.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use log::Level;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Binary;
use super::helper::{self, Answer};
use super::memory::Memory;
use crate::invocation::Dialect;

/// How long a question may have taken that is asked once more.
const PATIENCE: Duration = Duration::from_secs(1);

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// opencontainers/runc.
    Runc,
    /// containers/crun.
    Crun,
    /// youki-dev/youki.
    Youki,
    /// Anything else; its own word is all there is to go by.
    Other,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        match name {
            "runc" => Some(Self::Runc),
            "crun" => Some(Self::Crun),
            "youki" => Some(Self::Youki),
            _ => None,
        }
    }

    /// Which one the file's name says it is: `runc`, `runc.real`, `docker-runc`, `crun-1.21`.
    pub fn of_file(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy();
        name.split(|letter: char| !letter.is_ascii_alphanumeric()).find_map(Self::named)
    }
}

/// A release number. A pre-release comes before its release, as in semantic versioning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number, 0 where there is none.
    pub patch: u32,
    /// False for `-rc1` and the like.
    pub released: bool,
}

impl Version {
    const fn release(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch, released: true }
    }

    fn parse(text: &str) -> Option<Self> {
        let number_end = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).unwrap_or(text.len());
        let (numbers, rest) = text.split_at(number_end);
        let mut numbers = numbers.split('.').map(|number| number.parse().ok());
        let major = numbers.next()??;
        let minor = numbers.next()??;
        let patch = numbers.next().unwrap_or(Some(0)).unwrap_or(0);
        // `1.1.15+ds1` is Debian's build of a release; `1.3.0-rc.1` and `1.2.0~rc.1` are none.
        let released = !(rest.starts_with('-') || rest.starts_with('~'));
        Some(Self { major, minor, patch, released })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { major, minor, patch, released } = self;
        write!(formatter, "{major}.{minor}.{patch}{}", if *released { "" } else { " (pre-release)" })
    }
}

/// What was learnt about a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// Which program.
    pub kind: Kind,
    /// Of which release; none where `--version` does not tell.
    pub version: Option<Version>,
    /// Its `features` command lists the namespace type `time`.
    pub lists_time: bool,
}

impl Abilities {
    /// Of a runtime of which nothing is known but its file's name.
    pub fn of_the_oldest(path: &Path) -> Self {
        Self { kind: Kind::of_file(path).unwrap_or(Kind::Other), version: None, lists_time: false }
    }

    /// It has the command `features`, which came with runc 1.1.0.
    fn has_features(&self) -> bool {
        self.kind == Kind::Runc && self.version >= Some(Version::release(1, 1, 0))
    }

    /// `{"type":"time"}` in config.json makes a working time namespace.
    ///
    /// crun's `features` does not list it though it works since 1.8.4; youki's lists it since 0.5.7 but works since 0.7.0.
    pub fn declares(&self) -> bool {
        match self.kind {
            Kind::Runc | Kind::Other => self.lists_time,
            Kind::Crun => self.version >= Some(Version::release(1, 8, 4)),
            Kind::Youki => self.lists_time && self.version >= Some(Version::release(0, 7, 0)),
        }
    }

    /// `linux.timeOffsets` in config.json works, also for exec, which failed in runc up to 1.2.5 (runc pull requests 4636 and
    /// 4649).
    pub fn shifts(&self) -> bool {
        match self.kind {
            Kind::Runc => self.lists_time && self.version >= Some(Version::release(1, 2, 6)),
            Kind::Crun => self.declares(),
            Kind::Youki | Kind::Other => false,
        }
    }

    /// Whether its `exec` enters PID 1's time namespace by itself.
    ///
    /// runc does since 1.2.0 if its saved configuration lists the namespace (`listed`), and its restore adds that since
    /// 1.2.7 (runc pull request 4696). crun does; but before 1.8.7, where the container has a user namespace
    /// (`user_namespace`), it entered that one first, and then could not enter a time namespace that belongs to another.
    /// For unknown runtimes it is taken for granted: where they keep their state is unknown, too.
    pub fn exec_joins(&self, listed: bool, user_namespace: bool) -> bool {
        match self.kind {
            Kind::Runc => self.lists_time && listed,
            Kind::Crun => !user_namespace || self.version >= Some(Version::release(1, 8, 7)),
            Kind::Youki | Kind::Other => true,
        }
    }

    /// Whether exec joins without the shim, in every container and after every restore: where nobody has declared the
    /// namespace, its restore must see to that. What is not known of a runtime is not taken for granted here.
    pub fn joins_by_itself(&self) -> bool {
        match self.kind {
            // The first release candidates of 1.3.0 came before.
            Kind::Runc => {
                let is_candidate = |version: Version| !version.released && version < Version::release(1, 3, 0);
                let restores = self.version >= Some(Version::release(1, 2, 7));
                self.exec_joins(true, false) && restores && !self.version.is_some_and(is_candidate)
            }
            Kind::Crun => self.exec_joins(false, true),
            Kind::Youki | Kind::Other => false,
        }
    }

    /// Whether the shim can find a container's PID 1 in the runtime's state.
    pub fn keeps_known_state(&self) -> bool {
        matches!(self.kind, Kind::Runc | Kind::Crun)
    }

    /// How it reads its arguments.
    pub fn dialect(&self) -> Dialect {
        if self.kind == Kind::Crun { Dialect::Crun } else { Dialect::Runc }
    }
}

impl std::fmt::Display for Abilities {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.kind {
            Kind::Runc => "runc",
            Kind::Crun => "crun",
            Kind::Youki => "youki",
            Kind::Other => "an unknown runtime",
        };
        formatter.write_str(name)?;
        self.version.map_or(Ok(()), |version| write!(formatter, " {version}"))
    }
}

/// The abilities of `binary`, from memory or by asking it. Where it gives no answer that can be understood, this once those
/// of the oldest of its name, with a warning: what went wrong (no memory, a library away in an upgrade) may be over soon.
pub fn of(binary: &Binary) -> Abilities {
    let memory = Memory::of("abilities", binary);
    if let Some(abilities) = memory.as_ref().and_then(Memory::recall) {
        return abilities;
    }
    let begun = Instant::now();
    // Once more, if that is not to wait twice for one that hangs.
    let probed =
        probe(&binary.path).or_else(|error| if begun.elapsed() < PATIENCE { probe(&binary.path) } else { Err(error) });
    let abilities = match probed {
        Ok(abilities) => abilities,
        Err(error) => {
            let oldest = Abilities::of_the_oldest(&binary.path);
            let path = binary.path.display();
            let text = format!("{path} does not tell what it can, so it is taken for {oldest}, the oldest: {error:#}");
            // What cannot be executed at all will be the error.
            let is_none = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
            let is_none = is_none.is_some_and(|errno| [libc::ENOEXEC, libc::EACCES, libc::ENOENT].contains(&errno));
            log::log!(if is_none { Level::Debug } else { Level::Warn }, "{text}");
            return oldest;
        }
    };
    log::debug!("probed {}: {abilities}, lists time: {}", binary.path.display(), abilities.lists_time);
    if let Some(Err(error)) = memory.map(|memory| memory.keep(abilities)) {
        log::debug!("what {} can do is not remembered: {error:#}", binary.path.display());
    }
    abilities
}

/// Asks the runtime itself.
///
/// # Errors
/// It cannot be executed, was killed or hung, or says nothing that could be its answer.
pub fn probe(path: &Path) -> Result<Abilities> {
    let ask = |command: &str| helper::ask(path, &[command]);
    let (kind, version) = version_in(&ask("--version")?).with_context(|| format!("{} --version", path.display()))?;
    let lists_time = time_in(&ask("features")?, Abilities { kind, version, lists_time: false }.has_features())
        .with_context(|| format!("{} features", path.display()))?;
    Ok(Abilities { kind, version, lists_time })
}

fn version_in(answer: &Answer) -> Result<(Kind, Option<Version>)> {
    ensure!(answer.status.success(), "it ended with {}", answer.status);
    let text = String::from_utf8_lossy(&answer.output);
    ensure!(!text.trim().is_empty(), "it prints nothing");
    Ok(parse_version(&text))
}

/// Whether the answer to `features` lists the namespace type. A runtime without the command (`is_there` says whether it
/// ought to have it) says so by its exit code or in plain words.
fn time_in(answer: &Answer, is_there: bool) -> Result<bool> {
    ensure!(
        answer.status.code().is_some() && (answer.status.success() || !is_there),
        "it ended with {}",
        answer.status
    );
    if !answer.status.success() {
        return Ok(false);
    }
    match serde_json::from_slice::<Value>(&answer.output) {
        Ok(features) => {
            let namespaces = features.pointer("/linux/namespaces").and_then(Value::as_array);
            Ok(namespaces.is_some_and(|namespaces| namespaces.iter().any(|namespace| namespace == "time")))
        }
        Err(error) if is_there || answer.output.trim_ascii_start().starts_with(b"{") => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// `runc version 1.1.15+ds1`, `crun version 1.21`, `youki version 0.5.7`.
fn parse_version(text: &str) -> (Kind, Option<Version>) {
    // A decorator (nvidia-container-runtime) puts its own lines before those of the runtime that it becomes.
    let known = text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, "version") = (words.next()?, words.next()?) else { return None };
        Some((Kind::named(name)?, words.next().and_then(|word| Version::parse(word.trim_start_matches('v')))))
    });
    known.unwrap_or((Kind::Other, None))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn abilities(version: &str, lists_time: bool) -> Abilities {
        let (kind, version) = parse_version(version);
        Abilities { kind, version, lists_time }
    }

    #[test]
    fn each_release_can_what_was_measured() {
        // (--version, features list time; declares; exec joins: if listed, if not, if not and in a user namespace)
        for (version, lists_time, declares, if_listed, if_not, if_user) in [
            ("runc version 1.1.5+ds1", false, false, false, false, false),
            ("runc version 1.1.15+ds1", false, false, false, false, false),
            ("runc version 1.2.0", true, true, true, false, false),
            ("runc version 1.3.6+ds1", true, true, true, false, false),
            ("crun version 1.8.1", false, false, true, true, false),
            ("crun version 1.8.4", false, true, true, true, false),
            ("crun version 1.21", false, true, true, true, true),
            ("crun version 1.28", false, true, true, true, true),
            ("youki version 0.5.7", true, false, true, true, true),
            ("youki version 0.7.0-rc1", true, false, true, true, true),
            ("youki version 0.7.0", true, true, true, true, true),
            ("something else", false, false, true, true, true),
        ] {
            let abilities = abilities(version, lists_time);
            assert_eq!(abilities.declares(), declares, "{version} declares");
            assert_eq!(abilities.exec_joins(true, false), if_listed, "{version} exec joins a listed one");
            assert_eq!(abilities.exec_joins(false, false), if_not, "{version} exec joins one that is not listed");
            assert_eq!(abilities.exec_joins(false, true), if_user, "{version} exec joins one in a user namespace");
        }
    }

    #[test]
    fn whoever_needs_no_shim_for_exec_is_told_from_who_does() {
        for (version, lists_time, joins) in [
            ("runc version 1.1.15+ds1", false, false),
            ("runc version 1.2.6", true, false),
            ("runc version 1.2.7", true, true),
            ("runc version 1.3.0-rc.1", true, false),
            ("runc version 1.3.0", true, true),
            ("runc version 1.4.0-rc.1", true, true),
            ("crun version 1.8.6", false, false),
            ("crun version 1.8.7", false, true),
            ("youki version 0.7.0", true, false),
            ("something else", true, false),
        ] {
            assert_eq!(abilities(version, lists_time).joins_by_itself(), joins, "{version}");
        }
    }

    #[test]
    fn a_runtime_of_no_known_version_is_taken_for_the_oldest() {
        let unknown = abilities("runc version unknown", false);
        assert_eq!((unknown.kind, unknown.version), (Kind::Runc, None));
        assert!(!unknown.declares() && !unknown.exec_joins(true, false));
    }

    #[test]
    fn a_decorator_is_taken_for_what_it_decorates() {
        let text = "NVIDIA Container Runtime version 1.17\ncommit: 1\n\nrunc version 1.1.15\nspec: 1.0.2";
        assert_eq!(parse_version(text), parse_version("runc version 1.1.15"));
        assert_eq!(parse_version("runc\nversion 1.1.15"), (Kind::Other, None));
    }

    fn answer(code: i32, output: &str) -> Answer {
        Answer { status: ExitStatus::from_raw(code), output: output.into() }
    }

    #[test]
    fn features_are_read_where_they_stand() {
        let lists = |output: &str| time_in(&answer(0, output), true).unwrap();
        assert!(lists(r#"{"linux":{"namespaces":["pid","time"]}}"#));
        assert!(!lists(r#"{"linux":{"namespaces":["pid"]},"hooks":["time"]}"#));
        assert!(!lists(r#"{"linux":null}"#));
    }

    #[test]
    fn only_what_ended_by_itself_and_is_whole_is_an_answer() {
        let (killed, failed) = (libc::SIGKILL, 1 << 8);
        for (code, output) in [(killed, "runc version 1.3.6"), (failed, "runc version 1.3.6"), (0, ""), (0, " \n")] {
            assert!(version_in(&answer(code, output)).is_err(), "{code} {output:?}");
        }
        assert_eq!(version_in(&answer(0, "runsc version 1")).unwrap(), (Kind::Other, None));
        let whole = r#"{"linux":{"namespaces":["time"]}}"#;
        // (how it ended, what it printed; the answer of a runtime that has the command, and of one that need not)
        for (code, output, with, without) in [
            (0, whole, Some(true), Some(true)),
            (0, &whole[..20], None, None),
            (killed, whole, None, None),
            (failed, "", None, Some(false)),
            (0, "", None, Some(false)),
            (0, "No such command", None, Some(false)),
        ] {
            let of = |is_there| time_in(&answer(code, output), is_there).ok();
            assert_eq!((of(true), of(false)), (with, without), "{code} {output:?}");
        }
    }

    #[test]
    fn a_file_s_name_says_which_runtime_it_is() {
        for (path, kind) in [
            ("/usr/bin/runc.real", Some(Kind::Runc)),
            ("/opt/docker-runc", Some(Kind::Runc)),
            ("crun-1.21", Some(Kind::Crun)),
            ("/usr/bin/nvidia-container-runtime", None),
            ("/opt/runc/bin/runsc", None),
            ("/", None),
        ] {
            assert_eq!(Kind::of_file(Path::new(path)), kind, "{path}");
        }
        let oldest = Abilities::of_the_oldest(Path::new("/usr/bin/crun"));
        assert!(oldest.kind == Kind::Crun && !oldest.declares() && oldest.exec_joins(false, false));
    }
}
