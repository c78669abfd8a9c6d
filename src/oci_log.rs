// SPDX-License-Identifier: Apache-2.0
//! The log that engines read: the file given with `--log`, in the format given with `--log-format`.
//!
//! In JSON it is an interface: one object a line with level, msg and time, and engines show the message of the last line
//! of level error. As runc does, errors go to standard error, too, and everything goes there where there is no file;
//! except that warnings and notes are then kept back, because engines parse the combined output of a successful call.
//!
//! Podman takes the whole file for one object. A warning before the runtime's error would make it fall back on what conmon has
//! heard of the runtime, which can be nothing (crun, with a terminal). So there all but errors go to a file beside, in the
//! folder that Podman removes with the container.
//!
//! None of these outlives the container, so warnings and errors also go to the system's log.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::invocation::Globals;
use crate::system_log;
use crate::text::printable;

static LOG: OnceLock<OciLog> = OnceLock::new();

struct OciLog {
    file: Option<PathBuf>,
    /// Where all but errors go, if not to the same file.
    beside: Option<PathBuf>,
    json: bool,
}

/// What Podman calls its log, and the one beside it.
const OF_PODMAN: &str = "oci-log";
const BESIDE_PODMAN_S: &str = "oci-log.tns-shim";

/// From now on the `log` macros write where this call of the runtime would.
pub fn start(globals: &Globals<'_>) {
    let log =
        LOG.get_or_init(|| OciLog::to(globals.log.and_then(file), globals.log_format == Some(OsStr::new("json"))));
    // Fails only if there is a logger already, which then serves.
    if log::set_logger(log).is_ok() {
        log::set_max_level(if globals.debug { LevelFilter::Debug } else { LevelFilter::Info });
    }
}

/// crun also takes `file:PATH`, and logs to journald and syslog by name, where the shim does not follow it.
fn file(log: &OsStr) -> Option<PathBuf> {
    let bytes = log.as_bytes();
    if bytes.is_empty() || bytes.starts_with(b"journald:") || bytes.starts_with(b"syslog:") {
        return None;
    }
    Some(OsStr::from_bytes(bytes.strip_prefix(b"file:").unwrap_or(bytes)).into())
}

impl OciLog {
    fn to(file: Option<PathBuf>, json: bool) -> Self {
        let podman_s = file.as_ref().filter(|file| json && file.file_name() == Some(OsStr::new(OF_PODMAN)));
        let beside = podman_s.map(|file| file.with_file_name(BESIDE_PODMAN_S));
        Self { file, beside, json }
    }

    fn line(&self, level: Level, message: &str) -> String {
        let level = match level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        let message = quoted(&format!("tns-shim: {message}"));
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        if self.json {
            format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{now}\"}}\n")
        } else {
            format!("time=\"{now}\" level={level} msg={message}\n")
        }
    }

    /// One write for a line, so that it is whole beside those of the runtime.
    fn append(path: &Path, line: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
        file.write_all(line.as_bytes())
    }
}

impl Log for OciLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Ids and paths are in it as somebody has chosen them, and engines show it on terminals.
        let message = printable(&record.args().to_string(), usize::MAX);
        let line = self.line(record.level(), &message);
        // There is nowhere left to say that saying it failed.
        let to_stderr = |text: &str| drop(io::stderr().write_all(text.as_bytes()));
        match (&self.file, record.level()) {
            (Some(path), level) => {
                let path = self.beside.as_ref().filter(|_| level > Level::Error).unwrap_or(path);
                let written = Self::append(path, &line).is_ok();
                if level == Level::Error {
                    to_stderr(&format!("tns-shim: {message}\n"));
                } else if !written && level > Level::Info {
                    to_stderr(&line);
                }
            }
            (None, Level::Warn | Level::Info) if log::max_level() < Level::Debug => {}
            (None, _) => to_stderr(&line),
        }
        if record.level() <= Level::Warn {
            system_log::tell(record.level(), &message);
        }
    }

    fn flush(&self) {}
}

/// As a JSON string, which is also how Go quotes in the text format.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_is_the_interface_that_engines_parse() {
        let line = OciLog::to(None, true).line(Level::Error, "a \"b\"\n\tc");
        assert_eq!(line.matches('\n').count(), 1, "one line");
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(entry["level"], "error");
        assert_eq!(entry["msg"], "tns-shim: a \"b\"\n\tc");
        let time = humantime::parse_rfc3339(entry["time"].as_str().unwrap()).unwrap();
        assert!(time.elapsed().unwrap().as_secs() < 60);
    }

    #[test]
    fn a_text_line_is_as_logrus_writes_it() {
        let line = OciLog::to(None, false).line(Level::Warn, "x");
        assert!(line.starts_with("time=\"2") && line.ends_with("Z\" level=warning msg=\"tns-shim: x\"\n"), "{line}");
    }

    #[test]
    fn only_podman_s_log_has_another_one_beside() {
        let beside = |file: &str, json| OciLog::to(Some(file.into()), json).beside;
        assert_eq!(beside("/c/oci-log", true), Some("/c/oci-log.tns-shim".into()));
        assert_eq!(beside("/c/oci-log", false), None);
        assert_eq!(beside("/c/log.json", true), None);
    }

    #[test]
    fn names_of_other_logs_are_not_taken_for_files() {
        assert_eq!(file(OsStr::new("/l")), Some("/l".into()));
        assert_eq!(file(OsStr::new("file:/l")), Some("/l".into()));
        assert_eq!(file(OsStr::new("journald:x")), None);
        assert_eq!(file(OsStr::new("")), None);
    }
}
