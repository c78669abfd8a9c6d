// SPDX-License-Identifier: Apache-2.0
//! The pure core: from facts to an action and its reason. No input or output happens here.
//!
//! Where the shim cannot help, creation and exec go on as if it were not there, and the reason is in the log. It refuses
//! only where going on would break what was asked for by name, or lose data.

mod checkpoint;
mod image;
mod restore;

use std::borrow::Cow;
use std::fmt;

use crate::bundle::{Declared, PidNamespace, View};
use crate::runtime::abilities::{Abilities, Kind};
use crate::settings::{Mode, Shift};
use crate::timens::{Id, Kernel};

pub use checkpoint::{TreeFacts, checkpoint};
pub use image::{ImageFacts, image};
pub use restore::restore;

/// What is said where [`Mode::Private`] cannot be kept.
pub const NOT_PRIVATE: &str = "mode = \"private\", and the container cannot be given a time namespace of its own";

/// How many processes an error names.
const MOST_NAMED: usize = 10;

/// What to do before becoming the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Pass,
    /// Say it in config.json; the runtime makes the namespace.
    Declare {
        /// With the offsets that were asked for.
        shifted: bool,
    },
    /// Take a declared one out of config.json, which this runtime would refuse, or nobody wants.
    Undeclare,
    /// Make the namespace; the runtime and the container inherit it.
    Emulate {
        /// And take the declared one out of config.json.
        undeclare: bool,
    },
    /// Enter the namespace of the container's PID 1.
    Enter,
    /// Let the runtime see what the shim has seen of the container, or that there is none, and nothing that came later.
    Pin,
    /// Run the runtime, and so CRIU, in a new namespace that no task of the container is in.
    StandOutside,
    /// Put every process of the checkpoint image into the namespace of the first one.
    RepairImage,
    /// Make CRIU restore the checkpoint image without a time namespace.
    HoldOnHostTime,
    /// Add `time` to what `features` lists.
    ListTime,
    /// Stop with the reason as the error.
    Refuse,
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pass => "pass",
            Self::Declare { shifted: false } => "declare",
            Self::Declare { shifted: true } => "declare with offsets",
            Self::Undeclare => "undeclare",
            Self::Emulate { undeclare: false } => "emulate",
            Self::Emulate { undeclare: true } => "undeclare and emulate",
            Self::Enter => "enter",
            Self::Pin => "pin",
            Self::StandOutside => "stand outside",
            Self::RepairImage => "repair the image",
            Self::HoldOnHostTime => "hold on the host's time",
            Self::ListTime => "list time",
            Self::Refuse => "refuse",
        })
    }
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
    /// What is wanted.
    pub mode: Mode,
    /// How the clocks of a new container shall differ from the host's.
    pub shift: Shift,
}

/// create and run: a new container.
pub fn create(facts: ConfigFacts) -> Decision {
    let decision = match facts.mode {
        Mode::Leave => return Decision::new(Action::Pass, "mode = \"leave\": config.json is left as it is"),
        Mode::Host => on_host_time(facts),
        Mode::Auto | Mode::Private => with_own_clocks(facts),
    };
    // Without a config.json the runtime will say so better.
    if decision.action == Action::Refuse || facts.view == View::Missing {
        return decision;
    }
    let Decision { action, reason, hindered } = &decision;
    let shifted = matches!(action, Action::Declare { shifted: true });
    if facts.shift.is_asked_for() && !shifted {
        return Decision::new(
            Action::Refuse,
            format!("the container's annotations ask for clocks of its own, which it cannot be given: {reason}"),
        );
    }
    let declared = matches!(facts.view, View::Understood { declared, .. } if declared != Declared::No);
    let own = match action {
        Action::Declare { .. } | Action::Emulate { .. } => true,
        action => *action == Action::Pass && declared && !hindered,
    };
    if facts.mode == Mode::Private && !own {
        return Decision::new(Action::Refuse, format!("{NOT_PRIVATE}: {reason}"));
    }
    decision
}

