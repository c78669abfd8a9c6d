// SPDX-License-Identifier: Apache-2.0
//! The one way to open a file that somebody else may have put there.
//!
//! Opening itself can have effects: it waits on a FIFO, wakes whoever waits on its other end, and acts on some devices. So
//! what a path names is looked at first, by a descriptor that opens nothing (`O_PATH`), and only a regular file is then
//! opened, through that very descriptor: what the path names by then does not matter. Nothing is read without a bound.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

/// What to do where the last part of a path is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The file that it leads to.
    Follow,
    /// ELOOP.
    Refuse,
}

/// A descriptor that stands for what a path names and opens nothing, see `O_PATH` in open(2). Close-on-exec.
///
/// Not by [`std::fs::OpenOptions`], which lose that flag where the C library is musl: there it is one of those that say
/// for what a file is opened.
///
/// # Errors
/// As open(2) has them.
pub fn place(path: &Path, flags: OFlag) -> io::Result<File> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC | flags, Mode::empty())?.into())
}

/// A regular file, open for reading, and what it was when it was opened.
#[derive(Debug)]
pub struct Regular {
    /// Close-on-exec.
    pub file: File,
    /// Of the file that is open.
    pub metadata: Metadata,
}

impl Regular {
    /// Opens it; none if there is no such file.
    ///
    /// # Errors
    /// `InvalidData` if it is no regular file, ELOOP if it is a link that is not to be followed, and as open(2) has them.
    pub fn open(path: impl AsRef<Path>, links: Links) -> io::Result<Option<Self>> {
        let follow = if links == Links::Refuse { OFlag::O_NOFOLLOW } else { OFlag::empty() };
        let place = match place(path.as_ref(), follow) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = place.metadata()?;
        // With O_PATH, a link that is not followed is opened itself.
        if metadata.is_symlink() {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no regular file"));
        }
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
        Ok(Some(Self { file, metadata }))
    }

    /// Reads all of it, if that is at most so many bytes.
    ///
    /// # Errors
    /// `InvalidData` if it is more, also if it has grown meanwhile; then no more than that was read.
    pub fn read(self, most: u64) -> io::Result<Vec<u8>> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidData, format!("larger than {most} bytes"));
        if self.metadata.len() > most {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.metadata.len()).unwrap_or(0) + 1);
        self.file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
    }

    /// Whether nobody but this user and root can have written it.
    pub fn is_trusted(&self) -> bool {
        is_trusted(&self.metadata)
    }
}

/// Whether nobody but this user and root can have written what has this metadata.
pub fn is_trusted(metadata: &Metadata) -> bool {
    [0, geteuid().as_raw()].contains(&metadata.uid()) && metadata.mode() & 0o022 == 0
}

/// Reads a regular file of at most so many bytes; none if there is no such file.
///
/// # Errors
/// As [`Regular::open`] and [`Regular::read`] have them.
pub fn read(path: impl AsRef<Path>, links: Links, most: u64) -> io::Result<Option<Vec<u8>>> {
    Regular::open(path, links)?.map(|regular| regular.read(most)).transpose()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "text").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        mkfifo(&at("fifo"), Mode::S_IRUSR).unwrap();
        let kind = |name: &str, links| read(at(name), links, 4).map_err(|error| error.kind());
        for links in [Links::Follow, Links::Refuse] {
            assert_eq!(kind("file", links), Ok(Some(b"text".to_vec())));
            assert_eq!(kind("absent", links), Ok(None));
            assert_eq!(kind("fifo", links), Err(io::ErrorKind::InvalidData));
            assert_eq!(kind(".", links), Err(io::ErrorKind::InvalidData));
        }
        assert_eq!(kind("link", Links::Follow), Ok(Some(b"text".to_vec())));
        assert_eq!(kind("zero", Links::Follow), Err(io::ErrorKind::InvalidData));
        for link in ["link", "zero"] {
            assert_eq!(read(at(link), Links::Refuse, 4).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        }
    }

    #[test]
    fn what_is_larger_than_its_bound_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert!(read(&path, Links::Follow, 5).unwrap().is_some());
        assert_eq!(read(&path, Links::Follow, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
        // A file of 1 TiB that takes no room.
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&path, Links::Follow, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
