// SPDX-License-Identifier: Apache-2.0
//! Files that change whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::Result;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use rustix::buffer::spare_capacity;
use rustix::fs::{RawDir, XattrFlags, fremovexattr, fsetxattr, lgetxattr};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempPath};

use crate::files;

/// See acl(5).
const ACL: &str = "system.posix_acl_access";

/// The new content of a file, written and on disk beside it under a temporary name. Dropped, it is gone.
#[derive(Debug)]
pub struct Replacement {
    file: NamedTempFile,
    path: PathBuf,
}

/// A name in a folder that is held open. Whoever can rename the folder could else put another one, or a link to one, in its
/// place between two looks, even within a rename.
#[derive(Debug)]
pub struct Place {
    folder: File,
    name: OsString,
}

impl Place {
    /// Of the last part of a path.
    ///
    /// # Errors
    /// There is no such folder, or it cannot be entered.
    pub fn of(path: &Path) -> io::Result<Self> {
        let folder = files::place(folder_of(path), OFlag::O_DIRECTORY)?;
        Ok(Self { folder, name: path.file_name().unwrap_or_default().to_owned() })
    }

    /// Leads to it as long as this lives, for this process alone.
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(&self.name)
    }
}

/// The folder that a file of this path is in.
pub fn folder_of(path: &Path) -> &Path {
    // The parent of a bare name is the empty path, which names no folder.
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An empty file in the folder of `path`, under a temporary name; only its owner can read it. What processes that were killed
/// have left of this kind is removed.
///
/// # Errors
/// The folder cannot be written.
pub fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let (folder, name) = (folder_of(path), Path::new(path.file_name().unwrap_or_default()).display());
    let ours = format!(".{name}.tns-shim-");
    remove_leftovers(folder, &ours);
    let prefix = format!("{ours}{}-", process::id());
    let plain = folder.join(&prefix);
    match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&plain) {
        Ok(file) => Ok(NamedTempFile::from_parts(file, TempPath::try_from_path(plain)?)),
        // A process of another pid namespace has the same number, or somebody wants to be in the way.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            tempfile::Builder::new().prefix(&prefix).tempfile_in(folder)
        }
        Err(error) => Err(error),
    }
}

/// Removes this user's own temporary files, by their names, of processes that are no more.
fn remove_leftovers(folder: &Path, ours: &str) {
    // A service: where the folder cannot be listed, the new file may be possible all the same.
    let Ok(listed) = File::open(folder) else { return };
    let mut room = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(listed, &mut room);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_str().ok();
        let maker = name.and_then(|name| name.strip_prefix(ours)?.split_once('-')?.0.parse::<u32>().ok());
        let Some((name, maker)) = name.zip(maker) else { continue };
        let path = folder.join(name);
        let own = fs::symlink_metadata(&path).is_ok_and(|file| file.is_file() && file.uid() == geteuid().as_raw());
        if own && !Path::new("/proc").join(maker.to_string()).exists() {
            drop(fs::remove_file(path));
        }
    }
}

