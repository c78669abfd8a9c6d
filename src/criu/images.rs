// SPDX-License-Identifier: Apache-2.0
//! The image files of a checkpoint that say something about time namespaces, and whether its processes agree.
//!
//! | file | what is read |
//! |---|---|
//! | `inventory.img` | the version, and the namespaces of CRIU itself |
//! | `pstree.img` | the processes; the one without a parent is the first |
//! | `ids-PID.img` | the namespaces of a process; numbers that mean something only within this image |
//! | `timens-ID.img` | the clocks of the first process, if it was in the time namespace ID |
//! | `timens-0.img` | the clocks, if it was in CRIU's own, which then has another number than 0 all the same |
//! | `core-PID.img` | the name of a process, for people, and whether it is a zombie where that matters |
//!
//! A process without `ids-PID.img` has to be a zombie. Files of processes that pstree.img does not list are left-overs of an
//! earlier checkpoint into the same folder; CRIU does not look at them either.
//!
//! CRIU restores only if every process has the number of its parent (`Can't restore sub-task in NS`), because it makes one
//! time namespace for all. Sources: CRIU's images/*.proto (format), criu/image.c, criu/pstree.c, criu/timens.c (meaning).

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::originals;
use super::wire::{self, Cursor, Malformed, Message};
use crate::clocks::{Clocks, Nanoseconds};
use crate::files::{Links, Regular};
use crate::text::printable;

const COMMON_MAGIC: u32 = 0x5456_4319;
const INVENTORY: Kind = Kind { magic: 0x5831_3116, common: false };
const PSTREE: Kind = Kind { magic: 0x5027_3030, common: true };
const IDS: Kind = Kind { magic: 0x5443_2030, common: true };
const CORE: Kind = Kind { magic: 0x5505_3847, common: true };
const TIMENS: Kind = Kind { magic: 0x4311_4433, common: true };

/// The file that every checkpoint has, and no two checkpoints alike.
pub const INVENTORY_NAME: &str = "inventory.img";

/// The file of the processes.
pub const PSTREE_NAME: &str = "pstree.img";

/// The file of the clocks where the first process was in CRIU's own time namespace.
pub const TIMENS_OF_CRIU: &str = "timens-0.img";

/// The most bytes that a file of that name may have, because it is read into memory. pstree.img has some 20 for a process
/// and 4 for a thread; core-PID.img some kilobytes, and 128 bytes more for each signal that waits. The others do not grow
/// with the container, and have less than one kilobyte.
pub fn largest(name: &str) -> u64 {
    if name.starts_with("pstree") || name.starts_with("core-") { 16 << 20 } else { 64 << 10 }
}

/// The most bytes that all processes together may take in memory: 40,000 processes of real checkpoints.
const LARGEST_TREE: usize = 8 << 20;

/// What a process takes beside its ids-PID.img, in bytes, at the most.
const COST_OF_ONE: usize = 128;

/// One file of a checkpoint.
#[derive(Debug)]
pub struct Stored {
    /// All of it.
    pub bytes: Vec<u8>,
    /// When it was written, in the wall clock's time since 1970.
    pub modified: Nanoseconds,
}

/// Where the files of a checkpoint are: a folder, or what was collected from an archive.
pub trait Source {
    /// The file of that name; none if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    fn file(&self, name: &str) -> io::Result<Option<Stored>>;
}

/// A checkpoint in a folder, as CRIU writes it.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// The path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Source for Folder {
    fn file(&self, name: &str) -> io::Result<Option<Stored>> {
        // An image may consist of links, and CRIU follows them. What stays beside it has never been one.
        let links = if name.ends_with(originals::SUFFIX) { Links::Refuse } else { Links::Follow };
        let Some(regular) = Regular::open(self.path(name), links)? else { return Ok(None) };
        let metadata = regular.metadata.clone();
        let bytes = regular.read(largest(name))?;
        let modified = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Ok(Some(Stored { bytes, modified: Nanoseconds(modified) }))
    }
}

/// How a kind of image file begins.
#[derive(Clone, Copy)]
struct Kind {
    magic: u32,
    /// In images of version 2, the number that all kinds share comes first.
    common: bool,
}

