// SPDX-License-Identifier: Apache-2.0
//! The members of a tar, one after the other, and where in the stream each is.
//!
//! Where readers of tar differ, this one reads as Go's archive/tar does, because that is what unpacks checkpoints in Podman,
//! CRI-O and containerd; where even that would be guessing, it refuses. Extensions are bounded. Sources: tar(5), pax(1) of
//! POSIX, GNU tar's manual (Tar Internals).

use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use tar::Header;

use super::fill;
use crate::clocks::Nanoseconds;

/// Headers and contents are padded to this.
pub const BLOCK: u64 = 512;

/// The most bytes that a long name or a set of PAX records may have.
const LARGEST_EXTENSION: u64 = 1 << 20;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, with its content as it is.
    File,
    /// A regular file without its holes.
    Sparse,
    /// Something else.
    Other,
}

/// A member of a tar. Positions are in bytes from the start of the stream, before compression.
#[derive(Clone, Debug)]
pub struct Member {
    /// As it is told, which may be in many ways for one file.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Of its header, without extensions.
    pub header: Header,
    /// Where that header is.
    pub header_at: u64,
    /// Where its content is.
    pub content_at: u64,
    /// Of its content, in bytes.
    pub size: u64,
    /// The size is not told by the header, but by an extension of it.
    pub size_is_extended: bool,
    /// When it was written, in the wall clock's time since 1970.
    pub modified: Nanoseconds,
}

/// What the extensions before a member say of it.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<Nanoseconds>,
    sparse: bool,
    /// There were PAX records.
    records: bool,
    /// There was something.
    any: bool,
}

/// Reads a tar. As a [`Read`], it is the content of the member that was returned last.
pub struct Members<R> {
    stream: R,
    /// Where it stands.
    at: u64,
    /// What is left of the content of the current member, and its padding.
    content: u64,
    padding: u64,
    scratch: Box<[u8]>,
    ended: bool,
}

impl<R: Read> Members<R> {
    /// Begins where the stream stands.
    pub fn new(stream: R) -> Self {
        Self { stream, at: 0, content: 0, padding: 0, scratch: vec![0; 64 << 10].into(), ended: false }
    }

