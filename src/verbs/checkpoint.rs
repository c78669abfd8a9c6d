// SPDX-License-Identifier: Apache-2.0
//! checkpoint: never into an image that cannot be restored.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::Call;
use crate::bundle;
use crate::clocks::{Clocks, Here};
use crate::container::{Init, State, Stopped};
use crate::criu::record::{self, Mode, Record, TimeNamespace};
use crate::decision::{self, Action, Decision, TreeFacts};
use crate::runtime::abilities::Kind;
use crate::runtime::criu;
use crate::settings::Settings;
use crate::timens::{self, Kernel, Offsets};
use crate::tree;

pub(super) fn checkpoint(call: &Call<'_>) -> Result<()> {
    let mixed = Settings::read()?.checkpoint.mixed.unwrap_or_default();
    let found = look(call);
    let tree = match &found {
        Ok(Some(found)) => found.tree.clone(),
        Ok(None) => TreeFacts::Unknown("there is no such container".to_owned()),
        Err(error) => TreeFacts::Unknown(format!("{error:#}")),
    };
    let id = call.id().to_string_lossy().into_owned();
    let kernel = Kernel::look();
    let action = call.take(decision::checkpoint(kernel, &id, tree, mixed))?;
    match found {
        _ if call.operands.pre_dump => {}
        Ok(Some(found)) if is_refused(call.abilities.kind, &found.state) => {}
        Ok(Some(found)) => leave_record(call, record(call, &found)),
        // Of what does not run the runtime makes no checkpoint, and without time namespaces there is nothing to record.
        Err(error) if !error.is::<Stopped>() && kernel != Kernel::NoTimeNamespaces => leave_record(call, Err(error)),
        _ => {}
    }
    // CRIU takes every task that shares its own namespace without a word, and refuses one of a third.
    if action == Action::StandOutside {
        if let Err(error) = timens::make() {
            call.take(Decision::hindered(format!(
                "CRIU runs in the caller's time namespace and would not notice a mixed tree: {error:#}"
            )))?;
        }
    }
    Ok(())
}

/// A container whose processes could be looked at.
struct Found {
    state: State,
    init: Init,
    tree: TreeFacts,
}

/// None if there is no such container.
fn look(call: &Call<'_>) -> Result<Option<Found>> {
    let Some(state) = call.state()? else { return Ok(None) };
    let init = state.prove()?;
    let namespace = init.time_namespace_id()?;
    let tasks = tree::below(init.pid, |task| !task.is_wholly_in(namespace))?;
    let own = timens::Id::own().context("look at the own time namespace")?;
    // Asked last: then all of the above was this container's.
    let user_namespace = init.is_in_another_user_namespace()?;
    let tree = TreeFacts::Known { namespace, own, user_namespace, tasks };
    Ok(Some(Found { state, init, tree }))
}

/// Whether the runtime will make no image, nor a folder for one: runc waits in this FIFO for the container's start.
fn is_refused(kind: Kind, state: &State) -> bool {
    kind == Kind::Runc && state.file.with_file_name("exec.fifo").exists()
}

/// Writes the record into the image folder. It is a service: without it the checkpoint is as good.
fn leave_record(call: &Call<'_>, recorded: Result<Record>) {
    // Both runtimes take a relative path from where they are called, as this does.
    let folder = Path::new(call.operands.image_path.filter(|path| !path.is_empty()).unwrap_or("checkpoint".as_ref()));
    let written = recorded.and_then(|record| {
        // As the runtime makes it.
        let runc = call.abilities.kind == Kind::Runc;
        match DirBuilder::new().recursive(runc).mode(if runc { 0o600 } else { 0o700 }).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make {}", folder.display()));
            }
            _ => {}
        }
        record.write(folder)
    });
    if let Err(error) = written {
        log::warn!("the checkpoint has no record: {error:#}");
        if let Err(error) = record::remove(folder) {
            log::warn!("the record of an earlier checkpoint stays in {}: {error}", folder.display());
        }
    }
}

fn record(call: &Call<'_>, Found { state, init, tree }: &Found) -> Result<Record> {
    let TreeFacts::Known { namespace, own, tasks, .. } = tree else { anyhow::bail!("the container is not known") };
    let criu = criu::version(call.invocation.globals.criu.unwrap_or(OsStr::new("criu")));
    let declared = match call.abilities.kind {
        Kind::Crun => bundle::declares_time(&state.file.with_file_name("config.json")),
        _ => state.lists_time,
    };
    let mode = match (declared, namespace == own) {
        (true, _) => Mode::Declared,
        (false, false) => Mode::Emulated,
        (false, true) => Mode::Host,
    };
    let offsets = Clocks::from(Offsets::of_process(init.pid)?);
    let boot_id = record::boot_id().context("read the boot id")?;
    let kernel = record::kernel_release().context("read the kernel's release")?;
    // Last, because it is the time that is recorded.
    let here = Here::look()?;
    let since_1970 = Duration::from_nanos(u64::try_from(here.wall.0).unwrap_or(0));
    Ok(Record {
        format: record::FORMAT,
        shim: env!("CARGO_PKG_VERSION").to_owned(),
        container: call.id().to_string_lossy().into_owned(),
        time: humantime::format_rfc3339_millis(UNIX_EPOCH + since_1970).to_string(),
        wall_ns: here.wall,
        boot_id,
        kernel,
        runtime: call.abilities.to_string(),
        criu,
        clocks: here.seen_from(offsets).context("this kernel has no time namespaces")?,
        time_namespace: TimeNamespace { id: namespace.to_string(), offsets },
        mode,
        processes: tasks.len(),
    })
}
