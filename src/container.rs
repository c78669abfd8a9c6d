// SPDX-License-Identifier: Apache-2.0
//! A container's PID 1, from the runtime's own state, and the proof that it still is that process.
//!
//! Where the state is: runc `ROOT/ID/state.json`, crun `ROOT/ID/status`. The proof is the one that the runtimes use
//! themselves: the start time they recorded, in clock ticks since boot, against field 22 of /proc/PID/stat. A pidfd,
//! opened before and asked afterwards, makes it hold for everything that was read through /proc/PID in between.
//!
//! Whoever may write the state is believed, as the runtimes believe them, who go by it into every namespace and control group
//! that it names: root's runtime works on another user's containers. All that it can make the shim do besides is to read the
//! start time of a process, and to enter that one's time namespace.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::files::{self, Links};
use crate::json::Splice;
use crate::runtime::abilities::Kind;
use crate::text::printable;
use crate::{json, sys, timens};

/// Most that is read of a state file: it holds the container's whole configuration, some 10 KB, and 2 MB with 8,000 mounts.
const MOST: u64 = 64 << 20;

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

/// The folder in which the runtime keeps the container. Which ids there may be is the runtime's own business: runc takes
/// letters, digits and `_+-.` (up to 1.1 the comma as well), crun since 1.28 the same, since 1.20 all but a slash, and before
/// that everything. Sources: runc's `validateID`, crun's `validate_id`.
///
/// # Errors
/// The id would lead out of the root folder, or to it.
pub fn folder(kind: Kind, root: Option<&OsStr>, id: &OsStr) -> Result<PathBuf> {
    let mut parts = Path::new(id).components().peekable();
    ensure!(
        parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_))),
        "{} is no container id",
        printable(&id.to_string_lossy(), 200)
    );
    let root = root.filter(|root| !root.is_empty()).map_or_else(|| default_root(kind), PathBuf::from);
    Ok(root.join(id))
}

/// Where the runtime keeps its containers without `--root`: runc's `main.go`, crun's `libcrun/status.c`.
pub fn default_root(kind: Kind) -> PathBuf {
    root_in(kind, std::env::var_os("XDG_RUNTIME_DIR"), || {
        // Unreadable, it is taken for the initial one's.
        let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_else(|_| INITIAL_MAP.to_owned());
        runc_honours_runtime_folder(geteuid().is_root(), &uid_map, std::env::var_os("USER").as_deref())
    })
}

fn root_in(kind: Kind, runtime_folder: Option<OsString>, runc_honours_it: impl FnOnce() -> bool) -> PathBuf {
    let runtime_folder = runtime_folder.filter(|folder| !folder.is_empty()).map(PathBuf::from);
    match (kind, runtime_folder) {
        (Kind::Crun, Some(folder)) => folder.join("crun"),
        (Kind::Crun, None) => "/run/crun".into(),
        (_, Some(folder)) if runc_honours_it() => folder.join("runc"),
        _ => "/run/runc".into(),
    }
}

/// The initial user namespace maps everything onto itself.
const INITIAL_MAP: &str = "0 0 4294967295";

