// SPDX-License-Identifier: Apache-2.0
//! A private view of the runtime's state file.
//!
//! A runtime inside the container's time namespace reads other start times in procfs than it recorded outside: they are
//! shifted by the reader's own boottime offset, which CRIU sets at every restore. It would take the container for stopped.
//! So it is shown, in a mount namespace of its own, a state file that says what it will read. That file has lost its name
//! before the runtime runs, and ends with the mount namespace: nothing of it is left on the host or in the container.

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::container::{ClockTicks, State};

/// Makes this process, and what it becomes, see `state` with another start time.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`, or the state folder cannot be written. The mount namespace may be a new one by then,
/// which is a copy and follows the old one.
pub fn show(state: &State, start: ClockTicks) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    // Slave: an unmount on the host must still arrive here, and nothing goes back.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .context("separate the mount namespace")?;
    let folder = state.file.parent().context("a file without a folder")?;
    let write = || format!("write a view of {}", state.file.display());
    let mut view = tempfile::Builder::new().prefix(".tns-shim-").tempfile_in(folder).with_context(write)?;
    state.write_with_start(start, &mut view).with_context(write)?;
    // A file without a name cannot be mounted; one that is mounted can lose it.
    mount(Some(view.path()), &state.file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("show a view of {}", state.file.display()))?;
    view.close().with_context(|| format!("remove the name of the view of {}", state.file.display()))
}
