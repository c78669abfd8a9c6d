// SPDX-License-Identifier: Apache-2.0
//! Becoming the runtime.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};

use super::Binary;

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
    nix::unistd::execv(&path, &handed).with_context(|| format!("execute {}", binary.path.display()))
}
