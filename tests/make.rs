// SPDX-License-Identifier: Apache-2.0
//! What `make build` says before it compiles.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// `make build` where rustc is of that version, and nothing would be compiled.
fn make_build(rustc: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("rustc");
    fs::write(&program, format!("#!/bin/sh\necho host: x86_64-unknown-linux-gnu\n{rustc}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Command::new("make")
        // The tests may themselves have been started by make, which then says where it is.
        .args(["--no-print-directory", "build", "CARGO=echo compiles with"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap()
}

#[test]
fn a_rust_that_is_too_old_is_told_before_anything_is_compiled() {
    for (rustc, here) in [("echo release: 1.63.0", "1.63.0"), ("exit 1", "missing")] {
        let made = make_build(rustc);
        assert!(!made.status.success());
        assert_eq!(String::from_utf8_lossy(&made.stdout), "");
        let said = String::from_utf8_lossy(&made.stderr);
        let wanted = env!("CARGO_PKG_RUST_VERSION");
        assert!(said.contains(&format!("Rust {wanted} or newer is needed")), "{said}");
        assert!(said.contains(&format!("rustc here is {here}")), "{said}");
    }
}

#[test]
fn a_rust_that_is_new_enough_compiles() {
    for release in [concat!(env!("CARGO_PKG_RUST_VERSION"), ".0"), "1.100.0", "2.0.0-nightly"] {
        let made = make_build(&format!("echo release: {release}"));
        assert!(made.status.success(), "{release}: {}", String::from_utf8_lossy(&made.stderr));
        assert!(String::from_utf8_lossy(&made.stdout).contains("compiles with build"), "{release}");
    }
}
