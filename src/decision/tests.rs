// SPDX-License-Identifier: Apache-2.0
//! One row for each thing that a runtime was seen to do, see docs/runtimes.md.

use super::*;
use crate::clocks::{Clocks, Nanoseconds};
use crate::runtime::abilities::Version;
use crate::settings::{MixedImage, MixedTree, Restore, RestoredClocks, Wanted};
use crate::timens::Offsets;
use crate::tree::Task;

const RUNC_1_1: Abilities = runtime(Kind::Runc, 1, 1, 15, false);
const RUNC_1_2: Abilities = runtime(Kind::Runc, 1, 2, 5, true);
const RUNC_1_3: Abilities = runtime(Kind::Runc, 1, 3, 6, true);
const CRUN_1_8_1: Abilities = runtime(Kind::Crun, 1, 8, 1, false);
const CRUN_1_21: Abilities = runtime(Kind::Crun, 1, 21, 0, false);

/// Lists time, and cannot make it.
const YOUKI_0_5: Abilities = runtime(Kind::Youki, 0, 5, 7, true);
const UNKNOWN: Abilities = Abilities { kind: Kind::Other, version: None, lists_time: false };
const UNKNOWN_NEW: Abilities = Abilities { kind: Kind::Other, version: None, lists_time: true };

const fn runtime(kind: Kind, major: u32, minor: u32, patch: u32, lists_time: bool) -> Abilities {
    Abilities { kind, version: Some(Version { major, minor, patch, released: true }), lists_time }
}

const NO: View = understood(Declared::No, PidNamespace::New);
const PLAIN: View = understood(Declared::Plain, PidNamespace::New);
const OFFSETS: View = understood(Declared::Offsets, PidNamespace::New);
const PATH: View = understood(Declared::Path, PidNamespace::New);
const JOINED_PID: View = understood(Declared::No, PidNamespace::Joined);
const JOINED_PID_PLAIN: View = understood(Declared::Plain, PidNamespace::Joined);
const NO_PID: View = understood(Declared::No, PidNamespace::Absent);
const NO_PID_PLAIN: View = understood(Declared::Plain, PidNamespace::Absent);
const NO_PID_OFFSETS: View = understood(Declared::Offsets, PidNamespace::Absent);

const fn understood(declared: Declared, pid: PidNamespace) -> View {
    View::Understood { declared, pid, user_namespace: false }
}

const fn with_user(declared: Declared, pid: PidNamespace) -> View {
    View::Understood { declared, pid, user_namespace: true }
}

const USER: View = with_user(Declared::No, PidNamespace::New);
const USER_PLAIN: View = with_user(Declared::Plain, PidNamespace::New);

const OBSTACLES: [Kernel; 4] = [Kernel::NoTimeNamespaces, Kernel::MaxIsZero, Kernel::AtLimit, Kernel::Denied];

const DECLARE: Action = Action::Declare { shifted: false };
const SHIFTED: Action = Action::Declare { shifted: true };
const EMULATE: Action = Action::Emulate { undeclare: false };
const EMULATE_INSTEAD: Action = Action::Emulate { undeclare: true };

