// SPDX-License-Identifier: Apache-2.0
//! What the shim says, and where: each decision with its reason under `--debug`, an error where the engine looks for it,
//! and otherwise nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{CRUN, RUNC_1_1, RUNC_1_3, Role, Run, SHIM, World, copy_program};
use serde_json::Value;

const CONFIG: &str = r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#;
const DECLARED: &str = r#"{"linux":{"namespaces":[{"type":"time"}]}}"#;

/// (the runtime, config.json, the command, what is decided, a part of the reason)
const DECISIONS: [(Role, &str, &str, &str, &str); 13] = [
    (RUNC_1_3, CONFIG, "create c1", "create: declare", "runc 1.3.6 makes declared time namespaces"),
    (RUNC_1_3, CONFIG, "run c1", "run: declare", "runc 1.3.6 makes declared time namespaces"),
    (CRUN, CONFIG, "create c1", "create: declare", "crun 1.21.0 makes declared time namespaces"),
    (RUNC_1_3, DECLARED, "create c1", "create: pass", "config.json declares the time namespace already"),
    (RUNC_1_3, "{}", "create c1", "create: pass", "config.json has no linux.namespaces"),
    (RUNC_1_1, CONFIG, "create c1", "create: emulate", "runc 1.1.15 does not make time namespaces"),
    (
        RUNC_1_1,
        DECLARED,
        "create c1",
        "create: undeclare and emulate",
        "does not make time namespaces, so the shim makes",
    ),
    (RUNC_1_3, CONFIG, "restore c1", "restore: declare", "knows of the namespace that CRIU makes"),
    (RUNC_1_1, CONFIG, "restore c1", "restore: pass", "CRIU makes it"),
    (RUNC_1_3, CONFIG, "exec c1 ls", "exec: pass", "the runtime decides: there is no "),
    (CRUN, CONFIG, "exec c1 ls", "exec: pass", "crun 1.21.0 always enters the time namespace of PID 1 itself"),
    (RUNC_1_1, CONFIG, "checkpoint c1", "checkpoint: stand outside", "the processes could not be checked"),
    (RUNC_1_3, CONFIG, "features", "features: pass", "runc 1.3.6 lists time itself"),
];

fn logged(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path("log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The lines of a log in JSON as (level, message), each in the form that engines parse.
fn entries(world: &World) -> Vec<(String, String)> {
    let entry = |line: &String| {
        let entry: Value = serde_json::from_str(line).unwrap();
        let text = |key| entry[key].as_str().unwrap_or_else(|| panic!("{key} in {line}")).to_owned();
        humantime::parse_rfc3339(&text("time")).unwrap();
        (text("level"), text("msg"))
    };
    logged(world).iter().map(entry).collect()
}

fn with_log(world: &World, debug: bool, json: bool, command: &str) -> Run {
    let log = format!("--log={}", world.path("log").display());
    let mut args = vec![log.as_str()];
    args.extend(debug.then_some("--debug"));
    args.extend(json.then_some("--log-format=json"));
    args.extend(command.split(' '));
    world.shim(args)
}

#[test]
fn each_decision_is_logged_with_its_reason_when_asked_and_nothing_otherwise() {
    for (role, config, command, decided, why) in DECISIONS {
        let Some(world) = World::with_time_namespaces(role) else { return };
        world.write_config(config);
        with_log(&world, false, true, command).go();
        assert_eq!(logged(&world), [""; 0], "{command} without --debug");

        world.write_config(config);
        let outcome = with_log(&world, true, true, command).go();
        assert_eq!(outcome.stderr(), "", "{command}");
        let entries = entries(&world);
        let wanted = |(level, message): &(String, String)| {
            let decision = message.strip_prefix(&format!("tns-shim: {decided}, because "));
            level == "debug" && decision.is_some_and(|reason| reason.contains(why))
        };
        assert_eq!(entries.iter().filter(|entry| wanted(entry)).count(), 1, "{command}: {entries:?}");
        assert!(!entries.iter().any(|(level, _)| level == "error"), "{entries:?}");
    }
}

#[test]
fn podman_s_log_holds_errors_alone_and_the_rest_is_beside() {
    let Some(world) = World::with_time_namespaces(RUNC_1_1) else { return };
    let log = world.path("oci-log");
    let call = |args: &[&str]| {
        let mut all = vec!["--log-format=json", "--log", log.to_str().unwrap()];
        all.extend(args);
        world.shim(all).go()
    };
    // A warning: this runtime cannot shift clocks.
    fs::write(world.path("etc/tns-shim/config.toml"), "uptime = \"zero\"\n").unwrap();
    world.write_config(CONFIG);
    call(&["create", "c1"]).assert_quiet_success();
    assert!(!log.exists());
    let beside = fs::read_to_string(world.path("oci-log.tns-shim")).unwrap();
    let entry: Value = serde_json::from_str(&beside).unwrap();
    assert_eq!(entry["level"], "warning");
    // An error, which is then alone in its file.
    fs::write(world.path("etc/tns-shim/config.toml"), "mode = \"none\"\n").unwrap();
    call(&["create", "c1"]).assert_refused();
    let entry: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(entry["level"], "error");
    assert_eq!(fs::read_to_string(world.path("oci-log.tns-shim")).unwrap(), beside);
}

#[test]
fn text_is_the_format_unless_json_is_asked_for() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    world.write_config(DECLARED);
    with_log(&world, true, false, "create c1").go().assert_quiet_success();
    let lines = logged(&world);
    let decision = r#"level=debug msg="tns-shim: create: "#;
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("time=\"") && line.contains(decision)).count(),
        1,
        "{lines:?}"
    );
}

