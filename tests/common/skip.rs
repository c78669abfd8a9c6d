// SPDX-License-Identifier: Apache-2.0
//! Tests that can do nothing where they run.

// Each test program uses a part.
#![allow(dead_code, clippy::unnecessary_wraps, clippy::missing_panics_doc)]

use std::path::Path;
use std::{env, fs, thread};

/// Says why a test does nothing here. libtest knows of no such end and counts it as passed, so that whoever counts otherwise (see
/// tests/unit) gives a folder for the reasons, one file a test.
pub fn skip<T>(why: &str) -> Option<T> {
    eprintln!("skipped: {why}");
    if let Some(folder) = env::var_os("TNS_SKIPPED") {
        let program = env::current_exe().unwrap();
        let name = format!("{}::{}", program.file_name().unwrap().to_string_lossy(), thread::current().name().unwrap());
        fs::write(Path::new(&folder).join(name), format!("{why}\n")).unwrap();
    }
    None
}

/// Whether this runs on an emulator that cannot do what the test needs (see tests/emulated); then the test is skipped, and `why` says
/// what the emulator does instead.
pub fn is_emulated(why: &str) -> bool {
    let Some(emulator) = env::var_os("TNS_EMULATOR") else { return false };
    skip::<()>(&format!("on {}: {why}", emulator.to_string_lossy()));
    true
}

/// Why nothing makes or enters a time or user namespace there.
pub const TWO_THREADS: &str =
    "it has a thread of its own beside the program's, and the kernel moves no process with two: EUSERS, EINVAL";
/// Why no limit of memory holds there.
pub const OWN_MEMORY: &str = "its own memory is part of the process's";
/// Why no filter can be set there.
pub const NO_FILTERS: &str = "it refuses to set filters of system calls: EINVAL";
/// Why signals cannot be seen in /proc there.
pub const OWN_SIGNALS: &str = "SigCgt in /proc/PID/status is of its own handlers";
