// SPDX-License-Identifier: Apache-2.0
//! config.json in the caller's bundle: only the bytes that have to differ do, and a file that stays is not written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use common::{CRUN, RUNC_1_1, RUNC_1_3, Role, World, own_time_namespace, step};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const ADDED: &str = r#",{"type":"time"}"#;
/// `@` is where the declaration comes.
const PLAIN: &str = r#"{"linux":{"namespaces":[{"type":"pid"}@]}}"#;

fn without(template: &str) -> String {
    template.replace('@', "")
}

fn with(template: &str) -> String {
    template.replace('@', ADDED)
}

/// What changes when a file is replaced or written to.
fn identity(path: &Path) -> (u64, i64, i64) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_declaration_is_all_that_comes_into_a_file_of_any_shape() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let templates = [
        PLAIN.to_owned(),
        format!("{PLAIN}\n"),
        PLAIN.replace(':', " : \t").replace(',', " ,\r\n"),
        "{\r\n\t\"linux\": {\r\n\t\t\"namespaces\": [\r\n\t\t\t{\"type\": \"pid\"}@\r\n\t\t]\r\n\t}\r\n}\r\n".to_owned(),
        format!("{PLAIN} trailing garbage {{\"linux\":"),
        r#"{"big":123456789012345678901234567890,"huge":1e400,"tiny":-0.0,"linux":{"namespaces":[{"type":"pid"}@]}}"#.to_owned(),
        r#"{"lone":"\ud800","escaped":"\u0041\/","linux":{"namespaces":[{"type":"pid"}@],"unknown":{"a":[null]}},"x":1}"#.to_owned(),
        r#"{"x":1,"x":2,"Process":null,"linux":{"intelRdt":{"enableCMT":true},"namespaces":[{"type":"pid"},{"type":"new"}@]}}"#.to_owned(),
        r#"{"hooks":{"linux":{"namespaces":[]}},"l\u0069nux":{"namespaces":[{"type":"pid"}@]}}"#.to_owned(),
        format!(r#"{{"deep":{deep},"linux":{{"namespaces":[{{"type":"network","path":"/n"}}@]}}}}"#),
        format!(r#"{{"long":"{}","linux":{{"namespaces":[{{"type":"pid"}}@]}}}}"#, "é".repeat(300_000)),
    ];
    let Some(world) = World::new(RUNC_1_3) else { return };
    for template in templates {
        let start: String = template.chars().take(200).collect();
        world.write_config(without(&template));
        world.create().go().assert_quiet_success();
        assert!(fs::read(world.config()).unwrap() == with(&template).into_bytes(), "{start}");
        let before = identity(&world.config());
        world.create().go().assert_quiet_success();
        assert_eq!(identity(&world.config()), before, "declared already: {start}");
    }
}

#[test]
fn an_old_runc_gets_the_time_namespace_instead_of_its_declaration() {
    let Some(world) = World::with_time_namespaces(RUNC_1_1) else { return };
    for (declared, left) in [
        (r#"{"linux":{"namespaces":[{"type":"pid"}, {"type":"time"} ],"n":1e400}} x"#, r#"[{"type":"pid"} ]"#),
        (r#"{"linux":{"namespaces":[{"type":"time"}, {"type":"pid"}],"n":1e400}} x"#, r#"[{"type":"pid"}]"#),
        (r#"{"linux":{"namespaces":[{"type":"time","path":""}],"n":1e400}} x"#, "[]"),
    ] {
        world.write_config(declared);
        let outcome = world.create().go();
        assert_ne!(outcome.assert_quiet_success().time_namespace(), own_time_namespace());
        let wanted = format!(r#"{{"linux":{{"namespaces":{left},"n":1e400}}}} x"#);
        assert_eq!(fs::read_to_string(world.config()).unwrap(), wanted);
    }
}

#[test]
fn mode_and_owner_stay_and_the_file_is_replaced_whole() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    for mode in [0o640, 0o600, 0o644, 0o4755] {
        world.write_config(without(PLAIN));
        fs::set_permissions(world.config(), fs::Permissions::from_mode(mode)).unwrap();
        let reader = File::open(world.config()).unwrap();
        let before = identity(&world.config());
        world.create().go().assert_quiet_success();
        let after = fs::metadata(world.config()).unwrap();
        assert_eq!(after.mode() & 0o7777, mode);
        assert_ne!(after.ino(), before.0, "written into the old file, which somebody may be reading");
        assert_eq!(std::io::read_to_string(reader).unwrap(), without(PLAIN));
        assert_eq!(names(&world.path("bundle")), ["config.json"], "no temporary file is left");
        fs::remove_file(world.config()).unwrap();
    }
}

#[test]
fn a_config_of_another_owner_stays_theirs() {
    let Some(world) = World::as_root(RUNC_1_3, "give a file to another user") else { return };
    world.write_config(without(PLAIN));
    chown(world.config(), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(world.config(), fs::Permissions::from_mode(0o640)).unwrap();
    world.create().go().assert_quiet_success();
    let after = fs::metadata(world.config()).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode() & 0o7777), (1234, 4321, 0o640));
    assert_eq!(fs::read_to_string(world.config()).unwrap(), with(PLAIN));
}

/// An ACL as the kernel takes it: read by one more user, and for the group what is given here, below a mask of that and of reading.
fn acl(group: u16) -> Vec<u8> {
    const ANYBODY: u32 = u32::MAX;
    let entries = [(1, 6, ANYBODY), (2, 4, 1234), (4, group, ANYBODY), (0x10, group | 4, ANYBODY), (0x20, 0, ANYBODY)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(permissions));
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

fn acl_of(path: &Path) -> Option<Vec<u8>> {
    let mut found = Vec::with_capacity(4096);
    let buffer = rustix::buffer::spare_capacity(&mut found);
    rustix::fs::getxattr(path, "system.posix_acl_access", buffer).ok().map(|_| found)
}

#[test]
fn who_could_not_read_or_write_cannot_afterwards_where_there_are_acls() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let set = |path: &Path, kind, acl: &[u8]| rustix::fs::setxattr(path, kind, acl, rustix::fs::XattrFlags::empty());
    world.write_config(without(PLAIN));
    if set(&world.config(), "system.posix_acl_access", &acl(0)) == Err(rustix::io::Errno::OPNOTSUPP) {
        common::skip::<()>("the file system of temporary files has no ACLs");
        return;
    }
    for group in [0, 2, 4, 6] {
        set(&world.config(), "system.posix_acl_access", &acl(group)).unwrap();
        let mode = fs::metadata(world.config()).unwrap().mode();
        world.create().go().assert_quiet_success();
        assert_eq!(acl_of(&world.config()), Some(acl(group)));
        assert_eq!(fs::metadata(world.config()).unwrap().mode(), mode);
        fs::remove_file(world.config()).unwrap();
        world.write_config(without(PLAIN));
    }
    // A file without one, in a folder that gives every new file one.
    set(&world.path("bundle"), "system.posix_acl_default", &acl(4)).unwrap();
    fs::set_permissions(world.config(), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(acl_of(&world.config()), None);
    world.create().go().assert_quiet_success();
    assert_eq!(acl_of(&world.config()), None);
    assert_eq!(fs::metadata(world.config()).unwrap().mode() & 0o7777, 0o640);
}

/// Right before the program: as root of a user namespace that has this user's own number and group and no others.
fn in_a_user_namespace() -> std::io::Result<()> {
    let map = format!("0 {} 1", nix::unistd::geteuid());
    let groups = format!("0 {} 1", nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", map)?;
    fs::write("/proc/self/gid_map", groups)
}

#[test]
fn a_group_that_a_user_namespace_has_not_is_left_out_and_nobody_can_do_more() {
    if common::is_emulated(common::TWO_THREADS) {
        return;
    }
    let Some(world) = World::as_root(RUNC_1_3, "give a file to another group") else { return };
    for (before, after) in [(0o640, 0o600), (0o644, 0o644), (0o664, 0o644), (0o604, 0o600)] {
        world.write_config(without(PLAIN));
        chown(world.config(), None, Some(4321)).unwrap();
        fs::set_permissions(world.config(), fs::Permissions::from_mode(before)).unwrap();
        world.create().step(in_a_user_namespace).go().assert_quiet_success();
        let now = fs::metadata(world.config()).unwrap();
        assert_eq!((now.uid(), now.gid(), now.mode() & 0o7777), (0, 0, after), "{before:o}");
        assert_eq!(fs::read_to_string(world.config()).unwrap(), with(PLAIN), "{before:o}");
    }
    // An owner is who may change it: that is not given away.
    world.write_config(without(PLAIN));
    chown(world.config(), Some(1234), None).unwrap();
    let before = identity(&world.config());
    world.create().step(in_a_user_namespace).go().assert_quiet_success();
    assert_eq!(identity(&world.config()), before);
    assert_eq!(names(&world.path("bundle")), ["config.json"]);
}

#[test]
fn what_a_killed_call_has_left_goes_with_the_next_change() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    fs::create_dir_all(world.memory()).unwrap();
    fs::set_permissions(world.memory(), fs::Permissions::from_mode(0o700)).unwrap();
    world.write_config(without(PLAIN));
    world.create().go().assert_quiet_success();
    let [remembered] = &*names(&world.memory()) else { panic!("one file is remembered") };
    for (folder, name) in [(world.path("bundle"), "config.json"), (world.memory(), remembered)] {
        fs::remove_file(folder.join(name)).unwrap();
        fs::write(folder.join(format!(".{name}.tns-shim-{}-abcdef", ended.id())), "half").unwrap();
    }
    world.write_config(without(PLAIN));
    world.create().go().assert_quiet_success();
    assert_eq!(names(&world.path("bundle")), ["config.json"]);
    assert_eq!(names(&world.memory()), [remembered.as_str()]);
}

/// What the file is, and how it is made.
type Planted<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn whatever_is_in_the_place_of_a_config_the_runtime_is_run_as_without_the_shim() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let text = without(PLAIN);
    let sparse = |path: &Path| File::create(path).unwrap().set_len(1 << 30).unwrap();
    let planted: [Planted<'_>; 8] = [
        ("nothing", &|_| {}),
        ("a FIFO", &|path| mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap()),
        ("a folder", &|path| fs::create_dir(path).unwrap()),
        ("a link to a device", &|path| symlink("/dev/zero", path).unwrap()),
        ("a link to itself", &|path| symlink("config.json", path).unwrap()),
        ("a gigabyte of nothing", &sparse),
        ("a byte order mark", &|path| fs::write(path, format!("\u{feff}{text}")).unwrap()),
        ("another encoding", &|path| {
            fs::write(path, text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap();
        }),
    ];
    for (what, plant) in planted {
        plant(&world.config());
        let before = fs::symlink_metadata(world.config()).map(|file| (file.ino(), file.len(), file.mtime_nsec())).ok();
        world.assert_same(&["create", "c1"], true, |run| run.step(little_memory));
        let after = fs::symlink_metadata(world.config()).map(|file| (file.ino(), file.len(), file.mtime_nsec())).ok();
        assert_eq!(after, before, "{what}");
        assert!(names(&world.path("bundle")).len() <= 1, "{what}");
        drop(fs::remove_file(world.config()).or_else(|_| fs::remove_dir(world.config())));
    }
    // As deep as runc takes it, and crun deeper: no stack is needed for what is skipped.
    let deep = format!(r#"{{"deep":{}1{},"linux":{{"namespaces":[@]}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    world.write_config(without(&deep));
    world.create().step(little_memory).go().assert_quiet_success();
    assert!(fs::read_to_string(world.config()).unwrap() == deep.replace('@', r#"{"type":"time"}"#));
}

/// 256 MiB, and a small stack.
fn little_memory() -> std::io::Result<()> {
    setrlimit(Resource::RLIMIT_AS, 256 << 20, 256 << 20)?;
    setrlimit(Resource::RLIMIT_STACK, 1 << 20, 1 << 20)?;
    Ok(())
}

#[test]
fn what_parsers_read_differently_or_cannot_read_is_left_alone() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    let texts: [&[u8]; 17] = [
        br#"{"linux":{"namespaces":[]},"linux":{"namespaces":[]}}"#,
        br#"{"linux":null,"linux":{"namespaces":[]}}"#,
        br#"{"Linux":{"namespaces":[]}}"#,
        br#"{"linux":{"namespaces":[],"Namespaces":[]}}"#,
        br#"{"linux":{"NAMESPACES":[]}}"#,
        br#"{"linux":{"namespaces":[],"timeoffsets":{}}}"#,
        br#"{"linux":{"namespaces":[{"type":"pid","Type":"time"}]}}"#,
        br#"{"linux":{"namespaces":[{"type":"time"},{"type":"time"}]}}"#,
        br#"{"linux":{"namespaces":[{"path":"/x"}]}}"#,
        br#"{"linux":{"namespaces":{}}}"#,
        br#"{"linux":{"namespaces":null}}"#,
        br#"{"linux":{}}"#,
        br#"{"linux":[]}"#,
        b"{\"\xff\":1,\"linux\":{\"namespaces\":[]}}",
        b"{\"linux\":{\"namespaces\":[{\"type\":\"pid\"}",
        b"[]",
        b"",
    ];
    for text in texts {
        world.write_config(text);
        let before = identity(&world.config());
        let outcome = world.create().go();
        let report = outcome.assert_quiet_success();
        assert_eq!(report.time_namespace(), own_time_namespace());
        assert_eq!(identity(&world.config()), before, "{}", String::from_utf8_lossy(text));
        assert_eq!(fs::read(world.config()).unwrap(), text);
    }
}

#[test]
fn a_linked_config_is_not_replaced_and_the_runtime_is_still_run() {
    let Some(world) = World::with_time_namespaces(RUNC_1_3) else { return };
    let target = world.path("shared.json");
    fs::write(&target, without(PLAIN)).unwrap();
    symlink(&target, world.config()).unwrap();
    let before = (identity(&target), identity(&world.config()));
    let outcome = world.create().go();
    assert_ne!(outcome.assert_quiet_success().time_namespace(), own_time_namespace(), "then the shim makes it");
    assert_eq!((identity(&target), identity(&world.config())), before);
    assert_eq!(fs::read_to_string(&target).unwrap(), without(PLAIN));
    assert_eq!(names(&world.path("bundle")), ["config.json"]);
}

#[test]
fn a_read_only_bundle_is_no_obstacle() {
    let Some(world) = World::with_time_namespaces(RUNC_1_3) else { return };
    world.write_config(without(PLAIN));
    let before = identity(&world.config());
    let outcome = world.create().read_only(world.path("bundle")).go();
    assert_ne!(outcome.assert_quiet_success().time_namespace(), own_time_namespace(), "then the shim makes it");
    assert_eq!(identity(&world.config()), before);
    assert_eq!(names(&world.path("bundle")), ["config.json"]);
    // Declared already: nothing has to be written.
    world.write_config(with(PLAIN));
    let outcome = world.create().read_only(world.path("bundle")).go();
    assert_eq!(outcome.assert_quiet_success().time_namespace(), own_time_namespace());
}

#[test]
fn a_runtime_that_cannot_make_what_is_declared_is_not_given_it() {
    // (what it says of itself, config.json, what becomes of it)
    for (version, lists_time, declared, left) in [
        ("kata-runtime  : 3.20.0\n", false, with(PLAIN), without(PLAIN)),
        ("youki version 0.5.7\n", true, with(PLAIN), without(PLAIN)),
        // It may know more than it says.
        ("runsc version release-20260101.0\n", false, without(PLAIN), without(PLAIN)),
        ("new-runtime version 1\n", true, with(PLAIN), with(PLAIN)),
        ("new-runtime version 1\n", true, without(PLAIN), with(PLAIN)),
    ] {
        let Some(world) = World::new(Role { name: "runc", version, lists_time }) else { return };
        world.write_config(&declared);
        world.create().go().assert_quiet_success();
        assert_eq!(fs::read_to_string(world.config()).unwrap(), left, "{version}");
    }
    // What it cannot be spared, it is left to judge.
    let Some(world) = World::as_root(Role { version: "kata-runtime\n", ..RUNC_1_1 }, "make a folder read-only") else {
        return;
    };
    world.write_config(with(PLAIN));
    world.create().read_only(world.path("bundle")).go().assert_quiet_success();
    assert_eq!(fs::read_to_string(world.config()).unwrap(), with(PLAIN));
}

#[test]
fn nothing_is_declared_where_a_filter_denies_time_namespaces() {
    const CAP_SYS_ADMIN: i32 = 21;
    if common::is_emulated(common::NO_FILTERS) {
        return;
    }
    let Some(world) = World::new(RUNC_1_3) else { return };
    let users = World::with_time_namespaces(RUNC_1_3).is_some();
    for error in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
        // Also where the runtime would make a user namespace for it, as for a user without rights.
        for drops in [false, true] {
            for (before, after) in [(without(PLAIN), without(PLAIN)), (with(PLAIN), without(PLAIN))] {
                world.write_config(before);
                let outcome = world.create().step(step::deny_time_namespaces(error)).step(move || {
                    if drops && nix::unistd::geteuid().is_root() {
                        step::drop_capability(CAP_SYS_ADMIN)
                    } else {
                        Ok(())
                    }
                });
                outcome.go().assert_quiet_success();
                assert_eq!(fs::read_to_string(world.config()).unwrap(), after, "{error} {drops}");
            }
        }
    }
    if users {
        world.write_config(without(PLAIN));
        world.create().step(|| step::drop_capability(CAP_SYS_ADMIN)).go().assert_quiet_success();
        assert_eq!(
            fs::read_to_string(world.config()).unwrap(),
            with(PLAIN),
            "the runtime makes it in a user namespace"
        );
    }
    world.write_config(without(PLAIN).replacen('{', r#"{"annotations":{"org.tns-shim.mode":"private"},"#, 1));
    let refused = world.create().step(step::deny_time_namespaces(libc::EPERM)).go().assert_refused();
    assert!(refused.contains("private") && refused.contains("a seccomp filter"), "{refused}");
}

#[test]
fn crun_is_not_given_a_time_namespace_that_brings_a_pid_namespace() {
    let Some(world) = World::with_time_namespaces(CRUN) else { return };
    let entry = r#"{"type":"time"}"#;
    // (what linux.namespaces lists, what of it is left, whether the shim makes the time namespace)
    for (listed, left, made) in [
        (r#"{"type":"pid"}"#.to_owned(), format!(r#"{{"type":"pid"}},{entry}"#), false),
        (r#"{"type":"mount"}"#.to_owned(), r#"{"type":"mount"}"#.to_owned(), true),
        (format!(r#"{{"type":"mount"}},{entry}"#), r#"{"type":"mount"}"#.to_owned(), true),
        (r#"{"type":"pid","path":"/p"}"#.to_owned(), r#"{"type":"pid","path":"/p"}"#.to_owned(), true),
        (String::new(), String::new(), true),
    ] {
        let config = |list: &str| format!(r#"{{"linux":{{"namespaces":[{list}]}}}}"#);
        world.write_config(config(&listed));
        let outcome = world.create().go();
        assert_eq!(outcome.assert_quiet_success().time_namespace() != own_time_namespace(), made, "{listed}");
        assert_eq!(fs::read_to_string(world.config()).unwrap(), config(&left), "{listed}");
    }
}

#[test]
fn the_config_is_found_where_the_runtime_looks_for_it() {
    let other = "other/config.json";
    // (the runtime, its arguments, the file that is changed); relative to the working folder, which is `bundle`.
    for (role, args, changed) in [
        (RUNC_1_3, &["create", "c1"][..], "bundle/config.json"),
        (RUNC_1_3, &["create", "--bundle", "../other", "c1"], other),
        (RUNC_1_3, &["create", "c1", "--bundle=../other"], other),
        (RUNC_1_3, &["run", "-b", "../other", "c1"], other),
        (RUNC_1_3, &["restore", "-bundle", "../other", "c1"], other),
        (RUNC_1_3, &["create", "--bundle", "../elsewhere", "--bundle", "../other", "c1"], other),
        (RUNC_1_3, &["create", "--bundle", "../other", "create"], other),
        (CRUN, &["create", "-b../other", "c1"], other),
        (CRUN, &["run", "-db", "../other", "c1"], other),
        (CRUN, &["run", "--bund", "../other", "c1"], other),
        (CRUN, &["create", "--config", "../named.json", "c1"], "named.json"),
        (CRUN, &["create", "-f", "../named.json", "-b", "../other", "c1"], "named.json"),
        (CRUN, &["run", "-f../named.json", "c1"], "named.json"),
        (CRUN, &["create", "--config=config.json", "-b", "../other", "c1"], other),
        (CRUN, &["restore", "-d", "-b", "../other", "c1"], other),
    ] {
        let Some(world) = World::new(role) else { return };
        let files = ["bundle/config.json", other, "elsewhere/config.json", "named.json"];
        for file in files {
            fs::create_dir_all(world.path(file).parent().unwrap()).unwrap();
            fs::write(world.path(file), without(PLAIN)).unwrap();
        }
        world.shim(args).go().assert_quiet_success();
        for file in files {
            let wanted = if file == changed { with(PLAIN) } else { without(PLAIN) };
            assert_eq!(fs::read_to_string(world.path(file)).unwrap(), wanted, "{args:?}: {file}");
        }
    }
}

#[test]
fn no_other_command_changes_a_config() {
    let Some(world) = World::new(RUNC_1_3) else { return };
    world.write_config(without(PLAIN));
    let before = identity(&world.config());
    for call in [
        "state create",
        "start run",
        "delete c1",
        "exec c1 create",
        "create",
        "create --help c1",
        "--help run c1",
        "spec",
        "create a b",
    ] {
        world.shim(call.split(' ')).go().assert_quiet_success();
        assert_eq!(identity(&world.config()), before, "{call}");
    }
}
