// SPDX-License-Identifier: Apache-2.0
//! `tnsctl doctor`: what there is on this machine, what the shim does with it, and what is to be done. It changes and starts
//! nothing.

mod facts;
mod next;
mod text;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nix::unistd::geteuid;

use self::facts::{
    Containers, Criu, Engine, Exec, Facts, Kernel, Log, Mode, Named, Obstacle, Report, Runtime, SCHEMA, Settings, Use,
};
use super::engine::containerd::Containerd;
use super::engine::crio::Crio;
use super::engine::docker::Docker;
use super::engine::podman::Podman;
use super::engine::{self, NotInstalled, Standing};
use super::inspect::all::Summary;
use super::{Verdict, print};
use crate::bundle::{Declared, PidNamespace, View};
use crate::decision::{self, Action, ConfigFacts, Decision};
use crate::runtime::abilities::{self, Abilities, Version};
use crate::runtime::{Binary, criu};
use crate::settings::{self, Annotations, Wanted};
use crate::system_log;
use crate::text::printable;
use crate::timens::{self, Offsets};

/// An engine that takes longer to answer than this tells nothing.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(runtime: Option<&Path>, json: bool) -> Result<Verdict> {
    let chosen = super::runtime(runtime);
    let (chosen, troubles) = match chosen {
        Ok(binary) => (Some(binary), Vec::new()),
        Err(error) if runtime.is_some() => return Err(error),
        Err(error) => (None, vec![format!("{error:#}")]),
    };
    let root = geteuid().is_root();
    let summary = Summary::look();
    let complete = root && summary.troubles.is_empty() && summary.unknown == 0;
    let engines = engines(root);
    let criu = look_at_criu(root);
    let others = runtime.is_none().then(installed).into_iter().flatten();
    let others: Vec<_> = others.filter(|other| chosen.as_ref().is_none_or(|chosen| !is_same(chosen, other))).collect();
    let offered = timens::Kernel::try_out();
    // Last, because it leaves this process in a new namespace.
    let kernel = kernel(root, offered);
    let runtime = |binary: &Binary, is_chosen| look_at_runtime(binary, is_chosen, offered, &kernel);
    let runtimes: Vec<_> = chosen
        .iter()
        .map(|chosen| runtime(chosen, true))
        .chain(others.iter().map(|other| runtime(other, false)))
        .collect();
    let facts = Facts {
        root,
        shim_needed: shim_needed(&kernel, &runtimes),
        kernel,
        criu,
        settings: look_at_settings(),
        log: look_at_log(),
        containers: Containers { summary, complete },
        runtimes,
        engines,
        troubles,
        installer: fs::read_to_string("/etc/os-release").ok().and_then(|text| installer(&text)),
    };
    let next = next::next(&facts);
    let report = Report { schema: SCHEMA, facts, next };
    print(&report, json, text::text)?;
    Ok(if report.next.iter().any(|step| step.needed) { Verdict::Bad } else { Verdict::Good })
}

fn is_same(one: &Binary, other: &Binary) -> bool {
    let file = |binary: &Binary| (binary.identity.device, binary.identity.inode);
    file(one) == file(other)
}

/// The first runc and the first crun, also in folders that engines have in their PATH, and this user has not.
fn installed() -> Vec<Binary> {
    ["runc", "crun"].iter().filter_map(|name| engine::programs(name).find_map(|path| Binary::at(path).ok())).collect()
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy(), 1024)
}