#[test]
fn a_log_is_appended_to_and_never_an_obstacle() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    world.write_config(DECLARED);
    fs::write(world.path("log"), "somebody's line\n").unwrap();
    with_log(&world, true, false, "create c1").go().assert_quiet_success();
    assert_eq!(logged(&world)[0], "somebody's line");
    assert!(logged(&world).len() > 1);
    for log in ["/nonexistent/log", "/", "", "journald:x", "syslog:x"] {
        world.shim(["--log", log, "create", "c1"]).go().assert_quiet_success();
    }
}

/// A call that cannot go on says so in the log, in the asked format, and on standard error, and exits with 1.
#[track_caller]
fn assert_error(world: &World, prepare: impl Fn(Run) -> Run, wanted: &[&str]) {
    for command in ["create c1", "state c1", "--version"] {
        for json in [true, false] {
            drop(fs::remove_file(world.path("log")));
            let stderr = prepare(with_log(world, false, json, command)).go().assert_refused();
            let message = if json {
                let entries = entries(world);
                let [(level, message)] = entries.as_slice() else { panic!("{entries:?}") };
                assert_eq!(level, "error");
                message.clone()
            } else {
                let lines = logged(world);
                let [line] = lines.as_slice() else { panic!("{lines:?}") };
                let (time, message) = line.split_once(" level=error msg=").unwrap();
                assert!(time.starts_with("time=\"") && time.ends_with('"'), "{line}");
                serde_json::from_str(message).unwrap()
            };
            assert_eq!(stderr, format!("{message}\n"));
            assert!(message.starts_with("tns-shim: "), "{message}");
            for part in wanted {
                assert!(message.contains(part), "{message:?} has no {part:?}");
            }
        }
    }
}

#[test]
fn a_missing_runtime_is_an_error_that_says_where_it_was_looked_for() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let empty = world.path("bundle");
    let path = format!("PATH={}", empty.display());
    let at = |name: &'static str| {
        let path = path.clone();
        move |run: Run| run.env(&path).called(name)
    };
    let empty = empty.to_str().unwrap();
    assert_error(&world, at("tns-shim-runc"), &["called as tns-shim-runc", "there is no runc in PATH", empty]);
    assert_error(&world, at("crun"), &["called as crun", "there is no crun in PATH", empty]);
    assert_error(&world, at("tns-shim"), &["neither runc nor crun in PATH", empty, "install"]);
    for runtime in ["/nonexistent/runc", "youki"] {
        fs::write(world.path("etc/tns-shim/config.toml"), format!("runtime = {runtime:?}\n")).unwrap();
        assert_error(&world, at("tns-shim"), &["the runtime in the settings", runtime]);
    }
}

/// How the shim gets to stand under a runtime's name.
type Way<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn the_shim_never_takes_itself_for_the_runtime() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let (own, other) = (world.path("own"), world.path("other"));
    fs::create_dir_all(&own).unwrap();
    fs::create_dir_all(&other).unwrap();
    let shim = other.join("shim");
    copy_program(Path::new(SHIM), &shim);
    let link = |to: &Path| symlink(&shim, to).unwrap();
    let hard_link = |to: &Path| fs::hard_link(&shim, to).unwrap();
    let copy = |to: &Path| copy_program(&shim, to);
    let ways: [Way<'_>; 3] = [("link", &link), ("hard link", &hard_link), ("copy", &copy)];
    for (how, put) in ways {
        for name in ["runc", "crun"] {
            drop(fs::remove_file(own.join(name)));
            put(&own.join(name));
        }
        let itself = |name: &'static str| {
            let (path, shim) = (format!("PATH={}", own.display()), shim.clone());
            move |run: Run| run.env(&path).program(&shim).called(name)
        };
        for name in ["tns-shim-runc", "runc"] {
            assert_error(&world, itself(name), &["the only runc in PATH", "is tns-shim itself"]);
        }
        assert_error(&world, itself("tns-shim"), &["neither runc nor crun in PATH"]);
        // Behind it in PATH is a real one.
        let path = format!("PATH={}:{}", own.display(), world.path("bin").display());
        for name in ["tns-shim-runc", "runc", "tns-shim"] {
            let outcome = world.shim(["state", "c1"]).env(&path).program(&shim).called(name).go();
            outcome.assert_quiet_success();
            assert_eq!(outcome.report.unwrap().bytes("argv0"), [world.runtime().to_str().unwrap().as_bytes()], "{how}");
        }
        let text = format!("runtime = {:?}\n", own.join("runc"));
        fs::write(world.path("etc/tns-shim/config.toml"), text).unwrap();
        assert_error(&world, itself("tns-shim"), &["the runtime in the settings", "is tns-shim itself"]);
        fs::remove_file(world.path("etc/tns-shim/config.toml")).unwrap();
    }
}

