// SPDX-License-Identifier: Apache-2.0
//! `tns-shim.json`, beside the files of a checkpoint: what was true when it was made. For people, and for telling at
//! restore how long the container was away, and by how much clocks jump. CRIU and the runtimes open only files that
//! they know; engines pack it with the image.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::images::Source;
use crate::clocks::{Clocks, Nanoseconds};
use crate::replacement::{self, Place};

/// The record's name in the image folder.
pub const NAME: &str = "tns-shim.json";

/// The form of the record. A later one may add members, which this release skips; what changes their meaning gets another
/// number.
pub const FORMAT: u32 = 1;

/// Who has made the time namespace that the container was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The runtime: its saved configuration lists it.
    Declared,
    /// The shim, or CRIU at a restore.
    Emulated,
    /// Nobody: the container was in the time namespace of whoever called.
    Host,
}

/// The time namespace of a container's PID 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeNamespace {
    /// As the kernel shows it, `time:[4026531834]`: a number that means something only until its machine is restarted.
    pub id: String,
    /// Against the initial time namespace.
    pub offsets: Clocks,
}

/// What was true when the checkpoint was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// The release of the shim.
    pub shim: String,
    /// The container's id.
    pub container: String,
    /// When, for people: RFC 3339.
    pub time: String,
    /// When: the wall clock, since 1970.
    pub wall_ns: Nanoseconds,
    /// Of the machine, see [`boot_id`].
    pub boot_id: String,
    /// The kernel's release.
    pub kernel: String,
    /// The runtime and its release.
    pub runtime: String,
    /// CRIU's release, if it tells.
    pub criu: Option<String>,
    /// The container's own clocks.
    pub clocks: Clocks,
    /// PID 1's.
    pub time_namespace: TimeNamespace,
    /// Who has made it.
    pub mode: Mode,
    /// How many processes CRIU was to dump.
    pub processes: usize,
}

impl Record {
    /// Puts it into the image folder. It appears whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let write = || -> Result<()> {
            let place = Place::of(&folder.join(NAME))?;
            let mut file = replacement::beside(&place.path())?;
            // In one piece: a writer would be handed every bracket on its own.
            let mut text = serde_json::to_vec_pretty(self)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.persist(place.path())?;
            Ok(())
        };
        write().with_context(|| format!("write {NAME} into {}", folder.display()))
    }

    /// Reads the one beside an image; none if there is none.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or has a later form.
    pub fn read(source: &impl Source) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let read = || -> Result<Option<Self>> {
            let Some(stored) = source.file(NAME)? else { return Ok(None) };
            let Form { format } = serde_json::from_slice(&stored.bytes)?;
            ensure!(format == FORMAT, "it has the form {format}, and this release knows only {FORMAT}");
            Ok(Some(serde_json::from_slice(&stored.bytes)?))
        };
        read().with_context(|| format!("understand {NAME}"))
    }

    /// When the clocks of the image were dumped, by the wall clock of then: somewhat later than this was written. None if
    /// the image is not the one that this was written for.
    pub fn dumped_at(&self, dumped: Clocks) -> Option<Nanoseconds> {
        /// Most that CRIU is given for writing the memory of a container, which it does before the clocks.
        const LONGEST: Nanoseconds = Nanoseconds(3600 * 1_000_000_000);
        /// They are not read at the very same time.
        const GRAIN: Nanoseconds = Nanoseconds(1_000_000_000);
        let Clocks { monotonic_ns, boottime_ns } = dumped.minus(self.clocks);
        let fits = |passed: Nanoseconds| (Nanoseconds(0)..=LONGEST).contains(&passed);
        // Both pass alike; while a machine is suspended, only one does.
        let fit = fits(monotonic_ns) && fits(boottime_ns) && monotonic_ns <= boottime_ns.plus(GRAIN);
        fit.then(|| self.wall_ns.plus(boottime_ns))
    }

    /// Whether it was written for the checkpoint with these clocks, whose file was written then. A later checkpoint into
    /// the same folder that leaves no record has a later file, even if its clocks would fit; so has a copy, of which this
    /// cannot be told any more.
    pub fn is_of(&self, dumped: Clocks, written: Nanoseconds) -> bool {
        /// The wall clock may be set meanwhile, and a file's time may be that of a server.
        const SLACK: u64 = 60 * 1_000_000_000;
        self.dumped_at(dumped).is_some_and(|at| at.minus(written).0.unsigned_abs() <= SLACK)
    }
}

