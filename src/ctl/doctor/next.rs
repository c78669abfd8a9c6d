// SPDX-License-Identifier: Apache-2.0
//! What to do next: a function of what was found, and of nothing else.
//!
//! A step is needed where the shim cannot do what it is there for, or containers would be lost now; the exit status says whether
//! there is one. All else is offered: that an engine is left alone, and that nothing can be checkpointed, is for people to
//! choose.

use std::ffi::OsStr;
use std::path::Path;

use super::facts::{Engine, Facts, Id, Obstacle, Runtime, Step, Use};
use crate::ctl::engine::Teller;
use crate::runtime::abilities::Kind;
use crate::settings::LogTo;
use crate::system_log::Listener;

/// How many are named.
const MOST_NAMED: usize = 3;
/// As other namespaces have it on machines of some GiB.
const LIMIT: u32 = 65536;

/// All steps, by importance.
pub(super) fn next(facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(containers(facts));
    steps.extend(kernel(facts));
    steps.extend(settings(facts));
    steps.extend(runtime(facts));
    steps.extend(engines(facts));
    steps.extend(criu(facts));
    steps.extend(log(facts));
    if !facts.root {
        let why = "Other users' containers, and what only root may read, were not looked at".to_owned();
        steps.push(offered(Id::AskAsRoot, why, vec!["sudo tnsctl doctor".to_owned()]));
    }
    steps.sort_by_key(|step| (!step.needed, step.id));
    steps
}

fn needed(id: Id, why: String, commands: Vec<String>) -> Step {
    Step { id, needed: true, why, commands }
}

fn offered(id: Id, why: String, commands: Vec<String>) -> Step {
    Step { needed: false, ..needed(id, why, commands) }
}

/// A command for root.
fn by_root(facts: &Facts, command: &str) -> String {
    if facts.root { command.to_owned() } else { format!("sudo {command}") }
}

fn install(facts: &Facts, package: &str) -> Vec<String> {
    let command = facts.installer.map(|installer| by_root(facts, &format!("{installer} {package}")));
    command.into_iter().collect()
}

/// Some names, and how many more there are.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn containers(facts: &Facts) -> Option<Step> {
    let at_risk = &facts.containers.summary.at_risk;
    let why = format!(
        "A checkpoint would lose these now: {}. `tnsctl inspect ID` names the processes that are outside of the container's \
         time: end them before you checkpoint it",
        some(at_risk)
    );
    let command = by_root(facts, "tnsctl inspect --all");
    (!at_risk.is_empty()).then(|| needed(Id::InspectContainers, why, vec![command]))
}

fn kernel(facts: &Facts) -> Option<Step> {
    let words = |text: &str| text.to_owned();
    let (id, why, commands) = match facts.kernel.obstacle {
        Obstacle::None => return None,
        Obstacle::NoTimeNamespaces => {
            let why = "The kernel has no time namespaces: that takes Linux 5.6 with CONFIG_TIME_NS. Until then all containers \
                       are on the host's time, and tns-shim has nothing to do";
            (Id::UpdateKernel, words(why), vec![words("uname -r")])
        }
        Obstacle::LimitIsZero | Obstacle::LimitIsReached => {
            let why = "No more time namespaces may be made. For good: the same in a file in /etc/sysctl.d";
            (Id::RaiseLimit, words(why), vec![by_root(facts, &format!("sysctl user.max_time_namespaces={LIMIT}"))])
        }
        Obstacle::Denied => {
            let why =
                "A seccomp filter or a security module denies time namespaces: call the engine from outside of it";
            (Id::LiftDenial, words(why), vec![words("grep Seccomp /proc/self/status")])
        }
        Obstacle::Other => {
            let why = format!("No time namespace can be made: {}", facts.kernel.troubles.join("; "));
            (Id::LiftDenial, why, vec![words("grep Cap /proc/self/status")])
        }
    };
    Some(needed(id, why, commands))
}