fn look_at_runtime(binary: &Binary, chosen: bool, offered: timens::Kernel, kernel: &Kernel) -> Runtime {
    let (abilities, troubles) = match abilities::probe(&binary.path) {
        Ok(abilities) => (abilities, Vec::new()),
        Err(error) => (Abilities::of_the_oldest(&binary.path), vec![format!("{error:#}")]),
    };
    let Decision { action, reason, .. } = match settings::Settings::read() {
        Ok(settings) => new_container(offered, kernel, abilities, &settings),
        Err(mistake) => Decision { action: Action::Refuse, reason: format!("{mistake:#}").into(), hindered: false },
    };
    let mode = match action {
        Action::Refuse => Mode::Refuse,
        Action::Declare { .. } => Mode::Declare,
        Action::Emulate { .. } => Mode::Emulate,
        _ => Mode::Pass,
    };
    let exec = match (abilities.exec_joins(false, false), abilities.exec_joins(true, false)) {
        _ if !kernel.time_namespaces => Exec::Nobody,
        _ if abilities.joins_by_itself() || abilities.exec_joins(false, true) => Exec::Runtime,
        (true, _) => Exec::RuntimeUnlessUserNamespace,
        (false, true) => Exec::RuntimeIfListed,
        (false, false) => Exec::Shim,
    };
    Runtime {
        path: shown(&binary.path),
        kind: abilities.kind,
        version: abilities.version.as_ref().map(Version::to_string),
        chosen,
        lists_time: abilities.lists_time,
        declares: abilities.declares(),
        joins_by_itself: abilities.joins_by_itself(),
        exec,
        mode,
        reason: reason.into_owned(),
        troubles,
        name: abilities.to_string(),
    }
}

/// The decision about a container that says nothing of time namespaces itself.
fn new_container(
    offered: timens::Kernel,
    kernel: &Kernel,
    runtime: Abilities,
    settings: &settings::Settings,
) -> Decision {
    let view = View::Understood { declared: Declared::No, pid: PidNamespace::New, user_namespace: false };
    let Wanted { mode, shift, .. } = Wanted::of(settings, Annotations::default());
    let decision = decision::create(ConfigFacts { kernel: offered, runtime, view, writable: true, mode, shift });
    match decision.action {
        Action::Emulate { .. } if kernel.can_make == Some(false) => Decision::hindered(kernel.troubles.join("; ")),
        _ => decision,
    }
}

fn shim_needed(kernel: &Kernel, runtimes: &[Runtime]) -> Option<bool> {
    if !kernel.time_namespaces {
        return Some(false);
    }
    let all: Vec<_> = runtimes.iter().map(next::leaves_outside).collect();
    match all.contains(&Some(true)) {
        true => Some(true),
        false if all.is_empty() || all.contains(&None) => None,
        false => Some(false),
    }
}

/// A user who may make none can have an engine that makes them, in a user namespace: that is what `offered` is about.
fn kernel(root: bool, offered: timens::Kernel) -> Kernel {
    let trimmed = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let own_namespace = timens::Id::own().ok().map(|id| id.to_string());
    let own_offsets = Offsets::of_process("self").ok();
    let made = (root || timens::may_make()).then(timens::make);
    let obstacle = match Obstacle::of(offered) {
        Obstacle::None if matches!(made, Some(Err(_))) => Obstacle::Other,
        obstacle => obstacle,
    };
    let error = made.as_ref().and_then(|made| made.as_ref().err()).map(|error| format!("{error:#}"));
    let why = offered.obstacle().map(str::to_owned).or(error);
    Kernel {
        release: trimmed("/proc/sys/kernel/osrelease"),
        time_namespaces: timens::Kernel::look() != timens::Kernel::NoTimeNamespaces,
        max_time_namespaces: trimmed("/proc/sys/user/max_time_namespaces").and_then(|text| text.parse().ok()),
        can_make: made.map(|made| made.is_ok()),
        obstacle,
        troubles: why.into_iter().collect(),
        own_namespace,
        own_offsets,
    }
}

fn look_at_criu(root: bool) -> Criu {
    let Some(program) = engine::programs("criu").next() else {
        return Criu { found: false, version: None, time_namespaces: None };
    };
    let program = program.as_os_str();
    let has_time = criu::output(program, &["check", "--feature", "timens"]).is_some();
    // To others it says no.
    Criu { found: true, version: criu::version(program), time_namespaces: (root || has_time).then_some(has_time) }
}

