// SPDX-License-Identifier: Apache-2.0
//! A container's PID 1, from the runtime's own state, and the proof that it still is that process.
//!
//! Where the state is: runc `ROOT/ID/state.json`, crun `ROOT/ID/status`. The proof is the one that the runtimes use
//! themselves: the start time they recorded, in clock ticks since boot, against field 22 of /proc/PID/stat. A pidfd,
//! opened before and asked afterwards, makes it hold for everything that was read through /proc/PID in between.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::Splice;
use crate::runtime::abilities::Kind;
use crate::{json, sys, timens};

/// `_SC_CLK_TCK` ticks since boot, in the reader's own boottime: the unit of a process's start time in procfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockTicks(pub u64);

/// What the runtime recorded of a container.
#[derive(Debug)]
pub struct State {
    /// The file it was read from.
    pub file: PathBuf,
    /// Its text.
    text: String,
    /// PID 1, in the reader's pid namespace.
    pub pid: i32,
    /// When that process was started.
    pub start: ClockTicks,
    /// Where in the text the start time stands.
    start_span: std::ops::Range<usize>,
    /// The saved configuration lists a time namespace (runc only).
    pub lists_time: bool,
}

/// The folder in which the runtime keeps the container.
///
/// # Errors
/// The id is none that a runtime would accept; it must not lead out of the root folder.
pub fn folder(kind: Kind, root: Option<&OsStr>, id: &OsStr) -> Result<PathBuf> {
    let bytes = id.as_bytes();
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(byte);
    ensure!(
        !bytes.is_empty() && bytes.iter().all(valid) && id != "." && id != "..",
        "{} is no container id",
        id.display()
    );
    let root = root.filter(|root| !root.is_empty()).map_or_else(|| default_root(kind), PathBuf::from);
    Ok(root.join(id))
}

/// Where the runtime keeps its containers without `--root`: runc's `main.go`, crun's `libcrun/status.c`.
pub fn default_root(kind: Kind) -> PathBuf {
    let runtime_folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    match (kind, runtime_folder) {
        (Kind::Crun, Some(folder)) => folder.join("crun"),
        (Kind::Crun, None) => "/run/crun".into(),
        (_, Some(folder)) if runc_honours_runtime_folder() => folder.join("runc"),
        _ => "/run/runc".into(),
    }
}

fn runc_honours_runtime_folder() -> bool {
    // The initial user namespace maps everything onto itself.
    let in_user_namespace = || {
        fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
    };
    !geteuid().is_root() || (in_user_namespace() && std::env::var_os("USER").is_none_or(|user| user != "root"))
}

#[derive(Deserialize)]
struct RuncState<'a> {
    init_process_pid: i32,
    #[serde(borrow)]
    init_process_start: &'a RawValue,
    config: RuncConfig,
}

#[derive(Deserialize)]
struct RuncConfig {
    #[serde(default)]
    namespaces: Option<Vec<RuncNamespace>>,
}

#[derive(Deserialize)]
struct RuncNamespace {
    r#type: String,
}

#[derive(Deserialize)]
struct CrunState<'a> {
    pid: i32,
    #[serde(borrow, rename = "process-start-time")]
    start: &'a RawValue,
}

impl State {
    /// Reads a container's state; none if there is no such container.
    ///
    /// # Errors
    /// The state is not understood, or somebody else could have written it.
    pub fn read(kind: Kind, folder: &Path) -> Result<Option<Self>> {
        let file = match kind {
            Kind::Runc => folder.join("state.json"),
            Kind::Crun => folder.join("status"),
            Kind::Youki | Kind::Other => bail!("where this runtime keeps its containers is unknown"),
        };
        let Some(text) = read_trusted(&file)? else { return Ok(None) };
        let parse = if kind == Kind::Crun { Self::from_crun } else { Self::from_runc };
        parse(file, text).map(Some)
    }

