// SPDX-License-Identifier: Apache-2.0
//! The settings file: who believes it, and what still works where it cannot be used.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{CRUN, RUNC_1_3, Run, SHIM, World, copy_program};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

const CONFIG: &str = r#"{"linux":{"namespaces":[]}}"#;
const CRUN_IT_IS: &str = "runtime = \"crun\"\nmode = \"leave\"\n";
const USER: u32 = 1234;

fn file(world: &World) -> PathBuf {
    world.path("etc/tns-shim/config.toml")
}

/// Creates a container with plain tns-shim; the log, and whether the settings were believed, in which the runtime is crun.
#[track_caller]
fn create(world: &World, prepare: impl Fn(Run) -> Run) -> (String, bool) {
    world.write_config(CONFIG);
    fs::set_permissions(world.config(), Permissions::from_mode(0o666)).unwrap();
    drop(fs::remove_file(world.path("log/log")));
    let log = format!("--log={}", world.path("log/log").display());
    let bundle = format!("--bundle={}", world.path("bundle").display());
    let outcome = prepare(world.shim([&log, "create", &bundle, "c1"]).called("tns-shim")).go();
    let argv0 = outcome.assert_quiet_success().bytes("argv0").remove(0);
    let log = fs::read_to_string(world.path("log/log")).unwrap_or_default();
    (log, argv0.ends_with(b"/crun"))
}

/// A world in which another user can do all that the shim and the stand-in do.
fn open_world() -> Option<World> {
    let world = World::as_root(RUNC_1_3, "be another user")?;
    world.install(CRUN);
    fs::create_dir(world.path("log")).unwrap();
    copy_program(Path::new(SHIM), &world.path("bin/shim"));
    let status = Command::new("chmod").args(["-R", "a+rwX"]).arg(world.path("")).status().unwrap();
    assert!(status.success());
    // What is believed is written by root alone.
    fs::set_permissions(world.path("etc"), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(world.path("etc/tns-shim"), Permissions::from_mode(0o755)).unwrap();
    Some(world)
}

fn write(world: &World, text: &str, mode: u32) {
    fs::write(file(world), text).unwrap();
    fs::set_permissions(file(world), Permissions::from_mode(mode)).unwrap();
}

fn become_user() -> io::Result<()> {
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    Ok(())
}

/// Root of a user namespace of its own, as rootless Podman makes it.
fn become_root_of_a_namespace() -> io::Result<()> {
    become_user()?;
    // What was another user's process belongs to root in /proc until it says otherwise.
    nix::sys::prctl::set_dumpable(true)?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {USER} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {USER} 1"))
}

fn as_user(world: &World) -> impl Fn(Run) -> Run {
    let (program, home) = (world.path("bin/shim"), world.path("etc"));
    move |run| run.program(&program).env(format!("XDG_CONFIG_HOME={}", home.display())).step(become_user)
}

fn as_root_of_a_namespace(world: &World) -> impl Fn(Run) -> Run {
    let program = world.path("bin/shim");
    move |run| run.program(&program).step(become_root_of_a_namespace)
}

#[test]
fn a_mistake_stops_what_the_shim_would_do_and_nothing_else() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    world.install(CRUN);
    fs::create_dir(world.path("log")).unwrap();
    let plain = |call: &str| world.shim(call.split(' ')).called("tns-shim").go();
    for (text, line) in [
        ("runtime = \"crun\"\nmode = \"prviate\"\n", "line 2: unknown variant `prviate`"),
        ("runtime = \"crun\"\na-key-of-tomorrow = true\n", "line 2: unknown field `a-key-of-tomorrow`"),
        ("runtime = \"crun\"\nmode = \n", "line 2: "),
        ("runtime = \"crun\"\n#\0\n", "line 2: "),
        ("runtime = \"crun\"\n#\u{1b}[2J\n", "line 2: "),
    ] {
        write(&world, text, 0o644);
        for call in ["create c1", "run c1", "restore c1", "checkpoint c1"] {
            let said = plain(call).assert_refused();
            assert!(
                said.contains(&format!("understand {}", "/etc/tns-shim/config.toml"))
                    || !nix::unistd::geteuid().is_root(),
                "{said}"
            );
            assert!(said.contains(line) && !said.contains('\u{1b}'), "{call}: {said}");
        }
        for call in ["state c1", "kill c1 9", "delete c1", "list", "exec c1 ls"] {
            let outcome = plain(call);
            let argv0 = outcome.assert_quiet_success().bytes("argv0").remove(0);
            assert!(argv0.ends_with(b"/crun"), "{call} with {text:?}");
        }
    }
    // Where not even the runtime can be read: the first in PATH, and a warning.
    fs::write(file(&world), vec![b'x'; 1 << 20]).unwrap();
    let log = format!("--log={}", world.path("log/log").display());
    let outcome = plain(&format!("{log} kill c1 9"));
    assert!(outcome.assert_quiet_success().bytes("argv0").remove(0).ends_with(b"/runc"));
    let said = fs::read_to_string(world.path("log/log")).unwrap();
    assert!(said.contains("level=warning") && said.contains("larger than 65536 bytes"), "{said}");
    assert!(plain("create c1").assert_refused().contains("larger than 65536 bytes"));
}

