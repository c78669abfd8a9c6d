// SPDX-License-Identifier: Apache-2.0
//! Every subcommand of tnsctl has a man page, and every shell completes it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

#[path = "common/skip.rs"]
mod skip;

/// The program that `make docs` runs.
#[allow(dead_code)]
#[path = "../docs/generate.rs"]
mod generate;

/// The subcommands as tnsctl's own help lists them.
fn subcommands(of: &[&str]) -> Vec<String> {
    let help = Command::new(env!("CARGO_BIN_EXE_tnsctl")).args(of).arg("-h").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let Some((_, list)) = help.split_once("Commands:\n") else { return Vec::new() };
    let list = list.lines().take_while(|line| !line.is_empty());
    // A description that is too long goes on in the next line, further in.
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

fn generated() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    generate::write(folder.path()).unwrap();
    folder
}

#[test]
fn every_subcommand_has_a_page_that_the_others_name() {
    let folder = generated();
    let read = |page: &str| {
        let text = fs::read_to_string(folder.path().join("man").join(format!("{page}.1")));
        text.unwrap_or_else(|error| panic!("{page}(1): {error}"))
    };
    let top = read("tnsctl").replace('\\', "");
    let pages: Vec<_> = subcommands(&[]).iter().map(|name| format!("tnsctl-{name}")).collect();
    assert!(pages.contains(&"tnsctl-repair".to_owned()), "{pages:?}");
    assert!(pages.iter().all(|page| top.contains(&format!("\n{page}(1)\n"))), "{pages:?} in\n{top}");
    for page in pages.iter().map(String::as_str).chain(["tnsctl-hook-precreate"]) {
        assert!(read(page).contains(".SH SYNOPSIS\n"), "{page}");
        assert!(top.contains(&format!(".BR {page} (1)")), "{page} is not in\n{top}");
    }
}

/// Runs a script in a shell, and tells what it prints; none if the shell is not here.
fn run(shell: &str, arguments: &[&str], script: &str) -> Option<String> {
    let mut command = Command::new("timeout");
    let made = command.args(["60", shell]).args(arguments).args(["-c", script]).env("TERM", "dumb").output().unwrap();
    if made.status.code() == Some(127) {
        return skip::skip(&format!("there is no {shell}"));
    }
    Some(String::from_utf8_lossy(&made.stdout).into_owned() + &String::from_utf8_lossy(&made.stderr))
}

/// Asks a shell what may follow, at the top and in a subcommand. `ask` makes the script from the file with the completions and the
/// line that was typed.
fn ask(shell: &str, arguments: &[&str], file: &str, ask: impl Fn(&Path, &str) -> String) {
    let folder = generated();
    let file = folder.path().join("completions").join(file);
    let flags = ["--output", "--undo", "--dry-run", "--json"].map(str::to_owned);
    for (line, wanted) in [
        ("tnsctl ", subcommands(&[])),
        ("tnsctl hook ", subcommands(&["hook"])),
        ("tnsctl insp", vec!["inspect".to_owned()]),
        ("tnsctl repair --", flags.to_vec()),
    ] {
        assert!(!wanted.is_empty(), "{line}");
        let Some(offered) = run(shell, arguments, &ask(&file, line)) else { return };
        for word in wanted {
            let is_word = |text: &&str| text.trim_matches(|letter: char| letter.is_control()) == word;
            assert!(offered.split_whitespace().any(|text| is_word(&text)), "{shell}, {line}: no {word} in\n{offered}");
        }
    }
}

#[test]
fn bash_completes_every_subcommand() {
    ask("bash", &["--norc"], "bash/tnsctl", |file, line| {
        let words: Vec<_> = line.split(' ').collect();
        let [.., before, last] = &words[..] else { panic!("{line}") };
        format!(
            "source {}; complete -p tnsctl; COMP_WORDS=({}'{last}'); COMP_CWORD={}; COMPREPLY=()
             _tnsctl tnsctl '{last}' '{before}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            file.display(),
            line.strip_suffix(last).unwrap(),
            words.len() - 1,
        )
    });
}

#[test]
fn fish_completes_every_subcommand() {
    ask("fish", &["--no-config"], "fish/tnsctl.fish", |file, line| {
        format!("source {}; complete -C '{line}'", file.display())
    });
}

/// zsh completes only for somebody who types, on a terminal.
#[test]
fn zsh_completes_every_subcommand() {
    ask("zsh", &["-f"], "zsh/_tnsctl", |file, line| {
        format!(
            r#"zmodload zsh/zpty
            zpty shell TERM=dumb zsh -f -i
            say() {{ zpty -w -n shell "$1"; zpty -r shell heard "*$2*"; print -rn -- $heard }}
            begin='PROMPT=; LISTMAX=0; stty columns 200; fpath=({} $fpath); autoload -Uz compinit; compinit -u -D'
            say "$begin; print REA"\"\"$'DY\n' READY >/dev/null
            say {line:?}$'\t\C-aprint "SA""ID" \n' SAID"#,
            file.parent().unwrap().display(),
        )
    });
}
