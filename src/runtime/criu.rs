// SPDX-License-Identifier: Apache-2.0
//! The CRIU that the runtimes run.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::memory::Memory;
use super::{Binary, helper};

/// What `program` (a path, or a name in PATH) prints when called with `arguments`; none if it fails.
pub fn output(program: &OsStr, arguments: &[&str]) -> Option<String> {
    ask(&find(program)?, arguments)
}

/// Its release, `4.1.1` for instance; none if it does not run here, or tells none. From memory, if it was asked before.
pub fn version(program: &OsStr) -> Option<String> {
    let binary = Binary::at(find(program)?).ok()?;
    let memory = Memory::of("version", &binary);
    if let Some(version) = memory.as_ref().and_then(Memory::recall) {
        return Some(version);
    }
    let text = ask(&binary.path, &["--version"])?;
    let version = text.lines().next()?.trim_start_matches("Version:").trim().to_owned();
    if version.is_empty() {
        return None;
    }
    if let Some(Err(error)) = memory.map(|memory| memory.keep(&version)) {
        log::debug!("the version of {} is not remembered: {error:#}", binary.path.display());
    }
    Some(version)
}

fn find(program: &OsStr) -> Option<PathBuf> {
    let is_path = program.as_bytes().contains(&b'/');
    if is_path { Some(PathBuf::from(program)) } else { helper::in_path(program).find(|path| path.is_file()) }
}

fn ask(program: &Path, arguments: &[&str]) -> Option<String> {
    let answer = helper::ask(program, arguments).inspect_err(|error| log::debug!("{error:#}")).ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.output).into_owned())
}
