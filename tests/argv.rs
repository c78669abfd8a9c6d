// SPDX-License-Identifier: Apache-2.0
//! What is read from a command line is what the real runtime would read from it: runc 1.1 to 1.5 (urfave/cli, Go's flag
//! package) and crun 1.8 to 1.28 (argp, in order).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use tns_shim::invocation::{Dialect, Invocation, Operands, Verb};

/// What was read, in words: the verb, then whatever else there is.
fn read(dialect: Dialect, args: &[&[u8]]) -> String {
    let owned: Vec<CString> =
        [&b"tns-shim"[..]].iter().chain(args).map(|arg| CString::new(arg.to_vec()).unwrap()).collect();
    let borrowed: Vec<&CStr> = owned.iter().map(CString::as_c_str).collect();
    let invocation = Invocation::parse(&borrowed);
    assert_eq!(invocation.args, borrowed, "the runtime is handed every argument as it came");
    // Nobody asks for those of other verbs.
    let known = invocation.verb != Verb::Other;
    let operands = if known { invocation.operands(dialect) } else { Operands::default() };
    let globals = &invocation.globals;
    // As messages name it.
    let shown = invocation.verb.to_string();
    let mut words = vec![if known {
        shown
    } else {
        assert_eq!(shown, "another verb");
        "other".into()
    }];
    let mut tell = |key: &str, value: Option<&OsStr>| {
        words.extend(value.map(|value| format!("{key}={}", value.as_bytes().escape_ascii())));
    };
    tell("root", globals.root);
    tell("log", globals.log);
    tell("format", globals.log_format);
    tell("criu", globals.criu);
    tell("debug", globals.debug.then_some("yes".as_ref()));
    tell("id", operands.id);
    // Without an id the call is passed on, whatever else it says.
    let id = operands.id;
    tell("bundle", operands.bundle.filter(|_| id.is_some()));
    tell("config", operands.config.filter(|_| id.is_some()));
    tell("image", operands.image_path.filter(|_| id.is_some()));
    tell("pre", operands.pre_dump.then_some("yes".as_ref()));
    words.join(" ")
}

fn assert_all(dialects: &[Dialect], rows: &[(&str, &str)]) {
    for dialect in dialects {
        for (call, wanted) in rows {
            let args: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
            assert_eq!(read(*dialect, &args), *wanted, "{dialect:?}: {call}");
        }
    }
}

const BOTH: [Dialect; 2] = [Dialect::Runc, Dialect::Crun];

#[test]
fn every_engine_is_understood() {
    assert_all(
        &BOTH,
        &[
            // containerd, and so Docker and Kubernetes.
            (
                "--root R --log L --log-format json create --bundle B --pid-file P c1",
                "create root=R log=L format=json id=c1 bundle=B",
            ),
            (
                "--root R --log L --log-format json --systemd-cgroup create --bundle B --pid-file P --console-socket S c1",
                "create root=R log=L format=json id=c1 bundle=B",
            ),
            (
                "--root R --log L --log-format json --systemd-cgroup exec --process F --console-socket S --detach --pid-file P c1",
                "exec root=R log=L format=json id=c1",
            ),
            (
                "--root R --log L --log-format json checkpoint --image-path I --work-path W c1",
                "checkpoint root=R log=L format=json id=c1 image=I",
            ),
            (
                "--root R --log L --log-format json checkpoint --image-path I --leave-running --tcp-established --empty-ns network c1",
                "checkpoint root=R log=L format=json id=c1 image=I",
            ),
            ("--root R --log L --log-format json state c1", "other root=R log=L format=json"),
            // Podman and CRI-O through conmon.
            (
                "--systemd-cgroup --log-format=json --log L create --bundle B --pid-file P --no-pivot c1",
                "create log=L format=json id=c1 bundle=B",
            ),
            (
                "--cgroup-manager cgroupfs --log-format=json --log L create --bundle B --pid-file P c1",
                "create log=L format=json id=c1 bundle=B",
            ),
            (
                "--systemd-cgroup --log-format=json --log L restore --bundle B --pid-file P --image-path I c1",
                "restore log=L format=json id=c1 bundle=B image=I",
            ),
            ("--log-format=json --log L exec --pid-file P --process F --detach c1", "exec log=L format=json id=c1"),
            ("--root=R --systemd-cgroup exec --process F c1", "exec root=R id=c1"),
            // CRI-O itself, and through conmon.
            ("--root R --systemd-cgroup exec --process F c1", "exec root=R id=c1"),
            (
                "--root R --systemd-cgroup checkpoint --file-locks --image-path I --work-path W --leave-running c1",
                "checkpoint root=R id=c1 image=I",
            ),
            (
                "--systemd-cgroup --root=R create --bundle B --pid-file P --console-socket S c1",
                "create root=R id=c1 bundle=B",
            ),
            ("--root=R exec --pid-file P --process F --detach --tty --console-socket S c1", "exec root=R id=c1"),
            (
                "--systemd-cgroup --root=R restore --bundle B --pid-file P --detach --image-path I --work-path B \
                 --lsm-profile=selinux:x --lsm-mount-context=y c1",
                "restore root=R id=c1 bundle=B image=I",
            ),
            ("features", "features"),
            ("--version", "other"),
            ("checkpoint --help", "checkpoint"),
            ("restore --lsm-mount-context", "restore"),
        ],
    );
    // containerd's single dash is runc's only.
    assert_all(
        &[Dialect::Runc],
        &[(
            "--root R --log L --log-format json restore --image-path I --work-path W --detach --pid-file P -no-subreaper --bundle B c1",
            "restore root=R log=L format=json id=c1 bundle=B image=I",
        )],
    );
}

