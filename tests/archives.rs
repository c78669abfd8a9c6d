// SPDX-License-Identifier: Apache-2.0
//! Archives of checkpoints, as Podman and containerd make them, whole and damaged: what tnsctl reads, what it refuses, and
//! that a repair changes nothing but what it must.

#![cfg(feature = "ctl")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/handmade.rs"]
mod handmade;
#[path = "common/skip.rs"]
mod skip;

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use handmade::*;
use nix::pty::openpty;
use serde_json::Value;
use tempfile::TempDir;
use tns_shim::archive::collect::Checkpoint;
use tns_shim::archive::compression::{Compression, Window, decoded};
use tns_shim::archive::rewrite;
use tns_shim::criu::images::{Folder, Images, Source};
use tns_shim::criu::{host_time, originals};

const ZSTD: Compression = Compression::Zstd;
const GZIP: Compression = Compression::Gzip;
const NONE: Compression = Compression::None;
const ALL: [Compression; 3] = [NONE, GZIP, ZSTD];

fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

fn decompressed(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    decoded(bytes, Window::OF_ARCHIVE).unwrap().1.read_to_end(&mut all).unwrap();
    all
}

type Named = (String, Vec<u8>);

/// A tar of these files, without the mark of its end.
fn members(files: &[Named]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes
}

const END: [u8; 1024] = [0; 1024];

fn tar_of(files: &[Named]) -> Vec<u8> {
    [&members(files)[..], &END].concat()
}

fn named(name: &str, bytes: &[u8]) -> Named {
    (name.to_owned(), bytes.to_vec())
}

/// The files of the mixed image, below `prefix`.
fn images_below(prefix: &str) -> Vec<Named> {
    let (_temporary, folder) = mixed();
    let mut files: Vec<Named> = fs::read_dir(folder.as_ref() as &Path)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap()), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// As Podman's `container checkpoint --export` lays it out. A container may hold images of its own, in its files.
fn podman() -> Vec<Named> {
    let others = [
        named("config.dump", b"{}"),
        named("rootfs-diff.tar", &tar_of(&images_below("checkpoint/"))),
        named("volumes/v.tar", &tar_of(&images_below(""))),
        named("spec.dump", &[b'x'; 3000]),
    ];
    let pages = named("checkpoint/pages-1.img", &vec![7; 100_000]);
    [&others[..], &images_below("checkpoint/"), &[pages]].concat()
}

fn digest(number: u8) -> String {
    format!("blobs/sha256/{}", format!("{number:02x}").repeat(32))
}

