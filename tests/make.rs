// SPDX-License-Identifier: Apache-2.0
//! What `make build` says before it compiles, and where `make install` looks for what it has built.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// `make build` where rustc is of that version, and nothing would be compiled.
fn make_build(rustc: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    build_into(folder.path(), rustc)
}

/// With the compiler's folder, which stays, for what is built.
fn build_into(folder: &Path, rustc: &str) -> Output {
    let program = folder.join("rustc");
    fs::write(&program, format!("#!/bin/sh\necho host: x86_64-unknown-linux-gnu\n{rustc}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    make(Path::new(env!("CARGO_MANIFEST_DIR")), folder, &["build", "CARGO=echo compiles with"], &path)
}

fn make(top: &Path, target: &Path, arguments: &[&str], path: &str) -> Output {
    Command::new("make")
        .args(["--no-print-directory", &format!("TARGET_DIR={}", target.display())])
        .args(arguments)
        .current_dir(top)
        .env("PATH", path)
        // The tests may themselves have been started by make, which then says where it is.
        .env_remove("MAKEFLAGS")
        .env_remove("TARGET")
        .env_remove("BIN")
        .output()
        .unwrap()
}

fn errors(made: &Output) -> String {
    String::from_utf8_lossy(&made.stderr).into_owned()
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

/// As by `sudo`, whose PATH lacks a user's own Rust.
#[test]
fn what_a_user_has_built_is_installed_by_root_who_has_no_rust() {
    let folder = tempfile::tempdir().unwrap();
    let (target, dest) = (folder.path().join("target"), folder.path().join("dest"));
    fs::create_dir(&target).unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Only programs that make needs.
    let path = folder.path().join("bin");
    fs::create_dir(&path).unwrap();
    for name in ["sh", "cat", "install", "ln", "make", "sed", "stat"] {
        std::os::unix::fs::symlink(which::which(name).unwrap(), path.join(name)).unwrap();
    }
    let install = || {
        let dest = format!("DESTDIR={}", dest.display());
        make(top, &target, &["install", &dest], path.to_str().unwrap())
    };
    let made = install();
    assert!(!made.status.success());
    assert!(errors(&made).contains("`make build` first"), "{}", errors(&made));

    let built = build_into(&target, "echo release: 2.0.0");
    assert!(built.status.success(), "{}", errors(&built));
    let there = fs::read_to_string(target.join("built")).unwrap();
    fs::create_dir_all(there.trim()).unwrap();
    for name in ["tns-shim", "tnsctl"] {
        fs::write(Path::new(there.trim()).join(name), name).unwrap();
    }
    let made = install();
    assert!(made.status.success(), "{}", errors(&made));
    assert_eq!(fs::read_to_string(dest.join("usr/local/bin/tnsctl")).unwrap(), "tnsctl");
    assert!(dest.join("etc/tns-shim/config.toml").exists());
}

#[test]
fn the_documents_of_a_release_are_not_made_over_it() {
    let archive = tempfile::tempdir().unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["Makefile", "Cargo.toml"] {
        fs::copy(top.join(file), archive.path().join(file)).unwrap();
    }
    fs::create_dir(archive.path().join("bin")).unwrap();
    fs::write(archive.path().join("bin/tns-shim"), "").unwrap();
    let path = std::env::var("PATH").unwrap();
    let made = make(archive.path(), &archive.path().join("target"), &["docs"], &path);
    assert!(!made.status.success());
    assert!(errors(&made).contains("are here already"), "{}", errors(&made));
    assert!(archive.path().join("bin/tns-shim").exists() && archive.path().join("Cargo.toml").exists());
}
