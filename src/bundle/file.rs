// SPDX-License-Identifier: Apache-2.0
//! config.json as a file, in a folder that may be somebody else's.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Declared, Reading, View};
use crate::files::{Links, Regular};
use crate::invocation::Operands;
use crate::json::{self, Splice};
use crate::replacement::{Place, Replacement};

/// Largest that is read, in bytes. One with 8,000 mounts has 1.5 MiB.
pub const LARGEST: u64 = 64 << 20;
const TOO_LARGE: &str = "it is larger than 64 MiB";

/// A config.json, read once.
#[derive(Debug)]
pub struct Config {
    path: PathBuf,
    /// Where it was found, and is replaced.
    place: Place,
    text: Vec<u8>,
    /// Of the file as it was read.
    metadata: Metadata,
    /// The path is a symbolic link, and so may name a file that belongs to others, too.
    is_link: bool,
}

impl Config {
    /// Reads the config.json that the runtime will read: crun's `--config`, or the one in `--bundle`, or that in the
    /// working folder. What is no regular file is left alone: reading would take from a pipe what the runtime needs.
    ///
    /// # Errors
    /// There is nothing that could be understood; what to think of it then.
    pub fn read(operands: &Operands<'_>) -> Result<Self, View> {
        Self::read_file(match (operands.config, operands.bundle) {
            // The name itself is crun's default, and means the bundle's.
            (Some(config), _) if config != "config.json" => PathBuf::from(config),
            (_, bundle) => Path::new(bundle.unwrap_or(".".as_ref())).join("config.json"),
        })
    }

    fn read_file(path: PathBuf) -> Result<Self, View> {
        let failed = |error: io::Error, otherwise| {
            log::debug!("read {}: {error}", path.display());
            match error.kind() {
                io::ErrorKind::InvalidData => otherwise,
                io::ErrorKind::NotFound => View::Missing,
                // It may be there, and the runtime may have more luck.
                _ => View::NotUnderstood("it cannot be read"),
            }
        };
        let place = Place::of(&path).map_err(|error| failed(error, View::Missing))?;
        // Its own look tells whether it is a link: at another one it could be something else by then.
        let (opened, is_link) = match Regular::open(place.path(), Links::Refuse) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                (Regular::open(place.path(), Links::Follow), true)
            }
            opened => (opened, false),
        };
        let regular = opened.map_err(|error| failed(error, View::Unreadable))?.ok_or(View::Missing)?;
        let metadata = regular.metadata.clone();
        let text = regular.read(LARGEST).map_err(|error| failed(error, View::NotUnderstood(TOO_LARGE)))?;
        Ok(Self { path, place, text, metadata, is_link })
    }

    /// What it says, and what a change of it needs to know.
    pub fn reading(&self) -> Reading<'_> {
        Reading::of(&self.text)
    }

    /// Replaces the file by the changed text, atomically: mode and owner stay, other names and extended attributes of the
    /// old file do not come along.
    ///
    /// # Errors
    /// The path is a symbolic link, or its folder cannot be written; then nothing has changed.
    pub fn replace(&self, mut change: Vec<Splice>) -> Result<()> {
        ensure!(!self.is_link, "{} is a symbolic link", self.path.display());
        Replacement::write(&self.place.path(), &self.metadata, &json::pieces(&self.text, &mut change))
            .and_then(Replacement::take_place)
            .with_context(|| format!("replace {}", self.path.display()))
    }
}

/// Whether the config.json at `path` declares a time namespace, as far as it is understood.
pub fn declares_time(path: &Path) -> bool {
    let config = Config::read_file(path.to_owned());
    let view = config.as_ref().map(|config| config.reading().view);
    matches!(view, Ok(View::Understood { declared, .. }) if declared != Declared::No)
}
