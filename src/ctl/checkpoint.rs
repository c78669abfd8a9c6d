// SPDX-License-Identifier: Apache-2.0
//! What a path of `tnsctl images` and `tnsctl repair` names: a folder as CRIU writes it, or something that holds one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::progress::Progress;
use crate::archive::collect::{self, Collector};
use crate::archive::compression::Compression;
use crate::criu::images::{Folder, Source, Stored};
use crate::criu::originals;
use crate::files::{Links, Regular};

/// A checkpoint, wherever it is.
pub(super) enum Checkpoint {
    /// As CRIU has written it.
    Folder(Folder),
    /// In an archive, or in an OCI image layout.
    Archive(Box<collect::Checkpoint>),
}

/// Where a checkpoint is, for reports.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Place {
    Folder {
        /// The folder with the images.
        folder: PathBuf,
    },
    Archive {
        /// The file, or the folder of the OCI image layout.
        archive: PathBuf,
        compression: Compression,
        /// The folder in it, or the blob and the folder in that.
        checkpoint: String,
    },
}

impl Place {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Folder { folder } => folder.display().to_string(),
            Self::Archive { archive, compression: Compression::None, checkpoint } => {
                format!("{}: {checkpoint}", archive.display())
            }
            Self::Archive { archive, compression, checkpoint } => {
                format!("{} ({compression}): {checkpoint}", archive.display())
            }
        }
    }
}

impl Checkpoint {
    /// # Errors
    /// There is nothing, or not exactly one checkpoint.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::in_folder(path);
        }
        let (file, length) = open_file(path)?;
        let checkpoint = collect::Checkpoint::read(Progress::new(file, length, "reading"))?;
        Ok(Self::Archive(Box::new(checkpoint)))
    }

    fn in_folder(path: &Path) -> Result<Self> {
        let folders = [path.to_owned(), path.join("checkpoint")];
        if let Some(folder) = folders.into_iter().find(|folder| folder.join("inventory.img").exists()) {
            return Ok(Self::Folder(Folder(folder)));
        }
        let is_layout = path.join("blobs").is_dir() && path.join("index.json").exists();
        if is_layout { layout(path) } else { Ok(Self::Folder(Folder(path.to_owned()))) }
    }

    pub(super) fn place(&self, path: &Path) -> Place {
        match self {
            Self::Folder(folder) => Place::Folder { folder: folder.0.clone() },
            Self::Archive(checkpoint) => Place::Archive {
                archive: path.to_owned(),
                compression: checkpoint.compression,
                checkpoint: checkpoint.place.clone(),
            },
        }
    }

    /// The names of the files whose originals are beside.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub(super) fn changed(&self) -> Result<Vec<String>> {
        match self {
            Self::Folder(folder) => originals::names(folder),
            Self::Archive(checkpoint) => Ok(checkpoint.changed()),
        }
    }
}

impl Source for Checkpoint {
    fn file(&self, name: &str) -> io::Result<Option<Stored>> {
        match self {
            Self::Folder(folder) => folder.file(name),
            Self::Archive(checkpoint) => checkpoint.file(name),
        }
    }
}

/// An OCI image layout that is not in an archive.
fn layout(path: &Path) -> Result<Checkpoint> {
    let mut collector = Collector::default();
    let blobs = path.join("blobs");
    for algorithm in names(&blobs)? {
        let folder = blobs.join(&algorithm);
        // Always in the same order, so that errors are the same ones.
        for digest in names(&folder)? {
            let (mut file, length) = open_file(&folder.join(&digest))?;
            collector.blob(&format!("blobs/{algorithm}/{digest}"), &mut Progress::new(&mut file, length, "reading"))?;
        }
    }
    Ok(Checkpoint::Archive(Box::new(collector.finish()?)))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let context = || format!("list {}", folder.display());
    let entries = fs::read_dir(folder).with_context(context)?;
    let mut names = Vec::new();
    for entry in entries {
        let Ok(name) = entry.with_context(context)?.file_name().into_string() else {
            bail!("{} holds a name that no blob has", folder.display());
        };
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// A regular file, and its length in bytes.
///
/// # Errors
/// It is something else, or cannot be read.
pub(super) fn open_file(path: &Path) -> Result<(File, u64)> {
    let opened = Regular::open(path, Links::Follow).with_context(|| format!("open {}", path.display()))?;
    let Regular { file, metadata } = opened.with_context(|| format!("there is no {}", path.display()))?;
    Ok((file, metadata.len()))
}
