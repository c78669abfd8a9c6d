// SPDX-License-Identifier: Apache-2.0
//! exec: into the time namespace of the container's PID 1.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Call;
use crate::container::{Init, State, Stopped};
use crate::decision::{self, Action, Decision, InitFacts};
use crate::settings::{self, Annotations, Mode, Settings, Wanted};
use crate::{state_view, timens};

/// What was found on the way to the decision, and is needed to act on it.
#[derive(Default)]
struct Found {
    state: Option<State>,
    init: Option<Init>,
}

pub(super) fn exec(call: &Call<'_>) -> Result<()> {
    let mut found = Found::default();
    let decision = decision::exec(call.abilities, || {
        look(call, &mut found).unwrap_or_else(|error| match error.downcast_ref::<Stopped>() {
            Some(stopped) => InitFacts::Stopped(stopped.to_string()),
            None => InitFacts::Unknown(format!("{error:#}")),
        })
    });
    let action = decision.action;
    let done = match (action, &found) {
        (Action::Enter, Found { state: Some(state), init: Some(init) }) => enter(call, state, init),
        _ => Ok(()),
    };
    let decision = match done {
        Err(error) if !error.is::<Stopped>() => Decision::hindered(format!("{error:#}")),
        // It has ended since it was looked at: then there is nothing to enter any more.
        Err(_) => Decision { action: Action::Pin, ..decision },
        Ok(()) => decision,
    };
    if decision.hindered && is_private(found.state.as_ref())? {
        bail!(
            "mode = \"private\", and the process cannot be put into the container's time namespace: {}",
            decision.reason
        );
    }
    // Nobody is worse off than without the shim if that fails: there is no container to exec in.
    if call.take(decision)? == Action::Pin {
        if let Err(error) = pin(call, found.state.as_ref()) {
            log::debug!("the runtime sees the container as it is by then: {error:#}");
        }
    }
    Ok(())
}

fn pin(call: &Call<'_>, state: Option<&State>) -> Result<()> {
    let folder = call.folder()?;
    state_view::pin(folder.parent().context("a container without a root folder")?, state, used(call))
}

/// Whether the container is one that is not to be split.
fn is_private(state: Option<&State>) -> Result<bool> {
    let name = format!("{}mode", settings::ANNOTATIONS);
    let own = state.and_then(|state| state.annotation(&name));
    let settings = Settings::read_or_default();
    let annotations = Annotations::of(own.iter().map(|value| (name.as_str(), value.as_str())), &settings)?;
    Ok(Wanted::of(&settings, annotations).mode == Mode::Private)
}

fn look(call: &Call<'_>, found: &mut Found) -> Result<InitFacts> {
    // First, because nothing else matters without.
    let own = match timens::Id::own() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(InitFacts::NoTimeNamespaces),
        own => own.context("look at the own time namespace")?,
    };
    // Where the id is none that could be a container's, the runtime knows the words.
    let Ok(folder) = call.folder() else { return Ok(InitFacts::Absent) };
    let Some(state) = State::read(call.abilities.kind, &folder)? else { return Ok(InitFacts::Absent) };
    let state = found.state.insert(state);
    // There is nothing to do then, and so nothing to prove, which would cost more than everything up to here.
    if timens::Id::of_process(state.pid).is_ok_and(|namespace| namespace == own) {
        return Ok(InitFacts::InOwn);
    }
    let init = found.init.insert(state.prove()?);
    Ok(InitFacts::Proven {
        listed: state.lists_time,
        user_namespace: init.is_in_another_user_namespace()?,
        namespace: init.time_namespace_id()?,
    })
}

/// Enters, and where the clock then reads the start of PID 1 differently, shows the runtime a state that agrees. On error
/// this process is where it was.
fn enter(call: &Call<'_>, state: &State, init: &Init) -> Result<()> {
    let own = File::open("/proc/self/ns/time").context("open /proc/self/ns/time")?;
    timens::enter(init.time_namespace()?)?;
    let agree = || -> Result<()> {
        let start = init.start()?;
        if start == state.start { Ok(()) } else { state_view::show(state, start, used(call)) }
    };
    agree().inspect_err(|_| {
        if let Err(error) = timens::enter(&own) {
            log::warn!("{error:#}");
        }
    })
}

/// What the runtime reads or writes besides its state, and the runtime itself.
fn used<'a>(call: &'a Call<'_>) -> impl Iterator<Item = &'a Path> {
    let named = call.operands.files.iter().copied().chain(call.invocation.globals.log).map(Path::new);
    named.chain([call.binary.path.as_path()])
}
