// SPDX-License-Identifier: Apache-2.0
//! The runtime behind the shim: which binary it is, what it can do, and how to become it.

pub mod abilities;
pub mod criu;
pub mod handover;
pub mod helper;
pub mod locate;
pub mod memory;

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys;

/// A runtime's binary on disk, and what tells it from every other one and from itself after an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Absolute path.
    pub path: PathBuf,
    /// What the file was when it was looked at.
    pub identity: Identity,
    /// It begins with `#!`.
    pub is_script: bool,
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
        Ok(Self { path, identity: Identity::of(&metadata), is_script: false })
    }

    /// As [`Binary::at`], for what the shim could hand over to; none if that is the shim itself: this file, a copy of it
    /// (which would hand over to the next copy, and that one back, for ever), or another build.
    ///
    /// # Errors
    /// As for [`Binary::at`].
    fn candidate(path: PathBuf) -> io::Result<Option<Self>> {
        let binary = Self::at(path)?;
        let (is_own, is_script) = match Beginning::of(&binary.path) {
            Ok(beginning) => (beginning.is_marked, beginning.is_script),
            // It may be executed but not read. That it is another one then is all that can be told.
            Err(_) => (Self::own()?.identity.same_file(&binary.identity), false),
        };
        Ok((!is_own).then_some(Self { is_script, ..binary }))
    }

    /// Whether a program of that path is tns-shim.
    pub fn is_shim(path: &Path) -> bool {
        Beginning::of(path).is_ok_and(|beginning| beginning.is_marked)
    }

    fn own() -> io::Result<Self> {
        Self::at("/proc/self/exe".into())
    }
}

/// What the first bytes of a program tell.
#[derive(Default)]
struct Beginning {
    /// It is one of tns-shim's, see [`sys::MARK`].
    is_marked: bool,
    is_script: bool,
}

impl Beginning {
    /// Of a file that was seen to be a regular one, in folders where only an administrator puts programs; by one read.
    fn of(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let mut bytes = [0; sys::MARK_WITHIN];
        let mut rest = &mut bytes[..];
        // What a file does not have stays zero, and is no mark.
        while !rest.is_empty() {
            match file.read(rest)? {
                0 => break,
                length => rest = rest.get_mut(length..).unwrap_or_default(),
            }
        }
        let starts_here = |window: &[u8]| window.first_chunk::<4>() == sys::MARK.first_chunk() && window == sys::MARK;
        Ok(Self {
            // Notes are aligned to four bytes, see elf(5).
            is_marked: bytes.windows(sys::MARK.len()).step_by(4).any(starts_here),
            is_script: bytes.starts_with(b"#!"),
        })
    }
}
