// SPDX-License-Identifier: Apache-2.0
//! restore: first an image that CRIU can restore, then what config.json says.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Call, create};
use crate::criu::clocks::Here;
use crate::criu::images::{Folder, Images};
use crate::criu::repair::{self, Move};
use crate::decision::{self, Action, Decision, ImageFacts};
use crate::invocation::Operands;
use crate::runtime::abilities::Kind;

pub(super) fn restore(call: &Call<'_>) -> Result<()> {
    make_restorable(call)?;
    create::restore(call)
}

/// Repairs a mixed image. Nothing that goes wrong here stops the restore: CRIU decides.
fn make_restorable(call: &Call<'_>) -> Result<()> {
    let folder = Folder(image_folder(&call.operands, call.abilities.kind));
    let read = folder.path("inventory.img").exists().then(|| Images::read(&folder));
    let facts = match &read {
        None => ImageFacts::Missing,
        Some(Err(error)) => ImageFacts::NotUnderstood(format!("{error:#}, in {}", folder.0.display())),
        Some(Ok(images)) => ImageFacts::Understood {
            tasks: images.tasks().len(),
            strays: images.strays().map(|task| task.pid).collect(),
        },
    };
    let action = call.take(decision::image(facts))?;
    if let (Action::RepairImage, Some(Ok(images))) = (action, &read) {
        let repaired = Here::look().and_then(|here| {
            let moves = repair::plan(images, &folder, here)?;
            repair::apply(&folder, &moves)?;
            Ok(moves)
        });
        match repaired {
            Ok(moves) => log::warn!("{}", report(&folder.0, &moves)),
            Err(error) => {
                call.take(Decision::hindered(format!("the checkpoint image could not be repaired: {error:#}")))?;
            }
        }
    }
    Ok(())
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
