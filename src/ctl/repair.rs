// SPDX-License-Identifier: Apache-2.0
//! `tnsctl repair`: makes a checkpoint restorable whose processes disagree about time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Verdict, print, table};
use crate::criu::clocks::Here;
use crate::criu::images::{Folder, Images};
use crate::criu::originals;
use crate::criu::repair::{self, Move};

#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    dry_run: bool,
    /// The processes that were moved, or would be.
    moved: Vec<Move>,
    /// The files whose originals were put back, or would be.
    put_back: Vec<String>,
    #[serde(skip)]
    undo: bool,
}

pub(super) fn run(path: &Path, undo: bool, dry_run: bool, json: bool) -> Result<Verdict> {
    let folder = Folder(path.to_owned());
    let act = || -> Result<Report> {
        let images = Images::read(&folder)?;
        let (mut moved, mut put_back) = (Vec::new(), Vec::new());
        if undo {
            put_back = originals::undo(&folder, &images, dry_run)?;
        } else {
            moved = repair::plan(&images, &folder, Here::look()?)?;
            if !dry_run && !moved.is_empty() {
                originals::apply(&images, &folder, moved.iter().map(|one| &one.edit))?;
            }
        }
        Ok(Report { folder: folder.0.clone(), dry_run, moved, put_back, undo })
    };
    let what = if undo { "undo the repair of" } else { "repair" };
    let report = act().with_context(|| format!("{what} the checkpoint image {}", path.display()))?;
    print(&report, json, text)?;
    Ok(if dry_run && !report.moved.is_empty() { Verdict::Bad } else { Verdict::Good })
}

fn text(report: &Report) -> String {
    let Report { dry_run, moved, put_back, undo, .. } = report;
    let would = if *dry_run { " would be" } else { "" };
    if *undo {
        return match put_back.as_slice() {
            [] => "There is nothing to undo.\n".to_owned(),
            names => format!("The originals of {}{would} put back.\n", names.join(", ")),
        };
    }
    if moved.is_empty() {
        return "All processes agree about time: there is nothing to repair.\n".to_owned();
    }
    let mut rows = vec![["PID", "TIME NS", "CLOCKS JUMP", "COMMAND"].map(str::to_owned)];
    for Move { pid, command, from, to, jump, .. } in moved {
        let jump = jump.map_or("by an unknown time".to_owned(), |jump| format!("about {jump:+}"));
        rows.push([pid.to_string(), format!("{from} -> {to}"), jump, command.clone()]);
    }
    let verdict = if *dry_run {
        "Nothing was changed."
    } else {
        "All processes agree about time now. The originals are beside as *.tns-orig, --undo puts them back."
    };
    format!("{}\n{verdict}\n", table::aligned(&rows))
}
