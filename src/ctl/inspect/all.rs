// SPDX-License-Identifier: Apache-2.0
//! `tnsctl inspect --all`: which containers are at risk now?

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{NO_TIME_NAMESPACES, Process, host, known_roots, processes};
use crate::container::{self, State, Stopped};
use crate::ctl::{Verdict, print, table};
use crate::runtime::abilities::Kind;
use crate::text::printable;
use crate::timens::Id;
use crate::tree::Groups;

#[derive(Serialize)]
struct Container {
    id: String,
    /// `runc` or `crun`.
    runtime: &'static str,
    /// The runtime's folder.
    root: PathBuf,
    #[serde(flatten)]
    found: Found,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
enum Found {
    Agree(Seen),
    AtRisk(Seen),
    /// The kernel has none.
    NoTimeNamespaces {
        pid: i32,
    },
    Stopped,
    Unknown {
        reason: String,
    },
}

#[derive(Debug, PartialEq, Serialize)]
struct Seen {
    pid: i32,
    /// That of PID 1.
    namespace: String,
    /// How many there are.
    processes: usize,
    disagreeing: Vec<Process>,
}

/// What is the same for all containers, looked at once.
struct Host {
    /// None where the kernel has no time namespaces.
    namespace: Option<Id>,
    groups: Groups,
}

impl Host {
    fn look() -> Result<Self> {
        Ok(Self { namespace: host()?, groups: Groups::look()? })
    }
}

/// All containers that were found, and why there may be more.
struct Survey {
    containers: Vec<Container>,
    roots: Vec<PathBuf>,
    troubles: Vec<String>,
}

impl Survey {
    /// Below these, or where the runtimes and the engines have them.
    fn of(roots: Vec<PathBuf>) -> Result<Self> {
        let host = Host::look()?;
        let given = !roots.is_empty();
        let roots = if given { roots } else { known_roots() };
        let (mut containers, mut troubles) = (Vec::new(), Vec::new());
        let mut listed = BTreeSet::new();
        for root in &roots {
            if !listed.insert(fs::canonicalize(root).unwrap_or_else(|_| root.clone())) {
                continue;
            }
            match names(root) {
                Ok(names) => containers.extend(names.iter().filter_map(|name| container(root, name, &host))),
                // A place that a runtime or an engine would use if it were here.
                Err(error) if !given && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => troubles.push(format!("list {}: {error}", root.display())),
            }
        }
        Ok(Self { containers, roots, troubles })
    }

    fn count(&self, is: fn(&Found) -> bool) -> usize {
        self.containers.iter().filter(|container| is(&container.found)).count()
    }
}

/// What `tnsctl doctor` says of all of them.
#[derive(Debug, Default, Serialize)]
pub(in crate::ctl) struct Summary {
    pub total: usize,
    /// The ids of those whose processes disagree.
    pub at_risk: Vec<String>,
    /// How many could not be looked at.
    pub unknown: usize,
    /// Which places could not be looked at, and why.
    pub troubles: Vec<String>,
}

impl Summary {
    pub(in crate::ctl) fn look() -> Self {
        let survey = match Survey::of(Vec::new()) {
            Ok(survey) => survey,
            Err(error) => return Self { troubles: vec![format!("{error:#}")], ..Self::default() },
        };
        let at_risk = survey.containers.iter().filter(|container| matches!(container.found, Found::AtRisk(_)));
        Self {
            total: survey.containers.len(),
            at_risk: at_risk.map(|container| printable(&container.id, 200)).collect(),
            unknown: survey.count(|found| matches!(found, Found::Unknown { .. })),
            troubles: survey.troubles,
        }
    }
}

pub(in crate::ctl) fn run(roots: Vec<PathBuf>, json: bool) -> Result<Verdict> {
    let survey = Survey::of(roots)?;
    for trouble in &survey.troubles {
        let _ = writeln!(io::stderr(), "tnsctl: {trouble}");
    }
    print(&survey.containers, json, |containers| text(containers, &survey.roots))?;
    if survey.count(|found| matches!(found, Found::AtRisk(_))) > 0 {
        return Ok(Verdict::Bad);
    }
    if !survey.troubles.is_empty() || survey.count(|found| matches!(found, Found::Unknown { .. })) > 0 {
        bail!("not everything could be looked at");
    }
    Ok(Verdict::Good)
}

/// Folders below the root, by name.
fn names(root: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.insert(entry.file_name());
        }
    }
    Ok(names)
}

