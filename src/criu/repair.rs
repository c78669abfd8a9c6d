// SPDX-License-Identifier: Apache-2.0
//! Repair: every process of a checkpoint into the time namespace of the first one. And back.
//!
//! Only the number in `ids-PID.img` of a stray changes. The original stays beside it as `ids-PID.img.tns-orig`, the very same
//! file under another name where the file system can do that. All edits are made and read again in memory, and all new
//! files written, before the first one takes its place; from then on, whatever interrupts this leaves for every file the
//! old or the new one, and the next repair or undo goes on from there.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::clocks::{Clocks, Here};
use super::images::{Folder, Ids, Images, Source, ids_name};
use crate::replacement::Replacement;

const ORIGINAL: &str = ".tns-orig";

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
    /// By how much its clocks will be ahead of where they would have been. None where that cannot be known: it was not in
    /// CRIU's time namespace, or the checkpoint was not made on this machine since it was started.
    pub jump: Option<Clocks>,
    #[serde(skip)]
    before: Vec<u8>,
    #[serde(skip)]
    after: Vec<u8>,
}

/// What it takes to make the checkpoint restorable; nothing, if it is. Reads only.
///
/// # Errors
/// Something in the image is not understood, also if it would not have to change; the message tells file and offset.
pub fn plan(images: &Images, source: &impl Source, here: Here) -> Result<Vec<Move>> {
    let clocks = images.clocks(source)?;
    let Some(to) = images.first().time() else { return Ok(Vec::new()) };
    let mut moves = Vec::new();
    for task in images.strays() {
        let Some((ids, from)) = task.ids.as_ref().and_then(|ids| Some((ids, ids.time?))) else { continue };
        let name = ids_name(task.pid);
        let after = ids.moved_to(to).with_context(|| format!("edit {name}"))?;
        if images.understand_ids(&name, after.clone())?.time != Some(to) {
            bail!("the edited {name} does not say what it should");
        }
        let jump =
            clocks.filter(|_| images.criu == Some(from)).and_then(|(dumped, written)| here.jump_to(dumped, written));
        let command = images.command(source, task.pid)?;
        moves.push(Move { pid: task.pid, command, from, to, jump, before: ids.file().to_vec(), after });
    }
    Ok(moves)
}

/// Does what was planned.
///
/// # Errors
/// The folder cannot be written, or a file is not what it was when the plan was made; then none has changed, unless
/// renaming itself failed.
pub fn apply(folder: &Folder, moves: &[Move]) -> Result<()> {
    let mut replacements = Vec::with_capacity(moves.len());
    for Move { pid, before, after, .. } in moves {
        let path = folder.path(&ids_name(*pid));
        let context = || format!("replace {}", path.display());
        let metadata = fs::symlink_metadata(&path).with_context(context)?;
        if !metadata.is_file() || fs::read(&path).with_context(context)? != *before {
            bail!("{} is a link, or somebody has changed it just now", path.display());
        }
        replacements.push(Replacement::write(&path, &metadata, &[after]).with_context(context)?);
    }
    for Move { pid, before, .. } in moves {
        keep(folder, &ids_name(*pid), before)?;
    }
    sync(folder)?;
    replacements.into_iter().try_for_each(Replacement::take_place)?;
    sync(folder)
}

/// Gives the file its second name.
fn keep(folder: &Folder, name: &str, before: &[u8]) -> Result<()> {
    let [path, original] = [folder.path(name), folder.path(&format!("{name}{ORIGINAL}"))];
    let context = || format!("keep {} as {}", path.display(), original.display());
    match fs::symlink_metadata(&original) {
        Ok(metadata) if metadata.is_file() && fs::read(&original).with_context(context)? == before => return Ok(()),
        // Of an earlier checkpoint, which CRIU has overwritten by this one.
        Ok(_) => fs::remove_file(&original).with_context(context)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(context),
    }
    if fs::hard_link(&path, &original).is_err() {
        let metadata = fs::symlink_metadata(&path).with_context(context)?;
        Replacement::write(&original, &metadata, &[before]).and_then(Replacement::take_place).with_context(context)?;
    }
    Ok(())
}

/// The PIDs whose originals are beside their files.
///
/// # Errors
/// The folder cannot be listed.
pub fn originals(folder: &Folder) -> Result<Vec<u32>> {
    let context = || format!("list {}", folder.0.display());
    let mut pids = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix("ids-")?.strip_suffix(ORIGINAL)?.strip_suffix(".img"));
        pids.extend(pid.and_then(|pid| pid.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

/// Puts the originals back, all or none.
///
/// # Errors
/// A file is not what repair makes of its original: a later checkpoint into this folder has overwritten it.
pub fn undo(folder: &Folder, images: &Images, dry_run: bool) -> Result<Vec<u32>> {
    let pids = originals(folder)?;
    for pid in &pids {
        let name = ids_name(*pid);
        let original = format!("{name}{ORIGINAL}");
        let read = |name: &str| -> Result<Ids> {
            let stored = folder.file(name).with_context(|| format!("read {name}"))?;
            images.understand_ids(name, stored.with_context(|| format!("there is no {name}"))?.bytes)
        };
        let [before, now] = [read(&original)?, read(&name)?];
        let is_of_it = before.file() == now.file()
            || now.time.and_then(|time| before.moved_to(time)).is_some_and(|file| file == now.file());
        if !is_of_it {
            bail!("{name} is not what a repair makes of {original}: it is of another checkpoint");
        }
    }
    if !dry_run {
        for pid in &pids {
            put_back(folder, &ids_name(*pid))?;
        }
        sync(folder)?;
    }
    Ok(pids)
}

fn put_back(folder: &Folder, name: &str) -> Result<()> {
    let [path, original] = [folder.path(name), folder.path(&format!("{name}{ORIGINAL}"))];
    let context = || format!("put {} back", original.display());
    fs::rename(&original, &path).with_context(context)?;
    // rename leaves two names of one file as they are.
    match fs::remove_file(&original) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(context),
        _ => Ok(()),
    }
}

fn sync(folder: &Folder) -> Result<()> {
    let path: &Path = folder.as_ref();
    File::open(path).and_then(|folder| folder.sync_all()).with_context(|| format!("sync {}", path.display()))
}
