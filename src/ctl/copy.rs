// SPDX-License-Identifier: Apache-2.0
//! A repaired copy of an image folder, for one that cannot be written, or must not be.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::criu::images::{Folder, INVENTORY_NAME, Images};
use crate::criu::originals::{self, Unchanged};
use crate::criu::repair::Move;
use crate::files::{Links, Regular};
use crate::replacement;

/// What files of the copy hold instead, by name.
type Changes<'a> = BTreeMap<&'a str, &'a [u8]>;

/// Writes the checkpoint that `source` shows, with these processes moved, into a new folder, which has its name only when all
/// of it is on disk.
///
/// # Errors
/// Something cannot be read or written; then nothing is left.
pub(super) fn write(folder: &Folder, source: &Unchanged<'_, Folder>, moves: &[Move], output: &Path) -> Result<()> {
    let originals = source.originals().iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let edited = moves.iter().filter_map(|one| Some((one.edit.name.as_str(), one.edit.after.as_deref()?)));
    let changes: Changes<'_> = originals.chain(edited).collect();
    let from = fs::canonicalize(folder)?;
    let parent = replacement::folder_of(output);
    ensure!(!fs::canonicalize(parent)?.starts_with(&from), "a copy of the image does not belong into the image");

    let name = Path::new(output.file_name().unwrap_or_default()).display();
    let place = tempfile::Builder::new().prefix(&format!(".{name}.tns-shim-")).tempdir_in(parent)?;
    for entry in fs::read_dir(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        // Originals are of what was changed in the folder itself.
        let left_out =
            name.to_str().is_some_and(|name| name.ends_with(originals::SUFFIX) || changes.contains_key(name));
        if !left_out {
            copy(&from, &entry, &place.path().join(&name))
                .with_context(|| format!("copy {}", entry.path().display()))?;
        }
    }
    for (name, bytes) in &changes {
        // One that is not there is like the inventory.
        let like = |name: &str| fs::metadata(from.join(name));
        let like = like(name).or_else(|_| like(INVENTORY_NAME))?;
        fill(&place.path().join(name), &like, &mut &bytes[..]).with_context(|| format!("write {name}"))?;
    }
    verify(&Folder(place.path().to_owned()), &changes)?;
    finish(place.path(), &fs::metadata(&from)?)?;
    fs::rename(place.path(), output).context("give it its name")?;
    let _ = place.keep();
    File::open(parent)?.sync_all().with_context(|| format!("sync {}", parent.display()))
}

/// Copies what is in the folder `root`. Pipes, sockets and devices are of no use in an image, and left out.
fn copy(root: &Path, entry: &DirEntry, to: &Path) -> Result<()> {
    let (from, kind) = (entry.path(), entry.file_type()?);
    if kind.is_symlink() {
        return Ok(symlink(moved_link(root, &from, to)?, to)?);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            copy(root, &entry, &to.join(entry.file_name()))?;
        }
        return finish(to, &entry.metadata()?);
    }
    if kind.is_file() {
        let Regular { mut file, metadata } = Regular::open(&from, Links::Refuse)?.context("it is gone")?;
        fill(to, &metadata, &mut file)?;
    }
    Ok(())
}

/// What a link has to say in the copy: `parent`, with which CRIU finds an earlier dump, is relative, and leads out.
fn moved_link(root: &Path, from: &Path, to: &Path) -> Result<PathBuf> {
    let says = fs::read_link(from)?;
    let folder = replacement::folder_of(from);
    let Ok(target) = fs::canonicalize(folder.join(&says)) else { return Ok(says) };
    if says.is_absolute() || target.starts_with(root) {
        return Ok(says);
    }
    Ok(relative(&fs::canonicalize(replacement::folder_of(to))?, &target))
}

/// The way from one folder to something else; both are absolute, without links.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(from, to)| from == to).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    up.chain(to.components().skip(common)).collect()
}

/// Writes a new file with the mode, the owner and the time of another one.
fn fill(path: &Path, like: &Metadata, content: &mut impl io::Read) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::copy(content, &mut file)?;
    make_like(&file, like)?;
    file.set_times(FileTimes::new().set_modified(like.modified()?))?;
    Ok(file.sync_all()?)
}

/// The same for a folder that is filled.
fn finish(path: &Path, like: &Metadata) -> Result<()> {
    let folder = File::open(path)?;
    make_like(&folder, like)?;
    folder.sync_all().with_context(|| format!("sync {}", path.display()))
}

fn make_like(file: &File, like: &Metadata) -> io::Result<()> {
    match fchown(file, Some(like.uid()), Some(like.gid())) {
        // A user's copy of somebody else's image is the user's.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))
}

fn verify(copy: &Folder, changes: &Changes<'_>) -> Result<()> {
    for (name, bytes) in changes {
        let written = Regular::open(copy.path(name), Links::Refuse)?.map(|file| file.read(bytes.len() as u64));
        if written.transpose()?.as_deref() != Some(*bytes) {
            bail!("{name} is not what should have been written");
        }
    }
    let images = Images::read(copy).context("read what was written")?;
    ensure!(images.strays().next().is_none(), "what was written is not what should have been");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_another_place_is_found() {
        for (from, to, way) in
            [("/a/b", "/a/c/d", "../c/d"), ("/a", "/a/b", "b"), ("/a/b", "/", "../.."), ("/", "/a", "a")]
        {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(way), "{from} {to}");
        }
    }
}
