// SPDX-License-Identifier: Apache-2.0
//! docs/troubleshooting.md explains every message: whoever looks for one that is printed finds it there, and nothing is there
//! that is printed no longer.
//!
//! A message is every string in src/ that reads like one: it has a word and a space, or it stands where errors and warnings are
//! made (`bail!`, `context(…)`, `log::warn!`, …). By what a string is for it could not be told: reasons are made far from where
//! they are printed. What is no message all the same has to be listed in [`NO_MESSAGES`]; so a new one is either explained or
//! decided about, never forgotten. In the page each stands on a line of its own in a block of ```` ```text ````, as in the source,
//! with … for what is put in; a line that begins with two spaces goes on with the one before.
//!
//! What this does not see:
//! - what others say behind the last colon: the kernel, the wrapped runtime, CRIU, the parsers of TOML and JSON, clap;
//! - a message of one word, or none, outside those places, such as a literal that is joined to others;
//! - whether an explanation is right;
//! - what only `--debug` shows (`log::debug!`) and what is no trouble (`log::info!`), comments, attributes, and tests: a file
//!   is read up to its `#[cfg(test)]`, which therefore comes last.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/troubleshooting.md";

/// Where every string with a letter is a message.
const MAKERS: [&str; 8] = ["bail!", "anyhow!", "ensure!", "context", "warn!", "error!", "malformed", "Stopped"];

/// In these there is none.
const QUIET: [&str; 6] = ["debug!", "info!", "trace!", "debug_assert!", "option_env!", "#"];

