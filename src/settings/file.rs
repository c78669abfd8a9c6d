// SPDX-License-Identifier: Apache-2.0
//! The settings file: where it is, whether it holds for this user, and what can still be had of one with a mistake in it.
//!
//! One that this user may not read, or that somebody else can have written, does not hold, and what has no setting has its
//! default. A mistake stops what the shim would do by it, with the key and the line; it never stops a call in which the
//! shim does nothing: what runs can be looked at, ended and removed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use nix::unistd::{getegid, geteuid};
use serde::Deserialize;

use super::{LogTo, Settings};
use crate::files::{Links, Regular};
use crate::text::printable;

/// Set when building, see the Makefile.
const SYSTEM_FOLDER: &str = match option_env!("SYSCONFDIR") {
    Some(folder) => folder,
    None => "/etc",
};

/// Bytes; the one with all keys and their explanation has 3 KiB.
const MOST: u64 = 1 << 16;

/// What is there for this user.
#[derive(Debug)]
enum Found {
    /// It is as it should be, or not there.
    Held(Settings),
    /// It is there, but not for this user; the text says why.
    NotHeld(String),
    /// There is a mistake in it; the text names it.
    Mistaken {
        error: String,
        /// What can be understood all the same.
        runtime: Option<PathBuf>,
    },
}

/// Read once, so that one call sees one file.
fn found() -> &'static Found {
    static FOUND: OnceLock<Found> = OnceLock::new();
    FOUND.get_or_init(|| path().map_or_else(|| Found::Held(Settings::default()), |path| look(&path)))
}

impl Settings {
    /// Those of the file; there need not be one. One that does not hold for this user is said to be so in the log.
    ///
    /// # Errors
    /// It holds an unknown key or a bad value, or is no such file; the message names the line.
    pub fn read() -> Result<Self> {
        match found() {
            Found::Held(settings) => Ok(settings.clone()),
            Found::NotHeld(why) => {
                log::warn!("{why}");
                Ok(Self::default())
            }
            Found::Mistaken { error, .. } => Err(anyhow!(error.clone())),
        }
    }

    /// As [`Settings::read`], where a mistake is no reason to fail: then the defaults, and the log says why.
    pub fn read_or_default() -> Self {
        Self::read().unwrap_or_else(|error| {
            log::warn!("the settings do not hold: {error:#}");
            Self::default()
        })
    }
}

/// The setting `runtime`, whatever else is wrong with the file.
pub fn runtime() -> Option<PathBuf> {
    match found() {
        Found::Held(settings) => settings.runtime.clone(),
        Found::NotHeld(why) => {
            log::debug!("{why}");
            None
        }
        Found::Mistaken { runtime, .. } => runtime.clone(),
    }
}

/// Says in the log that not even the setting `runtime` can be read, for a call that goes on all the same.
pub fn warn_of_lost_runtime() {
    if let Found::Mistaken { error, runtime: None } = found() {
        log::warn!("{error}; no runtime can be read from it either");
    }
}

/// The setting `log`. What does not hold switches nothing off.
pub fn log_to() -> LogTo {
    match found() {
        Found::Held(settings) => settings.log.unwrap_or_default(),
        _ => LogTo::default(),
    }
}

/// Why the file does not hold, if it is there and does not.
pub fn trouble() -> Option<&'static str> {
    match found() {
        Found::Held(_) => None,
        Found::NotHeld(why) => Some(why),
        Found::Mistaken { error, .. } => Some(error),
    }
}

/// Whether what keeps the file from holding is a mistake in it, and not who may read or write it.
pub fn is_mistaken() -> bool {
    matches!(found(), Found::Mistaken { .. })
}

