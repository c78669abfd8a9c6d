// SPDX-License-Identifier: Apache-2.0
//! The shim in a runtime's place is not to be told from it: a stand-in that reports what it was handed is called directly
//! and through the shim, and the two reports must be equal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;

use common::{CRUN, RUNC_1_1, RUNC_1_3, Role, Run, World, step};

const CONFIG: &str = r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#;

/// Every command of runc 1.5 with every flag, as its usage text spells them, and as engines call it.
const RUNC_CALLS: &str = "
--debug --log LOG --log-format json --root ROOT --criu /c --systemd-cgroup --rootless auto list
-debug=false -root=ROOT -rootless true list -format json -q
--version
--help
-h
help create
create --help
create --bundle B --console-socket /s --pidfd-socket /p --pid-file /f --no-pivot --no-new-keyring --preserve-fds 3 c1
create -b B c1
create -bundle B c1
create c1 --bundle=B --pid-file=/f
create --bundle B create
create
create --bundle
run -b B --console-socket /s --pidfd-socket /p -d --detach --keep --pid-file /f --no-subreaper --no-pivot --no-new-keyring --preserve-fds=1 c1
start c1
state c1
state create
kill --all c1 KILL
kill -a c1 -9
delete --force c1
delete -f create
events --interval 5s --stats c1
exec --console-socket /s --pidfd-socket /p --cwd /w --env A=B -e C=D --tty -t --user 1:2 -u 3 --additional-gids 4 -g 5 c1 ls -la --bundle B
exec --process P -d --detach --pid-file /f --process-label l --apparmor a --no-new-privs --cap CAP_KILL -c CAP_KILL --preserve-fds 2 --cgroup x --ignore-paused c1
exec -- c1 create --bundle B
pause c1
resume c1
ps -f json c1 -ef
spec --bundle B --rootless
update --resources - --blkio-weight 1 --cpu-period 2 --cpu-quota 3 --cpu-burst 4 --cpu-share 5 --cpu-idle 1 --memory 6 --pids-limit 7 c1
update --cpu-rt-period 1 --cpu-rt-runtime 2 --cpuset-cpus 0 --cpuset-mems 0 --kernel-memory 1 --memory-reservation 1 --memory-swap 1 --l3-cache-schema L --mem-bw-schema M c1
restore --console-socket /s --image-path I --work-path W --tcp-established --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode soft c1
restore --bundle B -d --pid-file /f -no-subreaper --no-pivot --empty-ns network --auto-dedup --lazy-pages --lsm-profile p --lsm-mount-context m c1
restore --lsm-mount-context
checkpoint --help
checkpoint --image-path I --work-path W --parent-path P --leave-running --tcp-established --tcp-skip-in-flight --link-remap --ext-unix-sk --shell-job c1
checkpoint --lazy-pages --status-fd 1 --page-server a:1 --file-locks --pre-dump --manage-cgroups-mode full --empty-ns network --auto-dedup c1
init
no-such-command create c1
--no-such-flag create c1
--log-format json --log LOG create --bundle B --pid-file /f --console-socket /s c1
--root ROOT --log LOG --log-format json --systemd-cgroup exec --process P --console-socket /s --detach --pid-file /f c1
--root ROOT --log LOG --log-format json restore --image-path I --work-path W --detach --pid-file /f -no-subreaper --bundle B c1
--root ROOT --systemd-cgroup exec --process P c1
--root ROOT --systemd-cgroup checkpoint --file-locks --image-path I --work-path W --leave-running c1
--systemd-cgroup --root=ROOT create --bundle B --pid-file /f --console-socket /s c1
--root=ROOT exec --pid-file /f --process P --detach --tty --console-socket /s c1
--systemd-cgroup --root=ROOT restore --bundle B --pid-file /f --detach --image-path I --work-path W --lsm-profile=selinux:x --lsm-mount-context=y c1
";

/// Every command of crun 1.28 with every flag.
const CRUN_CALLS: &str = "
--debug --cgroup-manager cgroupfs --systemd-cgroup --log file:LOG --log-format json --log-level debug --root ROOT --rootless x list -q -f json
--log-l error --cgroup-m=disabled list
-v
-V
--version
--usage
-?
create -b B --console-socket /s --preserve-fds 1 --no-pivot --pid-file /f --no-subreaper --no-new-keyring c1
create --bund B -fconfig.json c1
create -bB c1
create c1 --bundle B
run -d --detach --keep --config B/other.json --bundle=B c1
exec -ttty -td --process P --cwd /w --cgroup x -u1:2 -e A=B -c CAP_KILL --pid-file /f --preserve-fds 1 --no-new-privs --process-label l --apparmor a c1
exec -t c1 create -b B
checkpoint --image-path I --work-path W --leave-running --tcp-established --ext-unix-sk --shell-job --file-locks --network-lock iptables --parent-path P --pre-dump --manage-cgroups-mode soft c1
restore -b B --image-path I --work-path W --tcp-established --tcp-close --ext-unix-sk --shell-job -d --pid-file /f --console-socket /s --file-locks c1
restore --manage-cgroups-mode soft --network-lock iptables --lsm-profile p --lsm-mount-context m c1
kill -a c1 9
delete -f --regex c1
mounts add c1 m
ps --format json c1
spec --bundle B --rootless
start c1
state create
update -r - c1
pause c1
resume c1
";

