// SPDX-License-Identifier: Apache-2.0
//! Which runtime the shim hands over to, and that this ends, whatever calls what.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{CRUN, Outcome, RUNC_1_3, SHIM, World, copy_program};

/// A build of the shim that is not this one.
fn other_build(world: &World, name: &str) -> PathBuf {
    let path = world.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    copy_program(Path::new(SHIM), &path);
    // In no segment, and so without effect.
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(name.as_bytes()).unwrap();
    path
}

fn settings(world: &World, text: &str) {
    fs::write(world.path("etc/tns-shim/config.toml"), text).unwrap();
}

fn settings_name(world: &World, runtime: &str) {
    settings(world, &format!("runtime = \"{}\"\n", world.path(runtime).display()));
}

/// The runtime's own path, as the runtime sees it.
#[track_caller]
fn became(outcome: &Outcome) -> PathBuf {
    let argv0 = outcome.assert_quiet_success().bytes("argv0").remove(0);
    String::from_utf8(argv0).unwrap().into()
}

#[test]
fn two_builds_of_the_shim_by_the_runtime_s_name_hand_over_to_the_runtime() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let one = other_build(&world, "old/runc");
    other_build(&world, "new/runc");
    let path = ["old", "new", "bin"].map(|name| world.path(name).to_str().unwrap().to_owned()).join(":");
    for program in [Path::new(SHIM), &one] {
        let call = world.shim(["state", "c1"]).program(program).called("runc").env(format!("PATH={path}"));
        assert_eq!(became(&call.go()), world.runtime());
    }
    // Nor does it take another build for what the settings name.
    settings_name(&world, "new/runc");
    let refused = world.shim(["state", "c1"]).called("tns-shim").go().assert_refused();
    assert!(refused.contains("new/runc, is tns-shim itself"), "{refused}");
}

#[test]
fn a_runtime_that_becomes_the_shim_again_is_an_error_that_names_the_way() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    fs::rename(world.runtime(), world.path("bin/decorator")).unwrap();
    let shim = world.path("bin/tns-shim");
    copy_program(Path::new(SHIM), &shim);
    fs::write(world.path("bin/decorator.becomes"), shim.to_str().unwrap()).unwrap();
    settings_name(&world, "bin/decorator");
    for call in ["state c1", "create c1", "features", "--version"] {
        let outcome = world.shim(call.split(' ')).called("tns-shim").go();
        let said = outcome.assert_refused();
        assert!(
            said.contains("the runtime to wrap hands over to tns-shim itself, again and again ("),
            "{call}: {said}"
        );
        assert!(said.contains("bin/decorator, then ") && !said.contains("TNS_"), "{call}: {said}");
    }
}

#[test]
fn a_script_that_calls_the_shim_again_is_an_error_that_names_the_way() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    // It waits for the shim, so that each is a new process, and the error is heard through all of them.
    fs::write(world.runtime(), format!("#!/bin/sh\n{SHIM} \"$@\"\n")).unwrap();
    fs::set_permissions(world.runtime(), fs::Permissions::from_mode(0o755)).unwrap();
    for call in ["state c1", "create c1"] {
        let said = world.shim(call.split(' ')).called("tns-shim").go().assert_refused();
        assert!(said.contains("bin/runc, then "), "{call}: {said}");
    }
}

#[test]
fn a_decorator_that_calls_the_shim_by_the_runtime_s_name_is_none_of_that() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    copy_program(&world.runtime(), &world.path("bin/decorator"));
    let shim = world.path("other/runc");
    fs::create_dir(world.path("other")).unwrap();
    copy_program(Path::new(SHIM), &shim);
    fs::write(world.path("bin/decorator.becomes"), shim.to_str().unwrap()).unwrap();
    settings_name(&world, "bin/decorator");
    for call in ["state c1", "create c1", "features"] {
        let outcome = world.shim(call.split(' ')).called("tns-shim").go();
        assert!(outcome.status.success(), "{call}: {}", outcome.stderr());
    }
}

