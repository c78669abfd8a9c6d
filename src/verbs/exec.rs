// SPDX-License-Identifier: Apache-2.0
//! exec: into the time namespace of the container's PID 1.

use std::fs::File;

use anyhow::{Context, Result};

use super::Call;
use crate::container::{Init, State};
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
        look(call, &mut found).unwrap_or_else(|error| InitFacts::Unproven(format!("{error:#}")))
    });
    let done = match (call.take(decision)?, &found) {
        (Action::Enter, Found { state: Some(state), init: Some(init) }) => enter(state, init),
        (Action::Pin, Found { state, .. }) => pin(call, state.as_ref()),
        _ => Ok(()),
    };
    if let Err(error) = done {
        if is_private(found.state.as_ref())? {
            return Err(
                error.context("mode = \"private\", and the process cannot be put into the container's time namespace")
            );
        }
        call.take(Decision::hindered(format!("{error:#}")))?;
    }
    Ok(())
}

/// Whether the container is one that is not to be split.
fn is_private(state: Option<&State>) -> Result<bool> {
    let name = format!("{}mode", settings::ANNOTATIONS);
    let own = state.and_then(|state| state.annotation(&name));
    let annotations = Annotations::of(own.iter().map(|value| (name.as_str(), value.as_str())))?;
    Ok(Wanted::of(&Settings::read()?, annotations).mode == Mode::Private)
}

fn look(call: &Call<'_>, found: &mut Found) -> Result<InitFacts> {
    // First, because there is none on a kernel without time namespaces.
    let own = timens::Id::own().context("look at the own time namespace")?;
    let state = found.state.insert(call.state()?.context("there is no such container")?);
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
fn enter(state: &State, init: &Init) -> Result<()> {
    let own = File::open("/proc/self/ns/time").context("open /proc/self/ns/time")?;
    timens::enter(init.time_namespace()?)?;
    let agree = || -> Result<()> {
        let start = init.start()?;
        if start == state.start { Ok(()) } else { state_view::show(state, start) }
    };
    agree().inspect_err(|_| {
        if let Err(error) = timens::enter(&own) {
            log::warn!("{error:#}");
        }
    })
}

/// Shows the runtime the state that was read, or that there was none.
fn pin(call: &Call<'_>, state: Option<&State>) -> Result<()> {
    match state {
        Some(state) => state_view::show(state, state.start),
        None => state_view::hide(call.folder()?.parent().context("a container without a root folder")?),
    }
}
