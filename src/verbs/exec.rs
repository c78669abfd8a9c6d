// SPDX-License-Identifier: Apache-2.0
//! exec: into the time namespace of the container's PID 1.

use std::fs::File;

use anyhow::{Context, Result};

use super::Call;
use crate::container::{Init, State};
use crate::decision::{self, Action, Decision, InitFacts};
use crate::state_view;
use crate::timens;

pub(super) fn exec(call: &Call<'_>) -> Result<()> {
    let mut found = None;
    let decision = decision::exec(call.abilities, || {
        look(call, &mut found).unwrap_or_else(|error| InitFacts::Unproven(format!("{error:#}")))
    });
    let action = call.take(decision)?;
    if let (Action::Enter, Some((state, init))) = (action, found)
        && let Err(error) = enter(&state, &init)
    {
        call.take(Decision::hindered(format!("{error:#}")))?;
    }
    Ok(())
}

fn look(call: &Call<'_>, found: &mut Option<(State, Init)>) -> Result<InitFacts> {
    // First, because there is none on a kernel without time namespaces.
    let own = timens::Id::own().context("look at the own time namespace")?;
    let state = call.state()?;
    // There is nothing to do then, and so nothing to prove, which would cost more than everything up to here.
    if timens::Id::of_process(state.pid).is_ok_and(|namespace| namespace == own) {
        return Ok(InitFacts::InOwn);
    }
    let init = state.prove()?;
    let facts = InitFacts::Proven {
        listed: state.lists_time,
        user_namespace: init.is_in_another_user_namespace()?,
        namespace: init.time_namespace_id()?,
    };
    *found = Some((state, init));
    Ok(facts)
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
