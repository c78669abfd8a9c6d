// SPDX-License-Identifier: Apache-2.0
//! The CRIU that the runtimes run.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// What `program` (a path, or a name in PATH) prints when called with `arguments`; none if it fails.
pub fn output(program: &OsStr, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Its release, `4.1.1` for instance; none if it does not run here, or tells none.
pub fn version(program: &OsStr) -> Option<String> {
    let text = output(program, &["--version"])?;
    let version = text.lines().next()?.trim_start_matches("Version:").trim();
    (!version.is_empty()).then(|| version.to_owned())
}