/// The version of the image format that inventory.img tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Kind {
    /// Calls `read` with what follows the magic numbers. Errors name the file and the offset in it.
    fn read<T>(
        self,
        version: Version,
        name: &str,
        file: &[u8],
        read: impl FnOnce(&mut Cursor<'_>) -> Result<T, Malformed>,
    ) -> Result<T> {
        let mut cursor = Cursor::new(file);
        let body = || -> Result<T, Malformed> {
            for magic in
                (self.common && version == Version::Two).then_some(COMMON_MAGIC).into_iter().chain([self.magic])
            {
                let offset = cursor.offset();
                if cursor.u32()? != magic {
                    return Err(Malformed { offset, what: "not the magic number of such an image" });
                }
            }
            read(&mut cursor)
        };
        body().with_context(|| format!("understand {name}"))
    }

    /// As [`Kind::read`], for the kinds that hold one message and nothing after it.
    fn read_one<T>(
        self,
        version: Version,
        name: &str,
        file: &[u8],
        read: impl FnOnce(&Message<'_>) -> Result<T, Malformed>,
    ) -> Result<T> {
        self.read(version, name, file, |cursor| {
            let message = cursor.record()?;
            if !cursor.is_at_end() {
                return cursor.malformed("something follows the only message");
            }
            read(&message)
        })
    }
}

/// The namespaces of a process: its ids-PID.img.
#[derive(Clone, Debug)]
pub struct Ids {
    /// Which time namespace; none from a kernel without.
    pub time: Option<u32>,
    file: Vec<u8>,
    /// Of the length of the message, in the file.
    length: Range<usize>,
    /// Of the number, in the file.
    number: Range<usize>,
}

impl Ids {
    /// The file as it was read.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// The file with another time namespace; all other bytes stay. None if it tells none.
    pub fn moved_to(&self, time: u32) -> Option<Vec<u8>> {
        self.time?;
        let number = wire::varint(time);
        let body = self.file.len().checked_sub(self.length.end)?;
        let length = body.checked_sub(self.number.len())?.checked_add(number.len())?;
        let length = u32::try_from(length).ok()?.to_le_bytes();
        let before = self.file.get(..self.length.start)?;
        let between = self.file.get(self.length.end..self.number.start)?;
        let after = self.file.get(self.number.end..)?;
        Some([before, &length, between, &number, after].concat())
    }
}

/// A process of the checkpoint.
#[derive(Clone, Debug)]
pub struct Task {
    /// In the container's pid namespace.
    pub pid: u32,
    /// None for a zombie.
    pub ids: Option<Ids>,
}

impl Task {
    /// Which time namespace it is in, if that is told.
    pub fn time(&self) -> Option<u32> {
        self.ids.as_ref()?.time
    }
}

/// The name of the file with the namespaces of process `pid`.
pub fn ids_name(pid: u32) -> String {
    format!("ids-{pid}.img")
}

/// A checkpoint.
#[derive(Clone, Debug)]
pub struct Images {
    version: Version,
    /// In CRIU's order: parents before children, so the first process comes first. Never empty.
    tasks: Vec<Task>,
    /// The time namespace that CRIU itself was in, which is that of whoever called it.
    pub criu: Option<u32>,
    /// No other checkpoint has such an inventory: it tells CRIU's run (since 4.1) or the time (with memory tracking).
    pub unique: bool,
}

impl Images {
    /// Reads what decides whether CRIU can restore: inventory.img, pstree.img and every ids-PID.img.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or is not understood; the message tells the file and the offset in it.
    pub fn read(source: &impl Source) -> Result<Self> {
        let Inventory { version, criu, unique } = inventory(source)?;
        let pids = processes(source, version)?;
        let (mut tasks, mut sum) = (Vec::new(), 0);
        for pid in pids {
            let ids = ids(source, version, pid)?;
            if ids.is_none() && core(source, version, pid)?.state != DEAD {
                bail!("there is no {}, of a process that is no zombie", ids_name(pid));
            }
            sum += COST_OF_ONE + ids.as_ref().map_or(0, |ids| ids.file.len());
            if sum > LARGEST_TREE {
                bail!("more than {} MiB of processes, the last one PID {pid}", LARGEST_TREE >> 20);
            }
            tasks.push(Task { pid, ids });
        }
        let images = Self { version, tasks, criu, unique };
        let first = images.first();
        if first.ids.is_none() {
            bail!("there is no {}, of the first process", ids_name(first.pid));
        }
        for task in &images.tasks {
            if task.ids.is_some() && task.time().is_some() != first.time().is_some() {
                bail!("only one of {} and {} tells a time namespace", ids_name(task.pid), ids_name(first.pid));
            }
        }
        Ok(images)
    }

    /// All processes, the first one first.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The process that all others descend from.
    pub fn first(&self) -> &Task {
        &self.tasks[0]
    }

    /// The processes in another time namespace than the first one's. If there are any, CRIU cannot restore.
    pub fn strays(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|task| task.ids.is_some() && task.time() != self.first().time())
    }

    /// The clocks of the first process at the checkpoint, and when by the wall clock their file was written. None if CRIU
    /// has dumped none: it then restores without a time namespace.
    ///
    /// # Errors
    /// As [`Images::read`].
    pub fn clocks(&self, source: &impl Source) -> Result<Option<(Clocks, Nanoseconds)>> {
        let of_its_own = self.first().time().filter(|time| Some(*time) != self.criu);
        let name = self.clocks_name(self.first().time());
        let Some(stored) = source.file(&name).with_context(|| format!("read {name}"))? else {
            if of_its_own.is_some() {
                bail!("there is no {name}, for the clocks of the first process");
            }
            return Ok(None);
        };
        TIMENS.read_one(self.version, &name, &stored.bytes, |message| {
            let clocks =
                Clocks { monotonic_ns: timespec(&message.message(1)?)?, boottime_ns: timespec(&message.message(2)?)? };
            Ok(Some((clocks, stored.modified)))
        })
    }

    /// The name of the file with the clocks of a first process that was in the time namespace `time`.
    pub fn clocks_name(&self, time: Option<u32>) -> String {
        let of_its_own = time.filter(|time| Some(*time) != self.criu);
        of_its_own.map_or_else(|| TIMENS_OF_CRIU.to_owned(), |time| format!("timens-{time}.img"))
    }

    /// The name that the kernel has of process `pid`, control characters escaped.
    ///
    /// # Errors
    /// As [`Images::read`].
    pub fn command(&self, source: &impl Source, pid: u32) -> Result<String> {
        Ok(core(source, self.version, pid)?.name)
    }

    /// Reads the text of an ids-PID.img of this checkpoint from elsewhere.
    ///
    /// # Errors
    /// It is not understood.
    pub fn understand_ids(&self, name: &str, file: Vec<u8>) -> Result<Ids> {
        understand_ids(self.version, name, file)
    }
}

