// SPDX-License-Identifier: Apache-2.0
//! Which members of an archive are a checkpoint's: those beside an inventory.img.
//!
//! Blobs of an OCI image layout are archives themselves, or the layers of an image, in which a checkpoint can only be where
//! engines put it. Other archives in an archive (Podman's rootfs-diff.tar, volumes) are the container's own files: not
//! looked into.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use anyhow::{Context, Result, bail};

use super::compression::{Compression, Window, decoded};
use super::members::{Kind, Member, Members, is_header};
use super::{Sum, Summed, fill};
use crate::criu::images::{INVENTORY_NAME, Source, Stored, largest};
use crate::criu::{originals, record};
use crate::text::printable;

/// The most bytes that all files together may take, with what it takes to remember where they are.
const LARGEST_SUM: u64 = 64 << 20;

/// What it takes to remember where a file is, in bytes, at the most.
const COST_OF_ONE: u64 = 1536;

/// A file of a checkpoint, as it is in the archive.
#[derive(Debug)]
pub(super) struct Kept {
    pub bytes: Vec<u8>,
    pub member: Member,
}

/// In boxes, because a map takes room for eleven at once, also for one.
type Files = BTreeMap<String, Result<Box<Kept>, &'static str>>;

/// Where in an archive a checkpoint may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The blob of an OCI image layout that it is in.
    blob: Option<String>,
    /// The folder; empty if it is the root.
    folder: Vec<u8>,
}

impl Place {
    fn shown(&self) -> String {
        let folder = printable(&String::from_utf8_lossy(&self.folder), 200);
        match &self.blob {
            Some(blob) if folder.is_empty() => blob.clone(),
            Some(blob) => format!("{blob}: {folder}"),
            None if folder.is_empty() => ".".to_owned(),
            None => folder,
        }
    }
}

/// The only checkpoint of an archive.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it is: a folder of the archive, or a blob of an OCI image layout and the folder in that.
    pub place: String,
    /// It is in a blob, whose digest is part of the archive.
    pub in_blob: bool,
    /// Of the archive as a whole.
    pub compression: Compression,
    /// Of the archive as a whole, before compression.
    pub sum: Sum,
    pub(super) files: Files,
}

impl Checkpoint {
    /// Reads an archive.
    ///
    /// # Errors
    /// It cannot be read, is no archive, is damaged, or holds not exactly one checkpoint.
    pub fn read(raw: impl Read) -> Result<Self> {
        let mut collector = Collector::default();
        let (compression, stream) = decoded(raw, Window::OF_ARCHIVE)?;
        let mut summed = Summed::new(stream);
        if !collector.tar(&mut summed, None)? {
            match compression {
                _ if summed.length == 0 => bail!("it is empty"),
                Compression::None => bail!("it is neither a tar nor one that gzip or zstd has compressed"),
                _ => bail!("what {compression} has compressed there is no tar"),
            }
        }
        let mut checkpoint = collector.finish()?;
        (checkpoint.compression, checkpoint.sum) = (compression, summed.sum());
        Ok(checkpoint)
    }

    /// The names of the files whose originals are beside, sorted.
    pub fn changed(&self) -> Vec<String> {
        self.files.keys().filter_map(|name| originals::changed(name)).map(str::to_owned).collect()
    }
}

impl Source for Checkpoint {
    fn file(&self, name: &str) -> io::Result<Option<Stored>> {
        match self.files.get(name) {
            None => Ok(None),
            Some(Err(what)) => Err(io::Error::new(io::ErrorKind::InvalidData, *what)),
            Some(Ok(kept)) => Ok(Some(Stored { bytes: kept.bytes.clone(), modified: kept.member.modified })),
        }
    }
}

/// Collects the files of checkpoints.
#[derive(Default)]
pub struct Collector {
    found: BTreeMap<Place, Files>,
    /// What they cost, in bytes.
    sum: u64,
}

impl Collector {
    /// Looks into a blob of an OCI image layout, which may be something else than an archive.
    ///
    /// # Errors
    /// It cannot be read, or is a damaged archive.
    pub fn blob(&mut self, name: &str, raw: &mut dyn Read) -> Result<()> {
        let (_, mut stream) = decoded(raw, Window::OF_BLOB).with_context(|| format!("read {name}"))?;
        self.tar(&mut stream, Some(name)).with_context(|| format!("read {name}"))?;
        Ok(())
    }

