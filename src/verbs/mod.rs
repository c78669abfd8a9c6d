// SPDX-License-Identifier: Apache-2.0
//! One file a verb, each the same three steps: gather the facts, decide, act. Then the runtime takes over.

mod checkpoint;
mod create;
mod exec;
mod features;
mod restore;

use std::convert::Infallible;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Result, anyhow};

use crate::container::{self, State};
use crate::decision::{Action, Decision};
use crate::invocation::{Invocation, Operands, Verb};
use crate::runtime::abilities::{self, Abilities};
use crate::runtime::{Binary, handover, locate};
use crate::{settings, system_log};

/// Everything a verb needs: what was asked, and of which runtime.
struct Call<'a> {
    invocation: &'a Invocation<'a>,
    operands: Operands<'a>,
    binary: Binary,
    abilities: Abilities,
}

/// Does what the call needs and becomes the runtime. Returns an exit code only for a call that the shim answers itself.
///
/// # Errors
/// There is no runtime, or the call is refused.
pub fn dispatch(invocation: &Invocation<'_>) -> Result<u8> {
    handover::ensure_end()?;
    let argv0 = invocation.args.first().map_or(&b"tns-shim"[..], |argv0| argv0.to_bytes());
    let binary = locate::runtime(OsStr::from_bytes(argv0))?;
    if matches!(invocation.verb, Verb::Other | Verb::Exec) {
        settings::warn_of_lost_runtime();
    }
    if invocation.verb == Verb::Other {
        return pass(&binary, invocation);
    }
    let abilities = abilities::of(&binary);
    let operands = invocation.operands(abilities.dialect());
    operands.id.inspect(|id| system_log::set_container(id));
    // Without an id the runtime will complain or explain; `features` takes none.
    if operands.id.is_none() && invocation.verb != Verb::Features {
        return pass(&binary, invocation);
    }
    let call = Call { invocation, operands, binary, abilities };
    match invocation.verb {
        Verb::Create | Verb::Run => create::create(&call)?,
        Verb::Restore => restore::restore(&call)?,
        Verb::Exec => exec::exec(&call)?,
        Verb::Checkpoint => checkpoint::checkpoint(&call)?,
        Verb::Features => return features::features(&call),
        Verb::Other => {}
    }
    pass(&call.binary, invocation)
}

fn pass(binary: &Binary, invocation: &Invocation<'_>) -> Result<u8> {
    let never: Infallible = handover::become_runtime(binary, invocation.args)?;
    match never {}
}

impl Call<'_> {
    fn id(&self) -> &OsStr {
        self.operands.id.unwrap_or_default()
    }

    /// Where the runtime keeps the container.
    fn folder(&self) -> Result<PathBuf> {
        container::folder(self.abilities.kind, self.invocation.globals.root, self.id())
    }

    /// What the runtime knows of the container; none if there is no such container.
    fn state(&self) -> Result<Option<State>> {
        State::read(self.abilities.kind, &self.folder()?)
    }

    /// Logs a decision; a refusal becomes the error.
    fn take(&self, decision: Decision) -> Result<Action> {
        let Decision { action, reason, hindered } = decision;
        if action == Action::Refuse {
            return Err(anyhow!(reason));
        }
        let verb = self.invocation.verb;
        if hindered && action == Action::Pass {
            log::warn!("{verb} goes on without help: {reason}");
        } else if hindered {
            log::warn!("{verb}: {action}, though {reason}");
        } else {
            log::debug!("{verb}: {action}, because {reason}");
        }
        Ok(action)
    }
}