#[test]
fn an_image_is_repaired_refused_or_held_as_the_settings_say() {
    use Action::{HoldOnHostTime, Pass, Refuse, RepairImage};
    use RestoredClocks::{Continue, Host, HostForce};
    let jump =
        |monotonic, boottime| Clocks { monotonic_ns: Nanoseconds(monotonic), boottime_ns: Nanoseconds(boottime) };
    let understood = |strays: &[u32], jump| ImageFacts::Understood { tasks: 3, strays: strays.to_vec(), jump };
    let (ahead, behind) = (Some(jump(5, 0)), Some(jump(5, -1_500_000_000)));
    let damaged = || ImageFacts::NotUnderstood("understand ids-7.img: byte 4".to_owned());
    // (image, restore.clocks, with restore.mixed = repair, with refuse, a warning)
    for (facts, clocks, repair, refuse, hindered) in [
        (ImageFacts::Missing, Continue, Pass, Pass, false),
        (ImageFacts::Missing, Host, Pass, Pass, false),
        (damaged(), Continue, Pass, Pass, true),
        (damaged(), Host, Refuse, Refuse, false),
        (damaged(), HostForce, Refuse, Refuse, false),
        (understood(&[], ahead), Continue, Pass, Pass, false),
        (understood(&[], behind), Continue, Pass, Pass, false),
        (understood(&[7], behind), Continue, RepairImage, Refuse, false),
        (understood(&[], ahead), Host, HoldOnHostTime, HoldOnHostTime, false),
        (understood(&[7], ahead), Host, HoldOnHostTime, Refuse, false),
        (understood(&[], behind), Host, Refuse, Refuse, false),
        (understood(&[], behind), HostForce, HoldOnHostTime, HoldOnHostTime, true),
        (understood(&[], ahead), HostForce, HoldOnHostTime, HoldOnHostTime, false),
        // Without clocks in the image CRIU makes no time namespace anyway.
        (understood(&[], None), Host, Pass, Pass, false),
        (understood(&[7], None), Host, RepairImage, Refuse, false),
    ] {
        for (mixed, action) in [(MixedImage::Repair, repair), (MixedImage::Refuse, refuse)] {
            let wanted = Wanted { restore: Restore { clocks, mixed }, ..Wanted::default() };
            let decision = image(Kernel::Able, facts.clone(), wanted);
            assert_eq!(decision.action, action, "{facts:?} {clocks:?} {mixed:?}");
            assert_eq!(decision.hindered, hindered, "{facts:?} {clocks:?} {mixed:?}");
        }
    }
    let image = |facts, clocks, mixed| {
        image(Kernel::Able, facts, Wanted { restore: Restore { clocks, mixed }, ..Wanted::default() })
    };
    let refused = image(understood(&[], behind), Host, MixedImage::Repair).reason;
    assert!(refused.contains("boottime -1.500000000 s") && refused.contains("host-force"), "{refused}");
    let refused = image(understood(&[7], None), Continue, MixedImage::Refuse).reason;
    assert!(refused.contains("PID 7)") && refused.contains("tnsctl repair"), "{refused}");
}

#[test]
fn a_restored_container_is_private_or_there_is_none() {
    use Action::{Pass, Refuse, RepairImage};
    use RestoredClocks::{Continue, Host, HostForce};
    let clocks = Some(Clocks { monotonic_ns: Nanoseconds(5), boottime_ns: Nanoseconds(5) });
    let understood = |strays: &[u32], jump| ImageFacts::Understood { tasks: 3, strays: strays.to_vec(), jump };
    let damaged = || ImageFacts::NotUnderstood("understand ids-7.img: byte 4".to_owned());
    // (kernel, image, restore.clocks, what is done, and what the reason names)
    for (kernel, facts, clocks, action, names) in [
        (Kernel::Able, understood(&[], clocks), Continue, Pass, &[][..]),
        (Kernel::Able, understood(&[7], clocks), Continue, RepairImage, &[][..]),
        (Kernel::Able, ImageFacts::Missing, Continue, Pass, &[][..]),
        (Kernel::MaxIsZero, ImageFacts::Missing, Continue, Pass, &[][..]),
        (Kernel::Able, understood(&[], clocks), Host, Refuse, &["mode = \"private\"", "restore.clocks = \"host\""][..]),
        (Kernel::Able, understood(&[], clocks), HostForce, Refuse, &["mode = \"private\"", "\"host-force\""][..]),
        (Kernel::MaxIsZero, damaged(), Host, Refuse, &["contradict"][..]),
        // CRIU would restore it, without one.
        (Kernel::Able, understood(&[], None), Continue, Refuse, &["mode = \"private\"", "no clocks"][..]),
        (Kernel::Able, damaged(), Continue, Refuse, &["mode = \"private\"", "ids-7.img"][..]),
        (Kernel::MaxIsZero, understood(&[], clocks), Continue, Refuse, &["user.max_time_namespaces"][..]),
        (Kernel::NoTimeNamespaces, understood(&[], clocks), Continue, Refuse, &["no time namespaces"][..]),
        (Kernel::Denied, understood(&[], clocks), Continue, Refuse, &["seccomp"][..]),
    ] {
        let wanted = |mode| {
            let restore = Restore { clocks, mixed: MixedImage::Repair };
            Wanted { mode, restore, ..Wanted::default() }
        };
        let decision = image(kernel, facts.clone(), wanted(Mode::Private));
        assert_eq!(decision.action, action, "{kernel:?} {facts:?}");
        assert!(names.iter().all(|name| decision.reason.contains(name)), "{}", decision.reason);
        // Others have been promised nothing.
        if clocks == Continue {
            assert_ne!(image(kernel, facts.clone(), wanted(Mode::Auto)).action, Action::Refuse, "{kernel:?} {facts:?}");
        }
    }
}

