// SPDX-License-Identifier: Apache-2.0
//! The CRIU that the runtimes run.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::helper;

/// What `program` (a path, or a name in PATH) prints when called with `arguments`; none if it fails.
pub fn output(program: &OsStr, arguments: &[&str]) -> Option<String> {
    let is_path = program.as_bytes().contains(&b'/');
    let path = if is_path { PathBuf::from(program) } else { helper::in_path(program).find(|path| path.is_file())? };
    let answer = helper::ask(&path, arguments).inspect_err(|error| log::debug!("{error:#}")).ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.output).into_owned())
}

/// Its release, `4.1.1` for instance; none if it does not run here, or tells none.
pub fn version(program: &OsStr) -> Option<String> {
    let text = output(program, &["--version"])?;
    let version = text.lines().next()?.trim_start_matches("Version:").trim();
    (!version.is_empty()).then(|| version.to_owned())
}
