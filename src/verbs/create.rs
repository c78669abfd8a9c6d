// SPDX-License-Identifier: Apache-2.0
//! create, run and restore: what config.json says, and who makes the namespace.

use anyhow::{Context, Result};

use super::Call;
use crate::bundle::{Config, View};
use crate::decision::{self, Action, ConfigFacts, Decision};
use crate::timens::{self, Kernel};

pub(super) fn create(call: &Call<'_>) -> Result<()> {
    act(call, &Bundle::read(call), Kernel::try_out(), decision::create)
}

/// config.json, as far as it can be read.
pub(super) struct Bundle {
    config: Option<Config>,
    /// What to think of it if it could not be read.
    otherwise: View,
}

impl Bundle {
    pub(super) fn read(call: &Call<'_>) -> Self {
        match Config::read(&call.operands) {
            Ok(config) => Self { config, otherwise: View::Unreadable },
            Err(error) => {
                log::debug!("{error:#}");
                Self { config: None, otherwise: View::Missing }
            }
        }
    }

    pub(super) fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }
}

/// Decides by what config.json says, and makes it so.
pub(super) fn act(
    call: &Call<'_>,
    bundle: &Bundle,
    kernel: Kernel,
    decide: impl Fn(ConfigFacts) -> Decision,
) -> Result<()> {
    let config = bundle.config();
    let (view, splice) = config.map_or((bundle.otherwise, None), Config::view);
    let mut facts = ConfigFacts { kernel, runtime: call.abilities, view, writable: true };
    let mut action = call.take(decide(facts))?;

    if matches!(action, Action::Declare | Action::Undeclare | Action::Emulate { undeclare: true }) {
        let change = || config.zip(splice.as_ref()).context("there is nothing to change in config.json");
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