/// None for what is no container, or none any more.
fn container(root: &Path, name: &OsString, host: &Host) -> Option<Container> {
    [(Kind::Runc, "runc"), (Kind::Crun, "crun")].into_iter().find_map(|(kind, runtime)| {
        let folder = container::folder(kind, Some(root.as_os_str()), name).ok()?;
        let found = match State::read(kind, &folder) {
            Ok(state) => look(&state?, host),
            Err(error) => unknown(&error),
        };
        Some(Container { id: name.to_string_lossy().into_owned(), runtime, root: root.to_owned(), found })
    })
}

fn unknown(error: &anyhow::Error) -> Found {
    Found::Unknown { reason: format!("{error:#}") }
}

fn look(state: &State, host: &Host) -> Found {
    let Some(namespace) = host.namespace else {
        return match state.prove() {
            Ok(init) => Found::NoTimeNamespaces { pid: init.pid },
            Err(error) if error.is::<Stopped>() => Found::Stopped,
            Err(error) => unknown(&error),
        };
    };
    match see(state, namespace, &host.groups) {
        Ok(seen) if seen.disagreeing.is_empty() => Found::Agree(seen),
        Ok(seen) => Found::AtRisk(seen),
        // What fails meanwhile may fail because the container has ended.
        Err(error) if error.is::<Stopped>() || state.prove().is_err_and(|error| error.is::<Stopped>()) => {
            Found::Stopped
        }
        Err(error) => unknown(&error),
    }
}

fn see(state: &State, host: Id, groups: &Groups) -> Result<Seen> {
    let init = state.prove()?;
    let namespace = init.time_namespace_id()?;
    let processes = processes(init.pid, namespace, host, groups)?;
    // Asked last: then all of the above was this container's.
    let namespace = init.time_namespace_id()?.to_string();
    let count = processes.len();
    let disagreeing = processes.into_iter().filter(|process| !process.agrees).collect();
    Ok(Seen { pid: init.pid, namespace, processes: count, disagreeing })
}

fn text(containers: &[Container], roots: &[PathBuf]) -> String {
    if containers.is_empty() {
        let roots: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
        return format!("No containers were found in {}.\n", roots.join(", "));
    }
    let mut rows = vec![["ID", "RUNTIME", "PID", "NAMESPACE", "PROCESSES", "VERDICT"].map(str::to_owned)];
    for Container { id, runtime, found, .. } in containers {
        let no = || "-".to_owned();
        let of = |seen: &Seen| [seen.pid.to_string(), seen.namespace.clone(), seen.processes.to_string()];
        let ([pid, namespace, processes], verdict) = match found {
            Found::Agree(seen) => (of(seen), "agree".to_owned()),
            Found::AtRisk(seen) => (of(seen), risk(seen)),
            Found::NoTimeNamespaces { pid } => ([pid.to_string(), no(), no()], "agree".to_owned()),
            Found::Stopped => ([no(), no(), no()], "stopped".to_owned()),
            Found::Unknown { reason } => ([no(), no(), no()], format!("unknown: {}", printable(reason, 200))),
        };
        rows.push([printable(id, 200), (*runtime).to_owned(), pid, namespace, processes, verdict]);
    }
    let count = |is: fn(&Found) -> bool| containers.iter().filter(|container| is(&container.found)).count();
    if count(|found| matches!(found, Found::NoTimeNamespaces { .. })) > 0 {
        return format!("{}\n{NO_TIME_NAMESPACES}\n", table::aligned(&rows));
    }
    let verdict =
        match (count(|found| matches!(found, Found::AtRisk(_))), count(|found| matches!(found, Found::Unknown { .. })))
        {
            (0, 0) => "No container is at risk.".to_owned(),
            (0, unknown) => format!("No container is known to be at risk, {unknown} could not be looked at."),
            (risky, _) => format!(
                "{risky} of {} at risk: a checkpoint could not be restored. `tnsctl inspect ID` shows every process.",
                containers.len()
            ),
        };
    format!("{}\n{verdict}\n", table::aligned(&rows))
}

