// SPDX-License-Identifier: Apache-2.0
//! Keeping a container on the host's time: a checkpoint that CRIU restores without a time namespace, as it did before it
//! knew of them.
//!
//! CRIU makes a time namespace in two cases (criu/cr-restore.c, criu/timens.c): the first process has another number than
//! CRIU itself had, or there is a `timens-0.img`. So every process gets CRIU's number, and that file goes. It works with
//! every runtime, and needs neither CRIU's `join-ns` (whose configuration file runc would go on to use at the next
//! checkpoint) nor another command line. CRIU is shown this, see [`image_view`](crate::image_view). The first release changed
//! the image itself; [`originals`] tells what such a one was.

use std::fmt;

use anyhow::{Context, Result};

use super::images::{Images, Source, TIMENS_OF_CRIU, ids_name};
use super::originals::{self, Edit, Unchanged};
use super::repair::moved;

/// What keeps the container on the host's time; nothing, if the image has no clocks anyway.
///
/// # Errors
/// Something in the image is not understood.
pub fn plan(images: &Images, source: &impl Source) -> Result<Vec<Edit>> {
    let Some(to) = images.criu.filter(|_| images.first().time().is_some()) else { return Ok(Vec::new()) };
    // The first process last: as long as it has its own number, a repair still leads back to it.
    let mut edits = Vec::new();
    for task in images.tasks().iter().rev() {
        edits.extend(moved(images, task, to)?);
    }
    if let Some(stored) = source.file(TIMENS_OF_CRIU).with_context(|| format!("read {TIMENS_OF_CRIU}"))? {
        edits.push(Edit { name: TIMENS_OF_CRIU.to_owned(), before: stored.bytes, after: None });
    }
    Ok(edits)
}

/// Whether the first release has changed the image itself in this way, and it would be restored without its clocks.
///
/// # Errors
/// It may be such a one, and what was kept of it cannot be read.
pub fn is_held(images: &Images, source: &impl Source) -> Result<bool> {
    let first = images.first();
    let without_clocks = first.time().is_some()
        && first.time() == images.criu
        && source.file(TIMENS_OF_CRIU).with_context(|| format!("read {TIMENS_OF_CRIU}"))?.is_none();
    Ok(without_clocks
        && (originals::has(images, source, TIMENS_OF_CRIU)? || originals::has(images, source, &ids_name(first.pid))?))
}

/// The first release has taken the image's clocks away, and what it kept of them is not to be used.
#[derive(Debug)]
pub struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "the image was changed for a restore on the host's time, and what it was before cannot be told: with it the \
             container would be on the host's time, whatever is asked for",
        )
    }
}

/// The checkpoint as it was made: one that the first release holds, without what it did to it.
///
/// # Errors
/// As [`Images::read`] has them; one of the context [`Lost`].
pub fn let_go<S: Source>(source: &S) -> Result<(Unchanged<'_, S>, Images)> {
    let images = Images::read(source)?;
    if !is_held(&images, source).context(Lost)? {
        return Ok((Unchanged::as_it_is(source), images));
    }
    let unchanged = Unchanged::through_originals(&images, source).context(Lost)?;
    let images = Images::read(&unchanged).context(Lost)?;
    Ok((unchanged, images))
}
