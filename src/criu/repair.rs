// SPDX-License-Identifier: Apache-2.0
//! Repair: every process of a checkpoint into the time namespace of the first one. Only the number in `ids-PID.img` of a
//! stray changes; [`originals`](super::originals) makes the change, and takes it back.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::images::{Images, Source, Task, ids_name};
use super::originals::Edit;
use super::record::{self, Record};
use crate::clocks::{Clocks, Here, Nanoseconds};

/// What is to be done to one process.
#[derive(Debug, Serialize)]
pub struct Move {
    /// In the container's pid namespace.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// The time namespace that it was in at the checkpoint, as this image numbers them.
    pub from: u32,
    /// That of the first process.
    pub to: u32,
    /// By how much its clocks will be ahead of where they would have been. None where that is not known: it was not in
    /// CRIU's time namespace, or no record tells that the checkpoint was made on this machine since it was started.
    pub jump: Option<Clocks>,
    /// The change of its file.
    #[serde(skip)]
    pub edit: Edit,
}

/// What it takes to make the checkpoint restorable; nothing, if it is. Reads only.
///
/// # Errors
/// Something in the image is not understood, also if it would not have to change; the message tells file and offset.
pub fn plan(images: &Images, source: &impl Source, here: Here) -> Result<Vec<Move>> {
    let clocks = images.clocks(source)?;
    let Some(to) = images.first().time() else { return Ok(Vec::new()) };
    let ahead = clocks.and_then(|(dumped, written)| ahead(source, dumped, written, here));
    let mut moves = Vec::new();
    for task in images.strays() {
        let Some((from, edit)) = task.time().zip(moved(images, task, to)?) else { continue };
        let jump = ahead.filter(|_| images.criu == Some(from));
        let command = images.command(source, task.pid)?;
        moves.push(Move { pid: task.pid, command, from, to, jump, edit });
    }
    Ok(moves)
}

/// By how much the clocks of the first process are ahead of those of a process in the time namespace of here.
///
/// The image itself has its own clocks alone: a time of the wall clock does not tell of which machine it is, nor what the
/// clocks of that one showed. So the record is asked, if it is of this checkpoint and of this machine since it was started;
/// that CRIU was called in the time namespace of here is assumed.
fn ahead(source: &impl Source, dumped: Clocks, written: Nanoseconds, here: Here) -> Option<Clocks> {
    let record = Record::read(source).ok()??;
    let is_from_here = record.is_of(dumped, written) && record::boot_id().is_ok_and(|here| here == record.boot_id);
    Some(record.time_namespace.offsets.minus(here.own_offsets().filter(|_| is_from_here)?))
}

/// The change that puts a process into the time namespace `to`; none if it is there, or tells none.
///
/// # Errors
/// The change could not be read again as what it should be.
pub(super) fn moved(images: &Images, task: &Task, to: u32) -> Result<Option<Edit>> {
    let Some(ids) = task.ids.as_ref().filter(|ids| ids.time.is_some_and(|time| time != to)) else { return Ok(None) };
    let name = ids_name(task.pid);
    let after = ids.moved_to(to).with_context(|| format!("edit {name}"))?;
    if images.understand_ids(&name, after.clone())?.time != Some(to) {
        bail!("the edited {name} does not say what it should");
    }
    Ok(Some(Edit { name, before: ids.file().to_vec(), after: Some(after) }))
}
