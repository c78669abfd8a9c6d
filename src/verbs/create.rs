// SPDX-License-Identifier: Apache-2.0
//! create, run and restore: what config.json says, and who makes the namespace.

use anyhow::Result;

use super::Call;
use crate::bundle::{Config, View};
use crate::decision::{self, Action, ConfigFacts, Decision};
use crate::json::Splice;
use crate::timens::{self, Kernel};

pub(super) fn create(call: &Call<'_>) -> Result<()> {
    act(call, decision::create)
}

pub(super) fn restore(call: &Call<'_>) -> Result<()> {
    act(call, decision::restore)
}

fn act(call: &Call<'_>, decide: fn(ConfigFacts) -> Decision) -> Result<()> {
    let config = Config::read(&call.operands).inspect_err(|error| log::debug!("{error:#}")).ok();
    let (view, splice) = config.as_ref().map_or((View::Missing, None), Config::view);
    let mut facts = ConfigFacts { kernel: Kernel::look(), runtime: call.abilities, view, writable: true };

    let replace = |config: Option<&Config>, splice: Option<&Splice>| match (config, splice) {
        (Some(config), Some(splice)) => config.replace(splice),
        _ => Ok(()),
    };
    loop {
        let action = call.take(decide(facts))?;
        let replaced = match action {
            Action::Declare | Action::Undeclare => replace(config.as_ref(), splice.as_ref()),
            Action::Emulate { undeclare } => match timens::make() {
                Ok(()) if undeclare => replace(config.as_ref(), splice.as_ref()),
                Ok(()) => Ok(()),
                Err(error) => {
                    call.take(Decision::hindered(format!("{error:#}")))?;
                    Ok(())
                }
            },
            _ => Ok(()),
        };
        match replaced {
            // Whether the file can be replaced is known only by trying.
            Err(error) if facts.writable => {
                log::debug!("{error:#}");
                facts.writable = false;
            }
            result => return result,
        }
    }
}
