// SPDX-License-Identifier: Apache-2.0
//! A private view of a checkpoint, in which some of its files hold something else, or are not there.
//!
//! A restore never writes to the image folder: images are shared between restores, cloned and read-only. What CRIU must
//! see changed it is shown in a tmpfs over the folder, in a mount namespace of its own ([`private_mounts`]). In it every
//! file of the folder is a link into the folder itself, which is mounted below. The links are relative: CRIU opens images
//! from within the container's root as well, by a descriptor of the folder.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, Result};

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
    fill(&cover.path(), files).with_context(|| format!("make a view of {}", folder.display()))
}

fn fill(view: &Path, files: &Shown) -> Result<()> {
    let real = view.join(REAL);
    for entry in fs::read_dir(&real)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let (from, to) = (real.join(&name), view.join(&name));
        if name == REAL || name.to_str().is_some_and(|name| files.contains_key(name)) {
            continue;
        }
        // A folder, because paths through it may have to have no link in them; a link as it is, because it may be relative.
        if kind.is_dir() {
            fs::create_dir(&to)?;
            private_mounts::bind(&from, &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else {
            symlink(Path::new(REAL).join(&name), &to)?;
        }
    }
    for (name, content) in files.iter().filter_map(|(name, content)| Some((name, content.as_ref()?))) {
        write(&view.join(name), &real, name, content).with_context(|| format!("write a view of {name}"))?;
    }
    for name in WRITTEN {
        match symlink(Path::new(REAL).join(name), view.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a file with the mode and owner of the real one, or of the inventory where there is no real one.
fn write(path: &Path, real: &Path, name: &str, content: &[u8]) -> Result<()> {
    let like = |name: &str| fs::metadata(real.join(name));
    let metadata = like(name).or_else(|_| like(INVENTORY_NAME))?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)?;
    chown(path, Some(metadata.uid()), Some(metadata.gid()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o777))?)
}
