// SPDX-License-Identifier: Apache-2.0
//! What becomes of a checkpoint image before it is restored.

use super::{Action, Decision, MOST_NAMED, NOT_PRIVATE};
use crate::clocks::{Clocks, Nanoseconds};
use crate::settings::{MixedImage, Mode, RestoredClocks, Wanted};
use crate::timens::Kernel;

/// What is known of a checkpoint image at restore.
#[derive(Clone, Debug)]
pub enum ImageFacts {
    /// There is no inventory.img where the runtime will look: it will say so better.
    Missing,
    /// It is damaged, or of a kind that the shim does not know; the text says which file.
    NotUnderstood(String),
    /// So many processes, of which these are in another time namespace than the first one.
    Understood {
        /// All of them.
        tasks: usize,
        /// The PIDs of the strays, in the container's pid namespace.
        strays: Vec<u32>,
        /// By how much the container's clocks would jump if it were restored on the time of here; none if the image has no
        /// clocks, and CRIU makes no time namespace.
        jump: Option<Clocks>,
    },
}

/// restore: an image that CRIU would refuse is repaired; what is not understood is for CRIU to judge, unless something is
/// asked for that takes understanding.
pub fn image(kernel: Kernel, facts: ImageFacts, wanted: Wanted) -> Decision {
    if wanted.mode == Mode::Private {
        if let Some(why) = not_private(kernel, &facts, wanted.restore.clocks) {
            return Decision::new(Action::Refuse, why);
        }
    }
    let wanted = wanted.restore;
    let on_host_time = wanted.clocks != RestoredClocks::Continue;
    match facts {
        ImageFacts::Missing => Decision::new(Action::Pass, "there is no checkpoint image to look at"),
        ImageFacts::NotUnderstood(why) if on_host_time => Decision::new(
            Action::Refuse,
            format!("restore.clocks asks for the host's, and the checkpoint image is not understood: {why}"),
        ),
        ImageFacts::NotUnderstood(why) => Decision::hindered(format!("the checkpoint image is left alone: {why}")),
        ImageFacts::Understood { tasks, strays, .. } if !strays.is_empty() && wanted.mixed == MixedImage::Refuse => {
            let named: Vec<String> = strays.iter().take(MOST_NAMED).map(u32::to_string).collect();
            let more = if strays.len() > MOST_NAMED { " and others" } else { "" };
            Decision::new(
                Action::Refuse,
                format!(
                    "restore.mixed = \"refuse\", and {} of {tasks} processes in the checkpoint image are in another time \
                     namespace than the first (PID {}{more}): CRIU could not restore it. `tnsctl repair` makes it restorable",
                    strays.len(),
                    named.join(", ")
                ),
            )
        }
        ImageFacts::Understood { jump: Some(jump), .. } if on_host_time => on_host_clocks(jump, wanted.clocks),
        ImageFacts::Understood { tasks, strays, .. } if strays.is_empty() => {
            Decision::new(Action::Pass, format!("{tasks} processes in the checkpoint image agree"))
        }
        ImageFacts::Understood { tasks, strays, .. } => Decision::new(
            Action::RepairImage,
            format!(
                "{} of {tasks} processes in the checkpoint image are in another time namespace than the first",
                strays.len()
            ),
        ),
    }
}

/// Why the restored container would have no time namespace of its own, if so.
fn not_private(kernel: Kernel, facts: &ImageFacts, clocks: RestoredClocks) -> Option<String> {
    let cannot = |why: &str| Some(format!("{NOT_PRIVATE}: {why}"));
    let name = match clocks {
        RestoredClocks::Continue => None,
        RestoredClocks::Host => Some("host"),
        RestoredClocks::HostForce => Some("host-force"),
    };
    if let Some(name) = name {
        return Some(format!(
            "mode = \"private\" and restore.clocks = \"{name}\" contradict each other: on the host's time the container has no time \
             namespace of its own. `continue` gives it one, `auto` does without"
        ));
    }
    match (facts, kernel.obstacle()) {
        // CRIU will say so better.
        (ImageFacts::Missing, _) => None,
        (_, Some(obstacle)) => cannot(obstacle),
        (ImageFacts::NotUnderstood(why), None) => cannot(&format!("the checkpoint image is not understood: {why}")),
        (ImageFacts::Understood { jump: None, .. }, None) => {
            cannot("the checkpoint image holds no clocks, and CRIU makes no time namespace then")
        }
        (ImageFacts::Understood { .. }, None) => None,
    }
}

fn on_host_clocks(jump: Clocks, wanted: RestoredClocks) -> Decision {
    let zero = Nanoseconds(0);
    if jump.monotonic_ns >= zero && jump.boottime_ns >= zero {
        return Decision::new(
            Action::HoldOnHostTime,
            format!("restore.clocks asks for the host's, which jump by {jump:+}"),
        );
    }
    if wanted == RestoredClocks::HostForce {
        return Decision {
            hindered: true,
            ..Decision::new(
                Action::HoldOnHostTime,
                format!("restore.clocks = \"host-force\": the container's clocks jump by {jump:+}"),
            )
        };
    }
    Decision::new(
        Action::Refuse,
        format!(
            "restore.clocks = \"host\", and on this host the container's clocks would go back: they would jump by {jump:+}. \
             `continue` lets them go on from the checkpoint, `host-force` restores all the same"
        ),
    )
}
