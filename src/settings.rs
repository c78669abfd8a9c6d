// SPDX-License-Identifier: Apache-2.0
//! The settings file: /etc/tns-shim/config.toml, or the user's own when not root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::geteuid;
use serde::Deserialize;

/// Set when building, see the Makefile.
const SYSTEM_FOLDER: &str = match option_env!("SYSCONFDIR") {
    Some(folder) => folder,
    None => "/etc",
};

/// What can be set.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The runtime to wrap: an absolute path, or a name to look for in PATH.
    pub runtime: Option<PathBuf>,
}

impl Settings {
    /// Reads the file; there need not be one.
    ///
    /// # Errors
    /// It cannot be read, or holds an unknown key or a bad value; the message names the line.
    pub fn read() -> Result<Self> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        toml::from_str(&text).with_context(|| format!("understand {}", path.display()))
    }
}

/// Where the file is. Root's place does not follow the environment, which whoever calls could have set.
pub fn path() -> Option<PathBuf> {
    if geteuid().is_root() {
        return Some(Path::new(SYSTEM_FOLDER).join("tns-shim/config.toml"));
    }
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("tns-shim/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_that_names_it_and_its_line() {
        let error = toml::from_str::<Settings>("runtime = \"crun\"\nruntmie = \"runc\"\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("runtmie"), "{error}");
    }
}
