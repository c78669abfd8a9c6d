// SPDX-License-Identifier: Apache-2.0
//! What the shim remembers of a runtime: asked once per binary, and never believed where somebody else could have written
//! it. Whatever has become of the memory, the call goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{CRUN, RUNC_1_1, RUNC_1_3, World, copy_program, step, wait};

const CONFIG: &str = r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#;
/// One probe is two questions: --version and features.
const PROBE: usize = 2;

/// Creates a container and tells how often the runtime was asked, and whether it was taken for one that declares.
#[track_caller]
fn create(world: &World) -> (usize, bool) {
    let before = world.questions();
    world.write_config(CONFIG);
    world.create().go().assert_quiet_success();
    (world.questions() - before, fs::read_to_string(world.config()).unwrap() != CONFIG)
}

/// The one file that is remembered.
fn record(world: &World) -> PathBuf {
    let files: Vec<_> = fs::read_dir(world.memory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn a_runtime_is_asked_once_and_only_for_commands_that_need_it() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    for call in ["state c1", "list", "start c1", "--version", "--help", "delete c1", "create", "kill c1 9"] {
        drop(world.shim(call.split(' ')).go());
    }
    // The shim was asked for its version once, and knows the runtime's from `create` without an id.
    assert_eq!(world.questions(), 1 + PROBE);
    assert_eq!([create(&world), create(&world), create(&world)], [(0, true); 3]);
    for call in ["exec c1 ls", "checkpoint c1", "restore c1", "run c1"] {
        world.shim(call.split(' ')).go().assert_quiet_success();
    }
    assert_eq!(world.questions(), 1 + PROBE);
    let folder = fs::metadata(world.memory()).unwrap();
    let file = fs::metadata(record(&world)).unwrap();
    assert_eq!((folder.mode() & 0o7777, file.mode() & 0o7777), (0o700, 0o600));
}

#[test]
fn a_runtime_that_is_replaced_is_asked_again() {
    let Some(world) = World::new(RUNC_1_1) else { return };
    assert_eq!([create(&world), create(&world)], [(PROBE, false), (0, false)]);
    let new = world.path("bin/new");
    copy_program(&world.runtime(), &new);
    world.play(RUNC_1_3);
    assert_eq!(create(&world), (0, false), "still the old one");
    fs::rename(&new, world.runtime()).unwrap();
    assert_eq!([create(&world), create(&world)], [(PROBE, true), (0, true)]);
}

#[test]
fn a_runtime_that_is_rewritten_in_place_is_asked_again() {
    let Some(world) = World::new(RUNC_1_1) else { return };
    assert_eq!([create(&world), create(&world)], [(PROBE, false), (0, false)]);
    let inode = fs::metadata(world.runtime()).unwrap().ino();
    world.install(RUNC_1_3);
    assert_eq!(fs::metadata(world.runtime()).unwrap().ino(), inode);
    assert_eq!([create(&world), create(&world)], [(PROBE, true), (0, true)]);
    // With its time of change set back: the inode's own cannot be.
    let modified = fs::metadata(world.runtime()).unwrap().modified().unwrap();
    world.install(RUNC_1_1);
    filetime(&world.runtime(), modified);
    assert_eq!(create(&world), (PROBE, false));
}

fn filetime(path: &std::path::Path, time: std::time::SystemTime) {
    let stamp = time.duration_since(std::time::UNIX_EPOCH).unwrap();
    let date = format!("@{}.{:09}", stamp.as_secs(), stamp.subsec_nanos());
    let status = std::process::Command::new("touch").arg("-d").arg(date).arg(path).status().unwrap();
    assert!(status.success());
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), time);
}

#[test]
fn two_runtimes_are_remembered_apart() {
    let Some(world) = World::new(RUNC_1_1) else { return };
    world.install(CRUN);
    assert_eq!([create(&world), create(&world)], [(PROBE, false), (0, false)]);
    let asked = || fs::read_to_string(world.path("bin/crun.asked")).map_or(0, |text| text.lines().count());
    for _ in 0..2 {
        world.write_config(CONFIG);
        world.create().called("crun").go().assert_quiet_success();
        assert_ne!(fs::read_to_string(world.config()).unwrap(), CONFIG);
        assert_eq!(asked(), PROBE);
    }
    assert_eq!(create(&world), (0, false));
}