#[test]
fn create_and_restore_for_each_class_of_runtime() {
    use Action::{Pass, Refuse, Undeclare};
    // (runtime, config.json, writable, create, restore)
    let rows = [
        // runc 1.1 refuses {"type":"time"}, timeOffsets and a path.
        (RUNC_1_1, NO, true, EMULATE, Pass),
        (RUNC_1_1, NO, false, EMULATE, Pass),
        (RUNC_1_1, JOINED_PID, true, EMULATE, Pass),
        (RUNC_1_1, PLAIN, true, EMULATE_INSTEAD, Undeclare),
        (RUNC_1_1, PLAIN, false, Refuse, Refuse),
        (RUNC_1_1, OFFSETS, true, Refuse, Refuse),
        (RUNC_1_1, PATH, true, Refuse, Refuse),
        // CRIU could not dump a user namespace's container from a time namespace of the host's.
        (RUNC_1_1, USER, true, Pass, Pass),
        (RUNC_1_1, USER_PLAIN, true, Undeclare, Undeclare),
        (RUNC_1_3, USER, true, DECLARE, DECLARE),
        (RUNC_1_3, USER, false, Pass, Pass),
        (CRUN_1_21, USER, true, DECLARE, DECLARE),
        // runc since 1.2 takes them all, also beside a joined pid namespace.
        (RUNC_1_2, NO, true, DECLARE, DECLARE),
        (RUNC_1_3, NO, true, DECLARE, DECLARE),
        (RUNC_1_3, NO, false, EMULATE, Pass),
        (RUNC_1_3, JOINED_PID, true, DECLARE, DECLARE),
        (RUNC_1_3, PLAIN, true, Pass, Pass),
        (RUNC_1_3, OFFSETS, true, Pass, Pass),
        (RUNC_1_3, PATH, true, Pass, Pass),
        // crun before 1.8.4 breaks, and kills the wrong process.
        (CRUN_1_8_1, NO, true, EMULATE, Pass),
        (CRUN_1_8_1, PLAIN, true, EMULATE_INSTEAD, Undeclare),
        (CRUN_1_8_1, OFFSETS, true, Refuse, Refuse),
        // crun since 1.8.4 takes them, but not beside a joined pid namespace.
        (CRUN_1_21, NO, true, DECLARE, DECLARE),
        (CRUN_1_21, NO, false, EMULATE, Pass),
        (CRUN_1_21, JOINED_PID, true, EMULATE, Pass),
        (CRUN_1_21, PLAIN, true, Pass, Pass),
        (CRUN_1_21, JOINED_PID_PLAIN, true, EMULATE_INSTEAD, Undeclare),
        (RUNC_1_3, JOINED_PID_PLAIN, true, Pass, Pass),
        // Nor where no pid namespace is listed: it would make one.
        (CRUN_1_21, NO_PID, true, EMULATE, Pass),
        (CRUN_1_21, NO_PID, false, EMULATE, Pass),
        (CRUN_1_21, NO_PID_PLAIN, true, EMULATE_INSTEAD, Undeclare),
        (CRUN_1_21, NO_PID_PLAIN, false, Pass, Pass),
        (CRUN_1_21, NO_PID_OFFSETS, true, Pass, Pass),
        (CRUN_1_21, with_user(Declared::No, PidNamespace::Absent), true, Pass, Pass),
        (CRUN_1_21, with_user(Declared::Plain, PidNamespace::Absent), true, Undeclare, Undeclare),
        (CRUN_1_21, with_user(Declared::No, PidNamespace::Joined), true, Pass, Pass),
        (CRUN_1_8_1, NO_PID, true, EMULATE, Pass),
        (RUNC_1_1, NO_PID, true, EMULATE, Pass),
        (RUNC_1_3, NO_PID, true, DECLARE, DECLARE),
        (RUNC_1_3, NO_PID_PLAIN, true, Pass, Pass),
        // One that cannot make what an engine declares: the container starts without.
        (UNKNOWN, PLAIN, true, Undeclare, Undeclare),
        (YOUKI_0_5, PLAIN, true, Undeclare, Undeclare),
        (UNKNOWN, PLAIN, false, Pass, Pass),
        (UNKNOWN, OFFSETS, true, Pass, Pass),
        (UNKNOWN, PATH, true, Pass, Pass),
        (UNKNOWN_NEW, PLAIN, true, Pass, Pass),
        // What decorates or replaces them: not split into what is created and what is exec'd.
        (UNKNOWN, NO, true, Pass, Pass),
        (UNKNOWN_NEW, NO, true, DECLARE, DECLARE),
        (CRUN_1_21, OFFSETS, true, Pass, Pass),
        // Nothing is invented, and nothing guessed at.
        (RUNC_1_3, View::Missing, true, Pass, Pass),
        (RUNC_1_3, View::NoNamespaces, true, Pass, Pass),
        (RUNC_1_3, View::Unreadable, true, Pass, Pass),
        (RUNC_1_1, View::NotUnderstood("twice"), true, Pass, Pass),
        (CRUN_1_21, View::NotUnderstood("twice"), true, Pass, Pass),
    ];
    for (runtime, view, writable, created, restored) in rows {
        let facts = ConfigFacts { kernel: Kernel::Able, runtime, view, writable, mode: Mode::Auto, shift: Shift::None };
        assert_eq!(create(facts).action, created, "create {facts:?}");
        assert_eq!(restore(facts, false).action, restored, "restore {facts:?}");
        let on_host_time = if restored == DECLARE { Pass } else { restored };
        assert_eq!(restore(facts, true).action, on_host_time, "restore on the host's time {facts:?}");
        for kernel in OBSTACLES {
            // As without the shim, but for an entry that nobody could make.
            let plain = matches!(view, View::Understood { declared: Declared::Plain, .. });
            let expected = if plain && writable { Undeclare } else { Pass };
            let facts = ConfigFacts { kernel, ..facts };
            for decision in [create(facts), restore(facts, false)] {
                assert_eq!(decision.action, expected, "{kernel:?} {facts:?}");
                assert!(decision.hindered || decision.action == Pass, "{kernel:?} {facts:?}");
            }
        }
    }
    let hindered = |runtime, view, writable| {
        create(ConfigFacts { kernel: Kernel::Able, runtime, view, writable, mode: Mode::Auto, shift: Shift::None })
            .hindered
    };
    assert!(hindered(UNKNOWN, PLAIN, true) && hindered(YOUKI_0_5, PLAIN, true), "somebody declared it");
    assert!(hindered(UNKNOWN, PLAIN, false) && hindered(UNKNOWN, OFFSETS, true), "the runtime may refuse it");
    assert!(!hindered(CRUN_1_21, NO_PID, true), "it has all that it should have");
}

