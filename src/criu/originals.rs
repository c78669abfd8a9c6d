// SPDX-License-Identifier: Apache-2.0
//! Changing files of a checkpoint so that every change can be taken back.
//!
//! The original stays beside its file as `NAME.tns-orig`, the very same file under another name where the file system can
//! do that. A later checkpoint into the same folder leaves it behind, so two copies say which one the originals are of:
//! `inventory.img.tns-orig`, and `clocks.tns-orig` of the file with the clocks. The inventory alone does not: before CRIU 4.1 two
//! checkpoints can have equal ones. The clocks, in nanoseconds, differ.
//!
//! The first release kept the inventory only, and changed images at restore. Its originals count if the inventory is
//! unique, if the image lacks what every checkpoint has, or if the checkpoint is not younger than they are.
//!
//! All new files are written before the first one takes its place; from then on, whatever interrupts this leaves for every
//! file the old or the new one, and the next change or undo goes on from there. A file that is changed again keeps its
//! first original.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::images::{Folder, INVENTORY_NAME, Images, PSTREE_NAME, Source, Stored, TIMENS_OF_CRIU, ids_name, largest};
use crate::clocks::Nanoseconds;
use crate::files::{self, Links};
use crate::replacement::Replacement;

/// What the name of an original ends with.
pub const SUFFIX: &str = ".tns-orig";

/// The copy of the file with the clocks.
pub const CLOCKS: &str = "clocks.tns-orig";

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
        if !metadata.is_file() || read(folder, name).with_context(context)? != *before {
            bail!("{} is a link, or somebody has changed it just now", path.display());
        }
        if let Some(after) = after {
            replacements.push(Replacement::write(&path, &metadata, &[after]).with_context(context)?);
        }
    }
    if edits.clone().into_iter().next().is_none() {
        return Ok(());
    }
    begin(images, folder)?;
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

/// A file of the image as it is: never where a link leads.
fn read(folder: &Folder, name: &str) -> Result<Vec<u8>> {
    files::read(folder.path(name), Links::Refuse, largest(name))?.context("it is not there")
}

fn file(source: &impl Source, name: &str) -> Result<Option<Stored>> {
    source.file(name).with_context(|| format!("read {name}"))
}

/// The original of the file, if there is one.
fn kept(source: &impl Source, name: &str) -> Result<Option<Vec<u8>>> {
    Ok(file(source, &original(name))?.map(|stored| stored.bytes))
}

/// Whether the originals, if any, are of the checkpoint that is there now.
fn are_current(images: &Images, source: &impl Source) -> Result<bool> {
    let Some(copy) = file(source, &original(INVENTORY_NAME))? else { return Ok(false) };
    if file(source, INVENTORY_NAME)?.is_none_or(|now| now.bytes != copy.bytes) {
        return Ok(false);
    }
    // CRIU dumps the clocks of such a first process into this file, so the image is still one that was changed. Another copy of
    // clocks is then a left-over, of which the first release did not know.
    if images.first().time() == images.criu && file(source, TIMENS_OF_CRIU)?.is_none() {
        return Ok(true);
    }
    if let Some(clocks) = file(source, CLOCKS)? {
        return Ok(clocks_file(images, source)?.is_some_and(|now| now.bytes == clocks.bytes));
    }
    if images.unique {
        return Ok(true);
    }
    let pstree = file(source, PSTREE_NAME)?;
    Ok(pstree.is_some_and(|pstree| pstree.modified <= copy.modified))
}

/// The file with the clocks of the first process as it was before it was changed, if the clocks were dumped.
fn clocks_file(images: &Images, source: &impl Source) -> Result<Option<Stored>> {
    let first = ids_name(images.first().pid);
    let time = match kept(source, &first)? {
        Some(original) => images.understand_ids(&first, original)?.time,
        None => images.first().time(),
    };
    let name = images.clocks_name(time);
    match file(source, &name)? {
        Some(now) => Ok(Some(now)),
        None => file(source, &original(&name)),
    }
}

/// Says which checkpoint the originals are of, and takes away those of another one, which is no longer there.
fn begin(images: &Images, folder: &Folder) -> Result<()> {
    let are_current = are_current(images, folder)?;
    if !are_current {
        for name in names(folder)? {
            let path = folder.path(&original(&name));
            fs::remove_file(&path).with_context(|| format!("take away {}, of another checkpoint", path.display()))?;
        }
    }
    let like = folder.path(INVENTORY_NAME);
    let copy = |bytes: Vec<u8>, to: &str| {
        let write = || Replacement::write(&folder.path(to), &fs::metadata(&like)?, &[&bytes])?.take_place();
        write().with_context(|| format!("write {to}"))
    };
    if let Some(clocks) = clocks_file(images, folder)? {
        copy(clocks.bytes, CLOCKS)?;
    } else if !are_current {
        remove(folder, CLOCKS)?;
    }
    // Last, because without it nothing counts.
    match file(folder, INVENTORY_NAME)? {
        Some(inventory) if !are_current => copy(inventory.bytes, &original(INVENTORY_NAME)),
        _ => Ok(()),
    }
}

