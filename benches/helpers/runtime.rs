// SPDX-License-Identifier: Apache-2.0
//! What stands in for the runtime: ends at once, and answers the questions that the shim asks a runtime. Which one it is,
//! its name says.

#![no_main]

use std::ffi::{CStr, c_char, c_int};
use std::io::Write;

const OLD_FEATURES: &str = r#"{"ociVersionMin":"1.0.0","ociVersionMax":"1.0.2-dev","linux":{"namespaces":["cgroup","ipc","mount","network","pid","user","uts"]}}"#;
const FEATURES: &str = r#"{"ociVersionMin":"1.0.0","ociVersionMax":"1.2.1","linux":{"namespaces":["cgroup","ipc","mount","network","pid","time","user","uts"]}}"#;

/// The C `main`: the least that a program can cost that is linked as the shim is.
///
/// # Safety
/// For the C library to call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    if argc < 2 {
        return 0;
    }
    // SAFETY: `argv` holds `argc` strings.
    let (name, command) = unsafe { (CStr::from_ptr(*argv), CStr::from_ptr(*argv.add(1))) };
    let name = name.to_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let answer = match (name, command.to_bytes()) {
        (b"runc-1.1", b"--version") => "runc version 1.1.15\n",
        (b"crun", b"--version") => "crun version 1.21\n",
        (_, b"--version") => "runc version 1.3.6\n",
        (b"runc", b"features") => FEATURES,
        (b"crun", _) => return 0,
        (_, b"features") => OLD_FEATURES,
        _ => return 0,
    };
    let mut stdout = std::io::stdout();
    c_int::from(stdout.write_all(answer.as_bytes()).and_then(|()| stdout.flush()).is_err())
}
