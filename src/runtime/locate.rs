// SPDX-License-Identifier: Apache-2.0
//! Which runtime to wrap: by the name the shim was called under, else by the settings, else the first one installed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::unistd::{AccessFlags, access};

use super::{Binary, same_program};
use crate::settings::Settings;

/// Where to look when the caller has no PATH (Podman clears the environment): what `execvp(3)` and Debian's root have.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Looked for in this order when nothing says which.
const KNOWN: [&str; 2] = ["runc", "crun"];

/// The runtime that a shim called as `argv0` hands over to.
///
/// # Errors
/// There is none, or what was asked for is the shim itself.
pub fn runtime(argv0: &OsStr) -> Result<Binary> {
    let own = Binary::at("/proc/self/exe".into()).context("look at the shim's own binary")?;
    if let Some(name) = name_in(argv0) {
        return find(&own, name)
            .with_context(|| format!("called as {}, so the runtime to wrap is {}", argv0.display(), name.display()));
    }
    match Settings::read()?.runtime {
        Some(path) if path.is_absolute() => {
            let binary = match Binary::at(path.clone()) {
                Ok(binary) => binary,
                // Not in the words of the error, by which Podman would take it for a command that the container lacks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    bail!("the runtime in the settings, {}, is not there", path.display())
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("look at {}, the runtime in the settings", path.display()));
                }
            };
            if same_program(&own, &binary) {
                bail!("the runtime in the settings, {}, is tns-shim itself", path.display());
            }
            Ok(binary)
        }
        Some(name) => find(&own, name.as_os_str()).context("look for the runtime in the settings"),
        None => KNOWN.iter().find_map(|name| find(&own, OsStr::new(name)).ok()).with_context(|| {
            format!("there is neither runc nor crun in PATH ({}): install one of them", search_path().display())
        }),
    }
}

/// All of runc and crun that are in PATH.
///
/// # Errors
/// The own binary cannot be looked at.
pub fn installed() -> Result<Vec<Binary>> {
    let own = Binary::at("/proc/self/exe".into()).context("look at the own binary")?;
    Ok(KNOWN.iter().filter_map(|name| find(&own, OsStr::new(name)).ok()).collect())
}

/// The first runtime of that name in PATH that is not the shim.
///
/// # Errors
/// There is none.
pub fn named(name: &OsStr) -> Result<Binary> {
    find(&Binary::at("/proc/self/exe".into()).context("look at the own binary")?, name)
}

/// `tns-shim-crun` and a link named `crun` both ask for crun.
fn name_in(argv0: &OsStr) -> Option<&OsStr> {
    let base = Path::new(argv0).file_name()?.as_bytes();
    let name = base.strip_prefix(b"tns-shim-").unwrap_or(base);
    let is_asked_for = name.len() < base.len() || KNOWN.iter().any(|known| known.as_bytes() == name);
    (is_asked_for && !name.is_empty()).then(|| OsStr::from_bytes(name))
}

/// The first program of that name in PATH that is not the shim.
fn find(own: &Binary, name: &OsStr) -> Result<Binary> {
    let path = search_path();
    if name.as_bytes().contains(&b'/') {
        bail!("{} is neither a name nor an absolute path", name.display());
    }
    let mut saw_itself = false;
    for folder in std::env::split_paths(&path).filter(|folder| folder.is_absolute()) {
        let Ok(binary) = Binary::at(folder.join(name)) else { continue };
        if access(&binary.path, AccessFlags::X_OK).is_err() {
            continue;
        }
        if !same_program(own, &binary) {
            return Ok(binary);
        }
        saw_itself = true;
    }
    if saw_itself {
        bail!("the only {} in PATH ({}) is tns-shim itself", name.display(), path.display());
    }
    bail!("there is no {} in PATH ({})", name.display(), path.display());
}

fn search_path() -> OsString {
    std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_which_runtime() {
        let name = |argv0| name_in(OsStr::new(argv0)).map(|name| name.to_str().unwrap());
        assert_eq!(name("/usr/bin/tns-shim"), None);
        assert_eq!(name("tns-shim-crun"), Some("crun"));
        assert_eq!(name("/x/tns-shim-youki"), Some("youki"));
        assert_eq!(name("/usr/local/bin/runc"), Some("runc"));
        assert_eq!(name("tns-shim-"), None);
        assert_eq!(name("renamed"), None);
    }
}
