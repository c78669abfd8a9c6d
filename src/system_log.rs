// SPDX-License-Identifier: Apache-2.0
//! The system's log: `/dev/log`, behind which syslog or journald listens.
//!
//! The log that an engine asks for goes with the container, or is never asked for. What an administrator has to see, warnings
//! and refusals, is said here, too. It must never cost anything: nothing is opened where nothing is said, nothing waits for a
//! daemon that hangs, and where nobody listens there is nobody to tell.
//!
//! By hand, because of the last: the crate `syslog` sends blocking, so that a stuck daemon would hold up every container, and
//! brings `time` and `hostname` for what receivers of local messages put there themselves.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::process;
use std::sync::OnceLock;

use log::Level;
use serde::Serialize;

use crate::invocation::Verb;
use crate::settings::{self, LogTo};
use crate::text::printable;

/// `LOG_DAEMON` of syslog(3), in its place within a priority.
const DAEMON: u8 = 3 << 3;

/// Most characters of a message: receivers cut at 2 KiB, or later.
const LONGEST: usize = 1500;

const SOCKET: &str = "/dev/log";
/// Where journald has that socket.
const JOURNAL: &str = "/run/systemd/journal";

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    /// systemd's journald.
    Journal,
    /// Another daemon.
    Syslog,
    /// None.
    Nobody,
}

/// Who would be told now. Tells nothing.
pub fn listener() -> Listener {
    let is_heard = UnixDatagram::unbound().and_then(|socket| socket.connect(SOCKET)).is_ok();
    match (is_heard, fs::canonicalize(SOCKET)) {
        (false, _) => Listener::Nobody,
        (true, Ok(path)) if path.starts_with(JOURNAL) => Listener::Journal,
        (true, _) => Listener::Syslog,
    }
}

static VERB: OnceLock<Verb> = OnceLock::new();
static CONTAINER: OnceLock<String> = OnceLock::new();

/// From now on entries say what is done.
pub fn set_verb(verb: Verb) {
    VERB.get_or_init(|| verb);
}

/// From now on entries say to which container: those of all are in this log.
pub fn set_container(id: &OsStr) {
    CONTAINER.get_or_init(|| id.to_string_lossy().into_owned());
}

/// Tells the system's log, if it is to be told.
pub fn tell(level: Level, message: &str) {
    if settings::log_to() == LogTo::System {
        // There is nowhere left to say that saying it failed.
        drop(send(&entry(level, VERB.get().copied(), CONTAINER.get().map(String::as_str), message)));
    }
}

fn send(entry: &str) -> io::Result<()> {
    // Close-on-exec.
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(entry.as_bytes(), SOCKET)?;
    Ok(())
}

/// As syslog(3) writes it, but for the time, which receivers know better. One line, and nothing that acts on a terminal.
fn entry(level: Level, verb: Option<Verb>, container: Option<&str>, message: &str) -> String {
    let priority = DAEMON | if level == Level::Error { 3 } else { 4 };
    let container = container.map(|id| format!("container {}: ", printable(id, 200))).unwrap_or_default();
    // Some sentences begin with the verb.
    let verb = verb.filter(|verb| *verb != Verb::Other && !message.starts_with(&verb.to_string()));
    let verb = verb.map(|verb| format!("{verb}: ")).unwrap_or_default();
    format!("<{priority}>tns-shim[{}]: {container}{verb}{}", process::id(), printable(message, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_priority_tag_container_verb_and_reason_on_one_line() {
        let (run, exec) = (Some(Verb::Run), Some(Verb::Exec));
        for (level, verb, container, message, wanted) in [
            (Level::Error, None, None, "there is no runc", "<27>tns-shim[PID]: there is no runc"),
            (Level::Warn, exec, Some("web"), "why", "<28>tns-shim[PID]: container web: exec: why"),
            (Level::Warn, exec, Some("web"), "exec: why", "<28>tns-shim[PID]: container web: exec: why"),
            (Level::Warn, Some(Verb::Other), Some("web"), "why", "<28>tns-shim[PID]: container web: why"),
            (Level::Warn, run, None, "why", "<28>tns-shim[PID]: run: why"),
            (
                Level::Error,
                run,
                Some("a\n\u{1b}[2J"),
                "b\nc\u{202e}",
                "<27>tns-shim[PID]: container a\\n\\u{1b}[2J: run: b\\nc\\u{202e}",
            ),
        ] {
            let wanted = wanted.replace("PID", &process::id().to_string());
            assert_eq!(entry(level, verb, container, message), wanted);
        }
        let long = entry(Level::Warn, run, Some(&"i".repeat(5000)), &"m".repeat(5000));
        assert!(long.len() < 2048 && long.ends_with('…'), "{}", long.len());
    }
}
