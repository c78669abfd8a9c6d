// SPDX-License-Identifier: Apache-2.0
//! How an archive is compressed: told by its first bytes (RFC 1952, RFC 8878).

use std::fmt;
use std::io::{self, BufReader, Cursor, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::fill;

/// What is read from a file at once, in bytes.
const CHUNK: usize = 128 << 10;

/// How much of what it has read zstd may need again, as a power of two of bytes: so much memory it takes.
#[derive(Clone, Copy, Debug)]
pub struct Window(u32);

impl Window {
    /// 128 MiB: what `zstd` itself takes without being told more.
    pub const OF_ARCHIVE: Self = Self(27);

    /// 32 MiB: no engine makes layers with a larger one. There can be one in an archive that has its own.
    pub const OF_BLOB: Self = Self(25);
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "not compressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl Compression {
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // Also where a frame that is to be skipped comes first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// What is in `raw`, and how it is compressed there. Damage shows as an error of the reader that is returned.
///
/// # Errors
/// It cannot be read.
pub fn decoded<'a>(mut raw: impl Read + 'a, window: Window) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    let mut start = [0; 4];
    let length = fill(&mut raw, &mut start)?;
    let start = start.get(..length).unwrap_or_default().to_vec();
    let compression = Compression::of(&start);
    let raw = BufReader::with_capacity(CHUNK, Cursor::new(start).chain(raw));
    let stream: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(raw),
        Compression::Gzip => Box::new(MultiGzDecoder::new(raw)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(raw)?;
            decoder.window_log_max(window.0)?;
            Box::new(decoder)
        }
    };
    Ok((compression, stream))
}

/// Compresses what is written to it.
pub enum Encoder<W: Write> {
    /// Not at all.
    None(W),
    /// By gzip.
    Gzip(GzEncoder<W>),
    /// By zstd.
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// With the level that is usual for this compression.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(compression: Compression, to: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(to),
            Compression::Gzip => Self::Gzip(GzEncoder::new(to, flate2::Compression::default())),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Writes what is still to be written, and returns where to.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::None(to) => Ok(to),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(to) => to.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(to) => to.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
