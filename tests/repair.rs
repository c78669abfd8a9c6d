// SPDX-License-Identifier: Apache-2.0
//! Repaired folders: which originals are put back, what others may have planted there, in which order things reach the disk,
//! and copies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/handmade.rs"]
mod handmade;
#[path = "common/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use handmade::*;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tns_shim::clocks::Here;
use tns_shim::criu::images::{Folder, Images};
use tns_shim::criu::{host_time, originals, repair};

fn mend(folder: &Folder) -> anyhow::Result<Vec<u32>> {
    let images = Images::read(folder)?;
    let moves = repair::plan(&images, folder, Here::look()?)?;
    originals::apply(&images, folder, moves.iter().map(|one| &one.edit))?;
    Ok(moves.iter().map(|one| one.pid).collect())
}

fn undo(folder: &Folder) -> anyhow::Result<Vec<String>> {
    originals::undo(folder, &Images::read(folder)?, false)
}

fn put(folder: &Folder, name: &str, bytes: Vec<u8>) {
    fs::write(folder.path(name), bytes).unwrap();
}

/// What every file holds; of pipes and links only that they are there.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let bytes = if entry.file_type().unwrap().is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            (entry.file_name().into_string().unwrap(), bytes)
        })
        .collect()
}

/// So many seconds after what is there by now.
fn written_later(folder: &Folder, name: &str, seconds: u64) {
    let file = File::options().write(true).open(folder.path(name)).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
}

/// The first release told only by the inventory which checkpoint the originals are of.
fn as_the_first_release(folder: &Folder) {
    fs::remove_file(folder.path("clocks.tns-orig")).unwrap();
}

#[test]
fn originals_of_an_earlier_checkpoint_are_never_put_back_even_if_the_inventories_are_equal() {
    for first_release in [false, true] {
        let (_temporary, folder) = mixed();
        put(&folder, "inventory.img", plain_inventory());
        assert_eq!(mend(&folder).unwrap(), [7, 300]);
        if first_release {
            as_the_first_release(&folder);
        }
        // A healthy one. Its files could be taken for repaired ones.
        for (name, bytes) in [
            ("inventory.img", plain_inventory()),
            ("pstree.img", pstree(&[(1, 0), (7, 1), (300, 7), (9, 1)])),
            ("ids-1.img", ids(13)),
            ("ids-7.img", ids(13)),
            ("ids-300.img", ids(13)),
            ("timens-13.img", timens((100, 6), (201, 0))),
        ] {
            put(&folder, name, bytes);
            written_later(&folder, name, 5);
        }
        let before = contents(&folder.0);
        let error = undo(&folder).unwrap_err().to_string();
        assert!(error.contains("of another checkpoint"), "{error}");
        assert_eq!(contents(&folder.0), before);

        // One that is mixed has originals of its own.
        put(&folder, "ids-7.img", ids(5));
        put(&folder, "timens-13.img", timens((100, 7), (202, 0)));
        assert_eq!(mend(&folder).unwrap(), [7]);
        assert_eq!(undo(&folder).unwrap(), ["ids-7.img"]);
        assert_eq!(fs::read(folder.path("ids-300.img")).unwrap(), ids(13));
        assert!(!folder.path("clocks.tns-orig").exists());
    }
}

#[test]
fn originals_of_the_first_release_are_understood() {
    // CRIU's run or the time in the inventory; or else that they are not older than the checkpoint.
    for (inventory, later) in [(inventory(2), true), (plain_inventory(), false)] {
        let (_temporary, folder) = mixed();
        put(&folder, "inventory.img", inventory);
        let before = contents(&folder.0);
        mend(&folder).unwrap();
        as_the_first_release(&folder);
        if later {
            written_later(&folder, "pstree.img", 5);
        }
        assert_eq!(undo(&folder).unwrap(), ["ids-300.img", "ids-7.img"]);
        assert_eq!(contents(&folder.0), before);
    }
}