/// A new container whose config.json passes through a hook, which makes no namespaces: only what is declared helps. And the
/// engine does not tell which of the `candidates` the container is given to: the least of what would be done for each, because
/// one that cannot make what is declared would not start it. None without candidates.
pub fn create_by_hook(candidates: &[Abilities], facts: impl Fn(Abilities) -> ConfigFacts) -> Option<Decision> {
    let decisions = candidates.iter().map(|runtime| declare_only(facts(*runtime)));
    decisions.min_by_key(|decision| match decision.action {
        Action::Refuse => 0,
        Action::Undeclare => 1,
        Action::Declare { shifted: false } => 3,
        Action::Declare { shifted: true } => 4,
        _ => 2,
    })
}

fn declare_only(facts: ConfigFacts) -> Decision {
    let decision = create(facts);
    let Action::Emulate { undeclare } = decision.action else { return decision };
    let reason = format!("{}, and a hook cannot: use tns-shim as the runtime", decision.reason);
    if facts.mode == Mode::Private {
        return Decision::new(Action::Refuse, format!("{NOT_PRIVATE}: {reason}"));
    }
    let action = if undeclare { Action::Undeclare } else { Action::Pass };
    Decision { action, ..Decision::hindered(reason) }
}

/// A container that shall not have a time namespace of its own.
fn on_host_time(ConfigFacts { view, writable, .. }: ConfigFacts) -> Decision {
    let pass = |reason: &'static str| Decision::new(Action::Pass, reason);
    match view {
        View::Missing | View::NoNamespaces => pass("mode = \"host\", and config.json declares no time namespace"),
        View::Understood { declared: Declared::No, .. } => {
            pass("mode = \"host\", and config.json declares no time namespace")
        }
        View::Understood { .. } if writable => {
            Decision::new(Action::Undeclare, "mode = \"host\", and config.json declares a time namespace")
        }
        View::Understood { .. } => Decision::new(
            Action::Refuse,
            "mode = \"host\", but config.json declares a time namespace and cannot be replaced to take it out",
        ),
        View::Unreadable => Decision::hindered("mode = \"host\", but config.json is no regular file"),
        View::NotUnderstood(why) => {
            Decision::hindered(format!("mode = \"host\", but config.json is left alone: {why}"))
        }
    }
}

/// A container that shall have a time namespace of its own, and perhaps clocks.
fn with_own_clocks(facts: ConfigFacts) -> Decision {
    let ConfigFacts { runtime, view, writable, shift, .. } = facts;
    let decision = with_own_namespace(facts);
    if shift == Shift::None {
        return decision;
    }
    let (declared, pid) = match view {
        View::Understood { declared, pid, .. } => (declared, pid),
        _ => (Declared::No, PidNamespace::New),
    };
    let cannot = match (decision.action, declared) {
        (Action::Refuse, _) => return decision,
        // Somebody has said so already, for this container.
        (Action::Pass, Declared::Offsets | Declared::Path) if !shift.is_asked_for() => return decision,
        (Action::Pass, Declared::Offsets) => "config.json has linux.timeOffsets of its own".to_owned(),
        (Action::Pass, Declared::Path) => "config.json names a time namespace that exists already".to_owned(),
        // By clocks that begin at zero, processes outside were started before the boot, which nobody who reads /proc expects.
        _ if pid != PidNamespace::New && !shift.is_asked_for() && !decision.hindered => {
            "it has no pid namespace of its own, and would see processes that are older than its clocks".to_owned()
        }
        (Action::Declare { .. }, _) | (Action::Pass, Declared::Plain) if runtime.shifts() && writable => {
            let reason = format!("{runtime} makes declared time namespaces, with clocks of their own");
            return Decision::new(Action::Declare { shifted: true }, reason);
        }
        (Action::Declare { .. } | Action::Emulate { .. }, _) if !runtime.shifts() => {
            format!("{runtime} cannot shift a container's clocks, which takes runc 1.2.6 or crun 1.8.4 and later")
        }
        _ => decision.reason.into_owned(),
    };
    let reason = if shift.is_asked_for() { cannot } else { format!("the clocks do not begin at zero: {cannot}") };
    Decision { action: decision.action, reason: reason.into(), hindered: true }
}

