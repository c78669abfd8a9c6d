// SPDX-License-Identifier: Apache-2.0
//! create, run and restore: what config.json says, and who makes the namespace.

use anyhow::{Context, Result};

use super::Call;
use crate::bundle::{Config, View};
use crate::decision::{self, Action, ConfigFacts, Decision};
use crate::timens::{self, Kernel};

pub(super) fn create(call: &Call<'_>) -> Result<()> {
    act(call, Kernel::try_out(), decision::create)
}

pub(super) fn restore(call: &Call<'_>) -> Result<()> {
    act(call, Kernel::look(), decision::restore)
}

fn act(call: &Call<'_>, kernel: Kernel, decide: fn(ConfigFacts) -> Decision) -> Result<()> {
    let (config, missing) = match Config::read(&call.operands) {
        Ok(config) => (config, View::Unreadable),
        Err(error) => {
            log::debug!("{error:#}");
            (None, View::Missing)
        }
    };
    let (view, splice) = config.as_ref().map_or((missing, None), Config::view);
    let mut facts = ConfigFacts { kernel, runtime: call.abilities, view, writable: true };
    let mut action = call.take(decide(facts))?;

    if matches!(action, Action::Declare | Action::Undeclare | Action::Emulate { undeclare: true }) {
        let change = || config.as_ref().zip(splice.as_ref()).context("there is nothing to change in config.json");
        if let Err(error) = change().and_then(|(config, splice)| config.replace(splice)) {
            // Whether the file can be replaced is known only by trying.
            log::debug!("{error:#}");
            facts.writable = false;
            action = call.take(decide(facts))?;
        }
    }
    if let Action::Emulate { .. } = action
        && let Err(error) = timens::make()
    {
        call.take(Decision::hindered(format!("{error:#}")))?;
    }
    Ok(())
}
