// SPDX-License-Identifier: Apache-2.0
//! The report for people: on one screen of 80 columns. What there is to copy is never cut.

use super::facts::{Criu, Engine, Exec, Facts, Kernel, Log, Mode, Obstacle, Report, Runtime, Settings, Step, Use};
use super::next::{leaves_outside, title};
use crate::ctl::engine::Teller;
use crate::ctl::table;
use crate::settings::LogTo;
use crate::system_log::Listener;

const COLUMNS: usize = 80;

pub(super) fn text(report: &Report) -> String {
    let Report { facts, next, .. } = report;
    let rows = [
        ("kernel", kernel(&facts.kernel)),
        ("CRIU", criu(&facts.criu)),
        ("settings", settings(&facts.settings)),
        ("warnings", log(&facts.log)),
        ("containers", containers(facts)),
        ("needed", needed(facts)),
    ];
    let mut text: String = rows.iter().map(|(label, value)| row(label, value)).collect();
    text.push('\n');
    if !facts.troubles.is_empty() {
        text += &row("runtime", "none to wrap");
    }
    text.extend(facts.runtimes.iter().map(runtime));
    text.push('\n');
    text += &engines(&facts.engines);
    text.push('\n');
    text += &steps(next);
    text
}

/// Lines of words, the first behind `head`, the others as far in.
fn wrapped(head: &str, text: &str) -> String {
    let indent = " ".repeat(head.chars().count());
    let (mut lines, mut line) = (Vec::new(), head.to_owned());
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(std::mem::replace(&mut line, indent.clone()));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines.push(line);
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn row(label: &str, value: &str) -> String {
    wrapped(&format!("{label:<12}"), value)
}

fn kernel(kernel: &Kernel) -> String {
    let release = kernel.release.as_deref().unwrap_or("of an unknown release");
    let most = kernel.max_time_namespaces.map_or(String::new(), |most| format!(" (at most {most})"));
    match (kernel.obstacle, kernel.can_make) {
        (Obstacle::None, Some(true)) => format!("{release}, where time namespaces can be made{most}"),
        (Obstacle::None, _) => {
            format!("{release}, where root, or an engine of your own, can make time namespaces{most}")
        }
        _ => format!("{release}, where no time namespace can be made: {}", kernel.troubles.join("; ")),
    }
}

fn criu(criu: &Criu) -> String {
    let version = criu.version.as_deref().unwrap_or("of an unknown release");
    match (criu.found, criu.time_namespaces) {
        (false, _) => "none in PATH: no checkpoint, no restore".to_owned(),
        (true, Some(true)) => format!("{version}, which knows time namespaces"),
        (true, Some(false)) => format!("{version}, which knows no time namespaces here"),
        (true, None) => format!("{version}; whether it knows time namespaces, only root can ask"),
    }
}

fn settings(settings: &Settings) -> String {
    let file = settings.file.as_deref().unwrap_or("in a file that HOME would name");
    match (settings.there, settings.holds, settings.holds_for_all) {
        (false, ..) if settings.holds => format!("the defaults: there is no {file}"),
        (_, false, _) => format!("do not hold: {}", settings.troubles.join("; ")),
        (_, _, Some(false)) => format!("of {file} hold for root alone"),
        _ => format!("of {file} hold"),
    }
}

fn log(log: &Log) -> String {
    let engine = "in the --log file of the engine";
    match (log.setting, log.listener) {
        (LogTo::None, _) => format!("{engine} alone, because the settings say log = \"none\""),
        (_, Listener::Nobody) => format!("{engine} alone, because nobody listens at /dev/log"),
        (_, Listener::Journal) => "in the system's log: journalctl -t tns-shim".to_owned(),
        (_, Listener::Syslog) => "in the system's log, by syslog: grep tns-shim /var/log/syslog".to_owned(),
    }
}

fn containers(facts: &Facts) -> String {
    let summary = &facts.containers.summary;
    let whose = if facts.containers.complete { "" } else { ", as far as this user can see" };
    let unknown =
        if summary.unknown == 0 { String::new() } else { format!(", {} could not be looked at", summary.unknown) };
    let total = summary.total;
    match summary.at_risk.len() {
        0 if total == 0 => format!("none{whose}"),
        0 => format!("none of {total} at risk{unknown}{whose}"),
        count => format!("{count} of {total} AT RISK{unknown}{whose}"),
    }
}

fn needed(facts: &Facts) -> String {
    let of = |leaves: Option<bool>| {
        let those = facts.runtimes.iter().filter(|runtime| leaves_outside(runtime) == leaves);
        those.map(|runtime| runtime.name.clone()).collect::<Vec<_>>().join(" and ")
    };
    match facts.shim_needed {
        None => "it is not known what exec of the runtime does after a restore".to_owned(),
        Some(true) => {
            format!("yes: exec with {} can leave processes outside of a restored container's time", of(Some(true)))
        }
        Some(false) if facts.runtimes.is_empty() || !facts.kernel.time_namespaces => "not on this kernel".to_owned(),
        Some(false) => format!(
            "not for exec, which {} make join. It still refuses to checkpoint mixed containers, repairs their images, and \
             gives uptime, offsets and restore.clocks",
            of(Some(false))
        ),
    }
}

fn runtime(runtime: &Runtime) -> String {
    let chosen = if runtime.chosen { "" } else { ", not the one that is wrapped" };
    let mode = match runtime.mode {
        Mode::Declare => "declare",
        Mode::Emulate => "emulate",
        Mode::Pass => "pass",
        Mode::Refuse => "refuse",
    };
    let exec = match runtime.exec {
        Exec::Nobody => "nobody: this kernel has no time namespaces",
        Exec::Runtime => "the runtime",
        Exec::RuntimeUnlessUserNamespace => "the runtime, or the shim for a container in a user namespace",
        Exec::RuntimeIfListed => {
            "the runtime where the container's saved configuration lists the namespace, else the shim"
        }
        Exec::Shim => "the shim",
    };
    let mut text = row("runtime", &format!("{} ({}){chosen}", runtime.path, runtime.name));
    text += &wrapped("  new containers           ", &format!("{mode}: {}", runtime.reason));
    text += &wrapped("  exec is made to join by  ", exec);
    for trouble in &runtime.troubles {
        text += &wrapped("  does not tell what it can: ", trouble);
    }
    text
}

fn engines(engines: &[Engine]) -> String {
    if engines.is_empty() {
        return "No engine was found: tns-shim-runc and tns-shim-crun are called directly.\n".to_owned();
    }
    let mut rows = vec![["ENGINE", "VERSION", "TNS-SHIM", "TOLD BY"].map(str::to_owned)];
    for engine in engines {
        let version = engine.version.clone().unwrap_or_else(|| "unknown".to_owned());
        let teller = match engine.told_by {
            Some(Teller::Tnsctl) => "tnsctl enable",
            Some(Teller::Hand) => "hand",
            _ => "",
        };
        rows.push([title(engine), version, used(engine), teller.to_owned()]);
    }
    table::aligned(&rows)
}

fn used(engine: &Engine) -> String {
    match (engine.shim, engine.runtimes.as_slice()) {
        (None, _) => "not known".to_owned(),
        (Some(Use::No), _) if engine.takes_names == Some(false) => "not used: its plugin cri is disabled".to_owned(),
        (Some(Use::ByName), [one]) => format!("by name: {}", one.runtime.name),
        (Some(Use::ByName), [first, others @ ..]) => {
            format!("by name: {} and {} more", first.runtime.name, others.len())
        }
        (Some(Use::Default), _) => "the default runtime".to_owned(),
        _ => "not used".to_owned(),
    }
}

fn steps(steps: &[Step]) -> String {
    if steps.is_empty() {
        return "What to do next: nothing.\n".to_owned();
    }
    let mut text = "What to do next:\n".to_owned();
    for (index, Step { needed, why, commands, .. }) in steps.iter().enumerate() {
        let choice = if *needed { "" } else { "Optional: " };
        text += &wrapped(&format!("{:>2}. ", index + 1), &format!("{choice}{why}."));
        text.extend(commands.iter().map(|command| format!("      {command}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::facts::SCHEMA;
    use super::super::facts::tests::{engine, runtime, well};
    use super::super::next::next;
    use super::*;

    #[test]
    fn a_machine_with_everything_fits_on_a_screen() {
        let mut facts = well();
        facts.root = false;
        facts.runtimes.push(runtime("crun", true));
        facts.engines = ["podman", "containerd", "docker", "cri-o"].map(|name| engine(name, Use::No)).to_vec();
        facts.engines[0].rootless = true;
        facts.containers.summary.at_risk = ["0123456789ab", "web", "db", "x"].map(str::to_owned).to_vec();
        facts.containers.summary.total = 5;
        let text = text(&Report { schema: SCHEMA, next: next(&facts), facts });
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.lines().count() <= 40, "{} lines:\n{text}", text.lines().count());
        assert!(text.contains("containers  4 of 5 AT RISK\n"), "{text}");
        assert!(text.contains("\n      sudo tnsctl inspect --all\n"), "{text}");
        assert!(text.contains("\npodman (your own)  5.4.2    not used\n"), "{text}");
    }

    #[test]
    fn nothing_to_do_is_said() {
        let mut facts = well();
        facts.engines.clear();
        let text = text(&Report { schema: SCHEMA, next: next(&facts), facts });
        assert!(text.ends_with("are called directly.\n\nWhat to do next: nothing.\n"), "{text}");
    }

    #[test]
    fn words_stay_whole_and_lines_short() {
        let text = wrapped("head  ", &"word ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= COLUMNS) && text.lines().count() == 3, "{text}");
        assert!(text.starts_with("head  word word") && text.lines().nth(1).unwrap().starts_with("      word"));
        let long = "x".repeat(100);
        assert_eq!(wrapped("a ", &format!("b {long}")), format!("a b\n  {long}\n"));
    }
}