fn risk(seen: &Seen) -> String {
    let example = seen.disagreeing.first().map_or_else(String::new, |process| {
        format!(", such as PID {} ({}): {}", process.pid, process.command, process.note)
    });
    format!("AT RISK, {} of {} disagree{example}", seen.disagreeing.len(), seen.processes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found of a container whose state is this text.
    fn found(file: &str, state: &str) -> Option<Container> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("c")).unwrap();
        fs::write(root.path().join("c").join(file), state).unwrap();
        container(root.path(), &"c".into(), &Host::look().unwrap())
    }

    #[test]
    fn a_container_is_told_by_its_state_file() {
        let stopped = r#"{"init_process_pid":0,"init_process_start":0,"config":{}}"#;
        let container = found("state.json", stopped).unwrap();
        assert_eq!((container.runtime, &container.found), ("runc", &Found::Stopped));
        let container = found("status", r#"{"pid":0,"process-start-time":0}"#).unwrap();
        assert_eq!((container.runtime, &container.found), ("crun", &Found::Stopped));
        assert!(found("else", stopped).is_none());
        assert!(matches!(found("status", "{").unwrap().found, Found::Unknown { .. }));
    }

    #[test]
    fn a_number_that_belongs_to_another_process_is_a_stopped_container() {
        let state = format!(r#"{{"pid":{},"process-start-time":1}}"#, std::process::id());
        assert_eq!(found("status", &state).unwrap().found, Found::Stopped);
    }

    #[test]
    fn every_verdict_has_its_words() {
        let container = |id: &str, found| Container { id: id.to_owned(), runtime: "runc", root: "/r".into(), found };
        let process = Process {
            pid: 8,
            command: "sleep 9".to_owned(),
            namespace: "time:[1]".to_owned(),
            namespace_for_children: "time:[1]".to_owned(),
            in_tree: true,
            agrees: false,
            note: "on the host's time",
        };
        let seen = |disagreeing| Seen { pid: 7, namespace: "time:[2]".to_owned(), processes: 3, disagreeing };
        let mut containers = vec![
            container("a", Found::Agree(seen(vec![]))),
            container("b", Found::Stopped),
            container("c", Found::Unknown { reason: "odd\n".to_owned() }),
        ];
        assert_eq!(
            text(&containers, &[]),
            "ID  RUNTIME  PID  NAMESPACE  PROCESSES  VERDICT\n\
             a   runc     7    time:[2]   3          agree\n\
             b   runc     -    -          -          stopped\n\
             c   runc     -    -          -          unknown: odd\\n\n\
             \n\
             No container is known to be at risk, 1 could not be looked at.\n"
        );
        containers.push(container("d", Found::AtRisk(seen(vec![process]))));
        let text = text(&containers, &[]);
        assert!(text.contains("AT RISK, 1 of 3 disagree, such as PID 8 (sleep 9): on the host's time\n"), "{text}");
        assert!(text.contains("\n1 of 4 at risk: "), "{text}");
    }

    #[test]
    fn a_kernel_without_time_namespaces_is_said_so_and_its_containers_are_listed() {
        let line = fs::read_to_string("/proc/self/stat").unwrap();
        let start = line.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
        let pid = std::process::id();
        let host = Host { namespace: None, groups: Groups::look().unwrap() };
        let root = tempfile::tempdir().unwrap();
        for (id, start) in [("runs", start), ("stopped", "1")] {
            fs::create_dir(root.path().join(id)).unwrap();
            let text = format!(r#"{{"pid":{pid},"process-start-time":{start}}}"#);
            fs::write(root.path().join(id).join("status"), text).unwrap();
        }
        let containers: Vec<_> =
            ["runs", "stopped"].iter().filter_map(|id| container(root.path(), &(*id).into(), &host)).collect();
        let pid = i32::try_from(pid).unwrap();
        assert_eq!(containers[0].found, Found::NoTimeNamespaces { pid });
        assert_eq!(containers[1].found, Found::Stopped);
        let text = text(&containers, &[]);
        assert!(text.contains(&format!("runs     crun     {pid}")) && text.contains("no time namespaces"), "{text}");
    }
}