fn with_own_namespace(facts: ConfigFacts) -> Decision {
    let ConfigFacts { runtime, .. } = facts;
    match needed(facts) {
        Need::Settled(decision) => decision,
        Need::Declare => {
            Decision::new(Action::Declare { shifted: false }, format!("{runtime} makes declared time namespaces"))
        }
        // CRIU dumps a container only if all its namespaces belong to its user namespace, and one that the shim makes would
        // belong to its own. In the host's the container can be checkpointed, and has one from the first restore on.
        Need::Emulate { declared: true, user_namespace: true, why } => {
            Decision { action: Action::Undeclare, ..Decision::hindered(format!("{why}, {FOR_CRIU}")) }
        }
        Need::Emulate { user_namespace: true, why, .. } => Decision::hindered(format!("{why}, {FOR_CRIU}")),
        // Processes that exec leaves outside would split a container that is whole on the host's time.
        Need::Emulate { declared, why, .. } if !runtime.keeps_known_state() => {
            let action = if declared { Action::Undeclare } else { Action::Pass };
            Decision { action, ..Decision::hindered(format!("{why}, and {NO_STATE}")) }
        }
        Need::Emulate { declared, why, .. } => {
            Decision::new(Action::Emulate { undeclare: declared }, format!("{why}, so the shim makes it"))
        }
    }
}

const FOR_CRIU: &str = "and CRIU could not dump a container with a user namespace from one that the shim makes";

const NO_STATE: &str = "where this runtime keeps its containers is unknown, so that exec could not be made to join";

/// What a container needs to get a time namespace of its own.
enum Need {
    /// Nothing that create and restore would see to in different ways.
    Settled(Decision),
    /// An entry in config.json.
    Declare,
    /// A namespace that the runtime does not make.
    Emulate {
        /// There is an entry in config.json that has to go.
        declared: bool,
        /// The container has a user namespace.
        user_namespace: bool,
        /// Why the runtime does not make it.
        why: String,
    },
}

fn needed(facts: ConfigFacts) -> Need {
    let ConfigFacts { kernel, runtime, view, writable, .. } = facts;
    let obstacle = kernel.obstacle();
    let pass = |reason: &'static str| Need::Settled(Decision::new(Action::Pass, reason));
    let refuse = |reason: String| Need::Settled(Decision::new(Action::Refuse, reason));
    let (declared, pid, user_namespace) = match view {
        View::Missing => return pass("there is no config.json to read"),
        View::NoNamespaces => return pass("config.json has no linux.namespaces"),
        View::Unreadable => {
            return Need::Settled(Decision::hindered(
                "config.json is no regular file, and only the runtime may read it",
            ));
        }
        View::NotUnderstood(why) => {
            return Need::Settled(Decision::hindered(format!("config.json is left alone: {why}")));
        }
        View::Understood { declared, pid, user_namespace } => (declared, pid, user_namespace),
    };
    let goes = declared == Declared::Plain && writable;
    if let Some(obstacle) = obstacle {
        // No runtime could make what is declared, be it by an engine's habit or by an earlier call of the shim, and the container
        // can start without.
        let action = if goes { Action::Undeclare } else { Action::Pass };
        return Need::Settled(Decision { action, ..Decision::hindered(obstacle) });
    }
    let emulate = |why: String| Need::Emulate { declared: declared == Declared::Plain, user_namespace, why };
    // crun makes a new pid namespace whenever it makes a time namespace, also where none or another one is asked for. In an
    // order, besides, that fails beside one that is joined.
    let beside = match pid {
        _ if runtime.kind != Kind::Crun => None,
        PidNamespace::New => None,
        PidNamespace::Absent => Some("crun would make a new pid namespace with a time namespace, where none is listed"),
        PidNamespace::Joined => Some("crun cannot make a time namespace beside joining a pid namespace"),
    };
    match (declared, runtime.declares(), beside) {
        (Declared::No, true, Some(why)) => emulate(why.to_owned()),
        (Declared::Plain, true, Some(why)) if goes => emulate(why.to_owned()),
        (Declared::Plain | Declared::Offsets | Declared::Path, true, _) => {
            pass("config.json declares the time namespace already")
        }
        // Such a one may know more than it says, and has the last word on what stays.
        (Declared::Plain | Declared::Offsets | Declared::Path, false, _) if !runtime.keeps_known_state() && !goes => {
            Need::Settled(Decision::hindered(format!("{runtime} does not say that it knows what config.json declares")))
        }
        (Declared::Offsets, false, _) => refuse(format!(
            "{runtime} cannot shift a container's clocks, as linux.timeOffsets asks: use runc 1.2.6 or crun 1.8.4 and later, \
             or take the offsets out"
        )),
        (Declared::Path, false, _) => refuse(format!(
            "{runtime} cannot join the time namespace that config.json names by its path: use runc 1.2 or crun 1.8.4 and \
             later, or take the entry out"
        )),
        (Declared::Plain, false, _) if !writable => refuse(format!(
            "{runtime} cannot make the time namespace that config.json declares, and config.json cannot be replaced to let the \
             shim make it"
        )),
        (Declared::Plain | Declared::No, false, _) => emulate(format!("{runtime} does not make time namespaces")),
        (Declared::No, true, None) if !writable => emulate("config.json cannot be replaced".to_owned()),
        (Declared::No, true, None) => Need::Declare,
    }
}