#[test]
fn the_mode_says_whether_a_container_gets_its_own() {
    use Action::{Pass, Refuse, Undeclare};
    let all = Kernel::Able;
    // (kernel, runtime, config.json, writable, create with mode = private, host, leave)
    for (kernel, runtime, view, writable, private, host, leave) in [
        (all, RUNC_1_1, NO, true, EMULATE, Pass, Pass),
        (all, RUNC_1_3, NO, true, DECLARE, Pass, Pass),
        (all, RUNC_1_3, NO, false, EMULATE, Pass, Pass),
        (all, RUNC_1_3, PLAIN, true, Pass, Undeclare, Pass),
        (all, RUNC_1_3, PATH, true, Pass, Undeclare, Pass),
        (all, RUNC_1_3, OFFSETS, true, Pass, Undeclare, Pass),
        (all, RUNC_1_3, PLAIN, false, Pass, Refuse, Pass),
        (all, RUNC_1_1, PLAIN, true, EMULATE_INSTEAD, Undeclare, Pass),
        (all, RUNC_1_1, OFFSETS, true, Refuse, Undeclare, Pass),
        (all, CRUN_1_21, JOINED_PID, true, EMULATE, Pass, Pass),
        // What auto does without.
        (all, RUNC_1_1, USER, true, Refuse, Pass, Pass),
        (all, UNKNOWN, NO, true, Refuse, Pass, Pass),
        (all, RUNC_1_3, View::NotUnderstood("twice"), true, Refuse, Pass, Pass),
        (all, RUNC_1_3, View::Unreadable, true, Refuse, Pass, Pass),
        (all, RUNC_1_3, View::NoNamespaces, true, Refuse, Pass, Pass),
        (Kernel::MaxIsZero, RUNC_1_3, NO, true, Refuse, Pass, Pass),
        (Kernel::MaxIsZero, RUNC_1_1, PLAIN, true, Refuse, Undeclare, Pass),
        (Kernel::NoTimeNamespaces, RUNC_1_3, PLAIN, true, Refuse, Undeclare, Pass),
        (Kernel::Denied, RUNC_1_3, NO, true, Refuse, Pass, Pass),
        (Kernel::Denied, CRUN_1_21, PLAIN, true, Refuse, Undeclare, Pass),
        (all, UNKNOWN, PLAIN, true, Refuse, Undeclare, Pass),
        (all, UNKNOWN, PLAIN, false, Refuse, Refuse, Pass),
        (all, UNKNOWN, OFFSETS, true, Refuse, Undeclare, Pass),
        (all, CRUN_1_21, NO_PID, true, EMULATE, Pass, Pass),
        // The runtime says it better.
        (all, RUNC_1_3, View::Missing, true, Pass, Pass, Pass),
    ] {
        for (mode, action) in [(Mode::Private, private), (Mode::Host, host), (Mode::Leave, leave)] {
            let facts = ConfigFacts { kernel, runtime, view, writable, mode, shift: Shift::None };
            assert_eq!(create(facts).action, action, "{facts:?}");
        }
    }
    let facts =
        |mode, view| ConfigFacts { kernel: all, runtime: RUNC_1_3, view, writable: true, mode, shift: Shift::None };
    assert_eq!(restore(facts(Mode::Host, PLAIN), true).action, Undeclare);
    // Nothing to take out, or no way to.
    assert_eq!(restore(facts(Mode::Host, NO), true).action, Pass);
    assert_eq!(restore(ConfigFacts { writable: false, ..facts(Mode::Host, PLAIN) }, true).action, Pass);
    assert_eq!(restore(facts(Mode::Leave, NO), false).action, Pass);
    assert_eq!(restore(facts(Mode::Private, NO), false).action, DECLARE);
}