    /// The next member. After the last one, the stream is read to its very end, where a checksum may be.
    ///
    /// # Errors
    /// The stream cannot be read, ends too early, or is not understood; the message tells where.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        let mut extensions = Extensions::default();
        loop {
            self.pass_over()?;
            let header_at = self.at;
            let Some(header) = self.header()? else {
                if extensions.any {
                    bail!("byte {header_at}: the archive ends within the description of a member");
                }
                return Ok(None);
            };
            let old = header.as_old();
            let Some(size) = number(&old.size) else { bail!("byte {header_at}: a size that is no number") };
            let [flag] = old.linkflag;
            if matches!(flag, b'L' | b'K' | b'x' | b'g') {
                self.enter(size)?;
                extensions.any |= flag != b'g';
                match flag {
                    b'L' => extensions.long_name = Some(until_nul(&self.extension()?).to_vec()),
                    // Whether a second one adds to the first or takes its place, readers do not agree on.
                    b'x' if extensions.records => bail!("byte {header_at}: a second set of PAX records for one member"),
                    b'x' => extensions.take(&self.extension()?).with_context(|| format!("byte {header_at}"))?,
                    b'g' => {
                        let mut global = Extensions::default();
                        global.take(&self.extension()?).with_context(|| format!("byte {header_at}"))?;
                        if global.path.is_some() || global.size.is_some() || global.sparse {
                            bail!("byte {header_at}: a name or a size for all members that follow");
                        }
                    }
                    // The target of a link: nothing that is asked for here.
                    _ => {}
                }
                continue;
            }
            return self.member(header, header_at, size, flag, extensions).map(Some);
        }
    }

    fn member(&mut self, header: Header, header_at: u64, size: u64, flag: u8, told: Extensions) -> Result<Member> {
        if told.long_name.is_some() && told.path.is_some() {
            bail!("byte {header_at}: a member with two long names");
        }
        let name = told.long_name.or(told.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = match flag {
            b'S' => Kind::Sparse,
            0 if name.ends_with(b"/") => Kind::Other,
            0 | b'0' | b'7' if told.sparse => Kind::Sparse,
            0 | b'0' | b'7' => Kind::File,
            _ => Kind::Other,
        };
        if flag == b'S' {
            let Some(gnu) = header.as_gnu() else { bail!("byte {header_at}: a sparse file in a tar that has none") };
            let mut more = gnu.isextended != [0];
            while more {
                let Some(map) = self.block()? else { bail!("byte {}: the archive is cut off", self.at) };
                more = map.get(504).is_some_and(|more| *more != 0);
            }
        }
        // Links, devices, folders and pipes have no content, whatever their size says.
        let has_content = !(matches!(flag, b'1'..=b'6') || (flag == 0 && kind == Kind::Other));
        let size = if has_content { told.size.unwrap_or(size) } else { 0 };
        let content_at = self.at;
        self.enter(size).with_context(|| format!("byte {header_at}"))?;
        let seconds = number(&header.as_old().mtime).and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
        let modified = told.modified.unwrap_or(Nanoseconds(seconds.saturating_mul(1_000_000_000)));
        let size_is_extended = told.size.is_some();
        Ok(Member { name, kind, header, header_at, content_at, size, size_is_extended, modified })
    }

    /// From here on is the content of a member.
    fn enter(&mut self, size: u64) -> Result<()> {
        let padding = size.wrapping_neg() % BLOCK;
        let end = self.at.checked_add(size).and_then(|end| end.checked_add(padding));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            bail!("a member of {size} bytes, which no file can have");
        }
        (self.content, self.padding) = (size, padding);
        Ok(())
    }

    /// To the next header.
    fn pass_over(&mut self) -> Result<()> {
        // Not together, as their sum is checked.
        for part in [self.content, self.padding] {
            let mut left = part;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.scratch.len());
                let chunk = self.scratch.get_mut(..most).unwrap_or_default();
                let count = fill(&mut self.stream, chunk).with_context(|| format!("read on from byte {}", self.at))?;
                self.at = self.at.saturating_add(count as u64);
                if count < most {
                    bail!("byte {}: the archive is cut off", self.at);
                }
                left -= count as u64;
            }
        }
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// None if nothing is left.
    fn block(&mut self) -> Result<Option<[u8; 512]>> {
        let mut block = [0; 512];
        let count = fill(&mut self.stream, &mut block).with_context(|| format!("read on from byte {}", self.at))?;
        self.at = self.at.saturating_add(count as u64);
        match count {
            0 => Ok(None),
            512 => Ok(Some(block)),
            _ => bail!("byte {}: the archive is cut off", self.at),
        }
    }

    /// None at the end mark.
    fn header(&mut self) -> Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        let at = self.at;
        let Some(block) = self.block()? else {
            bail!("byte {at}: the archive ends without the mark of its end, so it is cut off");
        };
        if block == [0; 512] {
            if self.block()?.is_some_and(|block| block != [0; 512]) {
                bail!("byte {at}: half a mark of the archive's end");
            }
            self.ended = true;
            while fill(&mut self.stream, &mut self.scratch).with_context(|| format!("read on from byte {at}"))? > 0 {}
            return Ok(None);
        }
        if !is_header(&block) {
            bail!("byte {at}: not the header of a member, or a damaged one");
        }
        Ok(Some(Header::from_byte_slice(&block).clone()))
    }

    /// The content of a member that says something about the next one.
    fn extension(&mut self) -> Result<Vec<u8>> {
        let at = self.at;
        if self.content > LARGEST_EXTENSION {
            bail!("byte {at}: a name or a set of PAX records of {} bytes", self.content);
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).with_context(|| format!("read on from byte {at}"))?;
        Ok(bytes)
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = self.stream.read(buffer)?;
        if count == 0 {
            let what = format!("the archive is cut off at byte {}", self.at);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.content = self.content.saturating_sub(count as u64);
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

/// Whether this is the header of a member: its checksum says so.
pub fn is_header(block: &[u8]) -> bool {
    block.len() == 512 && number(&Header::from_byte_slice(block).as_old().cksum) == Some(checksum(block))
}

/// The checksum of a header, in which the checksum itself counts as spaces.
pub fn checksum(header: &[u8]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(header.get(..148).unwrap_or_default()) + 8 * u64::from(b' ') + sum(header.get(156..).unwrap_or_default())
}

/// A number of a header: octal digits, or binary where the highest bit of the field is set. None if it is no number, is
/// negative, or has more than 64 bits.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, binary @ ..] = field {
        return binary.iter().try_fold(0_u64, |value, byte| Some(value.checked_mul(256)? | u64::from(*byte)));
    }
    let is_filler = |byte: &u8| matches!(byte, 0 | b' ');
    let start = field.iter().position(|byte| !is_filler(byte)).unwrap_or(field.len());
    let digits = field.get(start..)?;
    let end = digits.iter().position(is_filler).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let value = digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => Some(value.checked_mul(8)? + u64::from(digit - b'0')),
        _ => None,
    })?;
    rest.iter().all(is_filler).then_some(value)
}

