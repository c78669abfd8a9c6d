// SPDX-License-Identifier: Apache-2.0
//! restore: first an image that CRIU can restore, with the clocks that are asked for, then what config.json says. The image
//! itself stays as it is: what CRIU must see changed, it is shown.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Call, create};
use crate::clocks::{Clocks, Here, Nanoseconds};
use crate::criu::images::{Folder, INVENTORY_NAME, Images, Source as _};
use crate::criu::originals::{Edit, Unchanged};
use crate::criu::record::{self, Record};
use crate::criu::repair::{self, Move};
use crate::criu::{
    host_time,
    lock::{self, Lock},
};
use crate::decision::{self, Action, Decision, ImageFacts};
use crate::image_view::{self, Shown};
use crate::invocation::Operands;
use crate::replacement;
use crate::runtime::abilities::Kind;
use crate::settings::Wanted;
use crate::text::printable;
use crate::timens::Kernel;

pub(super) fn restore(call: &Call<'_>) -> Result<()> {
    let bundle = create::Bundle::read(call);
    let asked = bundle.asked()?;
    let kernel = Kernel::try_out();
    let on_host_time = prepare_image(call, kernel, asked.wanted)?;
    create::act(call, &asked, kernel, |facts| decision::restore(facts, on_host_time))
}

/// An image that was understood.
struct Looked<'a> {
    /// What the folder holds, but for what a build before the first release has taken from it.
    source: Unchanged<'a, Folder>,
    images: Images,
    /// The first process's clocks, and when their file was written.
    clocks: Option<(Clocks, Nanoseconds)>,
    here: Here,
    _lock: Lock,
}

impl<'a> Looked<'a> {
    /// None if there is no image.
    fn at(folder: &'a Folder) -> Result<Option<Self>> {
        if !folder.path(INVENTORY_NAME).exists() {
            return Ok(None);
        }
        let lock = lock::shared(folder)?;
        // Whatever is asked for now begins with the checkpoint as it was made.
        let (source, images) = host_time::let_go(folder)?;
        let clocks = images.clocks(&source)?;
        Ok(Some(Self { source, images, clocks, here: Here::look()?, _lock: lock }))
    }

    /// By how much the clocks jump on the time of here.
    fn jump(&self) -> Option<Clocks> {
        self.clocks.map(|(dumped, _)| self.here.clocks.minus(dumped))
    }

    /// What has to be shown, so that these edits are seen made.
    fn shown(&self, folder: &Folder, edits: Vec<Edit>) -> Result<Shown> {
        let mut shown: Shown = edits.into_iter().map(|edit| (edit.name, edit.after)).collect();
        // What was put aside may be what is asked for now.
        for (name, original) in self.source.originals() {
            let wanted = shown.remove(name).unwrap_or_else(|| Some(original.clone()));
            let there = folder.file(name).with_context(|| format!("read {name}"))?.map(|stored| stored.bytes);
            if there != wanted {
                shown.insert(name.clone(), wanted);
            }
        }
        Ok(shown)
    }
}

/// Shows CRIU a mixed image repaired, or one without its clocks to hold the container on the host's time; tells whether that
/// is so. What is not understood stops the restore only if something was asked for by name: else CRIU decides.
fn prepare_image(call: &Call<'_>, kernel: Kernel, wanted: Wanted) -> Result<bool> {
    let folder = Folder(image_folder(&call.operands, call.abilities.kind));
    let looked = match Looked::at(&folder) {
        Err(error) if error.is::<host_time::Lost>() => return Err(error),
        looked => looked,
    };
    let facts = match &looked {
        Ok(None) => ImageFacts::Missing,
        Err(error) => ImageFacts::NotUnderstood(format!("{error:#}, in {}", folder.0.display())),
        Ok(Some(looked)) => ImageFacts::Understood {
            tasks: looked.images.tasks().len(),
            strays: looked.images.strays().map(|task| task.pid).collect(),
            jump: looked.jump(),
        },
    };
    let action = call.take(decision::image(kernel, facts, wanted))?;
    let Ok(Some(looked)) = looked else { return Ok(false) };
    let on_host_time = action == Action::HoldOnHostTime;
    let edits = match action {
        Action::RepairImage => match repair::plan(&looked.images, &looked.source, looked.here) {
            Ok(moves) => {
                log::warn!("{}", report(&folder.0, &moves));
                moves.into_iter().map(|one| one.edit).collect()
            }
            Err(error) => {
                call.take(Decision::hindered(format!("the checkpoint image could not be repaired: {error:#}")))?;
                Vec::new()
            }
        },
        Action::HoldOnHostTime => host_time::plan(&looked.images, &looked.source)
            .context("keep the container on the host's time, as restore.clocks asks")?,
        _ => Vec::new(),
    };
    let shown = looked.shown(&folder, edits)?;
    if let Some(text) = drift(&looked, on_host_time) {
        log::info!("{text}");
    }
    if !shown.is_empty() {
        ensure_nothing_is_written_to(&folder.0, call)?;
        image_view::show(&folder.0, &shown).with_context(|| no_view(&folder.0, action))?;
    }
    Ok(on_host_time)
}

/// What the runtime would put into the view, nobody would find.
fn ensure_nothing_is_written_to(folder: &Path, call: &Call<'_>) -> Result<()> {
    let image = fs::canonicalize(folder).with_context(|| format!("look at {}", folder.display()))?;
    for path in call.operands.files.iter().copied().chain(call.invocation.globals.log) {
        let place = fs::canonicalize(replacement::folder_of(Path::new(path)));
        ensure!(
            place.ok().as_ref() != Some(&image),
            "{} would be in the image folder, which CRIU must be shown changed: it belongs elsewhere",
            path.to_string_lossy()
        );
    }
    Ok(())
}

/// What to do where CRIU cannot be shown another image than there is.
fn no_view(folder: &Path, action: Action) -> String {
    let image = folder.display();
    match action {
        Action::RepairImage => format!(
            "the checkpoint image is mixed, and CRIU cannot be shown it repaired; `tnsctl repair {image} --output NEW` makes a \
             copy that can be restored"
        ),
        Action::HoldOnHostTime => {
            "restore.clocks asks for the host's, and CRIU cannot be shown the checkpoint image without its \
                                   clocks; `continue` needs no view"
                .to_owned()
        }
        _ => format!(
            "an earlier restore has taken the clocks out of the checkpoint image, and CRIU cannot be shown it with them; \
             `tnsctl repair --undo {image}` brings them back"
        ),
    }
}

/// How long the container was away, by the wall clock and by its own. None if the image does not tell.
fn drift(looked: &Looked<'_>, on_host_time: bool) -> Option<String> {
    let (dumped, written) = looked.clocks?;
    let record = Record::read(&looked.source).unwrap_or_else(|error| {
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
         process: {}. The image itself stays as it is, `tnsctl repair` changes it for good",
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
