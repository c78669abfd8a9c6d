// SPDX-License-Identifier: Apache-2.0
//! A private view of the runtime's state.
//!
//! A runtime inside the container's time namespace reads other start times in procfs than it recorded outside: they are
//! shifted by the reader's own boottime offset, which CRIU sets at every restore. It would take the container for stopped.
//! So it is shown, in a mount namespace of its own, a state file that says what it will read. The view is a tmpfs over the
//! container's folder, not a mount over the file: `runc update` replaces that file, and a rename over a file takes the
//! mounts on it away in every namespace. Only where the call itself reads or writes in that folder, which no engine does,
//! the rest of it has to be there, and the file alone is mounted over. The view ends with the mount namespace; nothing is
//! left on the host or in the container.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;

use crate::container::{ClockTicks, State};
use crate::files;
use crate::private_mounts::Cover;
use crate::replacement::folder_of;

/// Its name below the folder of a container.
const STATE: &str = "state.json";

/// Makes this process, and what it becomes, see `state`, which must be runc's, with another start time. `used` are the paths
/// that the runtime is to read or write.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`. Then everything is seen as it is, though perhaps in a new mount namespace.
pub fn show<'a>(state: &State, start: ClockTicks, used: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    // crun's exec reads more files than its status.
    ensure!(state.file.ends_with(STATE), "only runc can be shown another state");
    let folder = state.file.parent().context("a file without a folder")?;
    let is_used = is_used(folder, used);
    let cover = Cover::following(folder)?;
    match write(state, start, &cover.path()) {
        Ok(()) if is_used => cover.narrow_to(STATE),
        Ok(()) => Ok(()),
        Err(error) => {
            cover.lift();
            Err(error).with_context(|| format!("write a view of {}", state.file.display()))
        }
    }
}

/// Makes this process, and what it becomes, see one container in the `root` folder, with that state, or none: whatever comes
/// there later. What covers the container's own folder goes when that is removed.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`; ENOENT if there is no such folder; something in it is used for other purposes.
pub fn pin<'a>(root: &Path, state: Option<&State>, used: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    ensure!(!is_used(root, used), "something else in {} is needed", root.display());
    let cover = Cover::following(root)?;
    let Some(state) = state else { return Ok(()) };
    let folder = state.file.parent().and_then(Path::file_name).context("a file without a folder")?;
    let folder = cover.path().join(folder);
    DirBuilder::new().mode(0o700).create(&folder).and_then(|()| write(state, state.start, &folder)).or_else(|error| {
        cover.lift();
        Err(error).with_context(|| format!("write a view of {}", state.file.display()))
    })
}

fn write(state: &State, start: ClockTicks, folder: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(STATE))?;
    state.write_with_start(start, file)
}

/// Whether reading or writing one of the paths touches that folder.
fn is_used<'a>(folder: &Path, paths: impl IntoIterator<Item = &'a Path>) -> bool {
    let Ok(folder) = real(folder) else { return false };
    // A path may be a link that is read through, or replaced.
    let places = paths.into_iter().flat_map(|path| [path, folder_of(path)]);
    places.filter_map(|path| real(path).ok()).any(|path| path.starts_with(&folder))
}

/// The path without links, as the kernel knows it: realpath(3) asks for each of its parts.
fn real(path: &Path) -> io::Result<PathBuf> {
    let place = files::place(path, OFlag::empty())?;
    fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_lies_in_a_folder_by_whatever_name() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("root/c1/sub")).unwrap();
        fs::create_dir(at("root/c10")).unwrap();
        fs::write(at("root/c1/process.json"), "").unwrap();
        symlink(at("root/c1"), at("to-folder")).unwrap();
        symlink(at("root/c1/process.json"), at("to-file")).unwrap();
        symlink(at("root"), at("root/c1/out")).unwrap();
        for (name, lies) in [
            ("root/c1/pid", true),
            ("root/c1/process.json", true),
            ("root/c1/sub/pid", true),
            ("root/c10/../c1/pid", true),
            ("to-folder/pid", true),
            ("to-file", true),
            ("root/c10/pid", false),
            ("root/c1", true),
            ("root/pid", false),
            ("pid", false),
            ("absent/pid", false),
        ] {
            assert_eq!(is_used(&at("root/c1"), [&*at(name)]), lies, "{name}");
            assert_eq!(is_used(&at("to-folder"), [&*at(name)]), lies, "{name}");
        }
        // A link in the folder is found there.
        assert!(is_used(&at("root/c1"), [&*at("root/c1/out")]));
        assert!(!is_used(&at("root/c1"), [Path::new("pid")]));
    }
}