#[test]
fn a_word_is_the_verb_only_where_the_runtimes_look_for_it() {
    assert_all(
        &BOTH,
        &[
            ("--log create delete x", "other log=create"),
            ("--root create state c1", "other root=create"),
            ("--root=create start create", "other root=create"),
            ("state create", "other"),
            ("create --bundle B create", "create id=create bundle=B"),
            ("create --pid-file exec run", "create id=run"),
            ("exec create create", "exec id=create"),
            ("--criu create create c1", "create criu=create id=c1"),
            ("--rootless create run c1", "run id=c1"),
            ("--log-format run exec c1", "exec format=run id=c1"),
            ("--systemd-cgroup create c1", "create id=c1"),
            ("--no-such-flag create c1", "create id=c1"),
            ("creat c1", "other"),
            ("CREATE c1", "other"),
            ("- create c1", "other"),
            ("-- create c1", "create id=c1"),
            ("-- --debug create c1", "other"),
            ("--debug", "other debug=yes"),
            ("--root", "other"),
            ("--help create c1", "other"),
            ("-h create c1", "other"),
            ("-v create c1", "other"),
            ("--version create c1", "other"),
        ],
    );
}

#[test]
fn global_flags_are_read_in_each_spelling_and_the_last_one_counts() {
    assert_all(
        &BOTH,
        &[
            ("--root R state", "other root=R"),
            ("--root=R state", "other root=R"),
            ("--root A --root=B state", "other root=B"),
            ("--root= state", "other root="),
            ("--log=a=b state", "other log=a=b"),
            ("--log -x --debug state", "other log=-x debug=yes"),
            ("--log -- --debug state", "other log=-- debug=yes"),
            ("--debug=true --debug=false state", "other"),
            ("--debug=1 state", "other debug=yes"),
        ],
    );
    assert_all(&[Dialect::Runc], &[("-root R -log=L -debug state", "other root=R log=L debug=yes")]);
    assert_all(
        &[Dialect::Crun],
        &[
            ("--log-level debug state", "other debug=yes"),
            ("--log-level=error state", "other"),
            ("--debug --log-level error state", "other"),
            ("--log-level error --debug state", "other debug=yes"),
            ("--log-l debug --log-f json state", "other format=json debug=yes"),
            ("--cgroup-m create delete c1", "other"),
        ],
    );
}

