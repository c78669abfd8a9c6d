// SPDX-License-Identifier: Apache-2.0
//! The same archive with other bytes in the place of a few: every other byte stays by construction, because it is never
//! taken apart.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail};

use super::collect::{Checkpoint, Kept};
use super::compression::{Compression, Encoder, Window, decoded};
use super::members::{BLOCK, checksum};
use super::{Sum, Summed};
use crate::criu::originals::Edit;

/// Bytes in the place of as many others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where, in bytes from the start of the archive, before compression.
    pub at: u64,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Checkpoint {
    /// What the edits change in the archive, from its start to its end.
    ///
    /// # Errors
    /// It does not fit.
    pub fn patches<'a>(&self, edits: impl IntoIterator<Item = &'a Edit>) -> Result<Vec<Patch>> {
        if self.in_blob {
            bail!(
                "it is in a blob, whose digest would not be right any more. Restoring it through tns-shim repairs it; or \
                 unpack {} into a folder, and repair that",
                self.place
            );
        }
        let mut patches = Vec::new();
        for Edit { name, before, after } in edits {
            let Some(Ok(kept)) = self.files.get(name) else { bail!("there is no {name}") };
            let Some(after) = after else { bail!("{name} cannot be taken out of an archive") };
            if *before != kept.bytes {
                bail!("the change was planned for another {name}");
            }
            patches.extend(resized(kept, after).with_context(|| format!("change the length of {name}"))?);
            // What the longer of the two has more is in the padding.
            let length = before.len().max(after.len());
            let padded = |bytes: &[u8]| [bytes, &vec![0; length - bytes.len()]].concat();
            patches.push(Patch { at: kept.member.content_at, before: padded(before), after: padded(after) });
        }
        patches.sort_by_key(|patch| patch.at);
        Ok(patches)
    }
}

/// The header with another size, if it needs one.
fn resized(kept: &Kept, after: &[u8]) -> Result<Option<Patch>> {
    let member = &kept.member;
    let (size, blocks) = (after.len() as u64, member.size.div_ceil(BLOCK));
    if size == member.size {
        return Ok(None);
    }
    if size.div_ceil(BLOCK) != blocks {
        bail!("{size} bytes do not take as many blocks of the archive as {}", member.size);
    }
    if member.size_is_extended {
        bail!("its size is in PAX records, which would have to change their length");
    }
    let before = member.header.as_bytes();
    let mut header = member.header.clone();
    // As Go and GNU write it. Whatever was there, all read this.
    header.as_old_mut().size.copy_from_slice(format!("{size:011o}\0").as_bytes());
    let sum = format!("{:06o}\0 ", checksum(header.as_bytes()));
    header.as_old_mut().cksum.copy_from_slice(sum.as_bytes());
    Ok(Some(Patch { at: member.header_at, before: before.to_vec(), after: header.as_bytes().to_vec() }))
}

/// A stream with some bytes replaced.
struct Patched<R> {
    stream: R,
    at: u64,
    patches: Vec<Patch>,
    /// The first one that is not yet done.
    next: usize,
}

impl<R: Read> Read for Patched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        let end = self.at.saturating_add(count as u64);
        while let Some(patch) = self.patches.get(self.next).filter(|patch| patch.at < end) {
            for (offset, (before, after)) in (patch.at..).zip(patch.before.iter().zip(&patch.after)) {
                let Some(index) = offset.checked_sub(self.at).and_then(|index| usize::try_from(index).ok()) else {
                    continue;
                };
                let Some(byte) = buffer.get_mut(..count).and_then(|buffer| buffer.get_mut(index)) else { break };
                if byte != before {
                    let what = format!(
                        "byte {offset} is not what it should be: padding that is not zero, or a change just now"
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                *byte = *after;
            }
            if patch.at.saturating_add(patch.after.len() as u64) > end {
                break;
            }
            self.next += 1;
        }
        self.at = end;
        Ok(count)
    }
}

/// Copies an archive, compressed as it is, with the patches applied; returns what the sum of the copy must be.
///
/// # Errors
/// It cannot be read or written, or is not the archive any more that has the sum `expected`.
pub fn copy(raw: impl Read, expected: Sum, patches: Vec<Patch>, to: impl Write) -> Result<Sum> {
    let (compression, stream) = decoded(raw, Window::OF_ARCHIVE)?;
    let mut original = Summed::new(stream);
    let mut changed = Summed::new(Patched { stream: &mut original, at: 0, patches, next: 0 });
    write(&mut changed, compression, to)?;
    let (sum, all_done) = (changed.sum(), changed.stream.next == changed.stream.patches.len());
    if original.sum() != expected || !all_done {
        bail!("somebody has changed the archive just now");
    }
    Ok(sum)
}

fn write(from: &mut impl Read, compression: Compression, to: impl Write) -> Result<()> {
    let mut encoder = Encoder::new(compression, to)?;
    io::copy(from, &mut encoder)?;
    encoder.finish()?.flush()?;
    Ok(())
}
