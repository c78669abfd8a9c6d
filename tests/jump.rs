// SPDX-License-Identifier: Apache-2.0
//! By how much clocks jump when an image is repaired: said where it is known, and nowhere else.

#![cfg(feature = "ctl")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/handmade.rs"]
mod handmade;

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use handmade::mixed;
use tns_shim::clocks::{Clocks, Here, Nanoseconds};
use tns_shim::criu::images::{Folder, Images};
use tns_shim::criu::record::{self, Mode, Record, TimeNamespace};
use tns_shim::criu::repair;

fn clocks(monotonic: i64, boottime: i64) -> Clocks {
    Clocks { monotonic_ns: Nanoseconds(monotonic), boottime_ns: Nanoseconds(boottime) }
}

/// Of the mixed image, made here and now.
fn record_of_now() -> Record {
    Record {
        format: record::FORMAT,
        shim: "0".to_owned(),
        container: "web".to_owned(),
        time: "2026-01-01T00:00:00Z".to_owned(),
        wall_ns: Here::look().unwrap().wall,
        boot_id: record::boot_id().unwrap(),
        kernel: "6".to_owned(),
        runtime: "runc 1.1.15".to_owned(),
        criu: None,
        clocks: clocks(100_000_000_000, 200_000_000_000),
        time_namespace: TimeNamespace { id: "time:[1]".to_owned(), offsets: clocks(-3_000_000_000, 4_000_000_000) },
        mode: Mode::Emulated,
        processes: 4,
    }
}

/// What `tnsctl repair --dry-run` and the plan say of the two strays.
fn said(folder: &Folder) -> (Vec<Option<Clocks>>, String) {
    let images = Images::read(folder).unwrap();
    let moves = repair::plan(&images, folder, Here::look().unwrap()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tnsctl"))
        .args(["repair", "--dry-run"])
        .arg(&folder.0)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (moves.into_iter().map(|one| one.jump).collect(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_jump_is_told_by_a_record_of_this_image_and_of_this_boot() {
    let (_temporary, folder) = mixed();
    record_of_now().write(&folder.0).unwrap();
    let own = Here::look().unwrap().own_offsets().unwrap_or(Clocks::ZERO);
    let expected = clocks(-3_000_000_000, 4_000_000_000).minus(own);
    let (jumps, text) = said(&folder);
    assert_eq!(jumps, [Some(expected); 2]);
    assert_eq!(text.matches(&format!("about {expected:+}")).count(), 2, "{text}");
}

#[test]
fn without_such_a_record_it_is_unknown() {
    let other_boot = Record { boot_id: "00000000-0000-0000-0000-000000000000".to_owned(), ..record_of_now() };
    let other_clocks = Record { clocks: clocks(100_000_000_000, 201_000_000_000), ..record_of_now() };
    let day = Nanoseconds(86_400_000_000_000);
    let other_time = Record { wall_ns: record_of_now().wall_ns.minus(day), ..record_of_now() };
    for (what, record) in [
        ("none", None),
        ("of another machine", Some(other_boot)),
        ("of other clocks", Some(other_clocks)),
        ("of another time", Some(other_time)),
    ] {
        let (_temporary, folder) = mixed();
        if let Some(record) = record {
            record.write(&folder.0).unwrap();
        }
        let (jumps, text) = said(&folder);
        assert_eq!(jumps, [None; 2], "{what}");
        assert_eq!(text.matches("by an unknown time").count(), 2, "{what}: {text}");
    }
    let (_temporary, folder) = mixed();
    fs::write(folder.path(record::NAME), "{").unwrap();
    assert_eq!(said(&folder).0, [None; 2], "damaged");
    // A copy is written later than the checkpoint.
    record_of_now().write(&folder.0).unwrap();
    let later = SystemTime::now() + Duration::from_secs(3600);
    File::options().write(true).open(folder.path("timens-13.img")).unwrap().set_modified(later).unwrap();
    assert_eq!(said(&folder).0, [None; 2], "copied");
}

#[test]
fn a_record_of_another_checkpoint_is_shown_as_such() {
    let shown = |record: Record| {
        let (_temporary, folder) = mixed();
        record.write(&folder.0).unwrap();
        let output = |words: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_tnsctl")).args(words).arg(&folder.0).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let report: serde_json::Value = serde_json::from_str(&output(&["--json", "images"])).unwrap();
        (report["record_fits"].as_bool(), output(&["images"]).contains(", of another checkpoint"))
    };
    assert_eq!(shown(record_of_now()), (Some(true), false));
    assert_eq!(shown(Record { clocks: clocks(0, 200_000_000_000), ..record_of_now() }), (Some(false), true));
}
