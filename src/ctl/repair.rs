// SPDX-License-Identifier: Apache-2.0
//! `tnsctl repair`: makes a checkpoint restorable whose processes disagree about time.

use std::fs::{self, File, Permissions};
use std::io::{BufWriter, ErrorKind, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::checkpoint::{Checkpoint, Place, open_file};
use super::progress::Progress;
use super::{Verdict, copy, print, table};
use crate::archive::collect;
use crate::archive::rewrite::{self, Patch};
use crate::clocks::Here;
use crate::criu::images::Images;
use crate::criu::repair::{self, Move};
use crate::criu::{host_time, lock, originals};
use crate::replacement;

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    place: Place,
    /// The repaired archive or folder, if one was written.
    output: Option<PathBuf>,
    dry_run: bool,
    /// The processes that were moved, or would be.
    moved: Vec<Move>,
    /// The files whose originals were put back, or would be.
    put_back: Vec<String>,
    #[serde(skip)]
    undo: bool,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    /// Where a repaired copy goes.
    pub output: Option<&'a Path>,
    pub undo: bool,
    pub dry_run: bool,
}

pub(super) fn run(path: &Path, how: How<'_>, json: bool) -> Result<Verdict> {
    let what = if how.undo { "undo the repair of" } else { "repair" };
    let report = act(path, how).with_context(|| format!("{what} the checkpoint image {}", path.display()))?;
    print(&report, json, text)?;
    Ok(if how.dry_run && !report.moved.is_empty() { Verdict::Bad } else { Verdict::Good })
}

fn act(path: &Path, how: How<'_>) -> Result<Report> {
    let How { output, undo, dry_run } = how;
    // Before an archive is read, which can take long.
    match output {
        Some(output) => may_be_written(path, output)?,
        None if path.is_file() && undo => {
            bail!("an archive is never changed: what --output was repaired from is the original")
        }
        None if path.is_file() && !dry_run => {
            bail!("an archive is never changed: say with --output where to write the repaired one")
        }
        None => {}
    }
    let checkpoint = Checkpoint::open(path)?;
    let _lock = match &checkpoint {
        Checkpoint::Folder(folder) if output.is_none() && !dry_run => Some(lock::exclusive(folder)?),
        Checkpoint::Folder(folder) => Some(lock::shared(folder)?),
        Checkpoint::Archive(_) => None,
    };
    let (mut moved, mut put_back, mut written) = (Vec::new(), Vec::new(), None);
    match &checkpoint {
        Checkpoint::Folder(folder) if undo => put_back = originals::undo(folder, &Images::read(folder)?, dry_run)?,
        Checkpoint::Folder(folder) => {
            if let Some(output) = output {
                let (source, images) = host_time::let_go(folder)?;
                moved = repair::plan(&images, &source, Here::look()?)?;
                put_back = source.originals().keys().cloned().collect();
                if !(dry_run || moved.is_empty() && put_back.is_empty()) {
                    copy::write(folder, &source, &moved, output)
                        .with_context(|| format!("write {}", output.display()))?;
                    written = Some(output.to_owned());
                }
            } else {
                let images = Images::read(folder)?;
                moved = repair::plan(&images, folder, Here::look()?)?;
                if !dry_run {
                    originals::apply(&images, folder, moved.iter().map(|one| &one.edit))?;
                }
            }
        }
        Checkpoint::Archive(_) if undo => bail!("blobs are never changed: there is no repair to undo"),
        Checkpoint::Archive(archive) => {
            moved = repair::plan(&Images::read(&checkpoint)?, &checkpoint, Here::look()?)?;
            if !moved.is_empty() {
                let patches = archive.patches(moved.iter().map(|one| &one.edit))?;
                if let Some(output) = output.filter(|_| !dry_run) {
                    write(path, archive, patches, output).with_context(|| format!("write {}", output.display()))?;
                    written = Some(output.to_owned());
                }
            }
        }
    }
    Ok(Report { place: checkpoint.place(path), output: written, dry_run, moved, put_back, undo })
}

/// Refuses what is already there.
fn may_be_written(path: &Path, output: &Path) -> Result<()> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match fs::symlink_metadata(output) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("look at {}", output.display())),
        Ok(_) if fs::metadata(output).map(identity).ok() == fs::metadata(path).map(identity).ok() => {
            bail!("{} is the image itself; a copy is written elsewhere", output.display())
        }
        Ok(_) => bail!("{} is there already", output.display()),
    }
}

/// Writes the repaired archive, and reads it again before it gets its name.
fn write(path: &Path, archive: &collect::Checkpoint, patches: Vec<Patch>, output: &Path) -> Result<()> {
    let (original, length) = open_file(path)?;
    let mode = original.metadata().with_context(|| format!("look at {}", path.display()))?.mode() & 0o777;
    let mut file = replacement::beside(output)?;
    let from = Progress::new(original, length, "writing");
    let sum = rewrite::copy(from, archive.sum, patches, BufWriter::with_capacity(128 << 10, file.as_file_mut()))?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;

    file.rewind()?;
    let length = file.as_file().metadata()?.len();
    let again = collect::Checkpoint::read(Progress::new(file.as_file_mut(), length, "checking"))
        .context("read what was written")?;
    if again.sum != sum || Images::read(&again)?.strays().next().is_some() {
        bail!("what was written is not what should have been");
    }
    file.persist_noclobber(output).context("give it its name")?;
    let folder = replacement::folder_of(output);
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| format!("sync {}", folder.display()))
}

fn text(report: &Report) -> String {
    let Report { output, dry_run, moved, put_back, undo, .. } = report;
    let would = if *dry_run { " would be" } else { "" };
    if *undo {
        return match put_back.as_slice() {
            [] => "There is nothing to undo.\n".to_owned(),
            names => format!("The originals of {}{would} put back.\n", names.join(", ")),
        };
    }
    if !put_back.is_empty() {
        let names = put_back.join(", ");
        return match output {
            Some(output) => {
                format!("The checkpoint is in {} as it was made, with the originals of {names}.\n", output.display())
            }
            None => format!("The originals of {names} would be in the copy.\n"),
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
    let verdict = match output {
        _ if *dry_run => "Nothing was changed.".to_owned(),
        Some(output) => format!("All processes agree about time in {}. The original is as it was.", output.display()),
        None => "All processes agree about time now. The originals are beside as *.tns-orig, --undo puts them back."
            .to_owned(),
    };
    format!("{}\n{verdict}\n", table::aligned(&rows))
}
