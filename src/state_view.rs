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

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chroot, fchdir};

use crate::container::{ClockTicks, State};

/// Makes this process, and what it becomes, see `state`, which must be runc's, with another start time. `used` are the paths
/// that the runtime is to read or write.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`. Then everything is seen as it is, though perhaps in a new mount namespace.
pub fn show<'a>(state: &State, start: ClockTicks, used: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    // crun's exec reads more files than its status.
    ensure!(state.file.ends_with("state.json"), "only runc can be shown another state");
    let folder = state.file.parent().context("a file without a folder")?;
    let uses_folder = used.into_iter().any(|path| lies_in(path, folder));
    let below = cover(folder)?;
    let write = || -> Result<()> {
        let mut file = create(&state.file)?;
        state.write_with_start(start, &mut file)?;
        if uses_folder {
            mount(
                Some(&path_of(&file)),
                &path_of(&below).join("state.json"),
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
        }
        Ok(())
    };
    let shown = write().with_context(|| format!("show a view of {}", state.file.display()));
    if uses_folder || shown.is_err() {
        uncover(folder)?;
    }
    shown
}

/// Makes this process, and what it becomes, see one container in the `root` folder, with that state, or none: whatever comes
/// there later. What covers the container's own folder goes when that is removed.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`; ENOENT if there is no such folder; something in it is used for other purposes.
pub fn pin<'a>(root: &Path, state: Option<&State>, used: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    ensure!(!used.into_iter().any(|path| lies_in(path, root)), "something else in {} is needed", root.display());
    cover(root)?;
    let Some(state) = state else { return Ok(()) };
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(state.file.parent().unwrap_or(root))?;
        create(&state.file).and_then(|file| state.write_with_start(state.start, file))
    };
    write().or_else(|error| {
        uncover(root)?;
        Err(error).with_context(|| format!("show {}", state.file.display()))
    })
}

/// Covers a folder by an empty one, and returns what it was.
fn cover(folder: &Path) -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    separate().context("separate the mount namespace")?;
    // Files that are open lead to mounts of the namespace that they were opened in.
    let mount_it = || -> io::Result<File> {
        let below = place(folder)?;
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=700"))?;
        Ok(below)
    };
    mount_it().with_context(|| format!("cover {}", folder.display()))
}

fn uncover(folder: &Path) -> Result<()> {
    umount2(folder, MntFlags::MNT_DETACH).with_context(|| format!("uncover {}", folder.display()))
}

fn create(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)
}

/// Slave: what is unmounted on the host from a shared mount is unmounted here, too, and nothing goes back.
fn separate() -> Result<()> {
    let separate = || mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>);
    match separate() {
        // This process's root is a folder on a mount that begins above it.
        Err(Errno::EINVAL) => from_the_top(|| Ok(separate()?)),
        done => Ok(done?),
    }
}

/// Does something while the root folder is that of the mount namespace, and not the one that was changed to by chroot.
fn from_the_top(act: impl FnOnce() -> Result<()>) -> Result<()> {
    let [root, folder] = [place(Path::new("/"))?, place(Path::new("."))?];
    let own = File::open("/proc/self/ns/mnt")?;
    let back = || -> nix::Result<()> {
        fchdir(&root)?;
        chroot(".")?;
        fchdir(&folder)
    };
    // There must be a way back before this leaves.
    back().context("chroot")?;
    // To enter the own one changes nothing but the root and the working folder.
    setns(own, CloneFlags::CLONE_NEWNS).context("leave the chroot")?;
    let done = act();
    if let Err(error) = back() {
        log::error!("cannot go back into the chroot: {error}");
        std::process::exit(1);
    }
    done
}

/// Whether reading or writing `path` touches that folder.
fn lies_in(path: &Path, folder: &Path) -> bool {
    let Ok(folder) = fs::canonicalize(folder) else { return false };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The path may be a link that is read through, or replaced.
    [path, parent].into_iter().filter_map(|path| fs::canonicalize(path).ok()).any(|path| path.starts_with(&folder))
}

/// A way to what is open that does not depend on what paths name by now.
fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn place(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)
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
            assert_eq!(lies_in(&at(name), &at("root/c1")), lies, "{name}");
            assert_eq!(lies_in(&at(name), &at("to-folder")), lies, "{name}");
        }
        // A link in the folder is found there.
        assert!(lies_in(&at("root/c1/out"), &at("root/c1")));
        assert!(!lies_in(Path::new("pid"), &at("root/c1")));
    }
}