/// Strings that read like messages and are none, by file.
const NO_MESSAGES: &[(&str, &[&str])] = &[
    // What messages are made into.
    ("oci_log.rs", &["tns-shim: …", "time=\"…\" level=… msg=…"]),
    ("system_log.rs", &["container …:", "<…>tns-shim[…]: …"]),
    ("ctl/mod.rs", &["tnsctl: …"]),
    ("ctl/hook.rs", &["tns-shim: …", "hook: …"]),
    ("decision.rs", &["…, and …"]),
    ("verbs/restore.rs", &["…, in …"]),
    // What is looked for in messages.
    ("text.rs", &["Permission denied", "(os error 13)", "No such file or directory", "(os error 2)"]),
    // Words for what a reader expects or finds, whose error is replaced by another one.
    ("invocation.rs", &["another verb"]),
    ("json.rs", &["an object", "a key", "an array"]),
    // Labels and cells of tables.
    ("archive/compression.rs", &["not compressed"]),
    ("clocks.rs", &["monotonic …, boottime …"]),
    ("timens.rs", &["monotonic …, boottime …"]),
    ("ctl/config.rs", &["the first of runc and crun in PATH", "(not there)", "file: … … …"]),
    ("ctl/doctor.rs", &["apt-get install", "dnf install", "zypper install", "pacman -S", "apk add"]),
    (
        "ctl/doctor/next.rs",
        &[
            // Commands.
            "sudo …",
            "sudo tnsctl doctor",
            "tnsctl inspect --all",
            "tnsctl config",
            "tnsctl enable …",
            "${EDITOR:-vi} …",
            "chmod a+rX … …",
            "chmod 644 …",
            "chown … …",
            "criu check --feature timens",
            "grep Cap /proc/self/status",
            "grep Seccomp /proc/self/status",
            "sysctl user.max_time_namespaces=…",
            "systemctl reload docker",
            "systemctl restart docker",
            "uname -r",
            // Lists.
            "(your own)",
            "… and … more",
        ],
    ),
    (
        "ctl/doctor/text.rs",
        &[
            "(at most …)",
            ", as far as this user can see",
            ", not the one that is wrapped",
            ", … could not be looked at",
            "… of … AT RISK…",
            "none of … at risk…",
            "What to do next:",
            "What to do next: nothing.",
            "TOLD BY",
            "tnsctl enable",
            "by name: …",
            "by name: … and … more",
            "the default runtime",
            "not known",
            "not used",
            "exec is made to join by",
            "new containers",
            "does not tell what it can:",
            "none to wrap",
            "of an unknown release",
            "of … hold",
            "not on this kernel",
        ],
    ),
    (
        "ctl/images.rs",
        &[
            "a zombie",
            "made by the runtime",
            "made by tns-shim or CRIU",
            "that of the host",
            "…, by tns-shim …",
            "…, … processes",
            "time namespace",
            "…, …, offsets …",
            "runtime, CRIU",
            "kernel, boot",
            "offsets if restored here",
            "on this host's time",
            "TIME NS",
        ],
    ),
    // What is written into engines' configurations, looked for in them, and asked of engines.
    (
        "ctl/engine/containerd.rs",
        &[
            "# Made by `tnsctl enable containerd`, and removed with that unless something is added. Folders",
            "[plugins.\"…\".containerd] default_runtime_name = \"…\"",
            "version =",
            "version = … …",
            "…. version = …",
            "systemctl restart …",
        ],
    ),
    (
        "ctl/engine/containerd/distribution.rs",
        &[
            "{- /* Made by `tnsctl enable containerd`, and removed with that unless something is added. */ -} { template \"base\" . }",
            "# File generated by",
            ". DO NOT EDIT",
            "k3s (k3s-agent on an agent)",
            "rke2-server (rke2-agent on an agent)",
        ],
    ),
    ("ctl/engine/containerd/dump.rs", &["[….options] …", "no BinaryName"]),
    ("ctl/engine/crio.rs", &["[crio.runtime] default_runtime = \"…\" …", "CRI-O's own", "systemctl restart crio"]),
    (
        "ctl/engine/docker.rs",
        &[
            "{json .Runtimes}{json .DefaultRuntime}",
            "\"default-runtime\": \"tns-shim\",",
            "\"runtimes\": { … }",
            "\"…\": { \"path\": \"…\" }",
            "unknown flag: --validate",
            "systemctl … docker",
        ],
    ),
    ("ctl/engine/imports.rs", &["# tns-shim", "imports = [\"…\"]…"]),
    (
        "ctl/engine/own.rs",
        &[
            "# Written by `tnsctl enable",
            "# tns-shim: begin. Written by `tnsctl enable",
            "# tns-shim: end",
            "The line before had no end.",
            ", folders",
            "…`; `tnsctl disable …` removes it. Sum …, folders …. …",
            "…`; `tnsctl disable …` takes it out. Sum ….… … …",
        ],
    ),
    (
        "ctl/engine/podman.rs",
        &[
            "#runtime = \"tns-shim\"",
            "runtime = \"tns-shim\"",
            ", \"/usr/bin/tns-shim",
            "{.Host.OCIRuntime.Name} {.Host.OCIRuntime.Path}",
        ],
    ),
    ("ctl/inspect/all.rs", &["tnsctl: …"]),
    ("ctl/inspect.rs", &["not declared", "PID 1", "(the host's)", "… in …"]),
    ("ctl/progress.rs", &["… […] …/…, … left"]),
    ("ctl/repair.rs", &["undo the repair of", "would be", "CLOCKS JUMP", "TIME NS", "about …"]),
];

/// A string literal, normalised, and the line it begins in.
type Literal = (usize, String);

/// The messages in the text of a source file.
fn messages(source: &str) -> Vec<Literal> {
    let source = source.split("\n#[cfg(test)]\n").next().unwrap_or_default();
    let mut reader = Reader { rest: source.chars().collect(), at: 0, line: 1 };
    let mut found = Vec::new();
    // What each open bracket belongs to: the name before it, with the `!` of a macro.
    let mut open: Vec<String> = Vec::new();
    let mut before = String::new();
    while let Some(letter) = reader.next() {
        match letter {
            '/' if reader.peek() == Some('/') => reader.skip_line(),
            '/' if reader.peek() == Some('*') => reader.skip_block(),
            '"' => {
                let line = reader.line;
                let text = normalised(&reader.string());
                if is_message(&text, &open) {
                    found.push((line, text));
                }
                before.clear();
            }
            '\'' => reader.skip_letter_or_lifetime(),
            '(' | '[' | '{' => {
                open.push(std::mem::take(&mut before));
            }
            ')' | ']' | '}' => {
                open.pop();
                before.clear();
            }
            '!' if !before.is_empty() => before.push('!'),
            '#' => before = String::from('#'),
            letter if letter.is_alphanumeric() || letter == '_' => {
                before = reader.word(letter);
                reader.skip_special_string(&before);
            }
            letter if letter.is_whitespace() => {}
            _ => before.clear(),
        }
    }
    assert_eq!(open, Vec::<String>::new(), "brackets do not match: the scanner has lost its way");
    found
}