#[test]
fn two_names_of_one_file_are_remembered_apart() {
    let Some(world) = World::new(CRUN) else { return };
    fs::hard_link(world.runtime(), world.path("bin/krun")).unwrap();
    for answer in ["version", "features"] {
        fs::copy(world.path(format!("bin/crun.{answer}")), world.path(format!("bin/krun.{answer}"))).unwrap();
    }
    let asked = || {
        let of = |name: &str| {
            fs::read_to_string(world.path(format!("bin/{name}.asked"))).map_or(0, |text| text.lines().count())
        };
        (of("crun") + of("krun"), fs::read_dir(world.memory()).unwrap().count())
    };
    for _ in 0..3 {
        for name in ["tns-shim-crun", "tns-shim-krun"] {
            world.write_config(CONFIG);
            world.create().called(name).go().assert_quiet_success();
        }
        assert_eq!(asked(), (2 * PROBE, 2));
    }
}

/// What goes wrong with the next questions, one each.
fn trouble(world: &World, wrong: &[&str]) {
    let lines: Vec<&str> = std::iter::repeat_n("none", world.questions()).chain(wrong.iter().copied()).collect();
    let runtime = world.runtime();
    fs::write(runtime.with_extension("trouble"), lines.join("\n") + "\n").unwrap();
}

#[test]
fn a_question_that_fails_once_is_asked_once_more() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    // (what goes wrong with --version, and with features; how many questions it takes)
    for (wrong, questions) in [
        (&["-9"][..], 1 + PROBE),
        (&["0"], 1 + PROBE),
        (&["127"], 1 + PROBE),
        (&["flood"], 1 + PROBE),
        (&["none", "-9"], 2 + PROBE),
        (&["none", "half"], 2 + PROBE),
        (&["none", "2"], 2 + PROBE),
    ] {
        trouble(&world, wrong);
        assert_eq!(create(&world), (questions, true), "{wrong:?}");
        assert_eq!(create(&world), (0, true), "{wrong:?}: remembered");
        fs::remove_file(record(&world)).unwrap();
    }
}

#[test]
fn what_failed_is_never_remembered_and_takes_the_oldest_of_that_name_for_this_call() {
    for role in [RUNC_1_3, CRUN] {
        let Some(world) = World::with_time_namespaces(role) else { return };
        for wrong in ["-9", "0", "127"] {
            trouble(&world, &[wrong; 2]);
            world.write_config(CONFIG);
            let log = format!("--log={}", world.path("log").display());
            let bundle = format!("--bundle={}", world.path("bundle").display());
            let outcome = world.shim([&log, "create", &bundle, "c1"]).go();
            // Made by the shim: an old one could not.
            assert_ne!(outcome.assert_quiet_success().time_namespace(), common::own_time_namespace(), "{wrong}");
            assert_eq!(fs::read_to_string(world.config()).unwrap(), CONFIG);
            let log = fs::read_to_string(world.path("log")).unwrap();
            let said = format!("does not tell what it can, so it is taken for {}, the oldest: ", role.name);
            assert!(log.contains("level=warning") && log.contains(&said), "{log}");
            assert_eq!(fs::read_dir(world.memory()).map_or(0, Iterator::count), 0, "{wrong}: nothing is remembered");
            fs::remove_file(world.path("log")).unwrap();
            assert_eq!(create(&world), (PROBE, true), "{wrong}: and it is over");
            fs::remove_file(record(&world)).unwrap();
        }
    }
}

#[test]
fn a_runtime_that_hangs_when_it_is_asked_holds_nobody_up_for_long() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    trouble(&world, &["hang"]);
    let begun = Instant::now();
    assert_eq!(create(&world), (1, false));
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(create(&world), (PROBE, true));
}

#[test]
fn how_a_question_ended_is_known_where_the_caller_ignores_sigchld() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    trouble(&world, &["-9", "-9"]);
    let ignoring = |world: &World| world.create().step(|| step::ignore(libc::SIGCHLD)).go();
    world.write_config(CONFIG);
    let report = ignoring(&world).assert_quiet_success().clone();
    assert_eq!(u64::from_str_radix(report.one("SigIgn"), 16).unwrap() >> (libc::SIGCHLD - 1) & 1, 1, "still ignored");
    assert_eq!(fs::read_dir(world.memory()).map_or(0, Iterator::count), 0);
    ignoring(&world).assert_quiet_success();
    assert_ne!(fs::read_to_string(world.config()).unwrap(), CONFIG);
    record(&world);
}