/// Whether root's file holds for all users: those of a Podman that is not root's have it, too. None where it is not root
/// who asks.
pub fn holds_for_all() -> Option<bool> {
    let path = path().filter(|_| geteuid().is_root())?;
    let Ok(path) = fs::canonicalize(path) else { return Some(true) };
    let may = |path: &Path, bit| fs::metadata(path).is_ok_and(|metadata| metadata.mode() & bit != 0);
    let is_reached = path.ancestors().skip(1).all(|folder| may(folder, 0o001));
    Some(trouble().is_none() && may(&path, 0o004) && is_reached)
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

fn look(path: &Path) -> Found {
    let shown = printable(&path.to_string_lossy(), 1024);
    let text = match read(path) {
        Ok(Some(text)) => text,
        Ok(None) => return Found::Held(Settings::default()),
        // Not in the words of the error, which Podman would take for one of its own.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Found::NotHeld(format!("the settings in {shown} do not hold for this user, who may not read them"));
        }
        Err(error) if error.kind() == io::ErrorKind::Other => {
            return Found::NotHeld(format!("the settings in {shown} do not hold: {error}"));
        }
        Err(error) => {
            return Found::Mistaken { error: format!("understand {shown}: {error}"), runtime: None };
        }
    };
    let text = String::from_utf8_lossy(&text);
    match understand(&text) {
        Ok(settings) => Found::Held(settings),
        Err(error) => Found::Mistaken { error: format!("understand {shown}: {error}"), runtime: runtime_in(&text) },
    }
}

/// Its bytes; none if it is not there. `Other` if it is not to be believed.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = match Regular::open(path, Links::Follow) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
        opened => opened?,
    };
    let Some(regular) = opened else { return Ok(None) };
    if !is_believed(&regular.metadata) {
        return Err(io::Error::other("somebody else can have written them"));
    }
    regular.read(MOST).map(Some)
}

/// Whether it is this user's or root's, and nobody else can have written it. The owner of /etc is root, too, where the user
/// is one of a user namespace in which the machine's root has no number. The own group may write: in many a distribution
/// each user has one alone, and then writes files for it.
fn is_believed(metadata: &fs::Metadata) -> bool {
    let is_of_the_system = |owner| fs::metadata(SYSTEM_FOLDER).is_ok_and(|folder| folder.uid() == owner);
    let owner = metadata.uid();
    let is_owner_right = [0, geteuid().as_raw()].contains(&owner) || (geteuid().is_root() && is_of_the_system(owner));
    let is_group_right = metadata.mode() & 0o020 == 0 || metadata.gid() == getegid().as_raw();
    is_owner_right && is_group_right && metadata.mode() & 0o002 == 0
}

/// The settings, or the mistake on one line: where it is, and what.
fn understand(text: &str) -> Result<Settings, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let number = before.matches('\n').count();
        let line = printable(text.lines().nth(number).unwrap_or_default().trim(), 80);
        format!("line {}: {}, in `{line}`", number + 1, printable(error.message(), 400))
    })
}

/// The runtime in a text that is not understood as a whole: as TOML with whatever keys, or as one of its lines.
fn runtime_in(text: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Only {
        runtime: Option<PathBuf>,
    }
    let is_of_no_table = |line: &&str| !line.trim_start().starts_with('[');
    let of_line = |line| toml::from_str::<Only>(line).ok()?.runtime;
    let whole: Option<Only> = toml::from_str(text).ok();
    whole.map_or_else(|| text.lines().take_while(is_of_no_table).find_map(of_line), |whole| whole.runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_or_value_is_an_error_that_names_it_and_its_line() {
        for (text, named) in [
            ("runtime = \"crun\"\nruntmie = \"runc\"\n", "runtmie"),
            ("[restore]\nclock = \"host\"\n", "clock"),
            ("\nrestore.clocks = \"Host\"\n", "`continue`, `host`, `host-force`"),
            ("[restore]\nmixed = true\n", "mixed"),
            ("\nmode = \"none\"\n", "`auto`, `private`, `host`, `leave`"),
            ("\nlog = \"off\"\n", "`system` or `none`"),
            ("\nmode \u{1b}[2J", "in `mode \\u{1b}[2J`"),
        ] {
            let error = understand(text).unwrap_err();
            assert!(error.starts_with("line 2: ") && error.contains(named), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn the_runtime_is_known_whatever_else_is_wrong() {
        for (text, runtime) in [
            ("runtime = \"crun\"\nnewer = 1\n[newer.table]\nx = [1]\n", Some("crun")),
            ("mode = \n runtime = '/usr/bin/runc.real' # diverted\n", Some("/usr/bin/runc.real")),
            ("mode = \"\n[restore]\nruntime = \"no\"\n", None),
            ("#runtime = \"crun\"\nmode = \n", None),
            ("runtime = 7\n", None),
            ("\0", None),
        ] {
            assert!(understand(text).is_err(), "{text}");
            assert_eq!(runtime_in(text).as_deref(), runtime.map(Path::new), "{text}");
        }
    }
}
