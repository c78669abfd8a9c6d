// SPDX-License-Identifier: Apache-2.0
//! `tnsctl hook precreate`: the shim's decision about a new container, for engines that pass its config.json through a hook.

use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Verdict;
use crate::bundle::Reading;
use crate::decision::{self, Action, ConfigFacts};
use crate::json;
use crate::runtime::abilities;
use crate::settings::{Settings, Wanted};
use crate::timens::Kernel;

/// Engines take what is printed for the container's config.json, so on every way out it is printed or the call fails.
pub(super) fn precreate(runtime: Option<&Path>) -> Result<Verdict> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).context("read config.json from standard input")?;
    let reading = Reading::of(&text);
    let Wanted { mode, shift, .. } = Wanted::of(&Settings::read()?, reading.annotations()?);
    let runtime = abilities::of(&super::runtime(runtime)?)?;
    let kernel = Kernel::try_out();
    let facts = ConfigFacts { kernel, runtime, view: reading.view, writable: true, mode, shift };
    let decision = decision::create_by_hook(facts);
    let mut change = match decision.action {
        Action::Declare { shifted: true } => reading.declare(Some(shift.offsets()?)),
        Action::Declare { .. } => reading.declare(None),
        Action::Undeclare => reading.undeclare(),
        Action::Refuse => bail!(decision.reason),
        _ => Vec::new(),
    };
    if decision.hindered {
        // Where the engine shows it; there is no log to write to.
        let _ = writeln!(io::stderr(), "tnsctl: {}, though {}", decision.action, decision.reason);
    }
    let mut stdout = io::stdout();
    json::pieces(&text, &mut change)
        .iter()
        .try_for_each(|piece| stdout.write_all(piece))
        .and_then(|()| stdout.flush())
        .context("write config.json to standard output")?;
    Ok(Verdict::Good)
}