#[test]
fn a_hook_only_declares_what_each_candidate_can_make() {
    use Action::{Pass, Refuse, Undeclare};
    let rows: [(&[Abilities], View, Action, Action); 16] = [
        (&[RUNC_1_3], NO, DECLARE, DECLARE),
        (&[RUNC_1_3], PLAIN, Pass, Pass),
        (&[CRUN_1_21], NO, DECLARE, DECLARE),
        (&[CRUN_1_21], JOINED_PID, Pass, Refuse),
        (&[CRUN_1_21], NO_PID, Pass, Refuse),
        (&[RUNC_1_1], NO, Pass, Refuse),
        // Without the shim the runtime would refuse it.
        (&[RUNC_1_1], PLAIN, Undeclare, Refuse),
        (&[RUNC_1_3, CRUN_1_21], NO, DECLARE, DECLARE),
        (&[RUNC_1_3, RUNC_1_1], NO, Pass, Refuse),
        (&[RUNC_1_3, RUNC_1_1], PLAIN, Undeclare, Refuse),
        (&[RUNC_1_3, CRUN_1_21], NO_PID, Pass, Refuse),
        (&[RUNC_1_2, CRUN_1_21], NO_PID, Pass, Refuse),
        (&[RUNC_1_2, CRUN_1_21], JOINED_PID, Pass, Refuse),
        (&[RUNC_1_2, CRUN_1_21], NO_PID_PLAIN, Undeclare, Refuse),
        (&[RUNC_1_2, RUNC_1_3], NO_PID, DECLARE, DECLARE),
        (&[RUNC_1_3, UNKNOWN], PLAIN, Undeclare, Refuse),
    ];
    for (candidates, view, auto, private) in rows {
        for (mode, action) in [(Mode::Auto, auto), (Mode::Private, private)] {
            let facts =
                |runtime| ConfigFacts { kernel: Kernel::Able, runtime, view, writable: true, mode, shift: Shift::None };
            let decision = create_by_hook(candidates, facts).unwrap();
            assert_eq!(decision.action, action, "{candidates:?} {view:?} {mode:?}");
            let hindered = matches!(decision.action, Pass | Undeclare) && view != PLAIN || decision.action == Undeclare;
            assert_eq!(decision.hindered, hindered, "{candidates:?} {view:?} {mode:?}");
        }
    }
    assert_eq!(create_by_hook(&[], |_| unreachable!()), None);
    // With offsets only if all can shift the clocks.
    let facts = |runtime| ConfigFacts {
        kernel: Kernel::Able,
        runtime,
        view: NO,
        writable: true,
        mode: Mode::Auto,
        shift: Shift::ZeroForAll,
    };
    let action = |candidates| create_by_hook(candidates, facts).unwrap().action;
    assert_eq!(action(&[RUNC_1_3, CRUN_1_21]), SHIFTED);
    assert_eq!(action(&[CRUN_1_21, RUNC_1_2]), DECLARE);
}

