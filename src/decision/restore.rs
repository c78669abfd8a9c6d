// SPDX-License-Identifier: Apache-2.0
//! What config.json says when a container is restored.

use super::{Action, ConfigFacts, Decision, Need, needed};
use crate::bundle::{Declared, View};
use crate::settings::Mode;

/// restore: CRIU makes the namespace, with the clocks of the checkpoint; what is declared decides what exec does later.
/// Nothing needs to be declared for a container that stays on the host's time.
pub fn restore(facts: ConfigFacts, on_host_time: bool) -> Decision {
    let ConfigFacts { runtime, view, writable, mode, .. } = facts;
    match mode {
        Mode::Leave => return Decision::new(Action::Pass, "mode = \"leave\": config.json is left as it is"),
        Mode::Host if writable && matches!(view, View::Understood { declared, .. } if declared != Declared::No) => {
            return Decision::new(Action::Undeclare, "mode = \"host\", and config.json declares a time namespace");
        }
        _ => {}
    }
    match needed(facts) {
        Need::Settled(decision) => decision,
        Need::Declare if on_host_time => Decision::new(Action::Pass, "the container stays on the host's time"),
        Need::Declare => Decision::new(
            Action::Declare { shifted: false },
            format!("{runtime} then knows of the namespace that CRIU makes"),
        ),
        Need::Emulate { declared, why, .. } => {
            let action = if declared { Action::Undeclare } else { Action::Pass };
            let who = if on_host_time { "and nobody makes one" } else { "CRIU makes it" };
            Decision::new(action, format!("{why}; {who}"))
        }
    }
}
