// SPDX-License-Identifier: Apache-2.0
//! Becoming the runtime, and noticing where that never ends.
//!
//! A runtime may be one that calls the shim again: a decorator whose own list names it, a script, a build of the shim that
//! is too old to be recognised. Then each becomes the other for ever. CPU time goes on over execve: a shim that has used
//! more of it than a single one needs notes in the environment what it hands over to, and the next one sees the list. For
//! a script, which need not use execve, and for a program that is only asked something, it is noted at once. The
//! environment of every other call stays the caller's, byte for byte.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

use super::Binary;
use crate::text::printable;

/// The runtimes that were handed over to, with a colon after each.
const CHAIN: &str = "TNS_SHIM_HANDOVERS";
/// Where a chain of the shim, a decorator, and the shim by the runtime's name ends well, it has two.
const LONGEST: usize = 5;
/// A single one uses a few milliseconds.
const SUSPICIOUS: Duration = Duration::from_millis(200);

/// That this is not one of many starts of the shim, each by the runtime that the one before it has become.
///
/// # Errors
/// It is; the message has the way that it goes.
pub fn ensure_end() -> Result<()> {
    let Some(chain) = std::env::var_os(CHAIN) else { return Ok(()) };
    let links: Vec<&[u8]> = chain.as_bytes().split(|byte| *byte == b':').filter(|link| !link.is_empty()).collect();
    if links.len() < LONGEST {
        return Ok(());
    }
    let shown: Vec<String> = links.iter().map(|link| printable(&String::from_utf8_lossy(link), 256)).collect();
    bail!(
        "the runtime to wrap hands over to tns-shim itself, again and again ({}): set `runtime` in the settings, or what \
         that one calls, to the path of the real one",
        shown.join(", then ")
    )
}

/// The list with one more; only where there is reason to keep one.
fn longer_chain(path: &Path, at_once: bool) -> Option<OsString> {
    let chain = std::env::var_os(CHAIN);
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let micros = [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
        u64::try_from(micros.iter().sum::<i64>()).ok().map(Duration::from_micros)
    };
    if chain.is_none() && !at_once && used().is_none_or(|used| used < SUSPICIOUS) {
        return None;
    }
    let mut chain = chain.unwrap_or_default();
    chain.push(path);
    chain.push(":");
    Some(chain)
}

/// Lets a program that is asked something know that it was the shim who asked: it could ask the shim in turn.
pub(super) fn note_in(command: &mut Command, path: &Path) {
    if let Some(chain) = longer_chain(path, true) {
        command.env(CHAIN, chain);
    }
}

/// Replaces this process by the runtime: same PID, descriptors, environment, signal mask and dispositions. The arguments
/// are the caller's bytes; only the zeroth is the runtime's own path, which is what its usage texts show and what crun
/// picks a handler by.
///
/// # Errors
/// The binary cannot be executed.
pub fn become_runtime(binary: &Binary, args: &[&CStr]) -> Result<Infallible> {
    let path = CString::new(binary.path.as_os_str().as_bytes()).context("a path with a NUL byte")?;
    let mut handed = Vec::with_capacity(args.len().max(1));
    handed.push(path.as_c_str());
    handed.extend_from_slice(args.get(1..).unwrap_or_default());
    let became = match longer_chain(&binary.path, binary.is_script) {
        None => nix::unistd::execv(&path, &handed),
        Some(chain) => nix::unistd::execve(&path, &handed, &environment_with(chain)?),
    };
    became.with_context(|| format!("execute {}", binary.path.display()))
}

fn environment_with(chain: OsString) -> Result<Vec<CString>> {
    let others = std::env::vars_os().filter(|(name, _)| name != CHAIN);
    let entry = |(name, value): (OsString, OsString)| CString::new([name.into_vec(), value.into_vec()].join(&b'='));
    others.chain([(CHAIN.into(), chain)]).map(entry).collect::<Result<_, _>>().context("an environment with a NUL byte")
}