    /// Looks into a tar; false if it is none.
    fn tar(&mut self, mut stream: &mut dyn Read, blob: Option<&str>) -> Result<bool> {
        let mut start = [0; 512];
        let length = fill(&mut stream, &mut start)?;
        // The start of an archive without members is the mark of its end.
        if !is_header(&start) && (blob.is_some() || length == 0 || start != [0; 512]) {
            return Ok(false);
        }
        let start = start.get(..length).unwrap_or_default();
        let mut members = Members::new(Cursor::new(start).chain(stream));
        while let Some(member) = members.next_member()? {
            let path = clean(&member.name);
            if let (None, Kind::File, Some(name)) = (blob, member.kind, blob_name(&path)) {
                self.blob(&name, &mut members)?;
                continue;
            }
            let Some((name, folder)) = path.split_last() else { continue };
            let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_wanted(name)) else { continue };
            let place = Place { blob: blob.map(str::to_owned), folder: folder.join(&b'/') };
            if blob.is_some() && !matches!(&place.folder[..], b"" | b"checkpoint") {
                continue;
            }
            self.keep(place, name, member.clone(), &mut members)?;
        }
        Ok(true)
    }

    /// Files that are not as they should be matter only if somebody asks for them: they may be a left-over.
    fn keep(&mut self, place: Place, name: &str, member: Member, content: &mut dyn Read) -> Result<()> {
        let is_read = member.kind == Kind::File && member.size <= largest(name);
        let size = if is_read { member.size } else { 0 };
        let names = place.folder.len() + place.blob.as_ref().map_or(0, String::len) + member.name.len();
        self.sum = self.sum.saturating_add(size).saturating_add(names as u64).saturating_add(COST_OF_ONE);
        if self.sum > LARGEST_SUM {
            bail!(
                "byte {}: more than {} MiB of inventory, pstree, ids, timens and core images",
                member.header_at,
                LARGEST_SUM >> 20
            );
        }
        let kept = match member.kind {
            Kind::Other => Err("no regular file"),
            Kind::Sparse => Err("a sparse file, which CRIU does not make"),
            Kind::File if !is_read => Err("too large for such an image"),
            Kind::File => {
                let mut bytes = Vec::new();
                content.take(size).read_to_end(&mut bytes)?;
                bytes.shrink_to_fit();
                Ok(Box::new(Kept { bytes, member }))
            }
        };
        let files = self.found.entry(place).or_default();
        if files.contains_key(name) {
            files.insert(name.to_owned(), Err("it is in the archive twice"));
        } else {
            files.insert(name.to_owned(), kept);
        }
        Ok(())
    }

    /// The only checkpoint.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn finish(self) -> Result<Checkpoint> {
        let mut found = self.found.into_iter().filter(|(_, files)| files.contains_key(INVENTORY_NAME));
        let Some((place, files)) = found.next() else { bail!("there is no checkpoint in it: no {INVENTORY_NAME}") };
        let more: Vec<String> = found.map(|(place, _)| place.shown()).collect();
        if !more.is_empty() {
            let all = [&[place.shown()], more.get(..more.len().min(9)).unwrap_or_default()].concat().join(", ");
            let end = if more.len() > 9 { ", …" } else { "" };
            bail!("there is more than one checkpoint in it ({all}{end}): unpack it, and name the folder of one");
        }
        let nothing = Sum { length: 0, crc32: 0 };
        let compression = Compression::None;
        Ok(Checkpoint { place: place.shown(), in_blob: place.blob.is_some(), compression, sum: nothing, files })
    }
}

/// The parts of a path, as it would be unpacked below a folder.
fn clean(path: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

/// Where OCI's image layout keeps blobs: `blobs/ALGORITHM/DIGEST`.
fn blob_name(path: &[&[u8]]) -> Option<String> {
    let [.., b"blobs", algorithm, digest] = path else { return None };
    let is_digest = digest.len() >= 32 && digest.iter().all(u8::is_ascii_hexdigit);
    is_digest.then(|| {
        let text = |bytes| printable(&String::from_utf8_lossy(bytes), 128);
        format!("blobs/{}/{}", text(algorithm), text(digest))
    })
}

/// The files that say something about time namespaces, and their originals where they were changed.
fn is_wanted(name: &str) -> bool {
    if name == originals::CLOCKS {
        return true;
    }
    let name = name.strip_suffix(originals::SUFFIX).unwrap_or(name);
    if [INVENTORY_NAME, "pstree.img", record::NAME].contains(&name) {
        return true;
    }
    let number = ["ids-", "timens-", "core-"].iter().find_map(|kind| name.strip_prefix(kind)?.strip_suffix(".img"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}
