// SPDX-License-Identifier: Apache-2.0
//! The daemons that run here, and the options that they were started with.

use std::fs;
use std::path::{Path, PathBuf};

/// The processes of that program that run here: not those of another mount namespace, as far as this user may see that.
pub(super) fn all_running(name: &str) -> impl Iterator<Item = PathBuf> {
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes.filter(move |process| {
        fs::read(process.join("comm")).is_ok_and(|comm| comm.trim_ascii_end() == name.as_bytes())
            && fs::read_link(process.join("ns/mnt")).map_or(true, |theirs| own.as_ref() == Some(&theirs))
    })
}

pub(super) fn running(name: &str) -> Option<PathBuf> {
    all_running(name).next()
}

/// The arguments of a process, if it is still there.
pub(super) fn arguments_of(process: &Path) -> Option<Vec<String>> {
    let line = fs::read(process.join("cmdline")).ok()?;
    Some(line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// The arguments of that program, if it runs here.
pub(super) fn arguments_of_running(name: &str) -> Option<Vec<String>> {
    arguments_of(&running(name)?)
}

/// What an option is given, by any of its names: `--option value`, `--option=value`.
pub(super) fn values_of<'a>(arguments: &'a [String], names: &[&str]) -> Vec<&'a str> {
    let mut values = Vec::new();
    for (word, next) in arguments.iter().zip(arguments.iter().skip(1).map(Some).chain([None])) {
        for name in names {
            match word.strip_prefix(name) {
                Some("") => values.extend(next.map(String::as_str)),
                Some(rest) => values.extend(rest.strip_prefix('=')),
                None => {}
            }
        }
    }
    values
}

pub(super) fn value_of<'a>(arguments: &'a [String], names: &[&str]) -> Option<&'a str> {
    values_of(arguments, names).pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_has_the_value_behind_it() {
        let words: Vec<_> = "x -c a --config b --config=c --configs d --config".split(' ').map(str::to_owned).collect();
        assert_eq!(values_of(&words, &["--config", "-c"]), ["a", "b", "c"]);
        assert_eq!(value_of(&words, &["--config", "-c"]), Some("c"));
        assert_eq!(value_of(&words, &["--other"]), None);
    }
}