/// What is known of the container at exec.
#[derive(Clone, Debug)]
pub enum InitFacts {
    /// The kernel has no time namespaces.
    NoTimeNamespaces,
    /// There is no such container.
    Absent,
    /// Its PID 1 has ended; the text says why.
    Stopped(String),
    /// What there is could not be looked at or understood; the text says why.
    Unknown(String),
    /// Whether or not it still is its PID 1, the process is in the shim's own time namespace.
    InOwn,
    /// Its PID 1 is proven.
    Proven {
        /// The saved configuration lists a time namespace.
        listed: bool,
        /// PID 1 is in another user namespace than the shim.
        user_namespace: bool,
        /// PID 1's time namespace, which is not the shim's own.
        namespace: Id,
    },
}

/// exec: into PID 1's namespace. `init` is asked for only where it matters.
pub fn exec(runtime: Abilities, init: impl FnOnce() -> InitFacts) -> Decision {
    if runtime.exec_joins(false, true) {
        return Decision::new(Action::Pass, format!("{runtime} always enters the time namespace of PID 1 itself"));
    }
    // The runtime will say that there is nothing to exec in. But where it would not join by itself, a restore that ends
    // meanwhile must not let it find what the shim did not, and exec on the host's time.
    let nothing = |why: &str| {
        let action = if runtime.exec_joins(true, false) { Action::Pass } else { Action::Pin };
        Decision::new(action, format!("the runtime decides: {why}"))
    };
    match init() {
        InitFacts::NoTimeNamespaces => Decision::new(Action::Pass, "this kernel has no time namespaces"),
        InitFacts::Absent => nothing("there is no such container"),
        InitFacts::Stopped(why) => nothing(&why),
        InitFacts::Unknown(why) => Decision::hindered(why),
        InitFacts::InOwn => Decision::new(Action::Pass, "PID 1 is in the time namespace of the caller"),
        InitFacts::Proven { listed, user_namespace, .. } if runtime.exec_joins(listed, user_namespace) => {
            Decision::new(Action::Pass, format!("{runtime} enters the time namespace of PID 1 itself"))
        }
        InitFacts::Proven { namespace, .. } => Decision::new(Action::Enter, format!("PID 1 is in {namespace}")),
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
    if !runtime.keeps_known_state() {
        return Decision::hindered(NO_STATE);
    }
    if !privileged {
        return Decision::hindered("making time namespaces takes CAP_SYS_ADMIN");
    }
    Decision::new(Action::ListTime, "the shim makes the time namespaces")
}

#[cfg(test)]
mod tests;
