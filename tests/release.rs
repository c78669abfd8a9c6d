// SPDX-License-Identifier: Apache-2.0
//! A release has one version, wherever it is written, and says where it is from.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is between the two in the first line that begins with the former.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let line =
        text.lines().find(|line| line.starts_with(before)).unwrap_or_else(|| panic!("nothing begins with {before}"));
    let rest = &line[before.len()..];
    rest.split_once(after).map_or(rest, |(version, _)| version).trim()
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn packages_are_of_this_version() {
    for (file, before, after) in [
        ("contrib/debian/changelog", "tns-shim (", "-"),
        ("contrib/rpm/tns-shim.spec", "Version:", "\n"),
        ("contrib/arch/PKGBUILD", "pkgver=", "\n"),
    ] {
        assert_eq!(between(&read(file), before, after), VERSION, "{file}");
    }
}

#[test]
fn the_newest_changes_are_of_this_version_or_unreleased() {
    let changes = read("CHANGELOG.md");
    let newest = between(&changes, "## ", " ");
    assert!(newest == "Unreleased" || newest == VERSION, "{newest}");
}

/// Until it is decided, this stands for an address, and nobody can write to it.
#[test]
fn a_release_has_an_address_and_a_place() {
    let newest = between(&read("CHANGELOG.md"), "## ", " ").to_owned();
    for (file, place) in [
        ("contrib/debian/control", "\nHomepage: "),
        ("contrib/rpm/tns-shim.spec", "\nURL: "),
        ("contrib/arch/PKGBUILD", "\nurl="),
    ] {
        let text = read(file);
        assert_ne!(text.contains("@tns-shim.example>"), text.contains(place), "{file}: one without the other");
        assert!(newest == "Unreleased" || text.contains(place), "{file}: RELEASE.md says what is missing");
    }
}

#[test]
fn the_fuzzers_are_locked_to_this_version() {
    let locked = read("fuzz/Cargo.lock");
    let (_, package) = locked.split_once("name = \"tns-shim\"\n").unwrap();
    assert_eq!(between(package, "version = \"", "\""), VERSION);
}
