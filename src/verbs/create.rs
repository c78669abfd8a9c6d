// SPDX-License-Identifier: Apache-2.0
//! create, run and restore: what config.json says, and who makes the namespace.

use anyhow::{Context, Result};

use super::Call;
use crate::bundle::{Config, Reading, View};
use crate::decision::{self, Action, ConfigFacts, Decision};
use crate::settings::{Annotations, Mode, Settings, Wanted};
use crate::timens::{self, Kernel};

pub(super) fn create(call: &Call<'_>) -> Result<()> {
    act(call, &Bundle::read(call).asked()?, Kernel::try_out(), decision::create)
}

/// config.json, as far as it can be read.
pub(super) struct Bundle {
    config: Option<Config>,
    /// What to think of it if it could not be read.
    otherwise: View,
}

/// What config.json and the settings ask for.
pub(super) struct Asked<'a> {
    /// The file, and where in it a change would be.
    file: Option<(&'a Config, Reading<'a>)>,
    view: View,
    /// By the settings and this container's annotations.
    pub(super) wanted: Wanted,
}

impl Bundle {
    pub(super) fn read(call: &Call<'_>) -> Self {
        match Config::read(&call.operands) {
            Ok(config) => Self { config: Some(config), otherwise: View::Missing },
            Err(otherwise) => Self { config: None, otherwise },
        }
    }

    pub(super) fn asked(&self) -> Result<Asked<'_>> {
        let settings = Settings::read()?;
        let file = self.config.as_ref().map(|config| (config, config.reading()));
        let (view, annotations) = match &file {
            Some((_, reading)) => (reading.view, reading.annotations(&settings)?),
            None => (self.otherwise, Annotations::default()),
        };
        Ok(Asked { file, view, wanted: Wanted::of(&settings, annotations) })
    }
}

/// Decides by what config.json says, and makes it so.
pub(super) fn act(
    call: &Call<'_>,
    asked: &Asked<'_>,
    kernel: Kernel,
    decide: impl Fn(ConfigFacts) -> Decision,
) -> Result<()> {
    let Asked { file, view, wanted: Wanted { mode, shift, .. } } = asked;
    let (view, mode, shift) = (*view, *mode, *shift);
    let mut facts = ConfigFacts { kernel, runtime: call.abilities, view, writable: true, mode, shift };
    let mut action = call.take(decide(facts))?;

    if matches!(action, Action::Declare { .. } | Action::Undeclare | Action::Emulate { undeclare: true }) {
        let (config, reading) = file.as_ref().context("there is no config.json to change")?;
        let change = match action {
            Action::Declare { shifted: true } => reading.declare(Some(shift.offsets()?)),
            Action::Declare { .. } => reading.declare(None),
            _ => reading.undeclare(),
        };
        if let Err(error) = config.replace(change) {
            // Whether the file can be replaced is known only by trying.
            log::debug!("{error:#}");
            facts.writable = false;
            action = call.take(decide(facts))?;
        }
    }
    if let Action::Emulate { .. } = action {
        if let Err(error) = timens::make() {
            if mode == Mode::Private {
                return Err(error.context(decision::NOT_PRIVATE));
            }
            call.take(Decision::hindered(format!("{error:#}")))?;
        }
    }
    Ok(())
}
