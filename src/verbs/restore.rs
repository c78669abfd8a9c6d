// SPDX-License-Identifier: Apache-2.0
//! restore: first an image that CRIU can restore, with the clocks that are asked for, then what config.json says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Call, create};
use crate::clocks::{Clocks, Here, Nanoseconds};
use crate::criu::images::{Folder, INVENTORY_NAME, Images};
use crate::criu::record::{self, Record};
use crate::criu::repair::{self, Move};
use crate::criu::{host_time, originals};
use crate::decision::{self, Action, Decision, ImageFacts};
use crate::invocation::Operands;
use crate::runtime::abilities::Kind;
use crate::settings::Restore;
use crate::text::printable;
use crate::timens::Kernel;

pub(super) fn restore(call: &Call<'_>) -> Result<()> {
    let bundle = create::Bundle::read(call);
    let asked = bundle.asked()?;
    let on_host_time = prepare_image(call, asked.wanted.restore)?;
    create::act(call, &asked, Kernel::look(), |facts| decision::restore(facts, on_host_time))
}

/// An image that was understood.
struct Looked {
    images: Images,
    /// The first process's clocks, and when their file was written.
    clocks: Option<(Clocks, Nanoseconds)>,
    here: Here,
}

impl Looked {
    /// None if there is no image.
    fn at(folder: &Folder) -> Result<Option<Self>> {
        if !folder.path(INVENTORY_NAME).exists() {
            return Ok(None);
        }
        let mut images = Images::read(folder)?;
        // Of an earlier restore. Whatever is asked for now begins with the checkpoint as it was made.
        if host_time::is_held(&images, folder) {
            originals::undo(folder, &images, false).context("give the checkpoint image its clocks back")?;
            images = Images::read(folder)?;
        }
        let clocks = images.clocks(folder)?;
        Ok(Some(Self { images, clocks, here: Here::look()? }))
    }

    /// By how much the clocks jump on the time of here.
    fn jump(&self) -> Option<Clocks> {
        self.clocks.map(|(dumped, _)| self.here.clocks.minus(dumped))
    }
}

/// Repairs a mixed image, holds one on the host's time, and tells whether it is. What goes wrong here stops the restore
/// only if something was asked for by name: else CRIU decides.
fn prepare_image(call: &Call<'_>, wanted: Restore) -> Result<bool> {
    let folder = Folder(image_folder(&call.operands, call.abilities.kind));
    let looked = Looked::at(&folder);
    let facts = match &looked {
        Ok(None) => ImageFacts::Missing,
        Err(error) => ImageFacts::NotUnderstood(format!("{error:#}, in {}", folder.0.display())),
        Ok(Some(looked)) => ImageFacts::Understood {
            tasks: looked.images.tasks().len(),
            strays: looked.images.strays().map(|task| task.pid).collect(),
            jump: looked.jump(),
        },
    };
    let action = call.take(decision::image(facts, wanted))?;
    let Ok(Some(looked)) = looked else { return Ok(false) };
    match action {
        Action::RepairImage => match repair(&folder, &looked) {
            Ok(moves) => log::warn!("{}", report(&folder.0, &moves)),
            Err(error) => {
                call.take(Decision::hindered(format!("the checkpoint image could not be repaired: {error:#}")))?;
            }
        },
        Action::HoldOnHostTime => {
            host_time::plan(&looked.images, &folder)
                .and_then(|edits| originals::apply(&looked.images, &folder, &edits))
                .context("keep the container on the host's time, as restore.clocks asks")?;
        }
        _ => {}
    }
    let on_host_time = action == Action::HoldOnHostTime;
    if let Some(text) = drift(&folder, &looked, on_host_time) {
        log::info!("{text}");
    }
    Ok(on_host_time)
}

fn repair(folder: &Folder, looked: &Looked) -> Result<Vec<Move>> {
    let moves = repair::plan(&looked.images, folder, looked.here)?;
    originals::apply(&looked.images, folder, moves.iter().map(|one| &one.edit))?;
    Ok(moves)
}

/// How long the container was away, by the wall clock and by its own. None if the image does not tell.
fn drift(folder: &Folder, looked: &Looked, on_host_time: bool) -> Option<String> {
    let (dumped, written) = looked.clocks?;
    let record = Record::read(folder).unwrap_or_else(|error| {
        log::debug!("{error:#}");
        None
    });
    let recorded = record.as_ref().and_then(|record| Some((record, record.dumped_at(dumped)?)));
    let since = recorded.map_or(written, |(_, at)| at);
    let who = recorded.map_or("the container".to_owned(), |(record, _)| printable(&record.container, 64));
    let about = if recorded.is_some() { "" } else { "about " };
    let elsewhere = match recorded.map(|(record, _)| record::boot_id().is_ok_and(|here| here == record.boot_id)) {
        Some(false) => ", on another machine or before this one was started",
        _ => "",
    };
    let own = if on_host_time {
        format!("by its own clocks, which are the host's from now on, {:+}", looked.here.clocks.minus(dumped))
    } else {
        format!("by its own clocks no time, they go on from {dumped}")
    };
    let away = looked.here.wall.minus(since);
    Some(format!("{who} was checkpointed {about}{away} ago by the wall clock{elsewhere}; {own}"))
}

/// Where the runtime will look. Both go to the bundle before they open a relative path; but what runc takes where none is
/// given hangs on where it was started (runc's `utils_linux.go` and restore.go, crun's restore.c).
fn image_folder(operands: &Operands<'_>, kind: Kind) -> PathBuf {
    let bundle = Path::new(operands.bundle.filter(|bundle| !bundle.is_empty()).unwrap_or(".".as_ref()));
    match operands.image_path.filter(|path| !path.is_empty()) {
        Some(path) => bundle.join(path),
        None if kind == Kind::Crun => bundle.join("checkpoint"),
        None => PathBuf::from("checkpoint"),
    }
}

fn report(folder: &Path, moves: &[Move]) -> String {
    let names: Vec<String> = moves
        .iter()
        .map(|Move { pid, command, jump, .. }| {
            let jump = jump.map_or("by an unknown time".to_owned(), |jump| format!("by about {jump:+}"));
            format!("PID {pid} ({command}), whose clocks jump {jump}")
        })
        .collect();
    format!(
        "the checkpoint image in {} was mixed and could not have been restored; moved to the time namespace of the first \
         process: {}. The originals are beside, `tnsctl repair --undo` puts them back",
        folder.display(),
        names.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_where_the_runtime_looks() {
        let operands = |image: Option<&'static str>, bundle: Option<&'static str>| Operands {
            image_path: image.map(AsRef::as_ref),
            bundle: bundle.map(AsRef::as_ref),
            ..Operands::default()
        };
        for (image, bundle, runc, crun) in [
            (Some("/i"), Some("/b"), "/i", "/i"),
            (Some("i"), Some("/b"), "/b/i", "/b/i"),
            (Some("i"), None, "./i", "./i"),
            (None, Some("/b"), "checkpoint", "/b/checkpoint"),
            (None, None, "checkpoint", "./checkpoint"),
        ] {
            let operands = operands(image, bundle);
            assert_eq!(image_folder(&operands, Kind::Runc), Path::new(runc), "{image:?} {bundle:?}");
            assert_eq!(image_folder(&operands, Kind::Crun), Path::new(crun), "{image:?} {bundle:?}");
        }
    }
}
