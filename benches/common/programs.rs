// SPDX-License-Identifier: Apache-2.0
//! The programs that stand in front of a runtime for comparison, and the one that stands in for it.

// Each program uses a part.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What they execute: each measurement puts there what it is about.
pub const RUNTIME: &str = "/run/bench/runtime";

/// The flags that the Makefile and the release profile set for the shim, and -O2.
const FLAGS: &[&str] = &[
    "--edition=2024",
    "-Copt-level=2",
    "-Cpanic=abort",
    "-Clto=fat",
    "-Ccodegen-units=1",
    "-Cstrip=symbols",
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
];

fn source(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/helpers")).join(name)
}

/// Builds one in Rust, for this machine's own C library or for another target.
pub fn rust(name: &str, target: Option<&str>, to: &Path) -> Result<()> {
    let target = target.map(|target| format!("--target={target}"));
    let status = Command::new("rustc")
        .args(FLAGS)
        .args(target)
        .arg(source(&format!("{name}.rs")))
        .arg("-o")
        .arg(to)
        .env("RUNTIME", RUNTIME)
        .status()
        .context("run rustc")?;
    ensure!(status.success(), "rustc cannot build {name}");
    Ok(())
}

/// Builds the one with std's own start for musl, or takes the one that `EXECVE_MUSL` names where rustc cannot.
pub fn musl(to: &Path) -> Result<()> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let folder = Command::new("rustc").args(["--print", "target-libdir", "--target", &target]).output()?.stdout;
    let folder = PathBuf::from(OsStr::from_bytes(folder.trim_ascii()));
    if folder.is_dir() {
        return rust("execve_std", Some(&target), to);
    }
    let built = std::env::var_os("EXECVE_MUSL").map(PathBuf::from).filter(|path| path.exists());
    copy(
        &built.with_context(|| format!("this Rust has no standard library for {target}, and nothing has built it"))?,
        to,
    )
}

/// Builds one in C.
pub fn c(name: &str, options: &[&str], to: &Path) -> Result<()> {
    let status = Command::new("cc")
        .args(["-O2", "-static", "-Wall", "-Wextra", "-fno-stack-protector"])
        .args(options)
        .arg(format!("-DRUNTIME=\"{RUNTIME}\""))
        .arg(source(&format!("{name}.c")))
        .arg("-o")
        .arg(to)
        .status()
        .context("run cc")?;
    ensure!(status.success(), "cc cannot build {name}");
    Ok(())
}

/// The one without a C library, which makes these namespaces first (flags of unshare(2)).
pub fn bare(namespaces: Option<i32>, to: &Path) -> Result<()> {
    let namespaces = namespaces.map(|flags| format!("-DUNSHARE={flags}"));
    let options: Vec<&str> = ["-nostdlib"].into_iter().chain(namespaces.as_deref()).collect();
    c("execve_bare", &options, to)
}

/// A file as a new one under its name, whoever runs the old one.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new).with_context(|| format!("copy {}", from.display()))?;
    fs::rename(&new, to).with_context(|| format!("rename {}", new.display()))
}
