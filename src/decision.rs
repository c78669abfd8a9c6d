// SPDX-License-Identifier: Apache-2.0
//! The pure core: from facts to an action and its reason. No input or output happens here.
//!
//! Where the shim cannot help, creation and exec go on as if it were not there, and the reason is in the log. It refuses
//! only where going on would break what was asked for by name, or lose data.

use std::borrow::Cow;

use crate::bundle::{Declared, View};
use crate::runtime::abilities::{Abilities, Kind};
use crate::timens::{Id, Kernel};
use crate::tree::Task;

/// What to do before becoming the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Pass,
    /// Say it in config.json; the runtime makes the namespace.
    Declare,
    /// Take a declared plain one out of config.json, which this runtime would refuse.
    Undeclare,
    /// Make the namespace; the runtime and the container inherit it.
    Emulate {
        /// And take the declared one out of config.json.
        undeclare: bool,
    },
    /// Enter the namespace of the container's PID 1.
    Enter,
    /// Run the runtime, and so CRIU, in a new namespace that no task of the container is in.
    StandOutside,
    /// Add `time` to what `features` lists.
    ListTime,
    /// Stop with the reason as the error.
    Refuse,
}

/// An action and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// Why, as a phrase for logs and people.
    pub reason: Cow<'static, str>,
    /// The shim would have helped but cannot: worth a warning.
    pub hindered: bool,
}

impl Decision {
    fn new(action: Action, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { action, reason: reason.into(), hindered: false }
    }

    /// Goes on without help, because of an obstacle.
    pub fn hindered(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { hindered: true, ..Self::new(Action::Pass, reason) }
    }
}

/// What is known when a container is created, run or restored.
#[derive(Clone, Copy, Debug)]
pub struct ConfigFacts {
    /// The kernel's abilities.
    pub kernel: Kernel,
    /// The runtime's abilities.
    pub runtime: Abilities,
    /// What config.json says.
    pub view: View,
    /// config.json can be replaced.
    pub writable: bool,
}

/// create and run: a new container.
pub fn create(facts: ConfigFacts) -> Decision {
    match common(facts) {
        Ok(decision) => decision,
        Err(Undeclared::Writable) => {
            Decision::new(Action::Declare, format!("{} makes declared time namespaces", facts.runtime))
        }
        Err(Undeclared::ReadOnly) => Decision::new(
            Action::Emulate { undeclare: false },
            "config.json cannot be replaced, so the shim makes the time namespace",
        ),
        Err(Undeclared::Undeclarable(why)) => {
            Decision::new(Action::Emulate { undeclare: false }, format!("{why}, so the shim makes the time namespace"))
        }
        Err(Undeclared::MustGo) => Decision::new(
            Action::Emulate { undeclare: true },
            format!("{} would refuse the declared time namespace, so the shim makes it", facts.runtime),
        ),
    }
}

/// restore: CRIU makes the namespace, with the clocks of the checkpoint; what is declared decides what exec does later.
pub fn restore(facts: ConfigFacts) -> Decision {
    match common(facts) {
        Ok(decision) => decision,
        Err(Undeclared::Writable) => {
            Decision::new(Action::Declare, format!("{} then knows of the namespace that CRIU makes", facts.runtime))
        }
        Err(Undeclared::ReadOnly) => {
            Decision::new(Action::Pass, "config.json cannot be replaced; CRIU makes the time namespace all the same")
        }
        Err(Undeclared::Undeclarable(why)) => {
            Decision::new(Action::Pass, format!("{why}; CRIU makes the time namespace"))
        }
        Err(Undeclared::MustGo) => Decision::new(
            Action::Undeclare,
            format!("{} would refuse the declared time namespace; CRIU makes it all the same", facts.runtime),
        ),
    }
}

/// Where create and restore differ.
enum Undeclared {
    /// The runtime can be told, and config.json be written.
    Writable,
    /// The runtime could be told, but config.json cannot be written.
    ReadOnly,
    /// The runtime must not be told.
    Undeclarable(String),
    /// It is declared, and the runtime does not know what that is.
    MustGo,
}

fn common(facts: ConfigFacts) -> Result<Decision, Undeclared> {
    let ConfigFacts { kernel, runtime, view, writable } = facts;
    if let Some(obstacle) = kernel.obstacle() {
        return Ok(Decision::hindered(obstacle));
    }
    let (declared, joins_pid_namespace) = match view {
        View::Missing => return Ok(Decision::new(Action::Pass, "there is no config.json to read")),
        View::NoNamespaces => return Ok(Decision::new(Action::Pass, "config.json has no linux.namespaces")),
        View::NotUnderstood(why) => return Ok(Decision::hindered(format!("config.json is left alone: {why}"))),
        View::Understood { declared, joins_pid_namespace } => (declared, joins_pid_namespace),
    };
    match (declared, runtime.declares()) {
        (Declared::Plain | Declared::Offsets | Declared::Path, true) => {
            Ok(Decision::new(Action::Pass, "config.json declares the time namespace already"))
        }
        (Declared::Offsets, false) => Ok(Decision::new(
            Action::Refuse,
            format!(
                "{runtime} cannot shift a container's clocks, as linux.timeOffsets asks: use runc 1.2.6 or crun 1.8.4 and later, or take the offsets out"
            ),
        )),
        (Declared::Path, false) => Ok(Decision::new(
            Action::Refuse,
            format!(
                "{runtime} cannot join the time namespace that config.json names by its path: use runc 1.2 or crun 1.8.4 and later, or take the entry out"
            ),
        )),
        (Declared::Plain, false) if writable => Err(Undeclared::MustGo),
        (Declared::Plain, false) => Ok(Decision::new(
            Action::Refuse,
            format!(
                "{runtime} cannot make the time namespace that config.json declares, and config.json cannot be replaced to let the shim make it"
            ),
        )),
        // crun unshares in an order that fails there, or makes a new pid namespace instead of joining.
        (Declared::No, true) if runtime.kind == Kind::Crun && joins_pid_namespace => {
            Err(Undeclared::Undeclarable("crun cannot make a time namespace and join a pid namespace".into()))
        }
        (Declared::No, true) if writable => Err(Undeclared::Writable),
        (Declared::No, true) => Err(Undeclared::ReadOnly),
        (Declared::No, false) => Err(Undeclared::Undeclarable(format!("{runtime} cannot make time namespaces"))),
    }
}

