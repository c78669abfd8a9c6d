// SPDX-License-Identifier: Apache-2.0
//! Which runtime to wrap: by the name the shim was called under, else by the settings, else the first one installed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::abilities::{self, Kind};
use super::{Binary, helper};
use crate::settings;
use crate::text::printable;

/// Looked for in this order when nothing says which.
const KNOWN: [&str; 2] = ["runc", "crun"];

/// The runtime that a shim called as `argv0` hands over to.
///
/// # Errors
/// There is none, or what was asked for is the shim itself.
pub fn runtime(argv0: &OsStr) -> Result<Binary> {
    let setting = settings::runtime();
    match (name_in(argv0), setting) {
        (Some(name), setting) => of_the_name(name, setting.as_deref())
            .with_context(|| format!("called as {}, so the runtime to wrap is {}", shown(argv0), shown(name))),
        (None, Some(setting)) => set(&setting),
        (None, None) => KNOWN.iter().find_map(|name| find(OsStr::new(name)).ok()).with_context(|| {
            let path = helper::search_path();
            format!("there is neither runc nor crun in PATH ({}): install one of them", shown(&path))
        }),
    }
}

/// All of runc and crun that are in PATH.
pub fn installed() -> Vec<Binary> {
    KNOWN.iter().filter_map(|name| find(OsStr::new(name)).ok()).collect()
}

/// The first runtime of that name in PATH that is not the shim.
///
/// # Errors
/// There is none.
pub fn named(name: &OsStr) -> Result<Binary> {
    find(name)
}

fn shown(text: &OsStr) -> String {
    printable(&text.to_string_lossy(), 1024)
}

/// The name says which runtime. Where the shim has taken its place, the setting can say where that is now: by its own name
/// (`runc.real`), or where that says nothing and no other is found, by what it answers.
fn of_the_name(name: &OsStr, setting: Option<&Path>) -> Result<Binary> {
    if let Some(Ok(binary)) = setting.filter(|setting| is_called(setting, name)).map(set) {
        return Ok(binary);
    }
    let error = match find(name) {
        Ok(binary) => return Ok(binary),
        Err(error) => error,
    };
    let wanted = Kind::of_file(Path::new(name));
    let answers = |binary: &Binary| Kind::of_file(&binary.path).is_none() && Some(abilities::of(binary).kind) == wanted;
    if let Some(binary) = setting.and_then(|setting| set(setting).ok()).filter(answers) {
        return Ok(binary);
    }
    let file = settings::path().map_or("the settings".to_owned(), |path| path.display().to_string());
    match setting {
        Some(setting) => {
            bail!("{error:#}, and `runtime` in {file}, {}, is no {} either", shown(setting.as_os_str()), shown(name))
        }
        None => bail!("{error:#}: where it is can be said by `runtime` in {file}"),
    }
}

/// The file's name is made of words of which one is `name`.
fn is_called(path: &Path, name: &OsStr) -> bool {
    let words =
        |file: &OsStr| file.as_bytes().split(|byte| !byte.is_ascii_alphanumeric()).any(|word| word == name.as_bytes());
    path.file_name().is_some_and(words)
}

/// What the setting `runtime` names.
fn set(setting: &Path) -> Result<Binary> {
    let shown = shown(setting.as_os_str());
    if !setting.is_absolute() {
        return find(setting.as_os_str()).context("look for the runtime in the settings");
    }
    match Binary::candidate(setting.to_owned()) {
        Ok(Some(binary)) => Ok(binary),
        Ok(None) => bail!("the runtime in the settings, {shown}, is tns-shim itself"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("the runtime in the settings, {shown}, is not there")
        }
        Err(error) => Err(error).with_context(|| format!("look at {shown}, the runtime in the settings")),
    }
}

/// `tns-shim-crun` and a link named `crun` both ask for crun.
fn name_in(argv0: &OsStr) -> Option<&OsStr> {
    let base = Path::new(argv0).file_name()?.as_bytes();
    let name = base.strip_prefix(b"tns-shim-").unwrap_or(base);
    let is_asked_for = name.len() < base.len() || KNOWN.iter().any(|known| known.as_bytes() == name);
    (is_asked_for && !name.is_empty()).then(|| OsStr::from_bytes(name))
}

/// The first program of that name in PATH that is not the shim.
fn find(name: &OsStr) -> Result<Binary> {
    let shown_name = shown(name);
    ensure!(!name.as_bytes().contains(&b'/'), "{shown_name} is neither a name nor an absolute path");
    let mut saw_itself = false;
    for path in helper::in_path(name) {
        match Binary::candidate(path) {
            Ok(Some(binary)) => return Ok(binary),
            Ok(None) => saw_itself = true,
            Err(_) => {}
        }
    }
    let path = shown(&helper::search_path());
    ensure!(!saw_itself, "the only {shown_name} in PATH ({path}) is tns-shim itself");
    bail!("there is no {shown_name} in PATH ({path})");
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

    #[test]
    fn a_diverted_runtime_is_known_by_its_file_s_name() {
        let is = |path, name| is_called(Path::new(path), OsStr::new(name));
        assert!(is("/usr/bin/runc.real", "runc") && is("/opt/crun-1.21", "crun") && is("crun", "crun"));
        assert!(!is("/opt/runc/crun", "runc") && !is("/usr/bin/krun", "crun") && !is("/usr/bin/oci", "runc"));
    }
}
