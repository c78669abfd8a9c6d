// SPDX-License-Identifier: Apache-2.0
//! Checkpoints in archives, read as a stream: whatever an archive's size, only the few files that matter are in memory. At the
//! most these are 64 MiB, and zstd needs 128 MiB, or 160 for an archive within another: with all that a repair takes, nothing
//! that somebody may have packed needs more than 320 MiB (tests/bounds.rs).
//!
//! | made by | where the images are |
//! |---|---|
//! | `podman container checkpoint --export`, CRI-O, kubelet | in `checkpoint/` of a tar |
//! | `ctr image export` of a checkpoint | at the root of a tar that is a blob of an OCI image layout |
//! | anybody's tar | in any folder of it |
//!
//! Each tar, also one within another, may be compressed with gzip or zstd. What it is, its first bytes tell; its name is
//! never asked.
//!
//! | part | what it knows |
//! |---|---|
//! | [`compression`] | gzip and zstd, there and back |
//! | [`members`] | tar: one member after the other, and where in the stream each is |
//! | [`collect`] | which of them are a checkpoint's |
//! | [`rewrite`] | the same stream with other bytes in the place of a few |

pub mod collect;
pub mod compression;
pub mod members;
pub mod rewrite;

use std::io::{self, Read};

/// Of a stream: whether it is the same one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// In bytes.
    pub length: u64,
    /// As gzip has it. It finds accidents, nothing else.
    pub crc32: u32,
}

/// A stream that is summed up while it is read.
struct Summed<R> {
    stream: R,
    length: u64,
    crc: flate2::Crc,
}

impl<R: Read> Summed<R> {
    fn new(stream: R) -> Self {
        Self { stream, length: 0, crc: flate2::Crc::new() }
    }

    /// Of what was read up to now.
    fn sum(&self) -> Sum {
        Sum { length: self.length, crc32: self.crc.sum() }
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.crc.update(buffer.get(..count).unwrap_or_default());
        self.length = self.length.saturating_add(count as u64);
        Ok(count)
    }
}

/// Reads until the buffer is full or nothing is left; returns how much that was.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