/// What is known of the container at exec.
#[derive(Clone, Debug)]
pub enum InitFacts {
    /// No process is proven to be its PID 1; the text says why.
    Unproven(String),
    /// Its PID 1 is proven.
    Proven {
        /// The saved configuration lists a time namespace.
        listed: bool,
        /// PID 1 is in another user namespace than the shim.
        user_namespace: bool,
        /// PID 1's time namespace.
        namespace: Id,
        /// The shim's own.
        own: Id,
    },
}

/// exec: into PID 1's namespace. `init` is asked for only where it matters.
pub fn exec(kernel: Kernel, runtime: Abilities, init: impl FnOnce() -> InitFacts) -> Decision {
    if kernel == Kernel::NoTimeNamespaces {
        return Decision::new(Action::Pass, "this kernel has no time namespaces");
    }
    if !runtime.keeps_known_state() {
        return Decision::new(Action::Pass, format!("where {runtime} keeps its containers is unknown"));
    }
    match init() {
        InitFacts::Unproven(why) => Decision::new(Action::Pass, format!("the runtime decides: {why}")),
        InitFacts::Proven { namespace, own, .. } if namespace == own => {
            Decision::new(Action::Pass, "PID 1 is in the time namespace of the caller")
        }
        InitFacts::Proven { listed, user_namespace, .. } if runtime.exec_joins(listed, user_namespace) => {
            Decision::new(Action::Pass, format!("{runtime} enters the time namespace of PID 1 itself"))
        }
        InitFacts::Proven { namespace, .. } => Decision::new(Action::Enter, format!("PID 1 is in {namespace}")),
    }
}

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
        /// The processes that CRIU would dump.
        tasks: Vec<Task>,
    },
}

/// checkpoint: only a tree that can be restored, and in such a way that CRIU itself would refuse another one.
pub fn checkpoint(kernel: Kernel, id: &str, tree: TreeFacts) -> Decision {
    if kernel == Kernel::NoTimeNamespaces {
        return Decision::new(Action::Pass, "this kernel has no time namespaces");
    }
    if let TreeFacts::Known { namespace, own, tasks } = &tree {
        let complaints: Vec<String> = tasks.iter().filter_map(|task| complaint(task, *namespace, *own)).collect();
        if !complaints.is_empty() {
            return Decision::new(
                Action::Refuse,
                format!(
                    "checkpoint of {id} refused, the container keeps running: CRIU could not restore what it would write, because \
                     not every process is in the time namespace of PID 1, {namespace}: {}. Stop these processes, start the ones \
                     that are needed again with exec through tns-shim, and repeat the checkpoint",
                    complaints.join("; ")
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
        TreeFacts::Unknown(why) => format!("the processes could not be checked ({why}), CRIU will"),
        TreeFacts::Known { tasks, .. } => format!("{} processes agree", tasks.len()),
    };
    Decision::new(Action::StandOutside, checked)
}

fn complaint(task: &Task, namespace: Id, own: Id) -> Option<String> {
    let who = format!("PID {} ({})", task.pid, task.command);
    if task.namespace == namespace {
        return (task.children != namespace).then(|| {
            format!(
                "{who} has made the time namespace {} for its children, and CRIU cannot dump a nested one",
                task.children
            )
        });
    }
    if task.namespace == own {
        Some(format!(
            "{who} is in the host's time namespace, {own}: it was put in from outside, or by an exec without tns-shim"
        ))
    } else {
        Some(format!("{who} is in a time namespace of its own, {}, and CRIU cannot dump a nested one", task.namespace))
    }
}

/// features: what engines read about the runtime.
pub fn features(kernel: Kernel, runtime: Abilities, privileged: bool) -> Decision {
    if runtime.lists_time {
        return Decision::new(Action::Pass, format!("{runtime} lists time itself"));
    }
    if let Some(obstacle) = kernel.obstacle() {
        return Decision::hindered(obstacle);
    }
    if runtime.declares() {
        return Decision::new(
            Action::ListTime,
            format!("{runtime} makes time namespaces, though it does not list them"),
        );
    }
    if !privileged {
        return Decision::hindered("making time namespaces takes CAP_SYS_ADMIN");
    }
    Decision::new(Action::ListTime, "the shim makes the time namespaces")
}
