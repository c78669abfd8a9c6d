// SPDX-License-Identifier: Apache-2.0
//! A lock on an image folder, so that nobody reads files of which another has changed only some. It is flock(2) on the
//! folder itself: nothing is left behind, also where the holder is killed.

use std::fs::File;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::images::Folder;

/// How long another's lock is waited for: a repair holds it for as long as it takes to write some small files.
const LONGEST: Duration = Duration::from_secs(10);

const STEP: Duration = Duration::from_millis(20);

/// Held until it is dropped. None on file systems that have no such locks.
#[derive(Debug)]
pub struct Lock {
    _held: Option<Flock<File>>,
}

/// Whoever reads; others may read as well.
///
/// # Errors
/// There is no such folder, or somebody has locked it for longer than this waits.
pub fn shared(folder: &Folder) -> Result<Lock> {
    lock(folder, FlockArg::LockSharedNonblock)
}

/// Whoever writes.
///
/// # Errors
/// As [`shared`].
pub fn exclusive(folder: &Folder) -> Result<Lock> {
    lock(folder, FlockArg::LockExclusiveNonblock)
}

fn lock(Folder(folder): &Folder, how: FlockArg) -> Result<Lock> {
    let mut file = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
    let mut waited = Duration::ZERO;
    loop {
        file = match Flock::lock(file, how) {
            Ok(lock) => return Ok(Lock { _held: Some(lock) }),
            Err((file, Errno::EWOULDBLOCK)) => file,
            // NFS, for one, asks for more rights than reading for a lock.
            Err((_, error)) => {
                log::debug!("{} cannot be locked: {error}", folder.display());
                return Ok(Lock { _held: None });
            }
        };
        if waited >= LONGEST {
            bail!("somebody else keeps {} locked, as tnsctl does while it repairs", folder.display());
        }
        thread::sleep(STEP);
        waited += STEP;
    }
}