fn settings(facts: &Facts) -> Option<Step> {
    let settings = &facts.settings;
    let file = settings.file.as_deref().unwrap_or_default();
    if settings.holds {
        let why = "Only root may read the settings: they do not hold for users' own engines".to_owned();
        let commands = vec![by_root(facts, &format!("chmod a+rX {} {file}", folder_of(file)))];
        return (settings.holds_for_all == Some(false)).then(|| offered(Id::ShareSettings, why, commands));
    }
    let why = format!("The settings do not hold: {}", settings.troubles.join("; "));
    let owner = if facts.root { "root" } else { "$USER" };
    let commands = if settings.mistaken {
        vec![format!("${{EDITOR:-vi}} {file}")]
    } else {
        [format!("chown {owner} {file}"), format!("chmod 644 {file}")].map(|command| by_root(facts, &command)).to_vec()
    };
    Some(needed(Id::RepairSettings, why, commands))
}

fn folder_of(file: &str) -> String {
    Path::new(file).parent().unwrap_or(Path::new("/")).display().to_string()
}

fn runtime(facts: &Facts) -> Vec<Step> {
    let Some(chosen) = facts.runtimes.iter().find(|runtime| runtime.chosen) else {
        let why = format!("There is no runtime to wrap: {}", facts.troubles.join("; "));
        let commands =
            if facts.runtimes.is_empty() { install(facts, "runc") } else { vec!["tnsctl config".to_owned()] };
        return vec![needed(Id::InstallRuntime, why, commands)];
    };
    let mut steps = Vec::new();
    if !chosen.troubles.is_empty() {
        let why = format!("{} does not tell what it can: {}", chosen.path, chosen.troubles.join("; "));
        steps.push(needed(Id::RepairRuntime, why, vec![format!("{} --version", chosen.path)]));
    }
    // Where the kernel or a mistake in the settings is the reason, that is a step already.
    let is_explained = facts.kernel.obstacle != Obstacle::None || facts.settings.mistaken;
    if !chosen.mode.protects() && !is_explained {
        let why = format!("New containers get no time namespace of their own: {}", chosen.reason);
        steps.push(needed(Id::ChangeMode, why, vec!["tnsctl config".to_owned()]));
    }
    steps
}

fn engines(facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    for engine in &facts.engines {
        let name = title(engine);
        if engine.runtimes.iter().any(|runtime| !runtime.works) {
            let why = format!("{name} has a runtime tns-shim whose program is not there, or is another one");
            steps.push(needed(Id::RepairEngine, why, vec![enable(facts, engine)]));
        }
        if engine.in_force == Some(false) {
            steps.push(reload(facts, engine));
        }
        if engine.shim.is_none() {
            let why = format!("{name} does not tell its runtimes: {}", engine.troubles.join("; "));
            let step = if facts.root || engine.rootless { needed } else { offered };
            steps.push(step(Id::AskEngine, why, vec![by_its_user(facts, engine, question(engine))]));
        }
    }
    steps.extend(enabling(facts));
    steps
}

/// Docker's daemon takes a new runtime by a reload; that one is gone it sees at its start alone.
fn reload(facts: &Facts, engine: &Engine) -> Step {
    let name = title(engine);
    if engine.told_by == Some(Teller::Nobody) {
        let why = format!("{name} works with tns-shim until it is restarted: its configuration has it no more");
        return offered(Id::ReloadEngine, why, vec![by_root(facts, "systemctl restart docker")]);
    }
    let why = format!("{name} has not read its configuration since it was told of tns-shim");
    needed(Id::ReloadEngine, why, vec![by_root(facts, "systemctl reload docker")])
}