fn is_message(text: &str, open: &[String]) -> bool {
    if open.iter().any(|name| QUIET.contains(&name.as_str())) {
        return false;
    }
    let own = text.replace('…', "");
    let has_word = own.split(|letter: char| !letter.is_alphabetic()).any(|word| word.len() > 1);
    let mut around = open.iter().rev().map(String::as_str).filter(|name| *name != "format!");
    let is_made_here = around.next().is_some_and(|name| MAKERS.contains(&name.trim_start_matches("with_")));
    has_word && (text.contains(' ') || is_made_here)
}

/// As it is printed, with … for what is put in, and on one line.
fn normalised(text: &str) -> String {
    let mut printed = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '{' | '}' if letters.peek() == Some(&letter) => printed.extend(letters.next()),
            '{' => {
                // Of two that follow each other nobody can tell where one ends.
                if !printed.ends_with('…') {
                    printed.push('…');
                }
                letters.by_ref().find(|letter| *letter == '}');
            }
            letter => printed.push(letter),
        }
    }
    printed.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Reader {
    rest: Vec<char>,
    at: usize,
    line: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += 1;
        self.line += usize::from(letter == '\n');
        Some(letter)
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|letter| letter != '\n') {
            self.next();
        }
    }

    /// A comment, with those within it.
    fn skip_block(&mut self) {
        let mut depth = 0;
        while let Some(letter) = self.next() {
            match (letter, self.peek()) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) if depth == 0 => break,
                ('*', Some('/')) => depth -= 1,
                _ => continue,
            }
            self.next();
        }
        self.next();
    }

    fn word(&mut self, first: char) -> String {
        let mut word = first.to_string();
        while let Some(letter) = self.peek().filter(|letter| letter.is_alphanumeric() || *letter == '_') {
            word.push(letter);
            self.next();
        }
        word
    }

    /// What is between the quotes, without escapes.
    fn string(&mut self) -> String {
        let mut text = String::new();
        while let Some(letter) = self.next().filter(|letter| *letter != '"') {
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            match self.next() {
                Some('\n') => {
                    while self.peek().is_some_and(char::is_whitespace) {
                        self.next();
                    }
                }
                Some('n') => text.push('\n'),
                Some('"') => text.push('"'),
                Some(escaped) => text.extend(['\\', escaped]),
                None => {}
            }
        }
        text
    }

    /// Of bytes, of C, or raw: no messages are written so.
    fn skip_special_string(&mut self, prefix: &str) {
        if !["r", "b", "br", "c", "cr"].contains(&prefix) {
            return;
        }
        let hashes = self.rest[self.at..].iter().take_while(|letter| **letter == '#').count();
        match self.rest.get(self.at + hashes) {
            Some('"') if prefix.ends_with('r') => {
                let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                self.at += hashes + 1;
                while !self.rest[self.at..].starts_with(&end) {
                    self.next();
                }
                self.at += end.len();
            }
            Some('"') if hashes == 0 => {
                self.next();
                self.string();
            }
            _ => {}
        }
    }

    /// Behind a `'`.
    fn skip_letter_or_lifetime(&mut self) {
        let is_escape = self.peek() == Some('\\');
        if is_escape || self.rest.get(self.at + 1) == Some(&'\'') {
            self.at += usize::from(is_escape) + 1;
            while self.next().is_some_and(|letter| letter != '\'') {}
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// All messages in src/, each with a place where it stands.
fn in_the_sources() -> BTreeMap<String, String> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    files.sort();
    let mut all = BTreeMap::new();
    for file in files {
        let name = file.strip_prefix(root().join("src")).unwrap().to_str().unwrap();
        let exempt: Vec<&str> =
            NO_MESSAGES.iter().filter(|(file, _)| *file == name).flat_map(|(_, texts)| *texts).copied().collect();
        let found = messages(&fs::read_to_string(&file).unwrap());
        for text in &exempt {
            assert!(found.iter().any(|(_, found)| found == text), "{name} has no such string any more: {text}");
        }
        for (line, text) in found.into_iter().filter(|(_, text)| !exempt.contains(&text.as_str())) {
            all.entry(text).or_insert_with(|| format!("src/{name}:{line}"));
        }
    }
    all
}

/// The messages of a page.
fn in_the_page(page: &str) -> BTreeSet<String> {
    let (mut found, mut inside) = (Vec::<String>::new(), false);
    for line in page.lines() {
        match line {
            "```text" => inside = true,
            "```" => inside = false,
            line if inside && line.starts_with("  ") => {
                let last = found.last_mut().expect("a line before one that goes on");
                *last = format!("{last} {}", line.trim());
            }
            line if inside => found.push(line.trim().to_owned()),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    for message in found {
        assert!(!all.contains(&message), "{message}: that is explained twice");
        all.insert(message);
    }
    all
}

#[test]
fn every_message_is_explained_and_nothing_else() {
    let printed = in_the_sources();
    let explained = in_the_page(&fs::read_to_string(root().join(PAGE)).unwrap_or_default());
    let missing: Vec<String> = printed
        .iter()
        .filter(|(text, _)| !explained.contains(*text))
        .map(|(text, at)| format!("{at}: {text}"))
        .collect();
    let stale: Vec<&String> = explained.iter().filter(|text| !printed.contains_key(*text)).collect();
    println!("{} messages", printed.len());
    assert!(
        missing.is_empty() && stale.is_empty(),
        "{PAGE} lacks these messages:\n{}\nand has these, which are printed nowhere:\n{stale:#?}",
        missing.join("\n")
    );
}

#[test]
fn a_message_is_seen_wherever_it_is_made() {
    let texts = |source: &str| messages(source).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    for (source, wanted) in [
        (r#"bail!("no such {}", name);"#, "no such …"),
        (r#"ensure!(a == "b", "odd")"#, "odd"),
        (r#"x.context("chroot")?"#, "chroot"),
        (r#"x.with_context(|| format!("bind"))"#, "bind"),
        (r#"log::warn!("{error:#}; {{or}} not")"#, "…; {or} not"),
        (r#"let why = "the limit is reached";"#, "the limit is reached"),
        (
            r#"Some("is \"it\" \
            here")"#,
            "is \"it\" here",
        ),
        (r#"let quote = '"'; let life: &'static str = "one two"; "#, "one two"),
        (r#"let escape = '\''; "one two"; "#, "one two"),
        ("/* \" /* */ ' */ \"one two\"", "one two"),
        ("r#\"{\"not\": \"this one\"}\"#; b\"nor this\"; \"one two\"", "one two"),
    ] {
        assert_eq!(texts(source), [wanted], "{source}");
    }
    for none in [
        r#"log::debug!("only with --debug: {error}")"#,
        r#"#[serde(rename = "a b")] struct A;"#,
        r#"// "a comment""#,
        r#"map.get("key")"#,
        r#"format!("{a}: {b}")"#,
        "fn a() {}\n#[cfg(test)]\nmod tests { \"in a test\" }",
    ] {
        assert_eq!(texts(none), [""; 0], "{none}");
    }
}

#[test]
fn every_block_of_messages_is_followed_by_what_to_do() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    for block in page.split("```text\n").skip(1) {
        let (messages, rest) = block.split_once("\n```\n").unwrap();
        let next = rest.trim_start();
        assert!(!next.is_empty() || messages.contains("CRIU makes it"), "nothing follows:\n{messages}");
        assert!(!next.starts_with('#'), "nothing is said about:\n{messages}");
    }
}