fn look_at_settings() -> Settings {
    let path = settings::path();
    let trouble = settings::trouble();
    Settings {
        there: path.as_deref().is_some_and(Path::exists),
        file: path.as_deref().map(shown),
        holds: trouble.is_none(),
        holds_for_all: settings::holds_for_all(),
        troubles: trouble.map(str::to_owned).into_iter().collect(),
        mistaken: settings::is_mistaken(),
    }
}

fn look_at_log() -> Log {
    let (setting, listener) = (settings::log_to(), system_log::listener());
    let seen = setting == settings::LogTo::System && listener != system_log::Listener::Nobody;
    Log { setting, listener, seen }
}

/// Those that are here. A user has a Podman of their own.
fn engines(root: bool) -> Vec<Engine> {
    let all = [
        ("podman", Podman::find(!root, PATIENCE).map(boxed)),
        ("containerd", Containerd::find(None, None, PATIENCE).map(boxed)),
        ("docker", Docker::find(None, None, PATIENCE).map(boxed)),
        ("cri-o", Crio::find(PATIENCE).map(boxed)),
    ];
    let rootless = |name: &str| name == "podman" && !root;
    all.into_iter().filter_map(|(name, found)| look_at_engine(name, rootless(name), found)).collect()
}

fn boxed<T: engine::Engine + 'static>(engine: T) -> Box<dyn engine::Engine> {
    Box::new(engine)
}

fn look_at_engine(name: &'static str, rootless: bool, found: Result<Box<dyn engine::Engine>>) -> Option<Engine> {
    let unknown = Engine {
        name,
        rootless,
        path: None,
        version: None,
        shim: None,
        told_by: None,
        runtimes: Vec::new(),
        default_runtime: None,
        takes_names: None,
        in_force: None,
        troubles: Vec::new(),
    };
    let trouble = |error: &anyhow::Error| vec![format!("{error:#}")];
    let found = match found {
        Ok(found) => found,
        Err(error) if error.is::<NotInstalled>() => return None,
        Err(error) => return Some(Engine { troubles: trouble(&error), ..unknown }),
    };
    let (path, version) = (Some(shown(&found.program().path)), Some(found.program().version.clone()));
    let unknown = Engine { path, version, ..unknown };
    let Standing { default, ours, told_by, in_force, closed } = match found.standing() {
        Ok(standing) => standing,
        Err(error) => return Some(Engine { troubles: trouble(&error), ..unknown }),
    };
    let shim = match &default {
        Some(default) if ours.contains(default) => Use::Default,
        _ if ours.is_empty() => Use::No,
        _ => Use::ByName,
    };
    Some(Engine {
        shim: Some(shim),
        told_by: Some(told_by),
        runtimes: ours.into_iter().map(|runtime| Named { works: runtime.is_shim(), runtime }).collect(),
        default_runtime: default,
        takes_names: Some(closed.is_none()),
        in_force,
        troubles: closed.map(str::to_owned).into_iter().collect(),
        ..unknown
    })
}

/// What installs packages, by os-release(5).
fn installer(os_release: &str) -> Option<&'static str> {
    let value = |key: &str| {
        let lines = os_release.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(found, _)| *found == key).map(|(_, value)| value.trim_matches(['"', '\'']).to_owned()).next()
    };
    let names = [value("ID"), value("ID_LIKE")].into_iter().flatten().collect::<Vec<_>>().join(" ");
    names.split_whitespace().find_map(|name| match name {
        "debian" | "ubuntu" => Some("apt-get install"),
        "fedora" | "rhel" | "centos" => Some("dnf install"),
        "suse" | "opensuse" => Some("zypper install"),
        "arch" => Some("pacman -S"),
        "alpine" => Some("apk add"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_installs_packages_is_told_by_the_distribution_or_its_like() {
        for (text, wanted) in [
            ("NAME=x\nID=debian\n", Some("apt-get install")),
            ("ID=rocky\nID_LIKE=\"rhel centos fedora\"\n", Some("dnf install")),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Some("zypper install")),
            ("ID=own\n", None),
            ("", None),
        ] {
            assert_eq!(installer(text), wanted, "{text}");
        }
    }
}