#[test]
fn root_s_settings_do_not_follow_the_environment() {
    let Some(world) = open_world() else { return };
    let elsewhere = world.path("log/tns-shim");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("config.toml"), CRUN_IT_IS).unwrap();
    let environment = format!("XDG_CONFIG_HOME={}", world.path("log").display());
    assert_eq!(create(&world, |run| run.env(environment.as_str())), (String::new(), false));
    write(&world, CRUN_IT_IS, 0o644);
    assert_eq!(create(&world, |run| run), (String::new(), true));
}

#[test]
fn settings_that_a_user_may_not_read_do_not_hold_for_that_user_who_is_told() {
    let Some(world) = open_world() else { return };
    let said = "do not hold for this user, who may not read them";
    for (folder, mode) in [(0o755, 0o640), (0o750, 0o644)] {
        write(&world, CRUN_IT_IS, mode);
        fs::set_permissions(world.path("etc/tns-shim"), Permissions::from_mode(folder)).unwrap();
        let (log, believed) = create(&world, as_user(&world));
        assert!(!believed && log.contains("level=warning") && log.contains(said), "{folder:o} {mode:o}: {log}");
        assert!(!log.to_lowercase().contains("permission denied"), "{log}");
    }
}

#[test]
fn the_system_s_settings_hold_in_a_user_namespace_if_they_can_be_read() {
    if common::is_emulated(common::TWO_THREADS) {
        return;
    }
    let Some(world) = open_world() else { return };
    let may = Command::new("setpriv").args(["--reuid=1234", "--clear-groups", "unshare", "--user", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        common::skip::<()>("users may not make user namespaces here");
        return;
    }
    write(&world, CRUN_IT_IS, 0o644);
    let (log, believed) = create(&world, as_root_of_a_namespace(&world));
    assert!(believed && !log.contains("settings"), "{log}");
    write(&world, CRUN_IT_IS, 0o640);
    let (log, believed) = create(&world, as_root_of_a_namespace(&world));
    assert!(!believed, "{log}");
    assert!(
        log.contains("settings in /etc/tns-shim/config.toml do not hold for this user, who may not read them"),
        "{log}"
    );
}

#[test]
fn settings_that_somebody_else_can_have_written_are_not_believed() {
    let Some(world) = open_world() else { return };
    // (owner and group, mode; believed by root, by that user)
    for (owner, mode, by_root, by_user) in [
        (0, 0o644, true, true),
        (0, 0o664, true, false),
        (0, 0o666, false, false),
        (USER, 0o644, false, true),
        (USER, 0o664, false, true),
        (USER, 0o646, false, false),
        (USER + 1, 0o644, false, false),
    ] {
        write(&world, CRUN_IT_IS, mode);
        chown(file(&world), Some(owner), Some(owner)).unwrap();
        for (who, wanted, (log, believed)) in
            [("root", by_root, create(&world, |run| run)), ("user", by_user, create(&world, as_user(&world)))]
        {
            assert_eq!(believed, wanted, "{who}: {owner} {mode:o}");
            let said = "level=warning msg=\"tns-shim: the settings in ";
            assert_eq!(log.contains(said) && log.contains("somebody else can have written them"), !wanted, "{log}");
        }
    }
    // A folder or a pipe in its place is no reason to wait.
    fs::remove_file(file(&world)).unwrap();
    nix::unistd::mkfifo(&file(&world), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(world.create().go().assert_refused().contains("no regular file"));
}