fn required(source: &impl Source, name: &str) -> Result<Stored> {
    source.file(name).with_context(|| format!("read {name}"))?.ok_or_else(|| anyhow!("there is no {name}"))
}

/// What is read of inventory.img.
struct Inventory {
    version: Version,
    criu: Option<u32>,
    unique: bool,
}

fn inventory(source: &impl Source) -> Result<Inventory> {
    let name = INVENTORY_NAME;
    let file = required(source, name)?.bytes;
    INVENTORY.read_one(Version::Two, name, &file, |message| {
        let version = match message.required(1)? {
            1 => Version::One,
            2 => Version::Two,
            _ => return Err(Malformed { offset: message.offset(), what: "an unknown version of the image format" }),
        };
        let own = message.message(3)?;
        let unique = message.bytes(13)?.is_some() || message.required_i64(8).is_ok();
        Ok(Inventory { version, criu: own.number(12)?.map(|time| time.value), unique })
    })
}

/// The PID of every process, parents before children; there is at least one.
fn processes(source: &impl Source, version: Version) -> Result<Vec<u32>> {
    let name = PSTREE_NAME;
    let file = required(source, name)?.bytes;
    PSTREE.read(version, name, &file, |cursor| {
        let mut known = BTreeSet::new();
        let mut processes = Vec::new();
        while !cursor.is_at_end() {
            let entry = cursor.record()?;
            let malformed = |what| Err(Malformed { offset: entry.offset(), what });
            let [pid, parent] = [entry.required(1)?, entry.required(2)?];
            if pid == 0 || i32::try_from(pid).is_err() {
                return malformed("a PID that cannot be one");
            }
            if parent == 0 && !processes.is_empty() {
                return malformed("the first process is not the first entry, or there are two");
            }
            if parent != 0 && !known.contains(&parent) {
                return malformed("a process before its parent, or without one");
            }
            if !known.insert(pid) {
                return malformed("a process is there twice");
            }
            processes.push(pid);
        }
        if processes.is_empty() { cursor.malformed("no process") } else { Ok(processes) }
    })
}

fn ids(source: &impl Source, version: Version, pid: u32) -> Result<Option<Ids>> {
    let name = ids_name(pid);
    let stored = source.file(&name).with_context(|| format!("read {name}"))?;
    stored.map(|stored| understand_ids(version, &name, stored.bytes)).transpose()
}

fn understand_ids(version: Version, name: &str, file: Vec<u8>) -> Result<Ids> {
    let (time, end) = IDS.read_one(version, name, &file, |message| {
        // The other required ones, without which CRIU does not take the file.
        for number in 1..=4 {
            message.required(number)?;
        }
        Ok((message.number(12)?, message.offset()))
    })?;
    // The length stands right before the message, in four bytes.
    let length = end.saturating_sub(4)..end;
    let number = time.as_ref().map_or(0..0, |time| time.bytes.clone());
    Ok(Ids { time: time.map(|time| time.value), file, length, number })
}

/// What a core-PID.img tells of a process.
struct Core {
    state: u32,
    name: String,
}

/// A zombie's state, see compel's task-state.h.
const DEAD: u32 = 2;

fn core(source: &impl Source, version: Version, pid: u32) -> Result<Core> {
    let name = format!("core-{pid}.img");
    let file = required(source, &name)?.bytes;
    CORE.read_one(version, &name, &file, |message| {
        let task = message.message(3)?;
        let missing = Malformed { offset: task.offset(), what: "a message lacks a field that it must have" };
        let text = String::from_utf8_lossy(task.bytes(6)?.ok_or(missing)?.bytes()).into_owned();
        Ok(Core { state: task.required(1)?, name: printable(&text, 64) })
    })
}

fn timespec(message: &Message<'_>) -> Result<Nanoseconds, Malformed> {
    let [seconds, nanoseconds] = [message.required_i64(1)?, message.required_i64(2)?];
    let total = seconds.checked_mul(1_000_000_000).and_then(|total| total.checked_add(nanoseconds));
    let total = total.filter(|_| nanoseconds < 1_000_000_000).map(Nanoseconds);
    total.ok_or(Malformed { offset: message.offset(), what: "a time that no clock shows" })
}