/// An image that the first release holds on the host's time, and what it was.
fn held(own_number: bool) -> (tempfile::TempDir, Folder, BTreeMap<String, Vec<u8>>) {
    let (temporary, folder) = mixed();
    put(&folder, "inventory.img", plain_inventory());
    if !own_number {
        put(&folder, "ids-1.img", ids(5));
        fs::rename(folder.path("timens-13.img"), folder.path("timens-0.img")).unwrap();
    }
    let before = contents(&folder.0);
    let images = Images::read(&folder).unwrap();
    originals::apply(&images, &folder, &host_time::plan(&images, &folder).unwrap()).unwrap();
    as_the_first_release(&folder);
    // Copied without its times.
    written_later(&folder, "pstree.img", 5);
    (temporary, folder, before)
}

#[test]
fn an_image_that_the_first_release_holds_is_seen_as_it_was_made_and_let_go() {
    for (own_number, left_over) in [(true, false), (false, false), (true, true)] {
        let (_temporary, folder, before) = held(own_number);
        if left_over {
            put(&folder, "clocks.tns-orig", timens((1, 1), (2, 2)));
        }
        let there = contents(&folder.0);
        let (seen, images) = host_time::let_go(&folder).unwrap();
        assert_eq!(images.first().time(), Some(if own_number { 13 } else { 5 }));
        let (clocks, _) = images.clocks(&seen).unwrap().expect("it has its clocks");
        assert_eq!(clocks.monotonic_ns.0, 100_000_000_005);
        assert_eq!(contents(&folder.0), there, "only looked at");
        assert_eq!(undo(&folder).unwrap(), [if own_number { "ids-1.img" } else { "timens-0.img" }]);
        assert_eq!(contents(&folder.0), before);
    }
}

#[test]
fn an_image_without_clocks_is_held_only_by_what_is_kept_of_them() {
    let (_temporary, folder, _) = held(false);
    let is_held = || host_time::is_held(&Images::read(&folder).unwrap(), &folder).unwrap();
    assert!(is_held());
    for name in contents(&folder.0).into_keys().filter(|name| originals::changed(name).is_some()) {
        fs::remove_file(folder.path(&name)).unwrap();
    }
    assert!(folder.path("inventory.img.tns-orig").exists() && !is_held());
}

#[test]
fn a_held_image_whose_originals_are_not_to_be_used_is_never_taken_for_a_whole_one() {
    let (_temporary, folder, _) = held(true);
    fs::remove_file(folder.path("ids-1.img.tns-orig")).unwrap();
    mkfifo(&folder.path("ids-1.img.tns-orig"), Mode::S_IRWXU).unwrap();
    let error = host_time::let_go(&folder).unwrap_err();
    assert!(error.is::<host_time::Lost>(), "{error:#}");
}

/// Fails where it takes so long that it waits for something.
fn soon<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(what()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("it waits")
}

#[test]
fn what_is_planted_as_an_original_is_neither_read_nor_followed_nor_put_anywhere() {
    let plant = |path: &Path, what: usize| match what {
        0 => mkfifo(path, Mode::S_IRWXU).unwrap(),
        1 => symlink("/dev/zero", path).unwrap(),
        // The right bytes, but not here.
        _ => symlink("elsewhere", path).unwrap(),
    };
    for what in 0..3 {
        for repaired in [false, true] {
            let (_temporary, folder) = mixed();
            put(&folder, "elsewhere", ids(5));
            fs::copy(folder.path("inventory.img"), folder.path("inventory.img.tns-orig")).unwrap();
            if repaired {
                mend(&folder).unwrap();
                fs::remove_file(folder.path("ids-7.img.tns-orig")).unwrap();
            }
            plant(&folder.path("ids-7.img.tns-orig"), what);
            let ids = |folder: &Folder| [7, 300].map(|pid| fs::read(folder.path(&format!("ids-{pid}.img"))).unwrap());
            let before = ids(&folder);
            let again = folder.clone();
            let error = soon(move || if repaired { undo(&again).unwrap_err() } else { mend(&again).unwrap_err() });
            let error = format!("{error:#}");
            assert!(error.contains("ids-7.img.tns-orig"), "{what} {repaired}: {error}");
            assert_eq!(ids(&folder), before, "{what} {repaired}: {error}");
        }
    }
}