#[test]
fn runc_takes_one_or_two_dashes_and_no_clusters() {
    assert_all(
        &[Dialect::Runc],
        &[
            ("create -b B c1", "create id=c1 bundle=B"),
            ("create --b B c1", "create id=c1 bundle=B"),
            ("create -bundle B c1", "create id=c1 bundle=B"),
            ("create -bundle=B c1", "create id=c1 bundle=B"),
            ("create -b=B c1", "create id=c1 bundle=B"),
            ("create --bundle= c1", "create id=c1 bundle="),
            ("create --bundle A -b B c1", "create id=c1 bundle=B"),
            ("create --bundle -- c1", "create id=c1 bundle=--"),
            ("create --bundle --pid-file c1", "create id=c1 bundle=--pid-file"),
            ("run -d -b B c1", "run id=c1 bundle=B"),
            ("run --detach=true --keep c1", "run id=c1"),
            ("restore --image-path=I -b B --work-path W c1", "restore id=c1 bundle=B image=I"),
            ("create --preserve-fds 3 --pidfd-socket s c1", "create id=c1"),
            ("restore --lsm-profile p --lsm-mount-context m --empty-ns n --parent-path q c1", "restore id=c1"),
            ("checkpoint --image-path I --pre-dump --parent-path P c1", "checkpoint id=c1 image=I pre=yes"),
            ("checkpoint c1 -pre-dump", "checkpoint id=c1 pre=yes"),
            ("checkpoint --pre-dump=false c1", "checkpoint id=c1"),
            ("checkpoint --pre c1", "checkpoint id=c1"),
            ("checkpoint --status-fd 3 --page-server a:1 --manage-cgroups-mode soft c1", "checkpoint id=c1"),
        ],
    );
}

#[test]
fn runc_takes_flags_behind_the_id_but_not_for_exec() {
    assert_all(
        &[Dialect::Runc],
        &[
            ("create c1 --bundle B", "create id=c1 bundle=B"),
            ("create c1 -b=B --no-pivot", "create id=c1 bundle=B"),
            ("run --pid-file P c1 --bundle B -d", "run id=c1 bundle=B"),
            ("checkpoint c1 --image-path I", "checkpoint id=c1 image=I"),
            ("exec c1 --process F", "exec id=c1"),
            ("exec c1 ls --bundle B", "exec id=c1"),
            ("exec -t -e A=B --cwd=/ -u 0 -g 1 -c X --cgroup y c1 -e c2", "exec id=c1"),
            ("exec --additional-gids 1 --apparmor a --cap c --process-label l --preserve-fds 1 c1", "exec id=c1"),
            ("exec -p F -d c1", "exec id=c1"),
            ("exec -- c1 --", "exec id=c1"),
            ("exec -- -c1", "exec id=-c1"),
            ("create -- c1", "create id=c1"),
            // A word behind a switch is moved with it, as if it were its value, and ends the flags.
            ("run -d c1", "run id=c1"),
            ("run -b B -d c1", "run id=c1 bundle=B"),
            ("run -d c1 --bundle B", "run"),
            ("create --no-pivot c1 -b=B", "create"),
            ("create --no-pivot=true c1 -b=B", "create id=c1 bundle=B"),
            ("exec -d c1 --bundle B", "exec id=c1"),
            ("create c1 --", "create id=c1"),
            ("create --bundle B -- c1", "create id=c1 bundle=B"),
            // More or fewer than one: runc refuses.
            ("create", "create"),
            ("create --bundle B", "create"),
            ("create c1 c2", "create"),
            ("create c1 -- c2", "create"),
            ("create c1 -- --bundle B", "create"),
            ("create c1 --help", "create"),
            ("create -h", "create"),
            ("exec", "exec"),
            ("exec -t", "exec"),
        ],
    );
}