/// One step for all engines that have not been told for the same reason.
fn enabling(facts: &Facts) -> Vec<Step> {
    let is_used = facts.engines.iter().any(|engine| matches!(engine.shim, Some(Use::ByName | Use::Default)));
    // One that was told and has not read it has a step of its own.
    let without = facts.engines.iter().filter(|engine| {
        engine.shim == Some(Use::No) && engine.takes_names != Some(false) && engine.in_force != Some(false)
    });
    // Nothing is lost where nothing can be checkpointed.
    let has_checkpoints = facts.criu.found && facts.kernel.time_namespaces;
    let (spared, without): (Vec<&Engine>, Vec<&Engine>) =
        without.partition(|engine| why_spared(facts, engine).is_some());
    let (lose, others): (Vec<&Engine>, Vec<&Engine>) =
        without.into_iter().partition(|engine| has_checkpoints && loses(facts, engine));
    let step = |engines: &[&Engine], step: fn(Id, String, Vec<String>) -> Step, remark: &str| {
        let names: Vec<String> = engines.iter().map(|engine| title(engine)).collect();
        let why = format!("{} not told of tns-shim{remark}", were(&names));
        let commands = engines.iter().map(|engine| enable(facts, engine)).collect();
        (!engines.is_empty()).then(|| step(Id::EnableEngine, why, commands))
    };
    let needs_none = if facts.shim_needed == Some(false) { ", and exec needs none here" } else { "" };
    let risk = ": a container that was restored is lost at its next checkpoint, if anything was executed in it";
    // Where one engine has it, that another one does not is taken for a choice.
    let choice: fn(Id, String, Vec<String>) -> Step = if is_used { offered } else { needed };
    let spared =
        spared.into_iter().map(|engine| step(&[engine], offered, why_spared(facts, engine).unwrap_or_default()));
    [step(&lose, choice, risk), step(&others, offered, needs_none)].into_iter().chain(spared).flatten().collect()
}

/// Why an engine needs no shim for what it is here for, if so.
fn why_spared(facts: &Facts, engine: &Engine) -> Option<&'static str> {
    match engine.name {
        "podman" if engine.rootless => Some(": Podman makes no checkpoints for users, so nothing of theirs is lost"),
        "containerd" if facts.engines.iter().any(|other| other.name == "docker") => {
            Some(": Docker tells containerd which program to call, only pods and `ctr` ask for it by name")
        }
        _ => None,
    }
}

/// Whether what it runs without the shim can be lost by a checkpoint.
fn loses(facts: &Facts, engine: &Engine) -> bool {
    let name = |path: &str| Path::new(path).file_name().map(OsStr::to_os_string);
    let default = engine.default_runtime.as_ref().map(|default| default.program.as_str());
    let is_default = |runtime: &&Runtime| default.is_some_and(|program| name(program) == name(&runtime.path));
    let runtime = facts.runtimes.iter().find(is_default).or(facts.runtimes.iter().find(|runtime| runtime.chosen));
    runtime.is_some_and(|runtime| leaves_outside(runtime) == Some(true))
}

/// Whether a restored container gets processes outside of its time namespace; none if nobody knows.
pub(super) fn leaves_outside(runtime: &Runtime) -> Option<bool> {
    matches!(runtime.kind, Kind::Runc | Kind::Crun).then_some(!runtime.joins_by_itself)
}

fn enable(facts: &Facts, engine: &Engine) -> String {
    let rootless = if engine.rootless { " --rootless" } else { "" };
    by_its_user(facts, engine, &format!("tnsctl enable {}{rootless}", engine.name))
}

fn by_its_user(facts: &Facts, engine: &Engine, command: &str) -> String {
    if engine.rootless { command.to_owned() } else { by_root(facts, command) }
}

/// What the engine is asked by.
fn question(engine: &Engine) -> &'static str {
    match engine.name {
        "containerd" => "containerd config dump",
        "docker" => "dockerd --validate",
        "cri-o" => "crio config",
        _ => "podman info",
    }
}

/// As people call it.
pub(super) fn title(engine: &Engine) -> String {
    let whose = if engine.rootless { " (your own)" } else { "" };
    format!("{}{whose}", engine.name)
}

fn were(names: &[String]) -> String {
    format!("{} {}", names.join(" and "), if names.len() == 1 { "was" } else { "were" })
}