fn remove(folder: &Folder, name: &str) -> Result<()> {
    match fs::remove_file(folder.path(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("take away {name}"))
        }
        _ => Ok(()),
    }
}

/// Gives the file its second name.
fn keep(images: &Images, folder: &Folder, Edit { name, before, .. }: &Edit) -> Result<()> {
    let kept = original(name);
    let [path, original] = [folder.path(name), folder.path(&kept)];
    let context = || format!("keep {} as {}", path.display(), original.display());
    match fs::symlink_metadata(&original) {
        Ok(_) if is_original(images, name, &read(folder, &kept).with_context(context)?, Some(before)) => return Ok(()),
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

/// A checkpoint as it was before its files were changed.
#[derive(Debug)]
pub struct Unchanged<'a, S> {
    source: &'a S,
    /// By the name of the file.
    originals: BTreeMap<String, Vec<u8>>,
}

impl<'a, S: Source> Unchanged<'a, S> {
    /// As it is there: nothing in it counts as changed.
    pub fn as_it_is(source: &'a S) -> Self {
        Self { source, originals: BTreeMap::new() }
    }

    /// Looks at it through the originals beside its files, if they are this checkpoint's.
    ///
    /// # Errors
    /// One cannot be read, or is not what the file was made of.
    pub fn through_originals(images: &Images, source: &'a S) -> Result<Self> {
        let mut unchanged = Self::as_it_is(source);
        if !are_current(images, source)? {
            return Ok(unchanged);
        }
        let names = images.tasks().iter().map(|task| ids_name(task.pid)).chain([TIMENS_OF_CRIU.to_owned()]);
        for name in names {
            let Some(original) = kept(source, &name)? else { continue };
            ensure_original(images, source, &name, &original)?;
            unchanged.originals.insert(name, original);
        }
        Ok(unchanged)
    }

    /// The files that were changed, and what they were.
    pub fn originals(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.originals
    }
}

impl<S: Source> Source for Unchanged<'_, S> {
    fn file(&self, name: &str) -> io::Result<Option<Stored>> {
        let stored = self.source.file(name)?;
        let Some(original) = self.originals.get(name) else { return Ok(stored) };
        let modified = match stored {
            Some(stored) => stored.modified,
            None => self.source.file(INVENTORY_NAME)?.map_or(Nanoseconds(0), |inventory| inventory.modified),
        };
        Ok(Some(Stored { bytes: original.clone(), modified }))
    }
}

fn ensure_original(images: &Images, source: &impl Source, name: &str, before: &[u8]) -> Result<()> {
    let now = file(source, name)?.map(|stored| stored.bytes);
    if !is_original(images, name, before, now.as_deref()) {
        bail!("{name} is not what is made of {} here: somebody else has changed it", original(name));
    }
    Ok(())
}

/// Whether the original of the file is beside it.
///
/// # Errors
/// It cannot be read.
pub fn has(images: &Images, source: &impl Source, name: &str) -> Result<bool> {
    Ok(kept(source, name)?.is_some() && are_current(images, source)?)
}

/// Puts all originals back, and tells whose.
///
/// # Errors
/// They are of another checkpoint, which a later one into this folder has overwritten, or may be. Then none is put back.
pub fn undo(folder: &Folder, images: &Images, dry_run: bool) -> Result<Vec<String>> {
    let names = names(folder)?;
    if names.is_empty() {
        // What a repair or an undo that was interrupted may have left tells of originals, and there are none.
        if !dry_run {
            forget(folder)?;
        }
        return Ok(names);
    }
    if !are_current(images, folder)? {
        bail!(
            "the originals are of another checkpoint, or it cannot be told that they are not: {} and {CLOCKS} do not tell of the \
             one that is there",
            original(INVENTORY_NAME)
        );
    }
    for name in &names {
        let path = folder.path(name);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            bail!("{} is no regular file: nothing is put in its place", path.display());
        }
        let before = kept(folder, name)?.with_context(|| format!("there is no {}", original(name)))?;
        ensure_original(images, folder, name, &before)?;
    }
    if !dry_run {
        for name in &names {
            put_back(folder, name)?;
        }
        forget(folder)?;
    }
    Ok(names)
}

/// Takes away what says which checkpoint the originals are of. Where there is nothing, nothing is written: the folder may be
/// one that cannot be.
fn forget(folder: &Folder) -> Result<()> {
    let names = [original(INVENTORY_NAME), CLOCKS.to_owned()];
    let is_missing = |name: &String| {
        fs::symlink_metadata(folder.path(name)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let there: Vec<_> = names.iter().filter(|name| !is_missing(name)).collect();
    if there.is_empty() {
        return Ok(());
    }
    there.into_iter().try_for_each(|name| remove(folder, name))?;
    sync(folder)
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
