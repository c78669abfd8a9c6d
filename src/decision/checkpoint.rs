// SPDX-License-Identifier: Apache-2.0
//! Whether a container may be checkpointed, and from where.

use super::{Action, Decision, MOST_NAMED};
use crate::settings::MixedTree;
use crate::timens::{Id, Kernel};
use crate::tree::Task;

/// What is known of a container's processes at checkpoint.
#[derive(Clone, Debug)]
pub enum TreeFacts {
    /// No process is proven to be its PID 1, or its processes cannot be looked at.
    Unknown(String),
    /// Its PID 1 and all processes below it.
    Known {
        /// PID 1's time namespace.
        namespace: Id,
        /// The shim's own.
        own: Id,
        /// PID 1 is in another user namespace than the shim.
        user_namespace: bool,
        /// The processes that CRIU would dump.
        tasks: Vec<Task>,
    },
}

/// checkpoint: only a tree that can be restored, and in such a way that CRIU itself would refuse another one.
pub fn checkpoint(kernel: Kernel, id: &str, tree: TreeFacts, mixed: MixedTree) -> Decision {
    if kernel == Kernel::NoTimeNamespaces {
        return Decision::new(Action::Pass, "this kernel has no time namespaces");
    }
    if let TreeFacts::Known { namespace, own, tasks, .. } = &tree {
        let mut complaints: Vec<String> = tasks.iter().filter_map(|task| complaint(task, *namespace, *own)).collect();
        if !complaints.is_empty() {
            // Whoever runs in the container decides how many there are.
            let more = complaints.len().saturating_sub(MOST_NAMED);
            if more > 0 {
                complaints.truncate(MOST_NAMED);
                complaints.push(format!("and {more} more, see tnsctl inspect {id}"));
            }
            let why =
                format!("not every process is in the time namespace of PID 1, {namespace}: {}", complaints.join("; "));
            if mixed == MixedTree::Warn {
                // In the caller's namespace CRIU takes what stands in the host's.
                return Decision::hindered(format!(
                    "checkpoint.mixed = \"warn\": this checkpoint of {id} has to be repaired before CRIU can restore it, which \
                     tns-shim does at restore, because {why}"
                ));
            }
            return Decision::new(
                Action::Refuse,
                format!(
                    "checkpoint of {id} refused, the container keeps running: CRIU could not restore what it would write, because \
                     {why}. Stop these processes, start the ones that are needed again with exec through tns-shim, and repeat the \
                     checkpoint"
                ),
            );
        }
    }
    if let Some(obstacle) = kernel.obstacle() {
        return Decision::hindered(format!(
            "CRIU runs in the caller's time namespace and would not notice a mixed tree: {obstacle}"
        ));
    }
    let checked = match tree {
        // From outside, CRIU would have to dump a time namespace that does not belong to the container's user namespace.
        TreeFacts::Known { namespace, own, user_namespace: true, .. } if namespace == own => {
            return Decision::new(
                Action::Pass,
                "a container with a user namespace, on the host's time: CRIU has to be there, too",
            );
        }
        TreeFacts::Unknown(why) => format!("the processes could not be checked ({why}), CRIU will"),
        TreeFacts::Known { tasks, .. } => format!("{} processes agree", tasks.len()),
    };
    Decision::new(Action::StandOutside, checked)
}

fn complaint(task: &Task, namespace: Id, own: Id) -> Option<String> {
    if task.is_wholly_in(namespace) {
        return None;
    }
    let Task { pid, command, namespace: its, children } = task;
    let what = if *its == namespace {
        format!("has made the time namespace {children} for its children, and CRIU cannot dump a nested one")
    } else if *its == own {
        format!("is in the host's time namespace, {own}: it was put in from outside, or by an exec without tns-shim")
    } else {
        format!("is in a time namespace of its own, {its}, and CRIU cannot dump a nested one")
    };
    Some(format!("PID {pid} ({command}) {what}"))
}
