// SPDX-License-Identifier: Apache-2.0
//! A private view of the runtime's state.
//!
//! A runtime inside the container's time namespace reads other start times in procfs than it recorded outside: they are
//! shifted by the reader's own boottime offset, which CRIU sets at every restore. It would take the container for stopped.
//! So it is shown, in a mount namespace of its own, a state file that says what it will read. The view is a tmpfs over the
//! container's folder, not a mount over the file: `runc update` replaces that file, and a rename over a file takes the
//! mounts on it away in every namespace. It ends with the mount namespace; nothing is left on the host or in the container.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::container::{ClockTicks, State};

/// Makes this process, and what it becomes, see `state`, which must be runc's, with another start time.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`. Then everything is seen as it is, though perhaps in a new mount namespace.
pub fn show(state: &State, start: ClockTicks) -> Result<()> {
    // crun's exec reads more files than its status.
    ensure!(state.file.ends_with("state.json"), "only runc can be shown another state");
    let folder = state.file.parent().context("a file without a folder")?;
    hide(folder)?;
    let write = || {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&state.file)?;
        state.write_with_start(start, file)
    };
    write().with_context(|| format!("write a view of {}", state.file.display())).inspect_err(|_| {
        if let Err(error) = umount2(folder, MntFlags::MNT_DETACH) {
            log::warn!("unmount {}: {error}", folder.display());
        }
    })
}

/// Makes this process, and what it becomes, see an empty `folder`.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`; ENOENT if there is no such folder.
pub fn hide(folder: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    // Slave: what is unmounted on the host from a shared mount is unmounted here, too, and nothing goes back.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .context("separate the mount namespace")?;
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=700"))
        .with_context(|| format!("cover {}", folder.display()))
}
