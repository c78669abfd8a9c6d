// SPDX-License-Identifier: Apache-2.0
//! `tnsctl images`: what a checkpoint says about time, and whether it can be restored.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::checkpoint::{Checkpoint, Place};
use super::{Verdict, print, table};
use crate::clocks::{Clocks, Here};
use crate::criu::host_time;
use crate::criu::images::{Images, Task};
use crate::criu::record::{Mode, Record, TimeNamespace};
use crate::text::printable;

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    place: Place,
    /// `whole` or `mixed`.
    verdict: &'static str,
    processes: Vec<Process>,
    /// Of the first process, at the checkpoint; none if CRIU has dumped none.
    clocks: Option<Clocks>,
    /// The offsets against the initial time namespace that a restore here and now would set.
    offsets_here: Option<Clocks>,
    /// A clock of the container would go back if it were restored into the time namespace of here instead.
    goes_back_on_host_time: Option<bool>,
    /// A restore by the first release with `restore.clocks = "host"` has taken its clocks away; `tnsctl repair --undo` brings them back.
    held_on_host_time: bool,
    /// The files that were changed, whose originals are beside.
    changed: Vec<String>,
    /// What tns-shim has recorded at the checkpoint.
    record: Option<Record>,
    /// Whether that is of this checkpoint; none if there is no record, or the image has no clocks to tell by.
    record_fits: Option<bool>,
    /// Why there is a record, and it is not understood.
    record_problem: Option<String>,
}

#[derive(Serialize)]
struct Process {
    pid: u32,
    command: String,
    /// As this image numbers them; none for a zombie, and from a kernel without.
    time_ns_id: Option<u32>,
    agrees: bool,
    note: &'static str,
}

pub(super) fn run(path: &Path, json: bool) -> Result<Verdict> {
    let report = look(path).with_context(|| format!("look at the checkpoint image {}", path.display()))?;
    print(&report, json, text)?;
    Ok(if report.verdict == "whole" { Verdict::Good } else { Verdict::Bad })
}

fn look(path: &Path) -> Result<Report> {
    let checkpoint = Checkpoint::open(path)?;
    let images = Images::read(&checkpoint)?;
    let clocks = images.clocks(&checkpoint)?.map(|(clocks, _)| clocks);
    let processes = images.tasks().iter().map(|task| process(&checkpoint, &images, task)).collect::<Result<_>>()?;
    let here = Here::look()?;
    let (record, record_problem) = match Record::read(&checkpoint) {
        Ok(record) => (record, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let record_fits = record.as_ref().zip(clocks).map(|(record, dumped)| record.dumped_at(dumped).is_some());
    Ok(Report {
        place: checkpoint.place(path),
        verdict: if images.strays().next().is_none() { "whole" } else { "mixed" },
        processes,
        clocks,
        offsets_here: clocks.and_then(|clocks| here.offsets_to(clocks)),
        goes_back_on_host_time: clocks.map(|clocks| here.goes_back_from(clocks)),
        held_on_host_time: host_time::is_held(&images, &checkpoint)?,
        changed: checkpoint.changed()?,
        record,
        record_fits,
        record_problem,
    })
}

fn process(checkpoint: &Checkpoint, images: &Images, task: &Task) -> Result<Process> {
    let time = task.time();
    let note = match time {
        _ if task.ids.is_none() => "a zombie",
        time if time == images.first().time() => "",
        time if time == images.criu => "on the time of the host that it was on",
        _ => "in a time namespace of its own",
    };
    let agrees = task.ids.is_none() || note.is_empty();
    Ok(Process { pid: task.pid, command: images.command(checkpoint, task.pid)?, time_ns_id: time, agrees, note })
}

fn recorded(record: &Record, fits: Option<bool>) -> Vec<[String; 2]> {
    let shown = |text: &str| printable(text, 64);
    let row = |what: &str, value: String| [what.to_owned(), value];
    let mode = match record.mode {
        Mode::Declared => "made by the runtime",
        Mode::Emulated => "made by tns-shim or CRIU",
        Mode::Host => "that of the host",
    };
    let TimeNamespace { id, offsets } = &record.time_namespace;
    let of = if fits == Some(false) { ", of another checkpoint: its clocks do not fit" } else { "" };
    vec![
        row("recorded", format!("{}, by tns-shim {}{of}", shown(&record.time), shown(&record.shim))),
        row("  container", format!("{}, {} processes", shown(&record.container), record.processes)),
        row("  clocks", record.clocks.to_string()),
        row("  time namespace", format!("{}, {mode}, offsets {offsets:+}", shown(id))),
        row("  runtime, CRIU", format!("{}, {}", shown(&record.runtime), shown(record.criu.as_deref().unwrap_or("?")))),
        row("  kernel, boot", format!("{}, {}", shown(&record.kernel), shown(&record.boot_id))),
    ]
}

fn text(report: &Report) -> String {
    let row = |what: &str, value: String| [what.to_owned(), value];
    let mut rows = vec![row("image", report.place.text())];
    if let Some(clocks) = report.clocks {
        rows.push(row("clocks", clocks.to_string()));
    } else if report.held_on_host_time {
        rows.push(row("clocks", "taken away for a restore on the host's time; `tnsctl repair --undo`".to_owned()));
    } else {
        rows.push(row("clocks", "none dumped: restored without a time namespace".to_owned()));
    }
    if let Some(offsets) = report.offsets_here {
        rows.push(row("offsets if restored here", format!("{offsets:+}")));
    }
    if let Some(goes_back) = report.goes_back_on_host_time {
        let answer = if goes_back { "a clock would go back" } else { "no clock would go back" };
        rows.push(row("on this host's time", answer.to_owned()));
    }
    if !report.changed.is_empty() {
        rows.push(row("changed", format!("{}; the originals are beside", report.changed.join(", "))));
    }
    if let Some(record) = &report.record {
        rows.extend(recorded(record, report.record_fits));
    }
    if let Some(problem) = &report.record_problem {
        rows.push(row("recorded", format!("unknown: {problem}")));
    }
    let summary = table::aligned(&rows);

    let mut rows = vec![["PID", "TIME NS", "AGREES", "COMMAND"].map(str::to_owned)];
    for process in &report.processes {
        let agrees = match (process.agrees, process.note) {
            (true, "") => "yes".to_owned(),
            (true, note) => note.to_owned(),
            (false, note) => format!("NO, {note}"),
        };
        let time = process.time_ns_id.map_or("-".to_owned(), |id| id.to_string());
        rows.push([process.pid.to_string(), time, agrees, process.command.clone()]);
    }
    let verdict = if report.verdict == "whole" {
        "All processes agree about time."
    } else {
        "Some processes disagree about time: CRIU cannot restore this image. `tnsctl repair` makes it restorable."
    };
    format!("{summary}\n{}\n{verdict}\n", table::aligned(&rows))
}
