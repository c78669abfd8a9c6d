// SPDX-License-Identifier: Apache-2.0
//! The one way to run a helper program, and to find one.
//!
//! It is found in absolute folders only, reads nothing, has a limit of time and of what it may print, and leaves nothing
//! behind: no process, no descriptor, no signal. How it ended is known also where the caller ignores SIGCHLD.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, access};

use super::handover;
use crate::sys;

/// Where to look when the caller has no PATH (Podman clears the environment): what `execvp(3)` and Debian's root have.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whatever is asked here takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes. The longest, runc's `features`, has about 10 KiB.
const MOST: usize = 1 << 20;
/// How often to look whether a program has ended that keeps its output open, and one that has closed it.
const PAUSE_MS: u8 = 20;
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// What a program has said.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it has printed on standard output.
    pub output: Vec<u8>,
}

/// The folders where programs are looked for, as they are written.
pub fn search_path() -> OsString {
    std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.into())
}

/// What has that name in PATH and may be executed, in its order: programs, and folders, which are for the caller to tell
/// apart. An empty or relative entry is the working folder or below, which is whoever's: it is passed over.
pub fn in_path(name: &OsStr) -> impl Iterator<Item = PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&search_path()).filter(|folder| folder.is_absolute()).collect();
    let may_run = |path: &PathBuf| access(path, AccessFlags::X_OK).is_ok();
    folders.into_iter().map(move |folder| folder.join(name)).filter(may_run)
}

/// What `program` prints when called with `arguments`; its standard input and error are /dev/null.
///
/// # Errors
/// As for [`run`].
pub fn ask(program: &Path, arguments: &[&str]) -> Result<Answer> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    handover::note_in(&mut command, program);
    run(&mut command)
}

/// Runs it to its end, and takes what it prints on standard output.
///
/// # Errors
/// It cannot be executed, prints more than 1 MiB, or has not ended after 10 s; then it is killed.
pub fn run(command: &mut Command) -> Result<Answer> {
    run_within(PATIENCE, command)
}

/// As [`run`], with another limit of time.
///
/// # Errors
/// As for [`run`].
pub fn run_within(patience: Duration, command: &mut Command) -> Result<Answer> {
    let to_its_end = || -> io::Result<Answer> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        listen(&mut child, patience).inspect_err(|_| {
            // What has ended meanwhile cannot be killed, and that is as good.
            let _ = child.kill();
            let _ = child.wait();
        })
    };
    let answer = sys::without_sigchld(to_its_end);
    answer.with_context(|| format!("run {}", command.get_program().to_string_lossy()))
}

fn listen(child: &mut Child, patience: Duration) -> io::Result<Answer> {
    let begun = Instant::now();
    let mut stdout = child.stdout.take();
    let (mut output, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    while begun.elapsed() < patience {
        // Asked before its output: what it has printed is there then, though a child of its own may keep the pipe open.
        let ended = child.try_wait()?;
        let pause = if ended.is_some() { PollTimeout::ZERO } else { PAUSE_MS.into() };
        match (&mut stdout, ended) {
            (Some(pipe), _) if is_readable(pipe, pause)? => match pipe.read(&mut piece)? {
                0 => stdout = None,
                length => output.extend_from_slice(piece.get(..length).unwrap_or_default()),
            },
            (_, Some(status)) => return Ok(Answer { status, output }),
            (Some(_), None) => {}
            (None, None) => thread::sleep(SHORT_PAUSE),
        }
        if output.len() > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it prints more than {MOST} bytes")));
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("it has not ended after {patience:?}")))
}

fn is_readable(pipe: &impl AsFd, pause: PollTimeout) -> io::Result<bool> {
    let mut watched = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    match poll(&mut watched, pause) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Result<Answer> {
        ask(Path::new("/bin/sh"), &["-c", text])
    }

    #[test]
    fn what_it_prints_and_how_it_ends_is_the_answer() {
        let answer = shell("read line && echo \"$line\"; echo seen; exit 3").unwrap();
        assert_eq!((answer.output.as_slice(), answer.status.code()), (&b"seen\n"[..], Some(3)));
        assert_eq!(shell("kill -9 $$").unwrap().status.code(), None);
    }

    #[test]
    fn one_that_does_not_end_or_prints_for_ever_is_killed() {
        let flood = format!("{:#}", shell("exec yes").unwrap_err());
        assert_eq!(flood, "run /bin/sh: it prints more than 1048576 bytes");
        // Its output open or closed, and by a signal that it does not ignore.
        for text in ["echo $$; exec sleep 600", "exec >&-; trap '' TERM; while :; do :; done"] {
            let begun = Instant::now();
            let mut command = Command::new("/bin/sh");
            let error = run_within(Duration::from_millis(200), command.args(["-c", text])).unwrap_err();
            assert_eq!(format!("{error:#}"), "run /bin/sh: it has not ended after 200ms");
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
    }

    #[test]
    fn a_child_that_it_leaves_behind_keeps_nobody_waiting() {
        let answer = shell("sleep 15 & echo done").unwrap();
        assert_eq!(answer.output, b"done\n");
    }

    #[test]
    fn what_cannot_be_executed_is_named() {
        let error = format!("{:#}", ask(Path::new("/nowhere/criu"), &[]).unwrap_err());
        assert!(error.starts_with("run /nowhere/criu: "), "{error}");
    }
}