/// As `ctr image export` lays out a checkpoint.
fn containerd(compression: Compression) -> Vec<Named> {
    let criu = [&images_below("")[..], &[named("pages-1.img", &vec![7; 100_000])]].concat();
    let layer = tar_of(&[named("etc/passwd", b"root"), named("var/lib/c/inventory.img", b"of somebody else")]);
    vec![
        named(&digest(1), br#"{"schemaVersion":2}"#),
        named(&digest(2), &compressed(GZIP, &layer)),
        named(&digest(3), &compressed(compression, &tar_of(&criu))),
        named(&digest(4), b""),
        named("index.json", b"{}"),
        named("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
    ]
}

fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn unpack(files: &[Named], to: &Path) {
    for (name, bytes) in files {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn tnsctl(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tnsctl")).args(words).stdin(Stdio::null()).output().unwrap()
}

/// Expects this exit code, nothing on standard error but with an error, and JSON.
fn json(code: i32, words: &[&str]) -> Value {
    let output = tnsctl(&[&["--json"], words].concat());
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &error[..]), (Some(code), ""), "{words:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Expects an error, and returns it.
fn error(words: &[&str]) -> String {
    let output = tnsctl(words);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{words:?}: {error}");
    assert!(error.starts_with("tnsctl: ") && error.ends_with('\n'), "{error}");
    error
}

fn put(folder: &TempDir, name: &str, bytes: &[u8]) -> String {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn is_the_mixed_one(report: &Value) {
    assert_eq!(report["verdict"], "mixed", "{report}");
    let pids: Vec<_> = report["processes"].as_array().unwrap().iter().map(|one| one["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids, [1, 7, 300, 9]);
    assert_eq!(report["processes"][1]["command"], "a\\u{1b}b");
    assert_eq!(report["clocks"]["monotonic_ns"], 100_000_000_005_u64);
}

#[test]
fn a_podman_archive_is_read_however_it_is_compressed_and_named() {
    let folder = folder();
    for compression in ALL {
        let archive = put(&folder, "web.jpeg", &compressed(compression, &tar_of(&podman())));
        let report = json(1, &["images", &archive]);
        is_the_mixed_one(&report);
        assert_eq!((&report["archive"], &report["checkpoint"]), (&archive.clone().into(), &"checkpoint".into()));
        assert_eq!(report["compression"], format!("{compression:?}").to_lowercase());
    }
    // Podman's own compressor writes one frame after the other.
    let parts = tar_of(&podman());
    let (one, two) = parts.split_at(5000);
    for compression in [GZIP, ZSTD] {
        let both = [compressed(compression, one), compressed(compression, two)].concat();
        is_the_mixed_one(&json(1, &["images", &put(&folder, "a", &both)]));
    }
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &compressed(ZSTD, &parts)].concat();
    let archive = put(&folder, "a", &skipped);
    is_the_mixed_one(&json(1, &["images", &archive]));
    let text = String::from_utf8(tnsctl(&["images", &archive]).stdout).unwrap();
    assert!(text.starts_with(&format!("image                     {archive} (zstd): checkpoint\n")), "{text}");
}

#[test]
fn an_unpacked_archive_is_read_and_repaired_as_the_folder_in_it() {
    let folder = folder();
    unpack(&podman(), folder.path());
    let path = folder.path().to_str().unwrap();
    let report = json(1, &["images", path]);
    is_the_mixed_one(&report);
    assert_eq!(report["folder"], format!("{path}/checkpoint"));
    assert_eq!(json(0, &["repair", path])["moved"].as_array().unwrap().len(), 2);
    assert_eq!(json(0, &["images", path])["changed"], serde_json::json!(["ids-300.img", "ids-7.img"]));
    assert_eq!(fs::read(folder.path().join("checkpoint/ids-7.img.tns-orig")).unwrap(), ids(5));
    // Packed again, this is still to be seen.
    let files: Vec<Named> = fs::read_dir(folder.path().join("checkpoint"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    let archive = put(&folder, "again", &tar_of(&files));
    assert_eq!(json(0, &["images", &archive])["changed"], serde_json::json!(["ids-300.img", "ids-7.img"]));
    assert_eq!(json(0, &["repair", "--undo", path])["put_back"], serde_json::json!(["ids-300.img", "ids-7.img"]));
    is_the_mixed_one(&json(1, &["images", path]));
    let new = format!("{path}/new");
    assert_eq!(json(0, &["repair", path, "--output", &new])["output"], new);
    assert_eq!(json(0, &["images", &new])["verdict"], "whole");
    is_the_mixed_one(&json(1, &["images", path]));
}

#[test]
fn what_the_shim_has_left_beside_the_images_is_read_in_an_archive() {
    let (_temporary, images) = mixed();
    let read = Images::read(&images).unwrap();
    originals::apply(&read, &images, &host_time::plan(&read, &images).unwrap()).unwrap();
    let packed = |record: &[u8]| {
        fs::write(images.path("tns-shim.json"), record).unwrap();
        let names = fs::read_dir(&images.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: Vec<Named> =
            names.map(|name| (format!("checkpoint/{name}"), fs::read(images.path(&name)).unwrap())).collect();
        let folder = folder();
        json(0, &["images", &put(&folder, "held", &tar_of(&files))])
    };
    let record = r#"{"format":1,"shim":"1","container":"web","time":"then","wall_ns":1,"boot_id":"b","kernel":"k","runtime":"r",
        "criu":null,"clocks":{"monotonic_ns":1,"boottime_ns":2},"mode":"host","processes":3,
        "time_namespace":{"id":"time:[1]","offsets":{"monotonic_ns":0,"boottime_ns":0}}}"#;
    let report = packed(record.as_bytes());
    assert_eq!((&report["held_on_host_time"], &report["record"]["container"]), (&true.into(), &"web".into()));
    assert_eq!(report["changed"], serde_json::json!(["ids-1.img"]));
    let report = packed(b"{");
    assert!(report["record_problem"].as_str().unwrap().contains("understand tns-shim.json"), "{report}");
}

#[test]
fn an_oci_layout_is_read_in_an_archive_unpacked_and_as_the_blob_alone() {
    for compression in ALL {
        let files = containerd(compression);
        let folder = folder();
        let archive = put(&folder, "exported", &tar_of(&files));
        let report = json(1, &["images", &archive]);
        is_the_mixed_one(&report);
        assert_eq!(report["checkpoint"], digest(3));

        let unpacked = folder.path().join("unpacked");
        unpack(&files, &unpacked);
        let report = json(1, &["images", unpacked.to_str().unwrap()]);
        is_the_mixed_one(&report);
        assert_eq!(report["checkpoint"], digest(3));
        is_the_mixed_one(&json(1, &["images", unpacked.join(digest(3)).to_str().unwrap()]));

        let output = folder.path().join("new");
        let to = output.to_str().unwrap();
        for refused in [
            error(&["repair", &archive, "--output", to]),
            error(&["repair", &archive, "--dry-run"]),
            error(&["repair", unpacked.to_str().unwrap()]),
        ] {
            assert!(refused.contains("digest") && refused.contains(&digest(3)), "{refused}");
        }
        assert!(!output.exists());
    }
    // A layer of an image as kubelet's archives become one.
    let layer = compressed(GZIP, &tar_of(&podman()));
    let folder = folder();
    let report = json(1, &["images", &put(&folder, "a", &tar_of(&[named(&digest(9), &layer)]))]);
    assert_eq!(report["checkpoint"], format!("{}: checkpoint", digest(9)));
}

/// `repair ARCHIVE --output NEW`; returns both, before compression.
fn repaired(folder: &TempDir, archive: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let from = put(folder, "from", archive);
    let to = folder.path().join("to");
    let report = json(0, &["repair", &from, "--output", to.to_str().unwrap()]);
    assert_eq!(report["output"], to.to_str().unwrap());
    assert_eq!(report["moved"].as_array().unwrap().iter().map(|one| &one["pid"]).collect::<Vec<_>>(), [7, 300]);
    assert_eq!(fs::read(&from).unwrap(), archive, "the original stays");
    let new = fs::read(&to).unwrap();
    assert_eq!(json(0, &["images", to.to_str().unwrap()])["verdict"], "whole");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    fs::remove_file(&to).unwrap();
    (decompressed(archive), decompressed(&new))
}

#[test]
fn a_repaired_archive_differs_in_the_ids_alone() {
    for compression in ALL {
        let folder = folder();
        let files = podman();
        // What follows the mark of the end stays as well.
        let tar = [tar_of(&files), vec![0; 9216], b"something".to_vec()].concat();
        let (before, after) = repaired(&folder, &compressed(compression, &tar));
        assert_eq!(before, tar);
        let expected: Vec<Named> = files
            .iter()
            .map(|(name, bytes)| match &name[..] {
                "checkpoint/ids-7.img" | "checkpoint/ids-300.img" => (name.clone(), ids(13)),
                _ => (name.clone(), bytes.clone()),
            })
            .collect();
        assert!(after == [tar_of(&expected), vec![0; 9216], b"something".to_vec()].concat(), "{compression:?}");
        assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), 2);
    }
}

#[test]
fn a_repair_keeps_the_compression_and_the_mode() {
    for (compression, magic) in [(NONE, &b"conf"[..]), (GZIP, &[0x1f, 0x8b]), (ZSTD, &[0x28, 0xb5, 0x2f, 0xfd])] {
        let folder = folder();
        let from = put(&folder, "from", &compressed(compression, &tar_of(&podman())));
        fs::set_permissions(&from, fs::Permissions::from_mode(0o640)).unwrap();
        let to = folder.path().join("to");
        json(0, &["repair", &from, "--output", to.to_str().unwrap()]);
        assert!(fs::read(&to).unwrap().starts_with(magic));
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o640);
    }
}

/// The mixed image with PID 7 and 300 in time namespace `from`, and the first process in `to`.
fn numbered(from: u64, to: u64) -> Vec<Named> {
    let renumbered = |(name, bytes): Named| match &name[..] {
        "ids-1.img" => (name, ids(to)),
        "ids-7.img" | "ids-300.img" => (name, ids(from)),
        "timens-13.img" => (format!("timens-{to}.img"), bytes),
        _ => (name, bytes),
    };
    images_below("").into_iter().map(renumbered).collect()
}

#[test]
fn a_message_that_changes_its_length_changes_the_size_in_its_header() {
    for (from, to) in [(5, 300), (300, 6), (5, u64::from(u32::MAX)), (u64::from(u32::MAX), 0)] {
        let (_, after) = repaired(&folder(), &tar_of(&numbered(from, to)));
        let expected: Vec<Named> = numbered(to, to);
        let mut archive = tar::Archive::new(&after[..]);
        let read: Vec<Named> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
            })
            .collect();
        assert_eq!(read, expected, "{from} to {to}");
        assert_eq!(after.len(), tar_of(&expected).len());
    }
}

#[test]
fn what_does_not_fit_is_not_repaired() {
    let folder = folder();
    let with = |bytes: Vec<u8>| {
        let mut files = numbered(5, 300);
        files.iter_mut().find(|(name, _)| name == "ids-7.img").unwrap().1 = bytes;
        files
    };
    let padded_to = |length: usize, time: u64| {
        let message = [ids_message(Some(time)), nested_long(14, length - ids_length(time))].concat();
        file(&[COMMON, 0x5443_2030], &[record(&message)])
    };
    let full = padded_to(512, 5);
    assert_eq!(full.len(), 512);
    let refused = |tar: &[u8], words: &str| {
        let from = put(&folder, "from", tar);
        for words_of in [&["--dry-run"][..], &["--output", &format!("{from}.new")]] {
            let refused = error(&[&["repair", &from], words_of].concat());
            assert!(refused.contains("ids-7.img") && refused.contains(words), "{refused}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    };
    refused(&tar_of(&with(full.clone())), "513 bytes do not take as many blocks of the archive as 512");
    // One byte less fits.
    let just = padded_to(511, 5);
    assert_eq!(just.len(), 511);
    let (_, after) = repaired(&TempDir::new().unwrap(), &tar_of(&with(just)));
    assert!(!after.is_empty());

    // The size in PAX records.
    let mut files = with(ids(5));
    files.retain(|(name, _)| name != "ids-7.img");
    let extended =
        |time| [pax(&[("size", &ids(time).len().to_string())]), member("ids-7.img", b'0', 0, &ids(time))].concat();
    refused(&[members(&files), extended(5), END.to_vec()].concat(), "its size is in PAX records");
    // It may stay if nothing gets longer.
    files.retain(|(name, _)| name != "ids-300.img" && name != "ids-1.img" && !name.starts_with("timens"));
    let others =
        [named("ids-300.img", &ids(5)), named("ids-1.img", &ids(13)), named("timens-13.img", &timens((1, 0), (1, 0)))];
    repaired(&TempDir::new().unwrap(), &[members(&files), members(&others), extended(5), END.to_vec()].concat());
}

/// The length of an ids image with that time namespace and an empty field 14 with a length in two bytes.
fn ids_length(time: u64) -> usize {
    8 + 4 + ids_message(Some(time)).len() + 3
}

/// A field of some length, which is told in two bytes.
fn nested_long(field: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    padded(&mut bytes, length as u64, 2);
    [bytes, vec![0; length]].concat()
}

#[test]
fn padding_that_somebody_uses_is_not_overwritten() {
    let folder = folder();
    let mut tar = tar_of(&numbered(5, 300));
    let at = tar.windows(9).position(|window| window == b"ids-7.img").unwrap() + 512 + ids(5).len();
    tar[at] = 1;
    let from = put(&folder, "from", &tar);
    let refused = error(&["repair", &from, "--output", &format!("{from}.new")]);
    assert!(refused.contains(&format!("byte {at} is not what it should be")), "{refused}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn signal(child: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.to_string()]).status().unwrap().success());
}

/// `repair` of an archive of that size, of which a byte of the copy is changed while it is still being written; none if it
/// was too late for that.
fn repaired_on_a_bad_disk(size: u64) -> Option<(Output, usize)> {
    const AT: u64 = 1 << 20;
    let folder = TempDir::new().unwrap();
    let from = folder.path().join("from");
    let mut file = File::create(&from).unwrap();
    file.write_all(&[images(), member("checkpoint/pages-1.img", b'0', size, b"")].concat()).unwrap();
    file.seek(SeekFrom::Current(i64::try_from(size).unwrap())).unwrap();
    file.write_all(&END).unwrap();
    let length = file.metadata().unwrap().len();
    let child = Command::new(env!("CARGO_BIN_EXE_tnsctl"))
        .args(["repair".as_ref(), from.as_os_str(), "--output".as_ref(), folder.path().join("to").as_os_str()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let copy = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| *path != from).find_map(|path| File::options().write(true).open(path).ok())
    };
    let written = |file: &File| file.metadata().unwrap().len();
    let began = Instant::now();
    let copy = loop {
        match copy() {
            Some(copy) if written(&copy) > AT => break copy,
            _ if began.elapsed() > Duration::from_secs(60) => panic!("nothing was written"),
            _ => {}
        }
    };
    signal(child.id(), "STOP");
    let in_time = written(&copy) < length;
    copy.write_all_at(b"1", AT).unwrap();
    signal(child.id(), "CONT");
    let output = child.wait_with_output().unwrap();
    in_time.then(|| (output, fs::read_dir(folder.path()).unwrap().count()))
}

#[test]
fn what_was_written_is_read_again_before_it_gets_its_name() {
    let (output, files) = (24..31).find_map(|size| repaired_on_a_bad_disk(1 << size)).expect("too fast");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("what was written is not what should have been"), "{error}");
    assert_eq!(files, 1, "only the original");
}

#[test]
fn an_archive_that_somebody_changes_between_two_looks_is_not_copied() {
    for compression in ALL {
        let tar = tar_of(&podman());
        let checkpoint = Checkpoint::read(&compressed(compression, &tar)[..]).unwrap();
        let mut copied = Vec::new();
        let copy = |tar: &[u8], to: &mut Vec<u8>| {
            let sum = rewrite::copy(&compressed(compression, tar)[..], checkpoint.sum, Vec::new(), to);
            sum.map_err(|error| error.to_string())
        };
        assert_eq!(copy(&tar, &mut copied), Ok(checkpoint.sum), "{compression:?}");
        assert!(decompressed(&copied) == tar, "{compression:?}");
        // In what no patch has to do with.
        let mut changed = tar.clone();
        let at = tar.windows(8).rposition(|window| window == b"xxxxxxxx").unwrap();
        changed[at] = b'y';
        let said = copy(&changed, &mut Vec::new());
        assert_eq!(said, Err("somebody has changed the archive just now".to_owned()), "{compression:?}");
    }
}

#[test]
fn an_archive_is_never_changed_nor_anything_overwritten() {
    let folder = folder();
    let from = put(&folder, "from", &tar_of(&podman()));
    let before = fs::metadata(&from).unwrap();
    fs::hard_link(&from, folder.path().join("same")).unwrap();
    std::os::unix::fs::symlink("nothing", folder.path().join("link")).unwrap();
    let there = put(&folder, "there", b"precious");
    let to = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (words, expected) in [
        (&["--output", &from][..], "is the image itself"),
        (&["--output", &to("same")], "is the image itself"),
        (&["--output", &there], "is there already"),
        (&["--output", &to("link")], "is there already"),
        (&["--output", &there, "--dry-run"], "is there already"),
        (&["--output", &to("no/folder")], "no/folder"),
        (&[], "--output"),
        (&["--undo"], "is the original"),
        (&["--undo", "--dry-run"], "is the original"),
    ] {
        let refused = error(&[&["repair", &from], words].concat());
        assert!(refused.contains(expected), "{words:?}: {refused}");
    }
    let usage = tnsctl(&["repair", &from, "--undo", "--output", &to("new")]);
    assert_eq!(usage.status.code(), Some(2));
    let report = json(1, &["repair", &from, "--dry-run"]);
    assert_eq!((report["moved"].as_array().unwrap().len(), &report["output"]), (2, &Value::Null));
    json(1, &["repair", &from, "--dry-run", "--output", &to("new")]);
    assert_eq!(fs::read(&there).unwrap(), b"precious");
    let after = fs::metadata(&from).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
}

#[test]
fn where_nothing_is_to_be_repaired_nothing_is_written() {
    let folder = folder();
    for (name, files) in [("tar", numbered(13, 13)), ("layout", vec![named(&digest(1), &tar_of(&numbered(13, 13)))])] {
        let from = put(&folder, name, &tar_of(&files));
        let report = json(0, &["repair", &from, "--output", &format!("{from}.new")]);
        assert_eq!((report["moved"].as_array().unwrap().len(), &report["output"]), (0, &Value::Null));
        let text = tnsctl(&["repair", &from, "--output", &format!("{from}.new")]).stdout;
        assert!(String::from_utf8(text).unwrap().contains("there is nothing to repair"));
        assert_eq!(json(0, &["images", &from])["verdict"], "whole");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// A member with these in its header.
fn member(name: &str, flag: u8, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(size);
    header.as_old_mut().linkflag = [flag];
    header.set_cksum();
    let padding = vec![0; content.len().wrapping_neg() % 512];
    [header.as_bytes(), content, &padding].concat()
}

/// A regular file.
fn plain(name: &str, content: &[u8]) -> Vec<u8> {
    member(name, b'0', content.len() as u64, content)
}

fn pax_records(records: &[(&str, &str)]) -> Vec<u8> {
    let one = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let length =
            (rest.len()..rest.len() + 20).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
        format!("{length}{rest}").into_bytes()
    };
    records.iter().flat_map(one).collect()
}

/// The PAX header of the next member.
fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let records = pax_records(records);
    member("PaxHeaders.0/x", b'x', records.len() as u64, &records)
}

fn read(bytes: &[u8]) -> Result<Checkpoint, String> {
    Checkpoint::read(bytes).map_err(|error| format!("{error:#}"))
}

fn images() -> Vec<u8> {
    members(&images_below("checkpoint/"))
}

#[test]
fn names_are_those_that_a_file_would_be_unpacked_under() {
    let without = |name: &str| {
        let mut files = images_below("checkpoint/");
        files.retain(|(known, _)| known != name);
        members(&files)
    };
    let deep = "d/".repeat(90);
    let long = format!("{deep}../{}checkpoint/ids-7.img", "../".repeat(89));
    let gnu_long = [long.as_bytes(), b"\0"].concat();
    for name in [
        plain("./checkpoint/ids-7.img", &ids(5)),
        plain("/checkpoint//ids-7.img", &ids(5)),
        plain("x/../checkpoint/./ids-7.img", &ids(5)),
        member("checkpoint/ids-7.img", 0, ids(5).len() as u64, &ids(5)),
        [pax(&[("path", "checkpoint/ids-7.img"), ("SCHILY.xattr.user.a", "b\nc")]), plain("other", &ids(5))].concat(),
        [pax(&[("path", "")]), plain("checkpoint/ids-7.img", &ids(5))].concat(),
        [pax(&[("path", &long)]), plain("other", &ids(5))].concat(),
        [member("././@LongLink", b'L', gnu_long.len() as u64, &gnu_long), plain("other", &ids(5))].concat(),
        [member("././@LongLink", b'K', gnu_long.len() as u64, &gnu_long), plain("checkpoint/ids-7.img", &ids(5))]
            .concat(),
        [member("g", b'g', 16, &pax_records(&[("comment", "abcd")])), plain("checkpoint/ids-7.img", &ids(5))].concat(),
        // Folders, devices and links have no content, whatever they say.
        [member("checkpoint/", b'5', 4096, b""), plain("checkpoint/ids-7.img", &ids(5))].concat(),
        [member("old/", 0, 4096, b""), plain("checkpoint/ids-7.img", &ids(5))].concat(),
    ] {
        let tar = [without("checkpoint/ids-7.img"), name.clone(), END.to_vec()].concat();
        let checkpoint = read(&tar).unwrap();
        assert_eq!(Images::read(&checkpoint).unwrap().strays().count(), 2);
    }
}

#[test]
fn times_are_when_the_files_were_written() {
    let rest = images_below("checkpoint/");
    let clocks = |header: Vec<u8>| {
        let tar = [
            members(&rest[..rest.len() - 1]),
            header,
            plain("checkpoint/timens-13.img", &rest.last().unwrap().1),
            END.to_vec(),
        ];
        let checkpoint = read(&tar.concat()).unwrap();
        checkpoint.file("timens-13.img").unwrap().unwrap().modified.0
    };
    assert_eq!(rest.last().unwrap().0, "checkpoint/timens-13.img");
    assert_eq!(clocks(Vec::new()), 0);
    assert_eq!(clocks(pax(&[("mtime", "1700000000.25")])), 1_700_000_000_250_000_000);
    assert_eq!(clocks(pax(&[("mtime", "1700000000")])), 1_700_000_000_000_000_000);
    assert_eq!(clocks(pax(&[("mtime", "-1.5")])), 0);
    let checkpoint = read(&tar_of(&rest)).unwrap();
    assert_eq!(checkpoint.file("timens-13.img").unwrap().unwrap().modified.0, 1_700_000_000_000_000_000);
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let twice = |second: Vec<u8>| {
        let checkpoint = read(&[images(), second, END.to_vec()].concat()).unwrap();
        format!("{:#}", Images::read(&checkpoint).unwrap_err())
    };
    for second in [
        plain("checkpoint/ids-7.img", &ids(13)),
        plain("./checkpoint/x/../ids-7.img", &ids(5)),
        member("checkpoint/ids-7.img", b'2', 0, b""),
        [pax(&[("path", "checkpoint/ids-7.img")]), plain("other", &ids(13))].concat(),
    ] {
        assert_eq!(twice(second), "read ids-7.img: it is in the archive twice");
    }
    let alone = |member: Vec<u8>| {
        let mut files = images_below("checkpoint/");
        files.retain(|(known, _)| known != "checkpoint/ids-7.img");
        let checkpoint = read(&[members(&files), member, END.to_vec()].concat()).unwrap();
        format!("{:#}", Images::read(&checkpoint).unwrap_err())
    };
    assert_eq!(alone(member("checkpoint/ids-7.img", b'1', 0, b"")), "read ids-7.img: no regular file");
    let sparse = "read ids-7.img: a sparse file, which CRIU does not make";
    assert_eq!(alone(member("checkpoint/ids-7.img", b'S', 0, b"")), sparse);
    let records = [("GNU.sparse.major", "1"), ("GNU.sparse.name", "checkpoint/ids-7.img"), ("path", "x")];
    assert_eq!(alone([pax(&records), plain("x", &ids(5))].concat()), sparse);
    assert_eq!(alone([pax(&[("GNU.sparse.size", "9")]), plain("checkpoint/ids-7.img", &ids(5))].concat()), sparse);
}

#[test]
fn sparse_files_of_others_are_passed_over() {
    let mut header = member("sparse", b'S', 512, b"");
    header[482] = 1;
    let sum = header[..148].iter().chain(&header[156..512]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut map = vec![0; 1024];
    map[504] = 1;
    let tar = [header, map, vec![1; 512], images(), END.to_vec()].concat();
    assert_eq!(Images::read(&read(&tar).unwrap()).unwrap().strays().count(), 2);
}

#[test]
fn not_exactly_one_checkpoint_is_refused_by_name() {
    let folder = folder();
    let two = tar_of(&[images_below("checkpoint/"), images_below("pre-checkpoint/")].concat());
    let refused = error(&["images", &put(&folder, "two", &two)]);
    assert!(refused.contains("more than one checkpoint in it (checkpoint, pre-checkpoint)"), "{refused}");
    let many: Vec<Named> = (0..30).flat_map(|number| images_below(&format!("a\x1b{number:02}/"))).collect();
    let refused = error(&["images", &put(&folder, "many", &tar_of(&many))]);
    assert!(refused.contains("(a\\u{1b}00, ") && refused.contains("09, …)"), "{refused}");
    let mut layout = containerd(NONE);
    layout.push(named(&digest(5), &tar_of(&images_below("checkpoint/"))));
    let refused = error(&["images", &put(&folder, "layout", &tar_of(&layout))]);
    assert!(refused.contains(&format!("({}, {}: checkpoint)", digest(3), digest(5))), "{refused}");
    unpack(&layout, &folder.path().join("unpacked"));
    let refused = error(&["images", folder.path().join("unpacked").to_str().unwrap()]);
    assert!(refused.contains("more than one checkpoint"), "{refused}");

    let none = tar_of(&[named("etc/passwd", b"root"), named("rootfs-diff.tar", &two)]);
    for tar in [&none[..], &END, &tar_of(&[named(&digest(1), b"{}"), named("index.json", b"{}")])] {
        let path = put(&folder, "none", tar);
        let refused = error(&["images", &path]);
        assert!(refused.contains("there is no checkpoint in it") && refused.contains(&path), "{refused}");
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    let folder = folder();
    for (bytes, expected) in [
        (&b""[..], "it is empty"),
        (&[0; 100], "byte 100: the archive is cut off"),
        (&inventory(2), "neither a tar nor"),
        (&vec![b'a'; 4096], "neither a tar nor"),
        (b"BZh91AY&SY", "neither a tar nor"),
        (&compressed(GZIP, b"text"), "what gzip has compressed there is no tar"),
        (&compressed(ZSTD, &[b'a'; 4096]), "what zstd has compressed there is no tar"),
        (&compressed(GZIP, &compressed(ZSTD, &tar_of(&podman()))), "what gzip has compressed there is no tar"),
    ] {
        let path = put(&folder, "a", bytes);
        let refused = error(&["images", &path]);
        assert!(refused.contains(&path) && refused.contains(expected), "{refused}");
    }
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let refused = error(&["images", pipe.to_str().unwrap()]);
    assert!(refused.contains("no regular file"), "{refused}");
    let refused = error(&["images", folder.path().join("nothing").to_str().unwrap()]);
    assert!(refused.contains("there is no "), "{refused}");
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused() {
    let small = [named("checkpoint/pages-1.img", &[7; 600])];
    let tar = [images(), members(&small), END.to_vec()].concat();
    for compression in ALL {
        let whole = compressed(compression, &tar);
        assert!(read(&whole).is_ok());
        let end = whole.len() - if compression == NONE { 1024 } else { 1 };
        for length in (0..=end).step_by(7).chain([end]) {
            let error = read(&whole[..length]).expect_err(&format!("{compression:?} {length}"));
            let words = ["cut off", "byte ", "empty", "neither a tar", "incomplete", "EOF", "eof", "end of file"];
            assert!(words.iter().any(|word| error.contains(word)), "{compression:?} {length}: {error}");
        }
    }
    let folder = folder();
    let path = put(&folder, "short", &compressed(GZIP, &tar)[..600]);
    let refused = error(&["images", &path]);
    assert!(refused.contains(&path) && refused.contains("read on from byte "), "{refused}");
    let inner = compressed(ZSTD, &tar_of(&images_below("")));
    let path = put(&folder, "layout", &tar_of(&[named(&digest(3), &inner[..inner.len() - 5])]));
    let refused = error(&["images", &path]);
    assert!(refused.contains(&path) && refused.contains(&digest(3)), "{refused}");
}

#[test]
fn damaged_headers_and_absurd_lengths_are_refused_where_they_stand() {
    let at = images().len();
    let refused = |damage: Vec<u8>, words: &str| {
        let error = read(&[images(), damage, END.to_vec()].concat()).map(|_| ()).unwrap_err();
        assert!(error.contains(words), "{error}");
        error
    };
    let sized = |field: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[0] = b'a';
        header.as_old_mut().size[..field.len()].copy_from_slice(field);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let here = format!("byte {at}: ");
    refused(sized(b"99999999999\0"), &format!("{here}a size that is no number"));
    refused(sized(&[0xff; 12]), &format!("{here}a size that is no number"));
    refused(sized(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), &format!("{here}a size that is no number"));
    refused(
        sized(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
        &format!("{here}a member of 18446744073709551615 bytes"),
    );
    refused(sized(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), "which no file can have");
    refused(sized(b"\x80\0\0\0\0\xff\xff\xff\xff\xff\xff\xff"), "the archive is cut off");
    refused(sized(b"77777777777\0"), "the archive is cut off");
    refused(vec![1; 512], &format!("{here}not the header of a member"));
    refused([vec![0; 512], vec![1; 512]].concat(), &format!("{here}half a mark of the archive's end"));
    let named_size = |size: &str| [pax(&[("size", size)]), plain("a", b"")].concat();
    refused(named_size("9223372036854775807"), "which no file can have");
    refused(named_size("18446744073709551616"), "a PAX size that is none");
    refused(named_size("-1"), "a PAX size that is none");
    refused(member("x", b'x', 9, b"99 path=a"), "a set of PAX records that is not understood");
    refused([pax(&[]), pax(&[]), plain("a", b"")].concat(), "a second set of PAX records");
    refused(member("L", b'L', 3 << 30, b""), "a name or a set of PAX records of 3221225472 bytes");
    refused(member("x", b'x', 2 << 20, &vec![b'1'; 2 << 20]), "a name or a set of PAX records of 2097152 bytes");
    refused(member("L", b'L', 2, b"a\0"), "ends within the description of a member");
    let global = pax_records(&[("size", "0")]);
    refused(member("g", b'g', global.len() as u64, &global), "a name or a size for all members that follow");
    let both = [member("L", b'L', 2, b"a\0"), pax(&[("path", "b")]), plain("c", b"")].concat();
    refused(both, "a member with two long names");

    // A large one is refused when somebody asks for it: that of a process that is not there harms nobody.
    let size = 65_u64 << 20;
    let large = |name: &str| [plain(name, &[]), END.to_vec()].concat();
    let mut tar = images();
    tar.extend(member(&format!("checkpoint/{}", "core-55.img"), b'0', size, b""));
    let zeros = Zeros.take(size);
    let rest = large("checkpoint/x");
    let checkpoint = Checkpoint::read(Cursor::new(&tar).chain(zeros).chain(&rest[..])).unwrap();
    assert_eq!(Images::read(&checkpoint).unwrap().strays().count(), 2);
    assert!(checkpoint.file("core-55.img").unwrap_err().to_string().contains("too large"));

    // Many small ones.
    let mut many = images();
    for number in 0..70_000_u32 {
        let name = format!("left/over/core-{number:08}.img");
        many.extend(plain(&name, b""));
    }
    many.extend(END);
    let error = read(&many).map(|_| ()).unwrap_err();
    assert!(error.contains("more than 64 MiB"), "{error}");
}

/// Each bit of the compressed archive and of the tar: refused, or read as something; never a repair that is not whole.
#[test]
fn a_flipped_bit_never_harms() {
    let tar = tar_of(&numbered(5, 13));
    let mut refusals = 0;
    for compression in [GZIP, ZSTD] {
        let whole = compressed(compression, &tar);
        for bit in (0..whole.len() * 8).step_by(3) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refusals += usize::from(read(&bytes).is_err());
        }
    }
    for bit in (0..tar.len() * 8).step_by(11) {
        let mut bytes = tar.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        refusals += usize::from(read(&bytes).is_err());
    }
    assert!(refusals > 1000, "{refusals} refused");
}

/// A zstd file of the mixed image and a member of that many bytes of zeros, which tells its size so.
fn huge(size: u64, header: &[u8]) -> Vec<u8> {
    const PIECE: u64 = 64 << 20;
    assert_eq!(size % PIECE, 0);
    let piece = compressed(ZSTD, &vec![0; usize::try_from(PIECE).unwrap()]);
    let mut file = compressed(ZSTD, header);
    for _ in 0..size / PIECE {
        file.extend(&piece);
    }
    file.extend(compressed(ZSTD, &tar_of(&images_below("checkpoint/"))));
    file
}

/// Faster than `io::repeat` where nothing is optimized.
struct Zeros;

impl Read for Zeros {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(0);
        Ok(buffer.len())
    }
}

#[test]
fn sizes_beyond_octal_digits_are_understood() {
    let size: u64 = 8 << 30;
    let mut base_256 = tar::Header::new_gnu();
    base_256.as_old_mut().name[0] = b'a';
    base_256.set_size(size);
    base_256.set_cksum();
    assert_eq!(base_256.as_old().size[0], 0x80);
    // As Go writes it: the header itself says 0.
    let go = [pax(&[("size", &size.to_string())]), plain("checkpoint/pages-1.img", b"")].concat();
    for header in [base_256.as_bytes().to_vec(), go] {
        let rest = tar_of(&images_below("checkpoint/"));
        let stream = Cursor::new(header).chain(Zeros.take(size)).chain(&rest[..]);
        assert_eq!(Images::read(&Checkpoint::read(stream).unwrap()).unwrap().strays().count(), 2);
    }
}

/// The most memory that a process has had, in KiB, while it runs.
fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

#[test]
fn a_large_archive_takes_no_more_memory_than_a_small_one() {
    if skip::is_emulated(skip::OWN_MEMORY) {
        return;
    }
    let folder = folder();
    let size: u64 = 3 << 30;
    let header = [pax(&[("size", &size.to_string())]), plain("checkpoint/pages-1.img", b"")].concat();
    let path = put(&folder, "large", &huge(size, &header));
    let to = folder.path().join("new");
    for words in [&["images", &path][..], &["repair", &path, "--output", to.to_str().unwrap()]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tnsctl")).args(words).stdout(Stdio::null()).spawn().unwrap();
        let (mut most, mut looks) = (0, 0);
        while child.try_wait().unwrap().is_none() {
            if let Some(peak) = peak(child.id()) {
                (most, looks) = (peak.max(most), looks + 1);
            }
            thread::sleep(Duration::from_millis(2));
        }
        eprintln!("{}: {most} KiB at the most, in {looks} looks", words[0]);
        assert!(looks > 20 && most > 0 && most < 48 << 10, "{most} KiB in {looks} looks");
    }
}

/// What `images PATH` writes to standard error, which is a terminal.
fn on_a_terminal(path: &str) -> String {
    let ends = openpty(None, None).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tnsctl"))
        .args(["images", path])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(ends.slave))
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    let mut terminal = File::from(ends.master);
    let mut buffer = [0; 4096];
    // The end is an error: nobody has the other end open any more.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        shown.extend(&buffer[..count]);
    }
    assert_eq!(child.wait().unwrap().code(), Some(1));
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn progress_is_shown_on_a_terminal_for_what_takes_time_and_nowhere_else() {
    let folder = folder();
    let path = put(&folder, "small", &tar_of(&podman()));
    assert_eq!(on_a_terminal(&path), "");
    // Large enough for this machine, however fast it is.
    let large = (1..6).map(|doubled| {
        let size: u64 = 1 << (30 + doubled);
        let header = [pax(&[("size", &size.to_string())]), plain("checkpoint/pages-1.img", b"")].concat();
        put(&folder, "large", &huge(size, &header))
    });
    let mut shown = String::new();
    for path in large {
        // Into pipes, nothing.
        json(1, &["images", &path]);
        shown = on_a_terminal(&path);
        if !shown.is_empty() {
            break;
        }
    }
    assert!(shown.contains("reading [") && shown.contains("left"), "{shown:?}");
    assert!(shown.ends_with("\x1b[2K") || shown.ends_with('\r'), "what was shown is cleared: {shown:?}");
}

#[test]
fn a_folder_is_what_it_was() {
    let (_temporary, folder) = mixed();
    let path: PathBuf = folder.0.clone();
    let report = json(1, &["images", path.to_str().unwrap()]);
    is_the_mixed_one(&report);
    assert_eq!((&report["folder"], &report["archive"]), (&path.to_str().unwrap().into(), &Value::Null));
    let empty = Folder(path.join("empty"));
    fs::create_dir(&empty.0).unwrap();
    assert!(error(&["images", empty.0.to_str().unwrap()]).contains("there is no inventory.img"));
}