fn as_it_is(run: Run) -> Run {
    run
}

fn compare_all(role: Role, calls: &str) {
    let Some(world) = World::new(role) else { return };
    for call in calls.lines().filter(|line| !line.is_empty()) {
        world.write_config(CONFIG);
        let path = |name: &str| world.path(name).to_str().unwrap().to_owned();
        let place = |arg: &str| match arg {
            "B" => path("bundle"),
            _ => arg.replace("LOG", &path("log")).replace("ROOT", &path("root")),
        };
        let args: Vec<String> = call.split(' ').map(place).collect();
        // CRIU is run in a time namespace that no task of the container is in.
        let same_time = !args.iter().any(|arg| arg == "checkpoint");
        world.assert_same(&args, same_time, as_it_is);
    }
}

#[test]
fn every_command_and_flag_of_runc_reaches_it_byte_for_byte() {
    compare_all(RUNC_1_3, RUNC_CALLS);
}

#[test]
fn every_command_and_flag_of_crun_reaches_it_byte_for_byte() {
    compare_all(CRUN, CRUN_CALLS);
}

#[test]
fn arguments_may_be_any_bytes() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let long = "x".repeat(100_000);
    let hard: [&[&[u8]]; 12] = [
        &[],
        &[b""],
        &[b"\xff\xfe", b"\x80", b"state", b"c\xc3"],
        &[b"create", b"--bundle", b"/no\xffwhere", b"c\xff"],
        &[b"--root=\xff", b"exec", b"-e", b"A=\xff\n", b"c1", b"\xff"],
        &[b"-x", b"--x", b"--x=y", b"-", b"--", b"---", b"-=", b"--=", b"=", b"state", b"--", b"--"],
        &[b"--", b"create", b"c1"],
        &[b"create", b"--", b"--bundle"],
        &[b"run", b"\n", b"\t", b" ", b"*", b"$(x)", b"'", b"\\", b"\x01"],
        &[b"exec", b"--", b"c1", b"--", b"-", b""],
        &[b"state", long.as_bytes()],
        &[b"features", b"extra"],
    ];
    for args in hard {
        world.assert_same(args, true, as_it_is);
    }
    let many: Vec<String> = (0..3000).map(|number| format!("--env=N{number}")).collect();
    let many: Vec<&str> = ["exec"].into_iter().chain(many.iter().map(String::as_str)).chain(["c1"]).collect();
    world.assert_same(&many, true, as_it_is);
}

#[test]
fn the_standard_descriptors_that_are_closed_stay_closed_and_none_is_added() {
    for closed in 0..8 {
        let Some(world) = World::new(RUNC_1_3) else { return };
        world.write_config(CONFIG);
        let input = world.path("input");
        let bundle = world.path("bundle");
        let prepare = move |run: Run| {
            let run = [3, 9, 200].iter().fold(run, |run, fd| run.step(step::open(&input, *fd)));
            (0..3).filter(|fd| closed >> fd & 1 == 1).fold(run, |run, fd| run.step(move || step::close(fd)))
        };
        let create = [&b"create"[..], b"--bundle", bundle.as_os_str().as_bytes(), b"c1"];
        // The first one asks the runtime what it is, the second remembers, the third is none of the shim's business.
        for args in [&create[..], &create[..], &[b"state", b"c1"]] {
            world.assert_same(args, true, &prepare);
        }
        // What the shim itself opens takes none of their numbers.
        let asked = fs::read_to_string(world.path("bin/runc.asked")).unwrap();
        assert_eq!(asked, "--version\nfeatures\n", "{closed:03b}");
        assert!(fs::read_to_string(world.config()).unwrap().contains("time"), "the shim did something in between");
        let fds = prepare(world.shim(create)).go().report.unwrap().fds();
        for fd in 0..3 {
            assert_eq!(fds.contains(&fd), closed >> fd & 1 == 0, "{fd} of {fds:?}");
        }
        assert!([3, 9, 200].iter().all(|fd| fds.contains(fd)), "{fds:?}");
    }
}

#[test]
fn the_environment_is_handed_on_in_its_bytes_and_order() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    world.write_config(CONFIG);
    let bundle = world.path("bundle");
    let entries: [&[u8]; 8] =
        [b"TWICE=1", b"TWICE=2", b"NO_VALUE=", b"NO_SIGN", b"=", b"BYTES=\xff\n", b"LISTEN_FDS=1", b"LD_LIBRARY_PATH="];
    for args in [&[&b"state"[..], b"c1"][..], &[b"run", b"-b", bundle.as_os_str().as_bytes(), b"c1"]] {
        world.assert_same(args, true, |run| entries.iter().fold(run, Run::env));
        let env = world.shim(args).env("ONE=more").go().report.unwrap().bytes("env");
        assert!(env.contains(&b"ONE=more".to_vec()), "the report has the environment");
    }
}