#[test]
fn the_name_says_which_runtime_and_the_setting_where_it_is() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    world.install(CRUN);
    let state = |name: &str| world.shim(["state", "c1"]).called(name).go();
    fs::create_dir(world.path("real")).unwrap();
    for (from, to) in [("runc", "real/runc.real"), ("runc", "real/oci"), ("crun", "real/crun")] {
        copy_program(&world.path("bin").join(from), &world.path(to));
    }
    for name in ["oci.version", "oci.features"] {
        fs::copy(world.path("bin").join(name.replace("oci", "runc")), world.path("real").join(name)).unwrap();
    }
    // With a setting of that name; of another name; and of none, which is not asked while there is one of that name.
    for (setting, called, wanted) in [
        ("real/runc.real", "runc", "real/runc.real"),
        ("real/runc.real", "tns-shim-runc", "real/runc.real"),
        ("real/runc.real", "crun", "bin/crun"),
        ("real/crun", "runc", "bin/runc"),
        ("real/oci", "runc", "bin/runc"),
        ("real/oci", "tns-shim", "real/oci"),
    ] {
        settings_name(&world, setting);
        drop(fs::remove_file(world.path("real/report")));
        let outcome = state(called);
        assert!(outcome.status.success(), "{setting} {called}: {}", outcome.stderr());
        let report = if wanted.starts_with("real") { "real/report" } else { "bin/report" };
        let text = fs::read_to_string(world.path(report)).unwrap();
        let argv0 = text.lines().find_map(|line| line.strip_prefix("argv0 ")).unwrap();
        let wanted: Vec<_> = world.path(wanted).to_str().unwrap().bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(argv0, wanted.concat(), "{setting} {called}");
    }
    // Diverted: the shim is the only one of that name.
    fs::remove_file(world.runtime()).unwrap();
    for setting in ["real/runc.real", "real/oci"] {
        settings_name(&world, setting);
        let outcome = state("runc");
        assert!(outcome.status.success(), "{setting}: {}", outcome.stderr());
    }
    settings_name(&world, "real/crun");
    let said = state("runc").assert_refused();
    assert!(said.contains("there is no runc in PATH") && said.contains("real/crun, is no runc either"), "{said}");
    settings(&world, "");
    let said = state("runc").assert_refused();
    assert!(
        said.contains("where it is can be said by `runtime` in ") && said.contains("tns-shim/config.toml"),
        "{said}"
    );
}

#[test]
fn of_a_program_that_cannot_be_read_it_is_known_whether_it_is_this_one() {
    let Some(world) = World::as_root(RUNC_1_3, "lose the right to read everything") else { return };
    let own = world.path("own/runc");
    fs::create_dir(world.path("own")).unwrap();
    copy_program(Path::new(SHIM), &own);
    // As some systems install programs with rights of their own.
    let execute_only = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o111)).unwrap();
    execute_only(&own);
    execute_only(&world.runtime());
    let own = own.to_str().unwrap();
    let without_rights = world
        .shim(["--bounding-set", "-dac_override,-dac_read_search", own, "state", "c1"])
        .program(Path::new("/usr/bin/setpriv"))
        .env(format!("PATH={}:{}", world.path("own").display(), world.path("bin").display()));
    assert_eq!(became(&without_rights.go()), world.runtime());
}

#[test]
fn no_program_is_taken_from_the_working_folder() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let ran = world.path("ran");
    for name in ["criu", "runc"] {
        let planted = world.path("bundle").join(name);
        fs::write(&planted, format!("#!/bin/sh\n: >{}\n", ran.display())).unwrap();
        fs::set_permissions(&planted, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let tnsctl = Path::new(env!("CARGO_BIN_EXE_tnsctl"));
    for entries in ["", ".", "bundle/.."] {
        let path = format!("PATH={entries}:{}", world.path("bin").display());
        let doctor =
            world.shim(["doctor"]).called("tnsctl").program(tnsctl).in_folder(world.path("bundle")).env(&path).go();
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(said.contains(world.runtime().to_str().unwrap()), "{said} {}", doctor.stderr());
        let called = world.shim(["state", "c1"]).called("runc").in_folder(world.path("bundle")).env(&path);
        assert_eq!(became(&called.go()), world.runtime());
    }
    assert!(!ran.exists());
}
