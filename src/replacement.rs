// SPDX-License-Identifier: Apache-2.0
//! Files that change whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::Result;

/// The new content of a file, written and on disk beside it under a temporary name. Dropped, it is gone.
#[derive(Debug)]
pub struct Replacement {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

/// The folder that a file of this path is in.
pub fn folder_of(path: &Path) -> &Path {
    // The parent of a bare name is the empty path, which names no folder.
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An empty file in the folder of `path`, under a temporary name; only its owner can read it.
///
/// # Errors
/// The folder cannot be written.
pub fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let name = path.file_name().unwrap_or_default().display();
    tempfile::Builder::new().prefix(&format!(".{name}.tns-shim-")).tempfile_in(folder_of(path))
}

impl Replacement {
    /// Writes the pieces, with the mode and owner that `metadata` tells.
    ///
    /// # Errors
    /// The folder of `path` cannot be written, or the owner cannot be given.
    pub fn write(path: &Path, metadata: &fs::Metadata, pieces: &[&[u8]]) -> Result<Self> {
        let mut file = beside(path)?;
        pieces.iter().try_for_each(|piece| file.write_all(piece))?;
        let made = file.as_file().metadata()?;
        if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(file.as_file(), Some(metadata.uid()), Some(metadata.gid()))?;
        }
        // After the owner, because chown takes set-id bits away.
        file.as_file().set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        file.as_file().sync_all()?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// From now on this is what the path names.
    ///
    /// # Errors
    /// It cannot be renamed; then nothing has changed.
    pub fn take_place(self) -> Result<()> {
        self.file.persist(self.path)?;
        Ok(())
    }
}