/// A decimal number, in digits alone.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl Extensions {
    /// Adds PAX records: each is its own length, a space, a key, `=`, a value and a line feed. Values may hold line feeds.
    fn take(&mut self, mut records: &[u8]) -> Result<()> {
        let wrong = "a set of PAX records that is not understood";
        self.records = true;
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').context(wrong)?;
            let length = records.get(..space).and_then(decimal).and_then(|length| usize::try_from(length).ok());
            let (record, rest) = records.split_at_checked(length.context(wrong)?).context(wrong)?;
            let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).context(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=').context(wrong)?;
            let (key, value) = (record.get(..equals).context(wrong)?, record.get(equals + 1..).context(wrong)?);
            records = rest;
            // Nothing means that the header's own counts.
            let value_or_none = Some(value).filter(|value| !value.is_empty());
            match key {
                b"size" => {
                    self.size =
                        value_or_none.map(|value| decimal(value).context("a PAX size that is none")).transpose()?;
                }
                b"path" if !self.sparse => self.path = value_or_none.map(<[u8]>::to_vec),
                b"GNU.sparse.name" => (self.path, self.sparse) = (Some(value.to_vec()), true),
                b"mtime" => self.modified = seconds(value),
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Seconds since 1970 with a fraction; none before that.
fn seconds(value: &[u8]) -> Option<Nanoseconds> {
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (value.get(..dot)?, value.get(dot + 1..)?),
        None => (value, &b""[..]),
    };
    let nanoseconds = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9).collect::<Vec<_>>();
    let whole = i64::try_from(decimal(whole)?).ok()?.checked_mul(1_000_000_000)?;
    Some(Nanoseconds(whole.checked_add(i64::try_from(decimal(&nanoseconds)?).ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, value) in [
            (&b"00000000017\0"[..], Some(15)),
            (b"        17 \0", Some(15)),
            (b"777777777777", Some((1 << 36) - 1)),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\0\x02\x80\0\0\0", Some(10 << 30)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", Some(u64::MAX)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\x81\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"+0000000017\0", None),
            (b"00000000018\0", None),
            (b"17 000000017\0", None),
            (b"-0000000001\0", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn records_have_the_length_that_they_tell() {
        let taken = |records: &[u8]| {
            let mut extensions = Extensions::default();
            extensions.take(records).map(|()| extensions)
        };
        let told = taken(b"20 size=10737418240\n20 SCHILY.xattr=a\nb\n16 mtime=1.000000002\n");
        assert!(told.is_err(), "a length that is too small by some");
        let told = taken(b"20 size=10737418240\n20 SCHILY.xattr=a\nb\n22 mtime=1.0000000023\n10 path=p\n").unwrap();
        assert_eq!(
            (told.size, told.modified.unwrap().0, &told.path.unwrap()[..]),
            (Some(10 << 30), 1_000_000_002, &b"p"[..])
        );
        for records in [
            &b"9 size=1x\n"[..],
            b"10 size=1x\n",
            b"10 size=+1\n",
            b"25 size=99999999999999999\n",
            b"99999999999999999999 a=b\n",
            b"4 a=b\n",
            b" a=b\n",
            b"-6 a=b\n",
            b"0 ",
            b"6 abc\n",
            b"1",
        ] {
            assert!(taken(records).is_err(), "{}", String::from_utf8_lossy(records));
        }
    }
}
