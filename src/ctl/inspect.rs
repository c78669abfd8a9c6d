// SPDX-License-Identifier: Apache-2.0
//! `tnsctl inspect`: do a container's processes agree about time?

pub(super) mod all;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::Serialize;

use super::{Verdict, print, table};
use crate::container::{self, State};
use crate::runtime::abilities::Kind;
use crate::text::printable;
use crate::timens::{Id, Offsets};
use crate::tree::{self, Groups, Task};

#[derive(Serialize)]
struct Report {
    /// None where it was asked for by PID.
    container: Option<Container>,
    pid: i32,
    #[serde(flatten)]
    time: Time,
    /// None where the kernel has no time namespaces.
    processes: Vec<Process>,
    /// Every process is in the namespace of PID 1, and so will its children be.
    agree: bool,
}

/// All null where the kernel has no time namespaces.
#[derive(Default, Serialize)]
struct Time {
    /// As the kernel shows it: `time:[4026531834]`.
    namespace: Option<String>,
    offsets: Option<Offsets>,
    /// That of whoever asks.
    host_namespace: Option<String>,
}

#[derive(Serialize)]
struct Container {
    id: String,
    /// The runtime's file about it.
    state: PathBuf,
    /// Whether the runtime was told of a time namespace; unknown where its saved configuration cannot be read.
    declared: Option<bool>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Process {
    pid: i32,
    command: String,
    namespace: String,
    namespace_for_children: String,
    /// Below PID 1, so CRIU would dump it. Others are in the container's control group only.
    in_tree: bool,
    agrees: bool,
    /// Who it agrees with instead.
    note: &'static str,
}

pub(super) fn run(name: &str, roots: Vec<PathBuf>, json: bool) -> Result<Verdict> {
    let (container, pid) = find(name, roots)?;
    let (time, processes) = match host()? {
        Some(host) => look(pid, host)?,
        None => (Time::default(), Vec::new()),
    };
    let agree = processes.iter().all(|process| process.agrees);
    let report = Report { container, pid, time, processes, agree };
    print(&report, json, text)?;
    Ok(if agree { Verdict::Good } else { Verdict::Bad })
}

/// The time namespace of whoever asks; none where the kernel has none.
fn host() -> Result<Option<Id>> {
    match Id::own() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        own => own.map(Some).context("look at the own time namespace"),
    }
}

const NO_TIME_NAMESPACES: &str = "This kernel has no time namespaces: all processes are on the host's time.";

fn look(pid: i32, host: Id) -> Result<(Time, Vec<Process>)> {
    let namespace = Id::of_process(pid).with_context(|| format!("look at the time namespace of PID {pid}"))?;
    let offsets = Offsets::of_process(pid).with_context(|| format!("read the clock offsets of PID {pid}"))?;
    let processes = processes(pid, namespace, host, &Groups::look()?)?;
    let time =
        Time { namespace: Some(namespace.to_string()), offsets: Some(offsets), host_namespace: Some(host.to_string()) };
    Ok((time, processes))
}

/// The container of that id, else the process of that number.
fn find(name: &str, roots: Vec<PathBuf>) -> Result<(Option<Container>, i32)> {
    let searched = if roots.is_empty() { known_roots() } else { roots };
    for root in &searched {
        for kind in [Kind::Runc, Kind::Crun] {
            let Ok(folder) = container::folder(kind, Some(root.as_os_str()), OsStr::new(name)) else { continue };
            let Some(state) = State::read(kind, &folder)? else { continue };
            let init = state.prove().with_context(|| format!("find PID 1 of {name}"))?;
            let declared = match kind {
                Kind::Runc => Some(state.lists_time),
                _ => crun_declared(&folder),
            };
            let container = Container { id: name.to_owned(), state: state.file.clone(), declared };
            return Ok((Some(container), init.pid));
        }
    }
    match name.parse() {
        Ok(pid) if Path::new("/proc").join(name).exists() => Ok((None, pid)),
        _ => {
            let roots: Vec<String> = searched.iter().map(|root| root.display().to_string()).collect();
            bail!(
                "there is no container {name} in {}: name the runtime's folder with --root, or give its PID",
                roots.join(", ")
            )
        }
    }
}

/// The runtimes' own places, and those that containerd and Docker give them.
fn known_roots() -> Vec<PathBuf> {
    let mut roots = vec![container::default_root(Kind::Runc), container::default_root(Kind::Crun)];
    for parent in ["/run/containerd/runc", "/run/docker/runtime-runc", "/run/docker/runtime-tns-shim"] {
        roots.extend(fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    roots
}

fn crun_declared(folder: &Path) -> Option<bool> {
    let spec = Spec::load(folder.join("config.json")).ok()?;
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    Some(namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Time))
}

/// All processes of the container with that PID 1, which is in `namespace`.
fn processes(init: i32, namespace: Id, host: Id, groups: &Groups) -> Result<Vec<Process>> {
    Ok(tasks(init, groups)?.into_iter().map(|(task, in_tree)| process(task, in_tree, namespace, host)).collect())
}

/// All processes by PID, and whether each is below PID 1.
fn tasks(init: i32, groups: &Groups) -> Result<Vec<(Task, bool)>> {
    let mut tasks: BTreeMap<i32, (Task, bool)> =
        tree::below(init, |_| true)?.into_iter().map(|task| (task.pid, (task, true))).collect();
    for task in groups.of(init)? {
        tasks.entry(task.pid).or_insert((task, false));
    }
    Ok(tasks.into_values().collect())
}

fn process(task: Task, in_tree: bool, namespace: Id, host: Id) -> Process {
    let Task { pid, command, namespace: own, children } = task;
    let note = match (own == namespace, children == namespace) {
        (true, true) => "",
        (true, false) => "its children will be elsewhere",
        (false, _) if own == host => "on the host's time",
        (false, _) => "in a time namespace of its own",
    };
    Process {
        pid,
        command,
        namespace: own.to_string(),
        namespace_for_children: children.to_string(),
        in_tree,
        agrees: note.is_empty(),
        note,
    }
}

fn text(report: &Report) -> String {
    let mut rows = Vec::new();
    if let Some(Container { id, state, declared }) = &report.container {
        let declared = match declared {
            Some(true) => "declared",
            Some(false) => "not declared",
            None => "unknown",
        };
        rows.push(["container".to_owned(), printable(&format!("{id} ({})", state.display()), 1000)]);
        rows.push(["config".to_owned(), declared.to_owned()]);
    }
    let Time { namespace: Some(namespace), offsets: Some(offsets), host_namespace } = &report.time else {
        rows.push(["PID 1".to_owned(), report.pid.to_string()]);
        return format!("{}\n{NO_TIME_NAMESPACES}\n", table::aligned(&rows));
    };
    let whose = if Some(namespace) == host_namespace.as_ref() { " (the host's)" } else { "" };
    rows.push(["PID 1".to_owned(), format!("{} in {namespace}{whose}", report.pid)]);
    rows.push(["offsets".to_owned(), offsets.to_string()]);
    let summary = table::aligned(&rows);

    let mut rows = vec![["PID", "NAMESPACE", "AGREES", "COMMAND"].map(str::to_owned)];
    for process in &report.processes {
        let agrees = if process.agrees { "yes".to_owned() } else { format!("NO, {}", process.note) };
        rows.push([process.pid.to_string(), process.namespace.clone(), agrees, process.command.clone()]);
    }
    let verdict = if report.agree {
        "All processes agree about time."
    } else {
        "Some processes disagree about time: a checkpoint of this container could not be restored."
    };
    format!("{summary}\n{}\n{verdict}\n", table::aligned(&rows))
}