#[test]
fn a_runtime_that_cannot_be_executed_is_an_error_that_names_it() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let path = world.path("bin/runc");
    fs::write(&path, "\x7fELF but not really").unwrap();
    assert_error(&world, |run| run, &[path.to_str().unwrap()]);
}

#[test]
fn a_wrong_setting_is_an_error_that_names_the_key_and_its_line() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    fs::write(world.path("etc/tns-shim/config.toml"), "\nruntmie = \"runc\"\n").unwrap();
    with_log(&world, false, true, "create c1").called("tns-shim").go().assert_refused();
    let entries = entries(&world);
    let [(level, message)] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(level, "error");
    for part in ["config.toml", "line 2", "runtmie"] {
        assert!(message.contains(part), "{message:?} has no {part:?}");
    }
}

#[test]
fn an_error_without_a_log_is_said_once_on_standard_error() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    for environment in ["NO=1", "RUST_BACKTRACE=1"] {
        let stderr = world.shim(["state", "c1"]).env("PATH=/nonexistent").env(environment).go().assert_refused();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("level=error") && stderr.contains("there is no runc in PATH"), "{stderr}");
    }
}

/// Who listens on /dev/log of the calls that are given `world.path("dev")`.
fn listener(world: &World) -> UnixDatagram {
    fs::create_dir_all(world.path("dev")).unwrap();
    let listener = UnixDatagram::bind(world.path("dev/log")).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn heard(listener: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 8192];
    let mut next = || match listener.recv(&mut buffer) {
        Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            None
        }
    };
    std::iter::from_fn(&mut next).collect()
}

/// A call with something to say: this runtime cannot shift clocks.
fn warned(world: &World) -> Run {
    fs::write(world.path("etc/tns-shim/config.toml"), "uptime = \"zero\"\n").unwrap();
    world.write_config(CONFIG);
    world.create().devices(world.path("dev"))
}

const WARNING: &str = "create: emulate, though the clocks do not begin at zero: runc 1.1.15 cannot shift";

#[test]
fn the_system_s_log_is_told_of_warnings_and_refusals_and_of_nothing_else() {
    let Some(world) = World::with_time_namespaces(RUNC_1_1) else { return };
    let listener = listener(&world);
    let settings = |text: &str| fs::write(world.path("etc/tns-shim/config.toml"), text).unwrap();
    let entry = |pid: u32, priority: u8, rest: &str| format!("<{priority}>tns-shim[{pid}]: {rest}");

    world.write_config(CONFIG);
    world.create().devices(world.path("dev")).go().assert_quiet_success();
    assert_eq!(heard(&listener), [""; 0]);

    // Nobody has asked for a log, and nothing is printed.
    let outcome = warned(&world).go();
    let report = outcome.assert_quiet_success();
    assert_eq!(report.fds(), world.direct(["create", "c1"]).go().report.unwrap().fds());
    let [said] = &*heard(&listener) else { panic!("not one entry") };
    assert!(said.starts_with(&entry(outcome.pid, 28, &format!("container c1: {WARNING}"))), "{said}");

    settings("");
    world.write_config(r#"{"annotations":{"org.tns-shim.mode":"a\u001b[2J\nb"},"linux":{"namespaces":[]}}"#);
    let outcome = world.create().devices(world.path("dev")).go();
    outcome.assert_refused();
    let [said] = &*heard(&listener) else { panic!("not one entry") };
    let wanted = entry(outcome.pid, 27, "container c1: create: the annotation org.tns-shim.mode in config.json: ");
    assert!(said.starts_with(&wanted) && !said.contains(char::is_control), "{said}");

    // What cannot be understood switches nothing off; what can, does.
    for (text, entries) in [("log = \"none\"\nmode = \"off\"\n", 1), ("log = \"none\"\n", 0), ("log = \"system\"\n", 1)]
    {
        settings(text);
        world.create().devices(world.path("dev")).go().assert_refused();
        assert_eq!(heard(&listener).len(), entries, "{text}");
    }
}

#[test]
fn the_system_s_log_holds_no_container_up() {
    let Some(world) = World::with_time_namespaces(RUNC_1_1) else { return };
    // One that is stuck: what it has not taken is all that fits.
    let stuck = listener(&world);
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    let mut waiting = 0;
    while sender.send_to(b"x", world.path("dev/log")).is_ok() {
        waiting += 1;
    }
    let begun = Instant::now();
    warned(&world).go().assert_quiet_success();
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited: {:?}", begun.elapsed());
    assert_eq!(heard(&stuck).len(), waiting);
    // One that has ended, and none.
    drop(stuck);
    warned(&world).go().assert_quiet_success();
    fs::remove_file(world.path("dev/log")).unwrap();
    warned(&world).go().assert_quiet_success();
}