fn criu(facts: &Facts) -> Option<Step> {
    if !facts.criu.found {
        let why = "There is no CRIU: nothing can be checkpointed, and so nothing can be lost".to_owned();
        return Some(offered(Id::InstallCriu, why, install(facts, "criu")));
    }
    let why =
        "This CRIU knows no time namespaces here: a restored container has the host's time. CRIU 3.14 or newer does"
            .to_owned();
    (facts.criu.time_namespaces == Some(false) && facts.kernel.obstacle == Obstacle::None)
        .then(|| offered(Id::UpdateCriu, why, vec![by_root(facts, "criu check --feature timens")]))
}

fn log(facts: &Facts) -> Option<Step> {
    let why = "Nobody listens at /dev/log: warnings are in the engines' own logs alone".to_owned();
    let is_lost = facts.log.setting == LogTo::System && facts.log.listener == Listener::Nobody;
    is_lost.then(|| offered(Id::StartLog, why, install(facts, "rsyslog")))
}

#[cfg(test)]
mod tests {
    use super::super::facts::Mode;
    use super::super::facts::tests::{engine, runtime, well};
    use super::*;
    use crate::timens;

    const NEEDED: bool = true;
    const OFFERED: bool = false;

    type Change = fn(&mut Facts);
    type Wanted = &'static [(Id, bool, &'static [&'static str])];

    /// What is different from where all is well, and what there is to do then.
    const TABLE: &[(&str, Change, Wanted)] = &[
        ("all is well", |_| {}, &[]),
        ("no engine: direct use", |facts| facts.engines.clear(), &[]),
        (
            "containers at risk",
            |facts| facts.containers.summary.at_risk = vec!["web".to_owned()],
            &[(Id::InspectContainers, NEEDED, &["tnsctl inspect --all"])],
        ),
        (
            "an old kernel",
            |facts| {
                facts.kernel.time_namespaces = false;
                facts.kernel.obstacle = Obstacle::NoTimeNamespaces;
                facts.runtimes[0].mode = Mode::Pass;
                facts.engines = vec![engine("podman", Use::No)];
            },
            &[(Id::UpdateKernel, NEEDED, &["uname -r"]), (Id::EnableEngine, OFFERED, &["tnsctl enable podman"])],
        ),
        (
            "the sysctl is 0",
            |facts| {
                facts.kernel.obstacle = Obstacle::LimitIsZero;
                facts.runtimes[0].mode = Mode::Pass;
            },
            &[(Id::RaiseLimit, NEEDED, &["sysctl user.max_time_namespaces=65536"])],
        ),
        (
            "the limit is reached",
            |facts| facts.kernel.obstacle = Obstacle::LimitIsReached,
            &[(Id::RaiseLimit, NEEDED, &["sysctl user.max_time_namespaces=65536"])],
        ),
        (
            "a filter",
            |facts| facts.kernel.obstacle = Obstacle::Denied,
            &[(Id::LiftDenial, NEEDED, &["grep Seccomp /proc/self/status"])],
        ),
        (
            "no right to",
            |facts| facts.kernel.obstacle = Obstacle::Other,
            &[(Id::LiftDenial, NEEDED, &["grep Cap /proc/self/status"])],
        ),
        ("no runtime", |facts| facts.runtimes.clear(), &[(Id::InstallRuntime, NEEDED, &["apt-get install runc"])]),
        (
            "none that the settings name, but others",
            |facts| facts.runtimes[0].chosen = false,
            &[(Id::InstallRuntime, NEEDED, &["tnsctl config"])],
        ),
        (
            "a runtime that does not answer",
            |facts| facts.runtimes[0].troubles = vec!["killed".to_owned()],
            &[(Id::RepairRuntime, NEEDED, &["/usr/bin/runc --version"])],
        ),
        (
            "settings with which nothing is done",
            |facts| facts.runtimes[0].mode = Mode::Pass,
            &[(Id::ChangeMode, NEEDED, &["tnsctl config"])],
        ),
        (
            "a mistake in the settings",
            |facts| {
                facts.settings.holds = false;
                facts.settings.mistaken = true;
                facts.runtimes[0].mode = Mode::Refuse;
            },
            &[(Id::RepairSettings, NEEDED, &["${EDITOR:-vi} /etc/tns-shim/config.toml"])],
        ),
        (
            "settings that anybody can write",
            |facts| facts.settings.holds = false,
            &[(
                Id::RepairSettings,
                NEEDED,
                &["chown root /etc/tns-shim/config.toml", "chmod 644 /etc/tns-shim/config.toml"],
            )],
        ),
        (
            "settings for root alone",
            |facts| facts.settings.holds_for_all = Some(false),
            &[(Id::ShareSettings, OFFERED, &["chmod a+rX /etc/tns-shim /etc/tns-shim/config.toml"])],
        ),
        (
            "no engine uses it",
            |facts| facts.engines = vec![engine("podman", Use::No), engine("docker", Use::No)],
            &[(Id::EnableEngine, NEEDED, &["tnsctl enable podman", "tnsctl enable docker"])],
        ),
        (
            "one of two uses it",
            |facts| facts.engines.push(engine("docker", Use::No)),
            &[(Id::EnableEngine, OFFERED, &["tnsctl enable docker"])],
        ),
        (
            "no engine uses it, and none can lose containers",
            |facts| {
                facts.runtimes = vec![runtime("runc", true)];
                facts.engines = vec![engine("podman", Use::No)];
                facts.shim_needed = Some(false);
            },
            &[(Id::EnableEngine, OFFERED, &["tnsctl enable podman"])],
        ),
        (
            "one engine has a newer runtime",
            |facts| {
                facts.runtimes.push(runtime("crun", true));
                facts.engines = vec![engine("podman", Use::No), engine("docker", Use::No)];
                facts.engines[0].default_runtime.as_mut().unwrap().program = "/usr/libexec/crun".to_owned();
            },
            &[
                (Id::EnableEngine, NEEDED, &["tnsctl enable docker"]),
                (Id::EnableEngine, OFFERED, &["tnsctl enable podman"]),
            ],
        ),
        (
            "no CRIU, so that nothing is lost",
            |facts| {
                facts.criu.found = false;
                facts.engines = vec![engine("podman", Use::No)];
            },
            &[
                (Id::EnableEngine, OFFERED, &["tnsctl enable podman"]),
                (Id::InstallCriu, OFFERED, &["apt-get install criu"]),
            ],
        ),
        (
            "a CRIU without time namespaces",
            |facts| facts.criu.time_namespaces = Some(false),
            &[(Id::UpdateCriu, OFFERED, &["criu check --feature timens"])],
        ),
        (
            "the containerd of Docker",
            |facts| facts.engines = vec![engine("containerd", Use::No), engine("docker", Use::No)],
            &[
                (Id::EnableEngine, NEEDED, &["tnsctl enable docker"]),
                (Id::EnableEngine, OFFERED, &["tnsctl enable containerd"]),
            ],
        ),
        (
            "a containerd that nobody can ask",
            |facts| {
                facts.engines = vec![engine("containerd", Use::No)];
                facts.engines[0].takes_names = Some(false);
            },
            &[],
        ),
        (
            "the shim was moved away",
            |facts| facts.engines[0].runtimes[0].works = false,
            &[(Id::RepairEngine, NEEDED, &["tnsctl enable podman"])],
        ),
        (
            "a daemon that was not told to read its file",
            |facts| {
                facts.engines = vec![engine("docker", Use::No)];
                facts.engines[0].told_by = Some(Teller::Tnsctl);
                facts.engines[0].in_force = Some(false);
            },
            &[(Id::ReloadEngine, NEEDED, &["systemctl reload docker"])],
        ),
        (
            "a daemon that works with what its file has no more",
            |facts| {
                facts.engines = vec![engine("docker", Use::ByName)];
                facts.engines[0].told_by = Some(Teller::Nobody);
                facts.engines[0].in_force = Some(false);
            },
            &[(Id::ReloadEngine, OFFERED, &["systemctl restart docker"])],
        ),
        (
            "an engine that does not answer, and one that was not told",
            |facts| {
                facts.engines.extend([engine("containerd", Use::No), engine("docker", Use::No)]);
                facts.engines[1].shim = None;
            },
            &[
                (Id::AskEngine, NEEDED, &["containerd config dump"]),
                (Id::EnableEngine, OFFERED, &["tnsctl enable docker"]),
            ],
        ),
        (
            "nobody who listens",
            |facts| facts.log.listener = Listener::Nobody,
            &[(Id::StartLog, OFFERED, &["apt-get install rsyslog"])],
        ),
        ("a log that is switched off", |facts| facts.log.setting = LogTo::None, &[]),
        (
            "a user, with the own Podman",
            |facts| {
                facts.root = false;
                facts.kernel.can_make = None;
                facts.engines = vec![engine("podman", Use::No), engine("docker", Use::No), engine("cri-o", Use::No)];
                facts.engines[0].rootless = true;
                facts.engines[2].shim = None;
            },
            &[
                (Id::EnableEngine, NEEDED, &["sudo tnsctl enable docker"]),
                (Id::EnableEngine, OFFERED, &["tnsctl enable podman --rootless"]),
                (Id::AskEngine, OFFERED, &["sudo crio config"]),
                (Id::AskAsRoot, OFFERED, &["sudo tnsctl doctor"]),
            ],
        ),
        (
            "a distribution that is not known",
            |facts| {
                facts.installer = None;
                facts.criu.found = false;
            },
            &[(Id::InstallCriu, OFFERED, &[])],
        ),
        ("told by hand is as good", |facts| facts.engines[0].told_by = Some(Teller::Hand), &[]),
    ];

    #[test]
    fn what_there_is_to_do_is_told_by_what_was_found() {
        for (what, change, wanted) in TABLE {
            let mut facts = well();
            change(&mut facts);
            let steps = next(&facts);
            let found: Vec<_> = steps
                .iter()
                .map(|step| (step.id, step.needed, step.commands.iter().map(String::as_str).collect::<Vec<_>>()))
                .collect();
            let wanted: Vec<_> =
                wanted.iter().map(|(id, needed, commands)| (*id, *needed, commands.to_vec())).collect();
            assert_eq!(found, wanted, "{what}: {steps:#?}");
        }
    }

    #[test]
    fn what_is_needed_comes_first_and_then_what_is_of_more_weight() {
        let mut facts = well();
        facts.root = false;
        facts.containers.summary.at_risk = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        facts.criu.found = false;
        facts.settings.holds = false;
        facts.log.listener = Listener::Nobody;
        let ids: Vec<_> = next(&facts).iter().map(|step| step.id).collect();
        let wanted = [Id::InspectContainers, Id::RepairSettings, Id::InstallCriu, Id::StartLog, Id::AskAsRoot];
        assert_eq!(ids, wanted);
        assert!(next(&facts)[0].why.contains("a, b, c and 2 more"), "{:?}", next(&facts)[0]);
    }

    /// What the decision says of this kernel is what there is to do about it.
    #[test]
    fn whatever_hinders_is_a_step() {
        for kernel in [
            timens::Kernel::NoTimeNamespaces,
            timens::Kernel::MaxIsZero,
            timens::Kernel::AtLimit,
            timens::Kernel::Denied,
        ] {
            let mut facts = well();
            facts.kernel.obstacle = Obstacle::of(kernel);
            facts.runtimes[0].mode = Mode::Pass;
            let steps = next(&facts);
            assert!(steps.len() == 1 && steps[0].needed, "{kernel:?}: {steps:?}");
        }
    }
}