#[test]
fn clocks_are_shifted_where_the_runtime_can() {
    use Action::{Pass, Refuse};
    let by = Shift::By(Offsets { monotonic_ns: 1, boottime_ns: 0 });
    // (runtime, config.json, writable, create with uptime = zero in the file, and whether with a warning; in the annotation)
    for (runtime, view, writable, for_all, hindered, asked) in [
        (RUNC_1_3, NO, true, SHIFTED, false, SHIFTED),
        (RUNC_1_3, PLAIN, true, SHIFTED, false, SHIFTED),
        (CRUN_1_21, NO, true, SHIFTED, false, SHIFTED),
        (RUNC_1_3, USER, true, SHIFTED, false, SHIFTED),
        (RUNC_1_3, NO, false, EMULATE, true, Refuse),
        (RUNC_1_3, PLAIN, false, Pass, true, Refuse),
        // Somebody has said otherwise for this container.
        (RUNC_1_3, OFFSETS, true, Pass, false, Refuse),
        (RUNC_1_3, PATH, true, Pass, false, Refuse),
        // exec fails there with offsets.
        (RUNC_1_2, NO, true, DECLARE, true, Refuse),
        (RUNC_1_1, NO, true, EMULATE, true, Refuse),
        (RUNC_1_1, PLAIN, true, EMULATE_INSTEAD, true, Refuse),
        (RUNC_1_1, OFFSETS, true, Refuse, false, Refuse),
        (CRUN_1_21, JOINED_PID, true, EMULATE, true, Refuse),
        // Processes outside would have been started before the boot. Who asks for it by name, knows.
        (RUNC_1_3, JOINED_PID, true, DECLARE, true, SHIFTED),
        (RUNC_1_3, NO_PID, true, DECLARE, true, SHIFTED),
        (RUNC_1_3, NO_PID_PLAIN, true, Pass, true, SHIFTED),
        (RUNC_1_3, NO_PID_OFFSETS, true, Pass, false, Refuse),
        (CRUN_1_21, NO_PID, true, EMULATE, true, Refuse),
        (RUNC_1_1, NO_PID, true, EMULATE, true, Refuse),
        (RUNC_1_3, with_user(Declared::No, PidNamespace::Absent), true, DECLARE, true, SHIFTED),
        (CRUN_1_21, with_user(Declared::No, PidNamespace::Absent), true, Pass, true, Refuse),
        (RUNC_1_3, View::NoNamespaces, true, Pass, true, Refuse),
        (RUNC_1_3, View::NotUnderstood("twice"), true, Pass, true, Refuse),
    ] {
        let facts =
            ConfigFacts { kernel: Kernel::Able, runtime, view, writable, mode: Mode::Auto, shift: Shift::ZeroForAll };
        let decision = create(facts);
        assert_eq!((decision.action, decision.hindered), (for_all, hindered), "{facts:?} {decision:?}");
        for shift in [Shift::Zero, by] {
            assert_eq!(create(ConfigFacts { shift, ..facts }).action, asked, "{facts:?}");
        }
        // The clocks come from the checkpoint then.
        let restored = restore(facts, false).action;
        assert_eq!(restored, restore(ConfigFacts { shift: Shift::None, ..facts }, false).action, "{facts:?}");
    }
    let facts = ConfigFacts {
        kernel: Kernel::Able,
        runtime: RUNC_1_1,
        view: NO,
        writable: true,
        mode: Mode::Auto,
        shift: Shift::Zero,
    };
    let refused = create(facts).reason;
    assert!(refused.contains("annotations") && refused.contains("runc 1.2.6"), "names the way out: {refused}");
    for (view, writable, why) in [
        (OFFSETS, true, "config.json has linux.timeOffsets of its own"),
        (PATH, true, "config.json names a time namespace that exists already"),
        (NO, false, "config.json cannot be replaced"),
    ] {
        let refused = create(ConfigFacts { runtime: RUNC_1_3, view, writable, ..facts }).reason;
        assert!(refused.contains(why) && !refused.contains("runc 1.2.6"), "{refused}");
    }
    // (runtime, config.json, what the one warning says)
    for (runtime, view, said) in [
        (RUNC_1_3, NO_PID, "pid namespace"),
        (RUNC_1_3, JOINED_PID, "pid namespace"),
        (RUNC_1_1, NO_PID, "pid namespace"),
        // That it has no time namespace at all, is worse.
        (CRUN_1_21, with_user(Declared::No, PidNamespace::Absent), "CRIU could not dump"),
    ] {
        let warned = create(ConfigFacts { runtime, view, shift: Shift::ZeroForAll, ..facts }).reason;
        assert!(warned.contains("do not begin at zero") && warned.contains(said), "{warned}");
    }
}