#[test]
fn crun_takes_prefixes_and_clusters_and_the_id_ends_the_flags() {
    assert_all(
        &[Dialect::Crun],
        &[
            ("create -b B c1", "create id=c1 bundle=B"),
            ("create -bB c1", "create id=c1 bundle=B"),
            ("create -b/x c1", "create id=c1 bundle=/x"),
            ("create -b=B c1", "create id=c1 bundle==B"),
            ("create -bundle c1", "create id=c1 bundle=undle"),
            ("create --bund B c1", "create id=c1 bundle=B"),
            ("create --bund=B c1", "create id=c1 bundle=B"),
            ("create --pid P --pre 1 --cons S c1", "create id=c1"),
            ("create -f F -b B c1", "create id=c1 bundle=B config=F"),
            ("create -fF c1", "create id=c1 config=F"),
            ("run --conf=F c1", "run id=c1 config=F"),
            ("run -d c1", "run id=c1"),
            ("run -db B c1", "run id=c1 bundle=B"),
            ("run -dbB -f F c1", "run id=c1 bundle=B config=F"),
            ("create c1 --bundle B", "create id=c1"),
            ("run c1 -b B", "run id=c1"),
            ("exec -td c1 ls", "exec id=c1"),
            ("exec -t c1 -b B", "exec id=c1"),
            ("exec -u0 -eA=B -cX -pF c1", "exec id=c1"),
            ("exec -dp F c1", "exec id=c1"),
            ("exec --tty=no --us 0 c1", "exec id=c1"),
            ("exec --proc F --app a --cw / --cg g c1", "exec id=c1"),
            ("exec -- c1 -d", "exec id=c1"),
            // The value of -t is optional.
            ("exec -tu c1 ls", "exec id=c1"),
            ("exec -ut c1 ls", "exec id=c1"),
            ("exec -dt c1 ls", "exec id=c1"),
            // A prefix of a flag that only runc has.
            ("checkpoint --e c1", "checkpoint id=c1"),
            ("checkpoint --pre-dump --image-path I c1", "checkpoint id=c1 image=I pre=yes"),
            ("checkpoint --pr c1", "checkpoint id=c1 pre=yes"),
            ("checkpoint --p x c1", "checkpoint id=c1"),
            ("checkpoint c1 --pre-dump", "checkpoint id=c1"),
            ("checkpoint --s c1", "checkpoint id=c1"),
            ("restore --e -b B c1", "restore id=c1 bundle=B"),
            ("create --he c1", "create"),
            ("create --usa c1", "create"),
            ("create -- -c1", "create id=-c1"),
            ("create -b -- c1", "create id=c1 bundle=--"),
            ("create -", "create id=-"),
            ("restore -d --image I -bB --net nftables --lsm-p p --lsm-m m c1", "restore id=c1 bundle=B image=I"),
            ("checkpoint --image-path=I --network-lock skip --leave --man soft c1", "checkpoint id=c1 image=I"),
            ("create --help c1", "create"),
            ("create --usage c1", "create"),
            ("create -? c1", "create"),
            ("create", "create"),
            ("create -b", "create"),
        ],
    );
}

#[test]
fn bytes_that_are_no_text_stay_as_they_are() {
    for dialect in BOTH {
        for (args, wanted) in [
            (
                &[&b"--root=\xff"[..], b"create", b"--bundle", b"/\xfe", b"c1"][..],
                r"create root=\xff id=c1 bundle=/\xfe",
            ),
            (&[b"--log", b"\xff=\xff", b"exec", b"\x80"], r"exec log=\xff=\xff id=\x80"),
            (&[b"--\xff", b"create", b"--\xfe=\xfd", b"c1"], "create id=c1"),
            (&[b"create\xff", b"c1"], "other"),
            (&[b"create", b""], "create id="),
            (&[b"", b"create"], "other"),
            (&[], "other"),
        ] {
            assert_eq!(read(dialect, args), wanted, "{dialect:?}");
        }
    }
}

#[test]
fn the_files_that_a_call_names_are_found_in_every_form() {
    let files = |dialect, call: &str| {
        let owned: Vec<CString> = call.split(' ').map(|word| CString::new(word).unwrap()).collect();
        let borrowed: Vec<&CStr> = owned.iter().map(CString::as_c_str).collect();
        let files = Invocation::parse(&borrowed).operands(dialect).files;
        files.iter().map(|file| file.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    };
    for dialect in BOTH {
        assert_eq!(files(dialect, "shim exec --process F --console-socket S -d --pid-file=P c1"), "F S P");
        assert_eq!(files(dialect, "shim exec -p F c1 --pid-file P"), "F");
        assert_eq!(files(dialect, "shim exec --cwd F c1"), "");
    }
    assert_eq!(files(Dialect::Runc, "shim exec -process F -pid-file=P c1"), "F P");
    assert_eq!(files(Dialect::Crun, "shim exec --proc F -dpG c1"), "F G");
}