#[test]
fn nothing_is_put_in_the_place_of_a_link() {
    let (_temporary, folder) = mixed();
    mend(&folder).unwrap();
    fs::rename(folder.path("ids-7.img"), folder.path("elsewhere")).unwrap();
    symlink("elsewhere", folder.path("ids-7.img")).unwrap();
    let before = contents(&folder.0);
    let error = undo(&folder).unwrap_err().to_string();
    assert!(error.contains("ids-7.img is no regular file"), "{error}");
    assert_eq!(contents(&folder.0), before);
}

#[test]
fn a_file_that_only_has_the_name_of_an_original_is_not_taken_for_one() {
    let (_temporary, folder) = mixed();
    fs::copy(folder.path("inventory.img"), folder.path("inventory.img.tns-orig")).unwrap();
    let other = file(&[COMMON, 0x5443_2030], &[record(&ids_message(Some(5)))]);
    put(&folder, "ids-300.img.tns-orig", other.clone());
    let error = mend(&folder).unwrap_err().to_string();
    assert!(error.contains("ids-300.img.tns-orig is not the original of"), "{error}");
    assert_eq!(fs::read(folder.path("ids-300.img")).unwrap(), ids(5));
    assert_eq!(fs::read(folder.path("ids-300.img.tns-orig")).unwrap(), other);
}

fn tnsctl(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tnsctl")).args(words).stdin(Stdio::null()).output().unwrap()
}

fn json(words: &[&str]) -> serde_json::Value {
    let output = tnsctl(&[&["--json"], words].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn error(words: &[&str]) -> String {
    let output = tnsctl(words);
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}

/// Everything is on disk before anything counts on it: new files before they get a name, second names before the first file
/// is replaced, and the new names at the end.
/// What of this call of tnsctl reaches the disk in the folder, in this order; none without strace.
fn steps(folder: &Folder, args: &[&str]) -> Option<String> {
    let trace = folder.0.with_extension("trace");
    let traced = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2,linkat", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_tnsctl"))
        .args(args)
        .arg(&folder.0)
        .output();
    let Ok(output) = traced else { return skip::skip("strace is needed to see what reaches the disk") };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&trace).unwrap();
    fs::remove_file(&trace).unwrap();
    let path = folder.0.to_str().unwrap();
    let kind = |line: &str| {
        let has = |what: &str| line.contains(what);
        match line {
            _ if has("fsync(") && has(&format!("<{path}>")) => "sync folder",
            _ if has("fsync(") && has("/.ids-") => "sync file",
            _ if has("fsync(") => "sync copy",
            _ if has("linkat(") => "link",
            _ if has(".tns-orig\", ") => "put back",
            _ if has(".tns-orig\"") => "name copy",
            _ => "name file",
        }
    };
    Some(text.lines().filter(|line| line.contains(path)).map(kind).collect::<Vec<_>>().join("|"))
}

#[test]
fn a_repair_reaches_the_disk_in_an_order_from_which_there_is_always_a_way_on() {
    let (_temporary, folder) = mixed();
    let Some(repair) = steps(&folder, &["repair"]) else { return };
    assert_eq!(
        repair,
        "sync file|sync file|sync copy|name copy|sync copy|name copy|link|link|sync folder|name file|name file|sync folder"
    );
    let undo = steps(&folder, &["repair", "--undo"]).unwrap();
    assert_eq!(undo, "put back|put back|sync folder");
}

