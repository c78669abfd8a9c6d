// SPDX-License-Identifier: Apache-2.0
//! `tnsctl enable` and `tnsctl disable`: tells an engine of the shim, asks it whether it has understood, and takes exactly that
//! back.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use nix::unistd::geteuid;
use serde::Serialize;
use similar::TextDiff;

use super::engine::containerd::Containerd;
use super::engine::crio::Crio;
use super::engine::docker::Docker;
use super::engine::podman::Podman;
use super::engine::{Answer, Change, Engine, PATIENCE, Plan, Shim, Wish};
use super::{Verdict, print};
use crate::files::{self, Links};
use crate::replacement::{self, Replacement};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Podman,
    Containerd,
    Docker,
    #[value(name = "cri-o", alias = "crio")]
    CriO,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Runtime {
    Runc,
    Crun,
}

/// Which engine, and where it is.
#[derive(Args, Debug)]
pub(super) struct Target {
    engine: Name,
    /// A user's own Podman, instead of root's
    #[arg(long)]
    rootless: bool,
    /// Say as a diff what would be changed, and change nothing: exit status 1 if something would be
    #[arg(long)]
    dry_run: bool,
    /// The engine's configuration, where it is not in its usual place (containerd, docker)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The engine's own program, which is asked, instead of the one in PATH (containerd, docker)
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// How containers get the shim.
#[derive(Args, Debug)]
pub(super) struct How {
    /// For all new containers that ask for no other runtime
    #[arg(long)]
    default: bool,
    /// What the shim wraps [default: what its settings say, or the first of both that is installed]
    #[arg(long)]
    runtime: Option<Runtime>,
}

#[derive(Serialize)]
struct Report {
    engine: &'static str,
    program: PathBuf,
    version: String,
    #[serde(skip)]
    enabled: bool,
    dry_run: bool,
    changes: Vec<Changed>,
    /// What the engine was asked by, if it says that it is as wished.
    confirmed_by: Option<String>,
    /// Why the engine has not said that, if it has not.
    not_confirmed: Option<String>,
    /// What makes the engine read what was changed.
    restart: Option<String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Changed {
    path: PathBuf,
    /// `make`, `change` or `remove`.
    what: &'static str,
    diff: String,
}

pub(super) fn enable(target: &Target, how: &How, json: bool) -> Result<Verdict> {
    let runtime = how.runtime.map(|runtime| match runtime {
        Runtime::Runc => "runc",
        Runtime::Crun => "crun",
    });
    let wish = Wish { shim: Shim::beside_this(runtime)?, default: how.default };
    run(target, Some(&wish), json)
}

pub(super) fn disable(target: &Target, json: bool) -> Result<Verdict> {
    run(target, None, json)
}

fn run(target: &Target, wish: Option<&Wish>, json: bool) -> Result<Verdict> {
    let engine = find(target)?;
    let plan = engine.plan(wish)?;
    let mut report = Report {
        engine: engine.name(),
        program: engine.program().path.clone(),
        version: engine.program().version.clone(),
        enabled: wish.is_some(),
        dry_run: target.dry_run,
        changes: plan.changes.iter().map(changed).collect(),
        confirmed_by: None,
        not_confirmed: None,
        restart: None,
        notes: Vec::new(),
    };
    if target.dry_run {
        print(&report, json, text)?;
        return Ok(if report.changes.is_empty() { Verdict::Good } else { Verdict::Bad });
    }
    let Plan { changes, notes, restart } = plan;
    make(&changes)?;
    match engine.ask(wish) {
        Ok(Answer::AsWished(command)) => report.confirmed_by = Some(command),
        Ok(Answer::Unknown(why)) => report.not_confirmed = Some(why),
        // What was there before is for whoever has written it.
        Err(error) if changes.is_empty() && wish.is_some() => return Err(error),
        // What is wrong is not what is gone.
        Err(error) if wish.is_none() => report.not_confirmed = Some(format!("{error:#}")),
        Err(error) => {
            take_back(&changes)
                .with_context(|| format!("the engine refuses it ({error:#}); and put back what was there"))?;
            return Err(error.context("the engine does not take it, and all is as it was before"));
        }
    }
    if !changes.is_empty() {
        report.restart = restart;
        report.notes = notes;
    }
    print(&report, json, text)?;
    Ok(Verdict::Good)
}

fn find(target: &Target) -> Result<Box<dyn Engine>> {
    let Target { engine, rootless, config, program, .. } = target;
    let has_places = matches!(engine, Name::Containerd | Name::Docker);
    ensure!(!rootless || *engine == Name::Podman, "--rootless is for Podman alone");
    ensure!(
        has_places || config.is_none() && program.is_none(),
        "--config and --program are for containerd and docker alone"
    );
    let (config, program) = (config.as_deref(), program.as_deref());
    Ok(match engine {
        Name::Podman => Box::new(Podman::find(*rootless, PATIENCE)?),
        Name::Containerd => Box::new(Containerd::find(config, program, PATIENCE)?),
        Name::Docker => Box::new(Docker::find(config, program, PATIENCE)?),
        Name::CriO => Box::new(Crio::find(PATIENCE)?),
    })
}

fn changed(change: &Change) -> Changed {
    let Change { path, before, after, .. } = change;
    let text = |side: &Option<Vec<u8>>| String::from_utf8_lossy(side.as_deref().unwrap_or_default()).into_owned();
    let name = |side: &Option<Vec<u8>>| side.as_ref().map_or("/dev/null".to_owned(), |_| path.display().to_string());
    let (old, new) = (text(before), text(after));
    let diff = TextDiff::from_lines(&old, &new).unified_diff().header(&name(before), &name(after)).to_string();
    let what = match (before, after) {
        (None, _) => "make",
        (_, None) => "remove",
        _ => "change",
    };
    Changed { path: path.clone(), what, diff }
}

/// All of them or none.
fn make(changes: &[Change]) -> Result<()> {
    for (index, change) in changes.iter().enumerate() {
        if let Err(error) = make_one(change) {
            take_back(changes.get(..index).unwrap_or_default())
                .with_context(|| format!("{error:#}; and put back what was there"))?;
            return Err(error);
        }
    }
    Ok(())
}

fn take_back(changes: &[Change]) -> Result<()> {
    changes.iter().rev().try_for_each(|Change { path, before, after, folders }| {
        make_one(&Change { path: path.clone(), before: after.clone(), after: before.clone(), folders: *folders })
    })
}

fn make_one(Change { path, before, after, folders }: &Change) -> Result<()> {
    let what = || format!("write {}", path.display());
    let now = files::Regular::open(path, Links::Refuse).with_context(what)?;
    let metadata = now.as_ref().map(|regular| regular.metadata.clone());
    let now = now.map(|regular| regular.read(1 << 20)).transpose().with_context(what)?;
    ensure!(now == *before, "{} has changed at this moment: try again", path.display());
    match (after, metadata) {
        (Some(content), Some(metadata)) => {
            Replacement::write(path, &metadata, &[content]).and_then(Replacement::take_place).with_context(what)
        }
        (Some(content), None) => {
            let folder = replacement::folder_of(path);
            let made: Vec<_> = path.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            // Whatever the umask: an engine that other users run, too, fails where it may not look.
            for folder in made.into_iter().filter(|_| geteuid().is_root()) {
                fs::set_permissions(folder, Permissions::from_mode(0o755))?;
            }
            made_anew(path, content)
                .with_context(what)
                .inspect_err(|_| remove_folders(path, *folders).unwrap_or_default())
        }
        (None, Some(_)) => {
            fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
            remove_folders(path, *folders)
        }
        (None, None) => Ok(()),
    }
}

fn made_anew(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = replacement::beside(path)?;
    file.write_all(content)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

/// Those that were made for a file, unless somebody has put something in.
fn remove_folders(path: &Path, folders: usize) -> Result<()> {
    for folder in path.ancestors().skip(1).take(folders) {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                return Err(error).with_context(|| format!("remove {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let Report { engine, version, enabled, dry_run, changes, confirmed_by, not_confirmed, restart, notes, .. } = report;
    if *dry_run {
        let diffs: String = changes.iter().map(|change| change.diff.as_str()).collect();
        return if changes.is_empty() { nothing(engine, *enabled) } else { diffs };
    }
    let mut lines = Vec::new();
    for Changed { path, what, .. } in changes {
        let done = match *what {
            "make" => "made",
            "remove" => "removed",
            _ => "changed",
        };
        lines.push(format!("{done} {}", path.display()));
    }
    if changes.is_empty() {
        lines.push(nothing(engine, *enabled).trim_end().to_owned());
    }
    if let Some(command) = confirmed_by {
        lines.push(format!("{engine} {version} takes it as it is (asked by {command})"));
    }
    if let Some(why) = not_confirmed {
        lines.push(format!("not confirmed by {engine}: {why}"));
    }
    if let Some(restart) = restart {
        lines.push(format!("for it to take effect: {restart}"));
    }
    lines.extend(notes.iter().cloned());
    lines.join("\n") + "\n"
}

fn nothing(engine: &str, enabled: bool) -> String {
    let is = if enabled { "has the runtime tns-shim as it should be" } else { "has nothing that tnsctl has written" };
    format!("{engine} {is}: there is nothing to do.\n")
}