#[test]
fn what_is_not_guessed_at_is_worth_a_warning() {
    let view = View::NotUnderstood("the key linux is there twice");
    let decision = create(ConfigFacts {
        kernel: Kernel::Able,
        runtime: RUNC_1_3,
        view,
        writable: true,
        mode: Mode::Auto,
        shift: Shift::None,
    });
    assert!(decision.hindered && decision.reason.contains("linux is there twice"), "{decision:?}");
}

#[test]
fn exec_enters_exactly_where_the_runtime_would_not() {
    use Action::{Enter, Pass};
    let namespace = Id::of("/proc/self/ns/time").unwrap();
    // (runtime, its saved configuration lists time, PID 1 is in another user namespace, action)
    let rows = [
        (RUNC_1_1, false, false, Enter),
        (RUNC_1_1, true, false, Enter),
        (RUNC_1_2, false, false, Enter),
        (RUNC_1_2, true, false, Pass),
        (RUNC_1_3, false, false, Enter),
        (RUNC_1_3, true, false, Pass),
        (RUNC_1_3, true, true, Pass),
        (CRUN_1_8_1, false, false, Pass),
        (CRUN_1_21, false, false, Pass),
        (CRUN_1_8_1, false, true, Enter),
        (CRUN_1_21, false, true, Pass),
    ];
    for (runtime, listed, user_namespace, action) in rows {
        let proven = || InitFacts::Proven { listed, user_namespace, namespace };
        assert_eq!(exec(runtime, proven).action, action, "{runtime} {listed} {user_namespace}");
        assert_eq!(exec(runtime, || InitFacts::InOwn).action, Pass, "{runtime}: nothing to enter");
    }
}

#[test]
fn exec_leaves_everything_to_the_runtime_where_there_is_nothing_to_enter() {
    use Action::{Pass, Pin};
    let why = || "why".to_owned();
    // (what is found, with a runtime that never joins, with one that may, a warning)
    for (facts, never, may, hindered) in [
        (InitFacts::NoTimeNamespaces, Pass, Pass, false),
        (InitFacts::Absent, Pin, Pass, false),
        (InitFacts::Stopped(why()), Pin, Pass, false),
        // Whatever it is, the runtime may well understand it.
        (InitFacts::Unknown(why()), Pass, Pass, true),
    ] {
        for (runtime, action) in [(RUNC_1_1, never), (RUNC_1_2, may), (RUNC_1_3, may)] {
            let decision = exec(runtime, || facts.clone());
            assert_eq!((decision.action, decision.hindered), (action, hindered), "{runtime} {facts:?}");
        }
        let decision = exec(CRUN_1_21, || facts.clone());
        assert_eq!((decision.action, decision.hindered), (Pass, false), "crun {facts:?}");
    }
}