#[test]
fn a_damaged_memory_costs_a_probe_and_never_the_call() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    assert_eq!(create(&world), (PROBE, true));
    let valid = fs::read(record(&world)).unwrap();
    let other_format = String::from_utf8(valid.clone()).unwrap().replace(r#""format":"#, r#""format":9"#).into_bytes();
    let no_such_kind = String::from_utf8(valid.clone()).unwrap().replace(r#""runc""#, r#""x""#).into_bytes();
    let half = valid[..valid.len() / 2].to_vec();
    let damaged = [vec![], half, b"{}".to_vec(), b"\0\xff\n".to_vec(), vec![b'['; 200_000], other_format, no_such_kind];
    for bytes in damaged {
        fs::write(record(&world), &bytes).unwrap();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert_eq!(create(&world), (PROBE, true), "{shown}");
        assert_eq!(create(&world), (0, true), "mended: {shown}");
    }
    let file = record(&world);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(create(&world), (PROBE, true), "a folder in its place");
}

#[test]
fn a_memory_that_somebody_else_could_have_written_is_not_believed() {
    let Some(world) = World::new(RUNC_1_1) else { return };
    assert_eq!(create(&world), (PROBE, false));
    let file = record(&world);
    let truth = fs::read_to_string(&file).unwrap();
    let lie = truth.replace(r#""lists_time":false"#, r#""lists_time":true"#);
    assert_ne!(truth, lie);
    let tell = || {
        drop(fs::remove_file(&file));
        fs::write(&file, &lie).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    tell();
    assert_eq!(create(&world), (0, true), "the lie is believed where only its owner can have told it");
    for mode in [0o666, 0o620, 0o602] {
        tell();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(create(&world), (PROBE, false), "{mode:o}");
        assert_eq!(create(&world), (0, false), "{mode:o}: written anew");
    }
    let elsewhere = world.path("lie.json");
    tell();
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert_eq!(create(&world), (PROBE, false), "a link");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), lie, "and nothing is written through it");
    if nix::unistd::geteuid().is_root() {
        tell();
        chown(&file, Some(1234), None).unwrap();
        assert_eq!(create(&world), (PROBE, false), "another owner");
    } else {
        common::skip::<()>("root is needed to give a file to another user; all else was tried");
    }
}

#[test]
fn a_memory_of_another_binary_is_not_believed() {
    let Some(world) = World::new(RUNC_1_1) else { return };
    assert_eq!(create(&world), (PROBE, false));
    let text = fs::read_to_string(record(&world)).unwrap();
    let lie = text.replace(r#""lists_time":false"#, r#""lists_time":true"#);
    for key in [r#""size":"#, r#""inode":"#, r#""device":"#, r#""mtime":["#, r#""ctime":["#, r#""path":["#] {
        let foreign = lie.replace(key, &format!("{key}1"));
        assert_ne!(foreign, lie, "{key}");
        fs::write(record(&world), foreign).unwrap();
        assert_eq!(create(&world), (PROBE, false), "{key}");
    }
}

#[test]
fn a_folder_that_others_can_write_is_not_used() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let folder = world.memory();
    fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!([create(&world), create(&world)], [(PROBE, true); 2]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    fs::remove_dir(&folder).unwrap();

    let elsewhere = world.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &folder).unwrap();
    assert_eq!([create(&world), create(&world)], [(PROBE, true); 2]);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing is written through a link");
    fs::remove_file(&folder).unwrap();

    fs::write(&folder, "a file").unwrap();
    assert_eq!([create(&world), create(&world)], [(PROBE, true); 2]);
    assert_eq!(fs::read_to_string(&folder).unwrap(), "a file");
}

#[test]
fn a_run_folder_that_cannot_be_written_costs_only_probes() {
    let Some(world) = World::as_root(RUNC_1_3, "mount a folder read-only") else { return };
    for _ in 0..2 {
        let before = world.questions();
        world.write_config(CONFIG);
        // Bound at /run before, so /run it is that is read-only.
        world.create().read_only("/run").go().assert_quiet_success();
        assert_eq!(world.questions() - before, PROBE);
    }
    assert_eq!(fs::read_dir(world.path("run")).unwrap().count(), 0);
}

#[test]
fn many_first_calls_at_once_all_succeed() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let mut children: Vec<_> = (0..16).map(|_| world.shim(["exec", "c1", "ls"]).start().0).collect();
    let codes: Vec<_> = children.iter_mut().map(|child| wait(child).code()).collect();
    assert_eq!(codes, [Some(0); 16]);
    record(&world);
    assert_eq!(create(&world), (0, true), "what one of them wrote last is whole");
}
