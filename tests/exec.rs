// SPDX-License-Identifier: Apache-2.0
//! exec: which time namespace the runtime is put into, and what it takes to be put there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::{Child, Command};

use common::{Outcome, RUNC_1_1, RUNC_1_3, Role, Run, World, own_time_namespace, step};
use nix::mount::{MsFlags, mount};
use tns_shim::timens;

/// A process in a time namespace of its own, which the runtime takes for the PID 1 of its container c1. The root folder is that
/// of the runtime itself, so that the runtime is not even found if the root folder is covered.
struct Container {
    world: World,
    init: Child,
}

impl Drop for Container {
    fn drop(&mut self) {
        self.init.kill().unwrap();
        self.init.wait().unwrap();
    }
}

impl Container {
    fn new(role: Role) -> Option<Self> {
        let world = World::with_time_namespaces(role)?;
        fs::create_dir_all(world.path("bin/c1")).unwrap();
        let mut command = Command::new("sleep");
        step::before_exec(command.arg("1000"), || {
            step::death_signal(libc::SIGKILL)?;
            timens::make().map_err(io::Error::other)
        });
        let container = Self { world, init: command.spawn().unwrap() };
        container.write_state(&container.state());
        Some(container)
    }

    fn namespace(&self) -> String {
        let link = fs::read_link(format!("/proc/{}/ns/time", self.init.id())).unwrap();
        link.into_os_string().into_string().unwrap()
    }

    fn state(&self) -> String {
        let line = fs::read_to_string(format!("/proc/{}/stat", self.init.id())).unwrap();
        let start = line.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
        format!(
            r#"{{"init_process_pid":{},"init_process_start":{start},"config":{{"labels":["a=b"]}}}}"#,
            self.init.id()
        )
    }

    fn file(&self) -> PathBuf {
        self.world.path("bin/c1/state.json")
    }

    fn write_state(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn call(&self) -> Run {
        let [root, log] = ["bin", "log"].map(|name| self.world.path(name).display().to_string());
        drop(fs::remove_file(&log));
        self.world.shim(["--root", &root, "--log", &log, "exec", "c1", "ls"])
    }

    #[track_caller]
    fn assert_entered(&self, outcome: &Outcome) {
        assert_eq!(outcome.assert_quiet_success().time_namespace(), self.namespace(), "{}", self.log());
    }

    /// That the runtime was run where it would have been without the shim, and why.
    #[track_caller]
    fn assert_left_alone(&self, outcome: &Outcome, why: &str) {
        let report = outcome.report.as_ref().unwrap_or_else(|| panic!("the runtime was not run: {}", outcome.stderr()));
        assert_eq!(report.time_namespace(), own_time_namespace());
        let log = self.log();
        assert!(log.contains("exec goes on without help: ") && log.contains(why), "{log}");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.world.path("log")).unwrap_or_default()
    }
}

fn without_sys_admin() -> io::Result<()> {
    const CAP_SYS_ADMIN: libc::c_int = 21;
    step::drop_capability(CAP_SYS_ADMIN)
}

#[test]
fn a_new_time_namespace_is_the_makers_own_and_its_childrens() {
    let Some(world) = World::with_time_namespaces(RUNC_1_1) else { return };
    // execve evens it out since Linux 6.2, so it is asked before that: earlier kernels leave them apart.
    let made = world.direct(["state", "c1"]).step(|| {
        let before = timens::Id::own()?;
        timens::make().map_err(io::Error::other)?;
        let [own, children] = [timens::Id::own()?, timens::Id::of("/proc/self/ns/time_for_children")?];
        if own == children && own != before { Ok(()) } else { Err(io::Error::other("they differ")) }
    });
    made.go().assert_quiet_success();
}

#[test]
fn a_container_is_entered_whoever_may_write_its_state() {
    let Some(container) = Container::new(RUNC_1_1) else { return };
    container.assert_entered(&container.call().go());
    fs::set_permissions(container.file(), Permissions::from_mode(0o664)).unwrap();
    container.assert_entered(&container.call().go());
    // As `runc --root /run/user/1000/runc` by root.
    chown(container.file(), Some(1000), Some(1000)).unwrap();
    container.assert_entered(&container.call().go());
    // A runtime that joins what its configuration lists, and lists nothing.
    let Some(container) = Container::new(RUNC_1_3) else { return };
    fs::set_permissions(container.file(), Permissions::from_mode(0o666)).unwrap();
    container.assert_entered(&container.call().go());
}

#[test]
fn a_state_that_is_not_understood_is_left_to_the_runtime_with_a_warning() {
    for role in [RUNC_1_1, RUNC_1_3] {
        let Some(container) = Container::new(role) else { return };
        let (file, state) = (container.file(), container.state());
        for (text, why) in [
            (state.replace("\"init_process_pid\":", "\"init_process_pid\":\"\",\"x\":"), "invalid type: string"),
            (state.replace("_start\":", "_start\":1.5,\"x\":"), "understand"),
            (state.replace("\"config\"", "\"x\""), "missing field `config`"),
            (String::new(), "EOF"),
            ("\u{0}".to_owned(), "understand"),
        ] {
            container.write_state(&text);
            container.assert_left_alone(&container.call().go(), why);
        }
        fs::write(&file, b"\xff").unwrap();
        container.assert_left_alone(&container.call().go(), "utf-8");
        File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
        container.assert_left_alone(&container.call().go(), "larger than");

        let elsewhere = container.world.path("elsewhere");
        fs::write(&elsewhere, &state).unwrap();
        fs::remove_file(&file).unwrap();
        symlink(&elsewhere, &file).unwrap();
        container.assert_left_alone(&container.call().go(), "symbolic link");
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        container.assert_left_alone(&container.call().go(), "no regular file");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        container.assert_left_alone(&container.call().go(), "no regular file");
    }
}

#[test]
fn a_private_container_is_not_split_whatever_stands_in_the_way() {
    let Some(container) = Container::new(RUNC_1_1) else { return };
    let labelled =
        |mode: &str| container.write_state(&container.state().replace("a=b", &format!("org.tns-shim.mode={mode}")));
    let settings = |text: &str| fs::write(container.world.path("etc/tns-shim/config.toml"), text).unwrap();
    let call = || container.call().step(without_sys_admin);

    container.assert_left_alone(&call().go(), "enter a time namespace");
    labelled("private");
    let said = call().go().assert_refused();
    assert!(said.contains("mode = \"private\"") && said.contains("enter a time namespace"), "{said}");
    container.assert_entered(&container.call().go());

    settings("mode = \"private\"\nannotations = [\"mode\"]\n");
    labelled("auto");
    container.assert_left_alone(&call().go(), "enter a time namespace");
    container.write_state("{}");
    let said = container.call().go().assert_refused();
    assert!(said.contains("mode = \"private\"") && said.contains("understand"), "{said}");
}

#[test]
fn without_time_namespaces_in_the_kernel_nothing_is_looked_at() {
    for (role, state) in [(RUNC_1_1, None), (RUNC_1_1, Some("{")), (RUNC_1_3, Some("{"))] {
        let Some(container) = Container::new(role) else { return };
        match state {
            Some(text) => container.write_state(text),
            None => fs::remove_file(container.file()).unwrap(),
        }
        // This process has no ns/time then, nor any other.
        let outcome = container.call().step(|| {
            let none = None::<&str>;
            mount(Some("tmpfs"), "/proc/self/ns", Some("tmpfs"), MsFlags::empty(), none).map_err(io::Error::from)
        });
        outcome.go().assert_quiet_success();
        assert_eq!(container.log(), "");
    }
}