#[test]
fn only_a_tree_that_agrees_is_checkpointed() {
    let id = |path: &str| Id::of(path).unwrap();
    // Any three namespaces that differ.
    let (own, namespace, third) = (id("/proc/self/ns/time"), id("/proc/self/ns/pid"), id("/proc/self/ns/mnt"));
    let task = |pid, namespace, children| Task { pid, command: format!("task {pid}"), namespace, children };
    let decide = |kernel, namespace, tasks| {
        let tree = TreeFacts::Known { namespace, own, user_namespace: false, tasks };
        checkpoint(kernel, "web", tree, MixedTree::Refuse)
    };

    let healthy = vec![task(10, namespace, namespace), task(11, namespace, namespace)];
    assert_eq!(decide(Kernel::Able, namespace, healthy).action, Action::StandOutside);
    // Created without the shim, never restored: all in the host's.
    assert_eq!(decide(Kernel::Able, own, vec![task(10, own, own)]).action, Action::StandOutside);

    // (the odd one, what is said of it)
    for (odd, said) in [
        (task(12, own, own), "PID 12 (task 12) is in the host's time namespace"),
        (task(12, third, third), "PID 12 (task 12) is in a time namespace of its own"),
        (task(12, namespace, third), "PID 12 (task 12) has made the time namespace"),
    ] {
        let refused = decide(Kernel::Able, namespace, vec![task(10, namespace, namespace), odd.clone()]);
        assert_eq!(refused.action, Action::Refuse, "{odd:?}");
        assert!(refused.reason.contains(said) && refused.reason.contains("keeps running"), "{}", refused.reason);
        let tree = TreeFacts::Known { namespace, own, user_namespace: false, tasks: vec![odd.clone()] };
        let warned = checkpoint(Kernel::Able, "web", tree, MixedTree::Warn);
        assert_eq!((warned.action, warned.hindered), (Action::Pass, true), "CRIU must be where the strays are");
        assert!(warned.reason.contains(said), "{}", warned.reason);
        // Also where CRIU could not be run outside.
        assert_eq!(decide(Kernel::MaxIsZero, namespace, vec![odd]).action, Action::Refuse);
    }

    let few = decide(Kernel::Able, namespace, vec![task(12, own, own)]).reason;
    assert!(!few.contains("more"), "{few}");
    let many = (0..1000).map(|pid| task(pid, own, own)).collect();
    let refused = decide(Kernel::Able, namespace, many).reason;
    assert!(
        refused.contains("PID 9 ") && !refused.contains("PID 10 ") && refused.contains("and 990 more"),
        "{refused}"
    );

    let user = |namespace| TreeFacts::Known { namespace, own, user_namespace: true, tasks: vec![] };
    assert_eq!(
        checkpoint(Kernel::Able, "web", user(own), MixedTree::Refuse).action,
        Action::Pass,
        "CRIU must share the host's"
    );
    assert_eq!(checkpoint(Kernel::Able, "web", user(namespace), MixedTree::Refuse).action, Action::StandOutside);

    let unknown = checkpoint(Kernel::Able, "web", TreeFacts::Unknown("gone".into()), MixedTree::Refuse);
    assert_eq!(unknown.action, Action::StandOutside, "CRIU still looks");
    let hindered = checkpoint(Kernel::MaxIsZero, "web", TreeFacts::Unknown("gone".into()), MixedTree::Refuse);
    assert_eq!((hindered.action, hindered.hindered), (Action::Pass, true));
}

#[test]
fn features_lists_time_exactly_where_the_shim_adds_it() {
    use Action::{ListTime, Pass};
    for (runtime, privileged, action) in [
        (RUNC_1_1, true, ListTime),
        (RUNC_1_1, false, Pass),
        (RUNC_1_3, true, Pass),
        (CRUN_1_21, false, ListTime),
        (CRUN_1_8_1, true, ListTime),
    ] {
        assert_eq!(features(Kernel::Able, runtime, privileged).action, action, "{runtime} {privileged}");
        assert_eq!(features(Kernel::MaxIsZero, runtime, privileged).action, Pass);
    }
}