#[test]
fn standard_input_is_left_to_the_runtime() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    fs::write(world.path("bin/stdin"), "").unwrap();
    for args in [["state", "c1"], ["exec", "c1"], ["create", "c1"], ["features", "x"]] {
        let report = world.shim(args).go().report.unwrap();
        assert_eq!(report.bytes("stdin").concat(), b"what the container reads\n", "{args:?}");
        world.assert_same(&args, true, as_it_is);
    }
}

#[test]
fn signals_umask_working_folder_and_death_signal_are_handed_on() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    world.write_config(CONFIG);
    let folder = world.path("bundle");
    let strange = |run: Run| {
        run.in_folder(&folder)
            .step(|| step::ignore(libc::SIGHUP))
            .step(|| step::ignore(libc::SIGPIPE))
            .step(|| step::ignore(libc::SIGCHLD))
            .step(|| step::block(libc::SIGUSR1))
            .step(|| step::raise(libc::SIGUSR1))
            .step(|| step::death_signal(libc::SIGTERM))
            .step(|| {
                nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o137));
                Ok(())
            })
    };
    for args in [["create", "c1"], ["create", "c1"], ["exec", "c1"], ["state", "c1"]] {
        // SIGPIPE is not ignored here, and a program that starts as Rust's do would ignore it.
        world.assert_same(&args, true, as_it_is);
        world.assert_same(&args, true, strange);
    }
    let report = strange(world.shim(["create", "c1"])).go().report.unwrap();
    let mask = |key| u64::from_str_radix(report.one(key), 16).unwrap();
    let bit = |signal: i32| 1 << (signal - 1);
    assert_eq!(mask("SigBlk"), bit(libc::SIGUSR1));
    let ignored = bit(libc::SIGHUP) | bit(libc::SIGPIPE) | bit(libc::SIGCHLD);
    assert_eq!(mask("SigIgn") & ignored, ignored);
    assert_eq!(mask("ShdPnd"), bit(libc::SIGUSR1));
    assert_eq!(report.one("pdeathsig"), libc::SIGTERM.to_string());
    assert_eq!(report.one("Umask"), "0137");
    assert_eq!(report.bytes("cwd"), [folder.as_os_str().as_bytes()]);
    if !common::is_emulated(common::OWN_SIGNALS) {
        assert_eq!(mask("SigCgt"), 0);
    }
}

#[test]
fn asking_the_runtime_what_it_is_leaves_no_signal_behind() {
    let blocked = |run: Run| run.step(|| step::block(libc::SIGCHLD));
    for call in ["create c1", "exec c1", "features x"] {
        let Some(world) = World::new(RUNC_1_3) else { return };
        let args: Vec<&str> = call.split(' ').collect();
        world.assert_same(&args, true, blocked);
        assert_eq!(world.questions(), 2, "it was asked");
    }
    // One that the caller had pending already stays.
    let Some(world) = World::new(RUNC_1_3) else { return };
    world.assert_same(&["create", "c1"], true, |run| blocked(run).step(|| step::raise(libc::SIGCHLD)));
}

#[test]
fn the_exit_code_is_the_runtimes_and_so_is_death_by_a_signal() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    for end in [0, 1, 2, 42, 127, 255, -libc::SIGKILL, -libc::SIGTERM, -libc::SIGINT] {
        world.end_with(end);
        for args in [["state", "c1"], ["exec", "c1"], ["run", "c1"]] {
            world.assert_same(&args, true, as_it_is);
        }
    }
}

#[test]
fn the_name_it_is_called_by_says_which_runtime() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    world.install(CRUN);
    let played = |name: &str| {
        let report = world.shim(["state", "c1"]).called(name).go().report.unwrap();
        String::from_utf8(report.bytes("argv0").remove(0)).unwrap().rsplit('/').next().unwrap().to_owned()
    };
    let names = ["tns-shim-runc", "tns-shim-crun", "runc", "crun", "/opt/x/crun", "tns-shim", "renamed"];
    let asked_for = names.map(played);
    assert_eq!(asked_for, ["runc", "crun", "runc", "crun", "crun", "runc", "runc"]);
    fs::write(world.path("etc/tns-shim/config.toml"), "runtime = \"crun\"\n").unwrap();
    assert_eq!(
        ["tns-shim", "tns-shim-runc"].map(played),
        ["crun", "runc"],
        "the settings are for no name in particular"
    );
    let text = format!("runtime = {:?}\n", world.path("bin/crun"));
    fs::write(world.path("etc/tns-shim/config.toml"), text).unwrap();
    assert_eq!(played("tns-shim"), "crun");
}

#[test]
fn what_an_old_runc_cannot_do_is_nothing_that_its_other_commands_see() {
    compare_all(RUNC_1_1, "state c1\nexec c1 ls\nrestore --bundle B c1\nlist\nstart c1\nkill c1 9\ndelete c1\n");
}