    fn from_runc(file: PathBuf, text: String) -> Result<Self> {
        let context = || format!("understand {}", file.display());
        let state: RuncState<'_> = serde_json::from_str(&text).with_context(context)?;
        let start = serde_json::from_str(state.init_process_start.get()).with_context(context)?;
        let start_span = json::span(&text, state.init_process_start.get());
        let pid = state.init_process_pid;
        let lists_time = state.config.namespaces.iter().flatten().any(|namespace| namespace.r#type == "NEWTIME");
        Ok(Self { pid, start: ClockTicks(start), start_span, lists_time, file, text })
    }

    fn from_crun(file: PathBuf, text: String) -> Result<Self> {
        let context = || format!("understand {}", file.display());
        let state: CrunState<'_> = serde_json::from_str(&text).with_context(context)?;
        let start = serde_json::from_str(state.start.get()).with_context(context)?;
        let start_span = json::span(&text, state.start.get());
        let pid = state.pid;
        Ok(Self { pid, start: ClockTicks(start), start_span, lists_time: false, file, text })
    }

    /// The value of an annotation, which runc keeps among its labels (runc only).
    pub fn annotation(&self, name: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Labelled {
            config: Labels,
        }
        #[derive(Deserialize)]
        struct Labels {
            #[serde(default)]
            labels: Option<Vec<String>>,
        }
        let state: Labelled = serde_json::from_str(&self.text).ok()?;
        let value = |label: &String| Some(label.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        state.config.labels.iter().flatten().find_map(value)
    }

    /// Writes the state's text with another start time.
    ///
    /// # Errors
    /// As `to` has them.
    pub fn write_with_start(&self, start: ClockTicks, mut to: impl Write) -> io::Result<()> {
        let change = Splice { remove: self.start_span.clone(), insert: start.0.to_string().into() };
        change.pieces(self.text.as_bytes()).iter().try_for_each(|piece| to.write_all(piece))
    }

    /// Takes hold of the process, if it is the one that was recorded.
    ///
    /// # Errors
    /// It has ended, or its number belongs to another process by now: then the error is, or is caused by, [`Stopped`].
    pub fn prove(&self) -> Result<Init> {
        // A container that has stopped has PID 0 in runc's state.
        ensure!(self.pid > 0, Stopped("the container has stopped".to_owned()));
        let pidfd = sys::pidfd_open(self.pid).map_err(|error| match error.raw_os_error() {
            // EINVAL or ENOENT: its number is that of a thread by now.
            Some(libc::ESRCH | libc::EINVAL | libc::ENOENT) => {
                Stopped("the container's PID 1 has ended".to_owned()).into()
            }
            _ => anyhow::Error::from(error).context("take hold of the container's PID 1"),
        })?;
        let init = Init { pid: self.pid, pidfd };
        let start = init.start().or_else(|error| init.ensure_alive().and(Err(error)))?;
        ensure!(
            start == self.start,
            Stopped(format!(
                "PID {} started {} ticks after boot, not {} as recorded: it is not the container's PID 1",
                self.pid, start.0, self.start.0
            ))
        );
        init.ensure_alive()?;
        Ok(init)
    }
}

/// Why there is no PID 1: the runtimes would call the container stopped, too.
#[derive(Debug)]
pub struct Stopped(String);

impl fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Stopped {}

/// A container's PID 1, which cannot become another process.
#[derive(Debug)]
pub struct Init {
    /// In the reader's pid namespace.
    pub pid: i32,
    pidfd: OwnedFd,
}

impl Init {
    /// Its start time as this process sees it now.
    ///
    /// # Errors
    /// It has ended.
    pub fn start(&self) -> Result<ClockTicks> {
        let path = format!("/proc/{}/stat", self.pid);
        // One line of at most 52 numbers, which one read returns whole.
        let mut line = [0; 2048];
        let length =
            File::open(&path).and_then(|mut file| file.read(&mut line)).with_context(|| format!("read {path}"))?;
        parse_start(&line[..length]).with_context(|| format!("understand {path}"))
    }

    /// Its time namespace, held open.
    ///
    /// # Errors
    /// It has ended, or may not be looked at.
    pub fn time_namespace(&self) -> Result<File> {
        let path = format!("/proc/{}/ns/time", self.pid);
        let file = File::open(&path).with_context(|| format!("open {path}"))?;
        self.ensure_alive()?;
        Ok(file)
    }

    /// Which time namespace it is in.
    ///
    /// # Errors
    /// It has ended, or may not be looked at.
    pub fn time_namespace_id(&self) -> Result<timens::Id> {
        let id = timens::Id::of_process(self.pid)
            .with_context(|| format!("look at the time namespace of PID {}", self.pid))?;
        self.ensure_alive()?;
        Ok(id)
    }

    /// Whether it is in another user namespace than this process.
    ///
    /// # Errors
    /// It has ended, or may not be looked at.
    pub fn is_in_another_user_namespace(&self) -> Result<bool> {
        // Namespaces of every type are told apart in the same way.
        let of = |pid: &dyn std::fmt::Display| {
            let path = format!("/proc/{pid}/ns/user");
            timens::Id::of(&path).with_context(|| format!("look at {path}"))
        };
        let another = of(&self.pid)? != of(&"self")?;
        self.ensure_alive()?;
        Ok(another)
    }

    /// While this holds, everything that was read under /proc/PID was this process's.
    fn ensure_alive(&self) -> Result<()> {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut fds, PollTimeout::ZERO).context("ask whether the container's PID 1 is alive")?;
        ensure!(ended == 0, Stopped("the container's PID 1 has ended".to_owned()));
        Ok(())
    }
}

/// The text of a file that nobody but this user and root can have written; none if there is no such file.
fn read_trusted(path: &Path) -> Result<Option<String>> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let metadata = file.metadata()?;
    let trusted =
        metadata.is_file() && [0, geteuid().as_raw()].contains(&metadata.uid()) && metadata.mode() & 0o022 == 0;
    ensure!(trusted, "{} could have been written by another user", path.display());
    let mut text = String::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(text))
}

