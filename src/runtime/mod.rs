// SPDX-License-Identifier: Apache-2.0
//! The runtime behind the shim: which binary it is, what it can do, and how to become it.

pub mod abilities;
pub mod criu;
pub mod handover;
pub mod locate;

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A runtime's binary on disk, and what tells it from every other one and from itself after an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Absolute path.
    pub path: PathBuf,
    /// What the file was when it was looked at.
    pub identity: Identity,
}

/// What changes when a file is replaced or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content: seconds and nanoseconds since the epoch.
    pub mtime: (i64, i64),
    /// Last change of the inode: seconds and nanoseconds since the epoch.
    pub ctime: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Binary {
    /// Looks at the file at `path`, through links.
    ///
    /// # Errors
    /// There is no such file, or it may not be looked at, or it is no regular one.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        let metadata = fs::metadata(&path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { path, identity: Identity::of(&metadata) })
    }
}

/// Whether two files are the same program: one inode, or equal bytes (a copy of the shim under another name would hand
/// over to the next copy, and that one back, forever).
fn same_program(one: &Binary, other: &Binary) -> bool {
    let equal_bytes = |one: &Path, other: &Path| match (fs::read(one), fs::read(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    one.identity.same_file(&other.identity)
        || (one.identity.size == other.identity.size && equal_bytes(&one.path, &other.path))
}
