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
        let name = format!("{}::{}", program.file_name().unwrap().display(), thread::current().name().unwrap());
        fs::write(Path::new(&folder).join(name), format!("{why}\n")).unwrap();
    }
    None
}