#[test]
fn a_folder_is_repaired_into_a_copy_and_stays_as_it_is() {
    let (temporary, folder) = mixed();
    // An earlier dump, which CRIU finds by a link, and one that stays within the image.
    let image = Folder(temporary.path().join("image"));
    fs::create_dir(&image.0).unwrap();
    for (name, bytes) in contents(&folder.0) {
        if name != "image" {
            fs::write(image.path(&name), bytes).unwrap();
        }
    }
    symlink("../ids-55.img", image.path("parent")).unwrap();
    symlink("core-1.img", image.path("within")).unwrap();
    put(&image, "ids-55.img.tns-orig", b"of what is left over".to_vec());
    fs::set_permissions(image.path("ids-7.img"), Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&image.0, Permissions::from_mode(0o555)).unwrap();
    let before = contents(&image.0);
    let path = image.0.to_str().unwrap();
    fs::create_dir(temporary.path().join("deeper")).unwrap();
    let new = Folder(temporary.path().join("deeper/new"));
    let output = new.0.to_str().unwrap();

    assert_eq!(tnsctl(&["repair", path, "--output", output, "--dry-run"]).status.code(), Some(1));
    assert!(!new.0.exists());
    let report = json(&["repair", path, "--output", output]);
    assert_eq!((&report["output"], report["moved"].as_array().unwrap().len()), (&output.into(), 2));
    assert_eq!(contents(&image.0), before);
    assert_eq!(fs::read_dir(temporary.path().join("deeper")).unwrap().count(), 1, "nothing temporary");

    let mut expected = before;
    expected.remove("ids-55.img.tns-orig");
    expected.insert("ids-7.img".to_owned(), ids(13));
    expected.insert("ids-300.img".to_owned(), ids(13));
    assert_eq!(contents(&new.0), expected);
    assert_eq!(fs::read(new.path("parent")).unwrap(), b"left over");
    assert_eq!(fs::read_link(new.path("parent")).unwrap(), Path::new("../../ids-55.img"));
    assert_eq!(fs::read_link(new.path("within")).unwrap(), Path::new("core-1.img"));
    for name in ["ids-7.img", "pstree.img", "."] {
        let [from, to] = [&image, &new].map(|folder| fs::metadata(folder.path(name)).unwrap());
        assert_eq!((from.mode(), from.uid(), from.gid()), (to.mode(), to.uid(), to.gid()), "{name}");
        assert!(name == "." || from.modified().unwrap() == to.modified().unwrap(), "{name}");
    }

    let refused = error(&["repair", path, "--output", output]);
    assert!(refused.contains("is there already"), "{refused}");
    let refused = error(&["repair", path, "--output", &format!("{path}/new")]);
    assert!(refused.contains("does not belong into the image"), "{refused}");
    // A whole one needs no copy.
    json(&["repair", output, "--output", &format!("{output}-again")]);
    assert!(!Path::new(&format!("{output}-again")).exists());
    fs::set_permissions(&image.0, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let (temporary, folder) = mixed();
    put(&folder, "core-1.img", b"no image".to_vec());
    put(&folder, "core-7.img", b"no image".to_vec());
    let place = tempfile::tempdir().unwrap();
    error(&["repair", folder.0.to_str().unwrap(), "--output", place.path().join("new").to_str().unwrap()]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    drop(temporary);
}

#[test]
fn a_copy_of_a_held_image_has_its_clocks() {
    for own_number in [true, false] {
        let (_temporary, folder, _) = held(own_number);
        let place = tempfile::tempdir().unwrap();
        let new = Folder(place.path().join("new"));
        let there = contents(&folder.0);
        let report = json(&["repair", folder.0.to_str().unwrap(), "--output", new.0.to_str().unwrap()]);
        assert_eq!(report["put_back"].as_array().unwrap().len(), 1);
        assert_eq!(contents(&folder.0), there);
        let images = Images::read(&new).unwrap();
        assert!(images.clocks(&new).unwrap().is_some() && images.strays().count() == 0);
        assert!(!host_time::is_held(&images, &new).unwrap());
    }
}

#[test]
fn a_repair_waits_for_whoever_reads_the_image() {
    let (_temporary, folder) = mixed();
    let before = contents(&folder.0);
    let reader = Flock::lock(File::open(&folder.0).unwrap(), FlockArg::LockShared).unwrap();
    let path = folder.0.to_str().unwrap().to_owned();
    let repair = thread::spawn(move || tnsctl(&["repair", &path]));
    thread::sleep(Duration::from_millis(500));
    assert_eq!(contents(&folder.0), before);
    drop(reader);
    assert!(repair.join().unwrap().status.success());
    assert_eq!(fs::read(folder.path("ids-7.img")).unwrap(), ids(13));
}