impl Replacement {
    /// Writes the pieces, with the mode and owner that `metadata` tells, and the ACL of what is there. A group that this user
    /// cannot give (in a user namespace it may have no number), and an ACL that cannot be kept, are left out; nobody can read
    /// or write it then who could not before.
    ///
    /// # Errors
    /// The folder of `path` cannot be written, or the owner cannot be given.
    pub fn write(path: &Path, metadata: &fs::Metadata, pieces: &[&[u8]]) -> Result<Self> {
        let mut file = beside(path)?;
        pieces.iter().try_for_each(|piece| file.write_all(piece))?;
        let given = file.as_file().metadata()?;
        if given.uid() != metadata.uid() {
            fchown(file.as_file(), Some(metadata.uid()), None)?;
        }
        let own_group = given.gid() != metadata.gid() && fchown(file.as_file(), None, Some(metadata.gid())).is_err();
        let acl = acl(path);
        // Where there is an ACL, the group's bits are its mask, and not what the group may.
        let is_narrower = own_group || acl != Ok(None);
        let mode = if is_narrower { for_another_group(metadata.mode()) } else { metadata.mode() };
        // What the folder has by default for files in it.
        let _ = fremovexattr(file.as_file(), ACL);
        // After the owner, because chown takes set-id bits away.
        file.as_file().set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        if let (Ok(Some(acl)), false) = (acl, own_group) {
            let _ = fsetxattr(file.as_file(), ACL, &acl, XattrFlags::empty());
        }
        file.as_file().sync_all()?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// From now on this is what the path names.
    ///
    /// # Errors
    /// It cannot be renamed; then nothing has changed.
    pub fn take_place(self) -> Result<()> {
        self.file.persist(self.path)?;
        Ok(())
    }
}

/// The ACL of a file (acl(5)), as the kernel has it; none if it has none.
fn acl(path: &Path) -> Result<Option<Vec<u8>>, Errno> {
    // As many entries as anybody has.
    let mut acl = Vec::with_capacity(4096);
    match lgetxattr(path, ACL, spare_capacity(&mut acl)) {
        Ok(_) => Ok(Some(acl)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Members of the old group become others, and others become members of the new one: both keep what either had.
fn for_another_group(mode: u32) -> u32 {
    let both = (mode >> 3) & mode & 0o7;
    mode & !0o2077 | both << 3 | both
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn another_group_can_do_no_more_than_everybody_could() {
        for (before, after) in
            [(0o644, 0o644), (0o640, 0o600), (0o664, 0o644), (0o604, 0o600), (0o600, 0o600), (0o6775, 0o4755)]
        {
            assert_eq!(for_another_group(before), after, "{before:o}");
        }
    }

    #[test]
    fn a_folder_that_is_changed_for_another_one_meanwhile_is_not_followed() {
        let world = tempfile::tempdir().unwrap();
        let at = |name: &str| world.path().join(name);
        for folder in ["bundle", "others"] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("f"), "old").unwrap();
        }
        let place = Place::of(&at("bundle/f")).unwrap();
        let written = Replacement::write(&place.path(), &fs::metadata(place.path()).unwrap(), &[b"new"]).unwrap();
        fs::rename(at("bundle"), at("moved")).unwrap();
        std::os::unix::fs::symlink("others", at("bundle")).unwrap();
        written.take_place().unwrap();
        assert_eq!(["moved/f", "others/f"].map(|file| fs::read_to_string(at(file)).unwrap()), ["new", "old"]);
    }

    #[test]
    fn a_temporary_name_that_is_taken_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let taken = folder.path().join(format!(".f.tns-shim-{}-", process::id()));
        std::os::unix::fs::symlink("f", &taken).unwrap();
        let [one, other] = [beside(&path).unwrap(), beside(&path).unwrap()];
        assert_ne!(one.path(), other.path());
        assert!(!path.exists() && taken.is_symlink() && one.path() != taken && other.path() != taken);
        drop((one, other));
        fs::remove_file(&taken).unwrap();
        let again = beside(&path).unwrap();
        assert_eq!((again.path(), again.as_file().metadata().unwrap().mode() & 0o7777), (&*taken, 0o600));
    }

    #[test]
    fn only_what_ended_processes_have_left_of_this_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let [ended, own] = [ended.id(), process::id()];
        let stays = [
            format!(".a.tns-shim-{own}-x"),
            format!(".b.tns-shim-{ended}-x"),
            format!(".a.tns-shim-{ended}"),
            ".a.tns-shim-x-x".to_owned(),
            "a".to_owned(),
        ];
        for name in stays.iter().chain([&format!(".a.tns-shim-{ended}-x")]) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let link = format!(".a.tns-shim-{ended}-link");
        std::os::unix::fs::symlink("a", folder.path().join(&link)).unwrap();
        drop(beside(&folder.path().join("a")).unwrap());
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let mut wanted: Vec<_> = stays.into_iter().chain([link]).map(OsString::from).collect();
        left.sort();
        wanted.sort();
        assert_eq!(left, wanted);
    }
}
