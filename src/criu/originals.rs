// SPDX-License-Identifier: Apache-2.0
//! Changing files of a checkpoint so that every change can be taken back.
//!
//! The original stays beside its file as `NAME.tns-orig`, the very same file under another name where the file system can
//! do that. `inventory.img.tns-orig` is a copy and says which checkpoint the originals are of: CRIU writes another
//! inventory each time, and a later checkpoint into the same folder leaves it behind.
//!
//! All new files are written before the first one takes its place; from then on, whatever interrupts this leaves for every
//! file the old or the new one, and the next change or undo goes on from there. A file that is changed again keeps its
//! first original.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::images::{Folder, INVENTORY_NAME, Images, Source, TIMENS_OF_CRIU};
use crate::replacement::Replacement;

/// What the name of an original ends with.
pub const SUFFIX: &str = ".tns-orig";

/// One file and what becomes of it.
#[derive(Debug)]
pub struct Edit {
    /// Its name in the folder.
    pub name: String,
    /// What it holds.
    pub before: Vec<u8>,
    /// What it shall hold; none if it shall not be there.
    pub after: Option<Vec<u8>>,
}

/// Makes the changes, in this order.
///
/// # Errors
/// The folder cannot be written, or a file is not what it was when it was read; then none has changed, unless renaming
/// itself failed.
pub fn apply<'a>(images: &Images, folder: &Folder, edits: impl IntoIterator<Item = &'a Edit> + Clone) -> Result<()> {
    let mut replacements = Vec::new();
    for Edit { name, before, after } in edits.clone() {
        let path = folder.path(name);
        let context = || format!("replace {}", path.display());
        let metadata = fs::symlink_metadata(&path).with_context(context)?;
        if !metadata.is_file() || fs::read(&path).with_context(context)? != *before {
            bail!("{} is a link, or somebody has changed it just now", path.display());
        }
        if let Some(after) = after {
            replacements.push(Replacement::write(&path, &metadata, &[after]).with_context(context)?);
        }
    }
    if edits.clone().into_iter().next().is_none() {
        return Ok(());
    }
    begin(folder)?;
    for edit in edits.clone() {
        keep(images, folder, edit)?;
    }
    sync(folder)?;
    replacements.into_iter().try_for_each(Replacement::take_place)?;
    for Edit { name, .. } in edits.into_iter().filter(|edit| edit.after.is_none()) {
        let path = folder.path(name);
        fs::remove_file(&path).with_context(|| format!("take away {}", path.display()))?;
    }
    sync(folder)
}

fn original(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

fn required(source: &impl Source, name: &str) -> Result<Vec<u8>> {
    let stored = source.file(name).with_context(|| format!("read {name}"))?;
    Ok(stored.with_context(|| format!("there is no {name}"))?.bytes)
}

/// Whether the originals, if any, are of the checkpoint that is there now.
fn are_current(source: &impl Source) -> Result<bool> {
    let name = original(INVENTORY_NAME);
    let kept = source.file(&name).with_context(|| format!("read {name}"))?;
    Ok(kept.is_some_and(|kept| required(source, INVENTORY_NAME).is_ok_and(|now| now == kept.bytes)))
}

/// Says which checkpoint the originals are of, and takes away those of another one, which is no longer there.
fn begin(folder: &Folder) -> Result<()> {
    if are_current(folder)? {
        return Ok(());
    }
    for name in names(folder)? {
        let path = folder.path(&original(&name));
        fs::remove_file(&path).with_context(|| format!("take away {}, of another checkpoint", path.display()))?;
    }
    let path = folder.path(INVENTORY_NAME);
    let copy = || {
        let metadata = fs::metadata(&path)?;
        Replacement::write(&folder.path(&original(INVENTORY_NAME)), &metadata, &[&fs::read(&path)?])?.take_place()
    };
    copy().with_context(|| format!("copy {}", path.display()))
}

/// Gives the file its second name.
fn keep(images: &Images, folder: &Folder, Edit { name, before, .. }: &Edit) -> Result<()> {
    let [path, original] = [folder.path(name), folder.path(&original(name))];
    let context = || format!("keep {} as {}", path.display(), original.display());
    match fs::symlink_metadata(&original) {
        Ok(_) if is_original(images, name, &fs::read(&original).with_context(context)?, Some(before)) => return Ok(()),
        Ok(_) => bail!("{} is not the original of {}", original.display(), path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(context),
    }
    if fs::hard_link(&path, &original).is_err() {
        let metadata = fs::symlink_metadata(&path).with_context(context)?;
        Replacement::write(&original, &metadata, &[before]).and_then(Replacement::take_place).with_context(context)?;
    }
    Ok(())
}

/// Whether `now` is what a change makes of `original`: the same file, or its namespaces with another number, or none.
fn is_original(images: &Images, name: &str, original: &[u8], now: Option<&[u8]>) -> bool {
    let Some(now) = now else { return name == TIMENS_OF_CRIU };
    let moved = || {
        let understand = |file: &[u8]| images.understand_ids(name, file.to_vec()).ok();
        understand(original)?.moved_to(understand(now)?.time?)
    };
    original == now || moved().is_some_and(|moved| moved == now)
}

/// The name of the file whose original has this name.
pub fn changed(original: &str) -> Option<&str> {
    let name = original.strip_suffix(SUFFIX)?;
    let is_ours =
        name == TIMENS_OF_CRIU || name.strip_prefix("ids-").and_then(|rest| rest.strip_suffix(".img")).is_some();
    is_ours.then_some(name)
}

/// The names of the files whose originals are beside, sorted.
///
/// # Errors
/// The folder cannot be listed.
pub fn names(folder: &Folder) -> Result<Vec<String>> {
    let context = || format!("list {}", folder.0.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        names.extend(name.to_str().and_then(changed).map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether the original of the file is beside it.
pub fn has(source: &impl Source, name: &str) -> bool {
    source.file(&original(name)).is_ok_and(|kept| kept.is_some()) && are_current(source).unwrap_or(false)
}

/// Puts all originals back, and tells whose.
///
/// # Errors
/// They are of another checkpoint, which a later one into this folder has overwritten. Then none is put back.
pub fn undo(folder: &Folder, images: &Images, dry_run: bool) -> Result<Vec<String>> {
    let names = names(folder)?;
    if names.is_empty() {
        return Ok(names);
    }
    if !are_current(folder)? {
        bail!("the originals are of another checkpoint: {INVENTORY_NAME} is not {}", original(INVENTORY_NAME));
    }
    for name in &names {
        let before = required(folder, &original(name))?;
        let now = folder.file(name).with_context(|| format!("read {name}"))?.map(|stored| stored.bytes);
        if !is_original(images, name, &before, now.as_deref()) {
            bail!("{name} is not what is made of {} here: somebody else has changed it", original(name));
        }
    }
    if !dry_run {
        for name in &names {
            put_back(folder, name)?;
        }
        let copy = folder.path(&original(INVENTORY_NAME));
        fs::remove_file(&copy).with_context(|| format!("take away {}", copy.display()))?;
        sync(folder)?;
    }
    Ok(names)
}

fn put_back(folder: &Folder, name: &str) -> Result<()> {
    let [path, original] = [folder.path(name), folder.path(&original(name))];
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
