// SPDX-License-Identifier: Apache-2.0
//! What a program has answered, for as long as its file stays as it is: to ask again would cost several times what the shim does.
//!
//! A file per question and program, under /run/tns-shim, that nobody else can have written; a damaged or foreign one costs a
//! question.

use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Binary, Identity};
use crate::files::{self, Links, Regular};
use crate::replacement;

/// The folder for what may be forgotten at any time: /run/tns-shim, or the user's own where there is one.
pub fn run_folder() -> Option<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    // In a user namespace (rootless Podman) root is not the owner of /run, but has the user's folder.
    let is_root_of_run = geteuid().is_root() && fs::metadata("/run").is_ok_and(|run| run.uid() == 0);
    if is_root_of_run { Some("/run/tns-shim".into()) } else { own.map(|folder| folder.join("tns-shim")) }
}

/// Where the answer of one program to one question is kept.
pub(super) struct Memory<'a> {
    binary: &'a Binary,
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Record<T> {
    /// Of this record's own form.
    format: u32,
    path: Vec<u8>,
    identity: Identity,
    answer: T,
}

/// Of what is kept, whatever the question. One that answers differ in has another.
const FORMAT: u32 = 2;
/// Bytes. A record has about 400, and as many as its path's bytes need.
const MOST: u64 = 1 << 16;

impl<'a> Memory<'a> {
    /// One for each name of a file, because a program may be another by each: `crun` and `krun` are. None where there is no
    /// folder for it.
    pub(super) fn of(question: &str, binary: &'a Binary) -> Option<Self> {
        let Identity { device, inode, .. } = binary.identity;
        let mut name = DefaultHasher::new();
        name.write(binary.path.as_os_str().as_bytes());
        let file = format!("{question}-{device:x}-{inode:x}-{:016x}.json", name.finish());
        Some(Self { binary, file: run_folder()?.join(file) })
    }

    /// The answer, if the program is the same that gave it.
    pub(super) fn recall<T: DeserializeOwned>(&self) -> Option<T> {
        let text = self.read_own().inspect_err(|error| log::debug!("{error:#}")).ok()??;
        let record: Record<T> = serde_json::from_slice(&text)
            .inspect_err(|error| log::debug!("{} is damaged: {error}", self.file.display()))
            .ok()?;
        let fits = record.format == FORMAT
            && record.path == self.binary.path.as_os_str().as_bytes()
            && record.identity == self.binary.identity;
        fits.then_some(record.answer)
    }

    /// The file's text, if nobody else can have written it.
    fn read_own(&self) -> Result<Option<Vec<u8>>> {
        let opened =
            Regular::open(&self.file, Links::Refuse).with_context(|| format!("open {}", self.file.display()))?;
        let Some(regular) = opened else { return Ok(None) };
        ensure!(regular.is_trusted(), "{} is ignored: somebody else can have written it", self.file.display());
        regular.read(MOST).map(Some).with_context(|| format!("read {}", self.file.display()))
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// The folder cannot be made or written, or somebody else can write it.
    pub(super) fn keep<T: Serialize>(&self, answer: T) -> Result<()> {
        let folder = self.file.parent().context("a file without a folder")?;
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make {}", folder.display()));
            }
            _ => {}
        }
        let metadata = fs::symlink_metadata(folder)?;
        ensure!(
            metadata.is_dir() && files::is_trusted(&metadata),
            "{} is not a folder that only this user can write",
            folder.display()
        );
        let record = Record {
            format: FORMAT,
            path: self.binary.path.as_os_str().as_bytes().to_vec(),
            identity: self.binary.identity,
            answer,
        };
        let write = || -> Result<()> {
            let mut file = replacement::beside(&self.file)?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            file.persist(&self.file)?;
            Ok(())
        };
        write().with_context(|| format!("write {}", self.file.display()))
    }
}