/// Takes away the record of another checkpoint.
///
/// # Errors
/// There is one, and it cannot be removed.
pub fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `/proc/sys/kernel/random/boot_id`: a number that a machine gets anew whenever it is started.
///
/// # Errors
/// /proc is not mounted.
pub fn boot_id() -> io::Result<String> {
    line("/proc/sys/kernel/random/boot_id")
}

/// `uname -r`.
///
/// # Errors
/// /proc is not mounted.
pub fn kernel_release() -> io::Result<String> {
    line("/proc/sys/kernel/osrelease")
}

fn line(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::images::Folder;

    const SECOND: i64 = 1_000_000_000;

    fn clocks(monotonic: i64, boottime: i64) -> Clocks {
        Clocks { monotonic_ns: Nanoseconds(monotonic * SECOND), boottime_ns: Nanoseconds(boottime * SECOND) }
    }

    fn record() -> Record {
        Record {
            format: FORMAT,
            shim: "0".to_owned(),
            container: "web".to_owned(),
            time: "2026-01-01T00:00:00Z".to_owned(),
            wall_ns: Nanoseconds(5000 * SECOND),
            boot_id: boot_id().unwrap(),
            kernel: kernel_release().unwrap(),
            runtime: "runc 1.1.15".to_owned(),
            criu: None,
            clocks: clocks(100, 200),
            time_namespace: TimeNamespace { id: "time:[1]".to_owned(), offsets: clocks(-1, 5) },
            mode: Mode::Emulated,
            processes: 3,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_takes_the_place_of_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder(folder.path().to_owned());
        assert_eq!(Record::read(&folder).unwrap(), None);
        for processes in [1, 2] {
            let record = Record { processes, ..record() };
            record.write(&folder.0).unwrap();
            assert_eq!(Record::read(&folder).unwrap(), Some(record));
        }
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing temporary is left");
        remove(&folder.0).unwrap();
        remove(&folder.0).unwrap();
        assert_eq!(Record::read(&folder).unwrap(), None);
    }

    #[test]
    fn what_a_later_release_adds_is_skipped_and_what_it_changes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder(folder.path().to_owned());
        let text = serde_json::to_string(&record()).unwrap();
        let put = |text: String| fs::write(folder.path(NAME), text).unwrap();
        put(text.replacen('{', "{\"new\":[],", 1));
        assert_eq!(Record::read(&folder).unwrap(), Some(record()));
        put(text.replace("\"format\":1", "\"format\":2").replace("\"wall_ns\"", "\"wall\""));
        let error = format!("{:#}", Record::read(&folder).unwrap_err());
        assert!(error.contains("the form 2"), "{error}");
        put(text.replace('}', ""));
        assert!(Record::read(&folder).is_err());
    }

    #[test]
    fn a_record_of_another_checkpoint_is_told_by_its_clocks() {
        let at = |seconds| Some(Nanoseconds(seconds * SECOND));
        assert_eq!(record().dumped_at(clocks(100, 200)), at(5000));
        assert_eq!(record().dumped_at(clocks(130, 230)), at(5030));
        assert_eq!(record().dumped_at(clocks(99, 199)), None);
        assert_eq!(record().dumped_at(clocks(100 + 3601, 200 + 3601)), None);
        assert_eq!(record().dumped_at(clocks(100, 100)), None);
        assert_eq!(record().dumped_at(clocks(130, 300)), at(5100));
        assert_eq!(record().dumped_at(clocks(200, 230)), None);
        let is_of = |dumped, written| record().is_of(dumped, Nanoseconds(written * SECOND));
        assert!(is_of(clocks(130, 230), 5030) && is_of(clocks(130, 230), 5000) && is_of(clocks(130, 230), 5090));
        assert!(!is_of(clocks(130, 230), 4969) && !is_of(clocks(130, 230), 5091) && !is_of(clocks(99, 199), 5000));
        assert!(!is_of(clocks(100, 200), i64::MAX / SECOND) && !is_of(clocks(100, 200), i64::MIN / SECOND));
    }
}
