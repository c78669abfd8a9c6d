// SPDX-License-Identifier: Apache-2.0
//! What the documentation points to is there: files, headings, targets of make. And every page that shows commands is one whose commands
//! tests/guides/run runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of these kinds that are a part of the project, in the top folder, docs/ and contrib/.
fn pages(kinds: &[&str]) -> Vec<PathBuf> {
    fn collect(folder: &Path, deep: bool, kinds: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if deep {
                    collect(&path, deep, kinds, found);
                }
            } else if kinds.iter().any(|kind| path.extension().is_some_and(|extension| extension == *kind)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(root(), false, kinds, &mut found);
    collect(&root().join("docs"), true, kinds, &mut found);
    collect(&root().join("contrib"), true, kinds, &mut found);
    found.sort();
    assert!(found.len() > 5, "{found:?}");
    found
}

/// Relative to the top folder.
fn name(path: &Path) -> &str {
    path.strip_prefix(root()).unwrap().to_str().unwrap()
}

/// The lines outside of blocks of code, without what stands between backticks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.extend(line.split('`').step_by(2));
        }
        kept.push('\n');
    }
    kept
}

/// The kind of each block of code, and its text.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let inside: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((kind, inside.join("\n")));
        }
    }
    found
}

/// The names by which the headings of Markdown are linked to.
fn anchors(text: &str) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        }
        let Some(heading) = line.strip_prefix('#').filter(|_| !inside) else { continue };
        let heading = heading.trim_start_matches('#').trim();
        let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let count = seen.entry(anchor.clone()).or_insert(0);
        found.push(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    found
}

/// What is wrong with a link in that page, if anything is. Of another host's only the form is looked at.
fn mistake(page: &Path, link: &str) -> Option<String> {
    if let Some(rest) = link.strip_prefix("https://") {
        let host = rest.split('/').next().unwrap_or_default();
        let is_well = host.contains('.') && !link.contains(|letter: char| letter.is_whitespace() || letter == '<');
        return (!is_well).then(|| "is no address".to_owned());
    }
    if link.contains("://") {
        return Some("is not https".to_owned());
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { page.to_owned() } else { page.with_file_name(file) };
    if !target.exists() {
        return Some("leads to no file".to_owned());
    }
    let is_there = heading.is_empty() || anchors(&read(&target)).iter().any(|anchor| anchor == heading);
    (!is_there).then(|| "leads to no heading".to_owned())
}

#[test]
fn links_lead_somewhere() {
    let mut mistakes = Vec::new();
    for page in pages(&["md"]) {
        let text = prose(&read(&page));
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap();
            if let Some(mistake) = mistake(&page, link) {
                mistakes.push(format!("{}: {link} {mistake}", name(&page)));
            }
        }
    }
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn a_link_is_checked_for_what_it_is() {
    let page = root().join("docs/faq.md");
    for (link, wanted) in [
        ("troubleshooting.md#the-container-is-gone", None),
        ("#docker-295-gives-every-container-a-time-namespace-what-then", None),
        ("../README.md", None),
        ("guides", None),
        ("https://github.com/moby/moby/pull/52326", None),
        ("troubleshooting.md#the-container-is-back", Some("leads to no heading")),
        ("trouble.md", Some("leads to no file")),
        ("http://example.org/", Some("is not https")),
        ("https://nowhere", Some("is no address")),
    ] {
        assert_eq!(mistake(&page, link).as_deref(), wanted, "{link}");
    }
    assert_eq!(
        anchors("# A `b`: c_d\n## A b c_d\n```\n# no\n```\n## A b c_d\n"),
        ["a-b-c_d", "a-b-c_d-1", "a-b-c_d-2"]
    );
    assert_eq!(prose("[a](b) `[c](d)`\n```\n[e](f)\n```\n").trim(), "[a](b)");
}

/// What follows `make ` in code, as far as it may be a target.
fn targets(code: &str) -> Vec<&str> {
    let words = code.split(|letter: char| letter.is_whitespace() || letter == '`');
    let mut words = words.skip_while(|word| *word != "make").skip(1);
    let mut found: Vec<_> = words
        .by_ref()
        .take_while(|word| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') && !word.is_empty())
        .collect();
    let rest: Vec<_> = words.collect();
    if let Some(again) = rest.iter().position(|word| *word == "make") {
        found.extend(rest.get(again + 1));
    }
    found
}

#[test]
fn every_target_of_make_that_is_named_is_in_the_makefile() {
    let makefile = read(&root().join("Makefile"));
    let is_there = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let mut count = 0;
    for page in pages(&["md", "scd"]) {
        let text = read(&page);
        let spans = text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
        let lines: Vec<_> = blocks(&text).into_iter().filter(|(kind, _)| *kind == "sh").collect();
        let lines = lines.iter().flat_map(|(_, block)| block.lines().map(|line| line.split('#').next().unwrap()));
        for code in spans.chain(lines) {
            for target in targets(code) {
                assert!(is_there(target), "{}: make {target}", name(&page));
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} were found");
    assert_eq!(targets("make lint unit"), ["lint", "unit"]);
    assert_eq!(targets("make build && sudo make install"), ["build", "install"]);
    assert_eq!(targets("make build STATIC="), ["build"]);
    assert_eq!(targets("cmake x"), [""; 0]);
}

#[test]
fn every_page_that_shows_commands_is_walked() {
    let run = read(&root().join("tests/guides/run"));
    for page in pages(&["md", "scd"]) {
        let text = read(&page);
        let is_run = |(kind, block): &(&str, String)| match *kind {
            "sh" => true,
            "console" => block.lines().any(|line| line.starts_with("$ ")),
            _ => false,
        };
        let shows = blocks(&text).iter().any(is_run) || text.contains("\n; sh\n");
        let is_walked = run.lines().any(|line| line.starts_with(&format!("{} ", name(&page))));
        assert_eq!(shows, is_walked, "{} shows commands, tests/guides/run has it", name(&page));
    }
}