fn runc_honours_runtime_folder(is_root: bool, uid_map: &str, user: Option<&OsStr>) -> bool {
    let in_user_namespace = !uid_map.split_ascii_whitespace().eq(INITIAL_MAP.split(' '));
    !is_root || (in_user_namespace && user.is_none_or(|user| user != "root"))
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
    /// The state is not understood, is no regular file, or larger than any.
    pub fn read(kind: Kind, folder: &Path) -> Result<Option<Self>> {
        let file = match kind {
            Kind::Runc => folder.join("state.json"),
            Kind::Crun => folder.join("status"),
            Kind::Youki | Kind::Other => bail!("where this runtime keeps its containers is unknown"),
        };
        let read = || Ok(files::read(&file, Links::Refuse, MOST)?.map(String::from_utf8).transpose()?);
        let text: Result<Option<String>> = read();
        let Some(text) = text.with_context(|| format!("read {}", file.display()))? else { return Ok(None) };
        Self::parse(kind, file, text).map(Some)
    }

    /// Reads the text of a container's state, crun's or runc's.
    ///
    /// # Errors
    /// It is not understood.
    pub fn parse(kind: Kind, file: PathBuf, text: String) -> Result<Self> {
        if kind == Kind::Crun { Self::from_crun(file, text) } else { Self::from_runc(file, text) }
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
        let start = init.start()?;
        ensure!(
            start == self.start,
            Stopped(format!(
                "PID {} started {} ticks after boot, not {} as recorded: it is not the container's PID 1",
                self.pid, start.0, self.start.0
            ))
        );
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
    /// It has ended ([`Stopped`]).
    pub fn start(&self) -> Result<ClockTicks> {
        self.ask(|| {
            let path = format!("/proc/{}/stat", self.pid);
            // One line of at most 52 numbers, which one read returns whole.
            let mut line = [0; 2048];
            let length =
                File::open(&path).and_then(|mut file| file.read(&mut line)).with_context(|| format!("read {path}"))?;
            parse_start(&line[..length]).with_context(|| format!("understand {path}"))
        })
    }

    /// Its time namespace, held open.
    ///
    /// # Errors
    /// It has ended ([`Stopped`]), or may not be looked at.
    pub fn time_namespace(&self) -> Result<File> {
        let path = format!("/proc/{}/ns/time", self.pid);
        self.ask(|| File::open(&path).with_context(|| format!("open {path}")))
    }

    /// Which time namespace it is in.
    ///
    /// # Errors
    /// It has ended ([`Stopped`]), or may not be looked at.
    pub fn time_namespace_id(&self) -> Result<timens::Id> {
        self.ask(|| {
            timens::Id::of_process(self.pid).with_context(|| format!("look at the time namespace of PID {}", self.pid))
        })
    }

    /// Whether it is in another user namespace than this process.
    ///
    /// # Errors
    /// It has ended ([`Stopped`]), or may not be looked at.
    pub fn is_in_another_user_namespace(&self) -> Result<bool> {
        // Namespaces of every type are told apart in the same way.
        let of = |pid: &dyn std::fmt::Display| {
            let path = format!("/proc/{pid}/ns/user");
            timens::Id::of(&path).with_context(|| format!("look at {path}"))
        };
        self.ask(|| Ok(of(&self.pid)? != of(&"self")?))
    }

    /// What was read under /proc/PID, if it was this process's; else why it was not, even if nothing could be read.
    fn ask<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let answer = read();
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut fds, PollTimeout::ZERO).context("ask whether the container's PID 1 is alive")?;
        ensure!(ended == 0, Stopped("the container's PID 1 has ended".to_owned()));
        answer
    }
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
    use std::os::unix::ffi::OsStrExt;

    use nix::sys::wait::{Id as WaitId, WaitPidFlag, waitid};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_start_time_is_found_behind_any_name() {
        let stat = b"77 (a) b) 3) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(parse_start(stat), Some(ClockTicks(4242)));
        assert_eq!(parse_start(b"77 (x) S 1"), None);
    }

    #[test]
    fn an_id_is_whatever_a_runtime_takes_and_never_leads_out_of_the_root() {
        let root = Some(OsStr::new("/r"));
        for (kind, id) in [
            (Kind::Runc, "create"),
            (Kind::Runc, "a.b_c+d-e"),
            (Kind::Runc, "a,b"),
            (Kind::Runc, "..."),
            (Kind::Crun, "web@1"),
            (Kind::Crun, "a b:\u{e4}\n"),
            (Kind::Crun, "a/b"),
        ] {
            assert_eq!(folder(kind, root, OsStr::new(id)).unwrap(), Path::new("/r").join(id), "{id}");
        }
        assert_eq!(folder(Kind::Crun, root, OsStr::from_bytes(b"\xff")).unwrap().as_os_str().as_bytes(), b"/r/\xff");
        for id in ["", ".", "..", "../x", "a/..", "a/../../x", "/abs", "/", "./a"] {
            for kind in [Kind::Runc, Kind::Crun] {
                assert!(folder(kind, root, OsStr::new(id)).is_err(), "{id}");
            }
        }
        let error = folder(Kind::Crun, root, OsStr::new("/\u{1b}[2J")).unwrap_err().to_string();
        assert_eq!(error, "/\\u{1b}[2J is no container id");
    }

    #[test]
    fn the_root_is_where_the_runtime_has_it() {
        let root = |kind, folder: Option<&str>, honours| root_in(kind, folder.map(OsString::from), || honours);
        for (kind, folder, honours, wanted) in [
            (Kind::Crun, None, true, "/run/crun"),
            (Kind::Crun, Some(""), true, "/run/crun"),
            (Kind::Crun, Some("/u"), false, "/u/crun"),
            (Kind::Runc, None, true, "/run/runc"),
            (Kind::Runc, Some(""), true, "/run/runc"),
            (Kind::Runc, Some("/u"), true, "/u/runc"),
            (Kind::Runc, Some("/u"), false, "/run/runc"),
        ] {
            assert_eq!(root(kind, folder, honours), Path::new(wanted), "{kind:?} {folder:?} {honours}");
        }
        let initial = "         0          0 4294967295\n";
        for (is_root, map, user, honours) in [
            (true, initial, None, false),
            (true, initial, Some("user"), false),
            (false, initial, Some("root"), true),
            (true, "0 1000 1\n", Some("root"), false),
            (true, "0 1000 1\n", Some("user"), true),
            (true, "0 1000 1\n", None, true),
        ] {
            let user = user.map(OsStr::new);
            assert_eq!(runc_honours_runtime_folder(is_root, map, user), honours, "{is_root} {map} {user:?}");
        }
    }

    #[test]
    fn a_time_namespace_is_listed_where_the_state_says_so() {
        let lists = |namespaces: &str| {
            let text =
                format!(r#"{{"init_process_pid":1,"init_process_start":2,"config":{{"namespaces":{namespaces}}}}}"#);
            State::parse(Kind::Runc, PathBuf::new(), text).unwrap().lists_time
        };
        assert!(lists(r#"[{"type":"NEWPID"},{"type":"NEWTIME"}]"#));
        assert!(!lists(r#"[{"type":"NEWPID"}]"#) && !lists("[]") && !lists("null"));
        assert_eq!(Stopped("it has ended".to_owned()).to_string(), "it has ended");
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
    fn a_state_that_others_can_write_is_read_as_the_runtime_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("status");
        assert!(State::read(Kind::Crun, folder.path()).unwrap().is_none());
        fs::write(&file, r#"{"pid":7,"process-start-time":1}"#).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(State::read(Kind::Crun, folder.path()).unwrap().unwrap().pid, 7);
    }

    #[test]
    fn what_is_no_state_file_is_neither_read_nor_waited_for() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (file, elsewhere) = (folder.path().join("state.json"), folder.path().join("elsewhere"));
        let text = r#"{"init_process_pid":7,"init_process_start":1,"config":{}}"#;
        let read = || State::read(Kind::Runc, folder.path()).map_err(|error| format!("{error:#}"));
        fs::write(&elsewhere, text).unwrap();
        symlink(&elsewhere, &file).unwrap();
        // Each C library has its own words for ELOOP.
        assert!(read().unwrap_err().to_lowercase().contains("symbolic link"));
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(read().unwrap_err().ends_with("state.json: no regular file"));
        fs::remove_file(&file).unwrap();
        fs::write(&file, text.replace('7', "\"7\"")).unwrap();
        assert!(read().unwrap_err().contains("understand"));
        // Larger than any state, and not on the disk.
        File::options().write(true).open(&file).unwrap().set_len(MOST + 1).unwrap();
        assert!(read().unwrap_err().contains("larger than"));
        fs::write(&file, text).unwrap();
        assert_eq!(read().unwrap().unwrap().pid, 7);
    }

    #[test]
    fn nothing_is_believed_of_a_process_that_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = parse_start(&fs::read(format!("/proc/{pid}/stat")).unwrap()).unwrap().0;
        let text = format!(r#"{{"pid":{pid},"process-start-time":{start}}}"#);
        let init = State::from_crun("status".into(), text).unwrap().prove().unwrap();
        assert_eq!(init.start().unwrap(), ClockTicks(start));
        child.kill().unwrap();
        waitid(WaitId::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        // Its entries in /proc are there until it is waited for; by then they could be another process's.
        for _ in 0..2 {
            assert!(init.start().unwrap_err().is::<Stopped>());
            assert!(init.time_namespace().unwrap_err().is::<Stopped>());
            assert!(init.time_namespace_id().unwrap_err().is::<Stopped>());
            assert!(init.is_in_another_user_namespace().unwrap_err().is::<Stopped>());
            child.wait().unwrap();
        }
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
