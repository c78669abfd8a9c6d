// SPDX-License-Identifier: Apache-2.0
//! checkpoint: never into an image that cannot be restored.

use anyhow::{Context, Result};

use super::Call;
use crate::decision::{self, Action, Decision, TreeFacts};
use crate::timens::{self, Kernel};
use crate::tree;

pub(super) fn checkpoint(call: &Call<'_>) -> Result<()> {
    let tree = look(call).unwrap_or_else(|error| TreeFacts::Unknown(format!("{error:#}")));
    let id = call.id().display().to_string();
    let action = call.take(decision::checkpoint(Kernel::look(), &id, tree))?;
    // CRIU takes every task that shares its own namespace without a word, and refuses one of a third.
    if action == Action::StandOutside
        && let Err(error) = timens::make()
    {
        call.take(Decision::hindered(format!(
            "CRIU runs in the caller's time namespace and would not notice a mixed tree: {error:#}"
        )))?;
    }
    Ok(())
}

fn look(call: &Call<'_>) -> Result<TreeFacts> {
    let init = call.state()?.context("there is no such container")?.prove()?;
    let tasks = tree::below(init.pid)?;
    let own = timens::Id::own().context("look at the own time namespace")?;
    // Asked last: then all of the above was this container's.
    let user_namespace = init.is_in_another_user_namespace()?;
    Ok(TreeFacts::Known { namespace: init.time_namespace_id()?, own, user_namespace, tasks })
}