/// Field 22 of /proc/PID/stat, see `proc_pid_stat(5)`. The second field, in parentheses, may hold anything, so counting
/// begins behind the last closing one.
fn parse_start(stat: &[u8]) -> Option<ClockTicks> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok().map(ClockTicks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_is_found_behind_any_name() {
        let stat = b"77 (a) b) 3) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(parse_start(stat), Some(ClockTicks(4242)));
        assert_eq!(parse_start(b"77 (x) S 1"), None);
    }

    #[test]
    fn an_id_never_leads_out_of_the_root() {
        let root = Some(OsStr::new("/r"));
        assert_eq!(folder(Kind::Runc, root, OsStr::new("create")).unwrap(), Path::new("/r/create"));
        for id in ["", ".", "..", "a/b", "../x", "/abs", "a b"] {
            assert!(folder(Kind::Runc, root, OsStr::new(id)).is_err(), "{id}");
        }
    }

    #[test]
    fn only_the_start_time_differs_in_the_text_shown_to_the_runtime() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"id":"x","init_process_pid":7, "init_process_start" : 1234 ,"big":1e400,"config":{"namespaces":[{"type":"NEWPID","path":""},{"type":"NEWTIME","path":""}]}}"#;
        fs::write(folder.path().join("state.json"), text).unwrap();
        let state = State::read(Kind::Runc, folder.path()).unwrap().unwrap();
        assert_eq!((state.pid, state.start, state.lists_time), (7, ClockTicks(1234), true));
        let mut shown = Vec::new();
        state.write_with_start(ClockTicks(99), &mut shown).unwrap();
        assert_eq!(shown, text.replace("1234", "99").as_bytes());
    }

    #[test]
    fn what_another_user_could_have_written_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("status");
        fs::write(&file, r#"{"pid":7,"process-start-time":1}"#).unwrap();
        assert!(State::read(Kind::Crun, folder.path()).is_ok());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(State::read(Kind::Crun, folder.path()).is_err());
    }

    #[test]
    fn a_stranger_with_the_recorded_number_is_not_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let start = parse_start(&fs::read("/proc/self/stat").unwrap()).unwrap().0;
        let state = |start: u64| {
            fs::write(folder.path().join("status"), format!(r#"{{"pid":{own},"process-start-time":{start}}}"#))
                .unwrap();
            State::read(Kind::Crun, folder.path()).unwrap().unwrap()
        };
        assert_eq!(state(start).prove().unwrap().pid, i32::try_from(own).unwrap());
        assert!(state(start + 1).prove().unwrap_err().is::<Stopped>());
    }
}
