// SPDX-License-Identifier: Apache-2.0
//! A private view of a checkpoint, in which some of its files hold something else, or are not there.
//!
//! A restore never writes to the image folder: images are shared between restores, cloned and read-only. What CRIU must
//! see changed it is shown in a tmpfs over the folder, in a mount namespace of its own ([`private_mounts`]). In it every
//! file of the folder is a link into the folder itself, which is mounted below. The links are relative: CRIU opens images
//! from within the container's root as well, by a descriptor of the folder.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::symlinkat;

use crate::criu::images::INVENTORY_NAME;
use crate::private_mounts::{self, Cover};

/// The folder in the view that is the image folder itself.
const REAL: &str = ".tns-shim-real";

/// What CRIU writes into its working folder at restore, which crun takes the image folder for if it is told no other.
const WRITTEN: [&str; 2] = ["restore.log", "stats-restore"];

/// How files are to be seen, by name: what each holds, or that it is not there.
pub type Shown = BTreeMap<String, Option<Vec<u8>>>;

/// Makes this process, and what it becomes, see the image folder with these files as they are given. All others are
/// themselves.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`, and others as mounting has them.
pub fn show(folder: &Path, files: &Shown) -> Result<()> {
    let cover = Cover::new(folder, Some(REAL))?;
    fill(&cover, files).with_context(|| format!("make a view of {}", folder.display()))
}

fn fill(cover: &Cover, files: &Shown) -> Result<()> {
    // There can be thousands: by the descriptor, each takes the kernel half as long as by a path.
    let (view, path) = (cover.folder(), cover.path());
    for entry in fs::read_dir(path.join(REAL))? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if name == REAL || name.to_str().is_some_and(|name| files.contains_key(name)) {
            continue;
        }
        // A folder, because paths through it may have to have no link in them; a link as it is, because it may be relative.
        if kind.is_dir() {
            let place = path.join(&name);
            fs::create_dir(&place)?;
            private_mounts::bind(&entry.path(), &place)?;
        } else if kind.is_symlink() {
            symlinkat(&fs::read_link(entry.path())?, view, name.as_os_str())?;
        } else {
            symlinkat(&Path::new(REAL).join(&name), view, name.as_os_str())?;
        }
    }
    for (name, content) in files.iter().filter_map(|(name, content)| Some((name, content.as_ref()?))) {
        write(view, name, content).with_context(|| format!("write a view of {name}"))?;
    }
    for name in WRITTEN {
        match symlinkat(&Path::new(REAL).join(name), view, name) {
            Err(error) if error != Errno::EEXIST => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a file with the mode and owner of the real one, or of the inventory where there is no real one.
fn write(view: &File, name: &str, content: &[u8]) -> Result<()> {
    let like = |name: &str| fstatat(view, &Path::new(REAL).join(name), AtFlags::empty());
    let like = like(name).or_else(|_| like(INVENTORY_NAME))?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(view, name, flags, Mode::S_IRUSR)?);
    file.write_all(content)?;
    fchown(&file, Some(like.st_uid), Some(like.st_gid))?;
    Ok(file.set_permissions(Permissions::from_mode(like.st_mode & 0o777))?)
}
