// SPDX-License-Identifier: Apache-2.0
//! A private view of the runtime's state file.
//!
//! A runtime inside the container's time namespace reads other start times in procfs than it recorded outside: they are
//! shifted by the reader's own boottime offset, which CRIU sets at every restore. It would take the container for stopped.
//! So it is shown, in a mount namespace of its own, a state file that says what it will read. The file has no name and
//! ends with the mount namespace; nothing of it is left on the host or in the container.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::container::{ClockTicks, State};

/// Makes this process, and what it becomes, see `state` with another start time.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`, or the file system of the state folder has no unnamed files (`O_TMPFILE`). The mount
/// namespace may be a new one by then, which is a copy and follows the old one.
pub fn show(state: &State, start: ClockTicks) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    // Slave: an unmount on the host must still arrive here, and nothing goes back.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .context("separate the mount namespace")?;
    let file = unnamed_file(state, state.with_start(start).as_bytes())
        .with_context(|| format!("write a view of {}", state.file.display()))?;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    mount(Some(source.as_str()), &state.file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("show a view of {}", state.file.display()))
}

/// Opened in the new mount namespace, because a mount can only be bound in the namespace it belongs to.
fn unnamed_file(state: &State, text: &[u8]) -> Result<File> {
    let folder = state.file.parent().context("a file without a folder")?;
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder)?;
    file.write_all(text)?;
    Ok(file)
}
