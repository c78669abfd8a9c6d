// SPDX-License-Identifier: Apache-2.0
//! Checkpoint images made by hand, whole, mixed and damaged: what is read, what is refused, and that nothing is written
//! that should not be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/handmade.rs"]
mod handmade;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use handmade::*;
use tns_shim::clocks::Here;
use tns_shim::criu::images::{Folder, Images, Source};
use tns_shim::criu::{host_time, originals, repair};

fn here() -> Here {
    Here::look().unwrap()
}

/// Every file: name, content, inode, change of content.
fn snapshot(folder: &Folder) -> Vec<(String, Vec<u8>, u64, i64)> {
    let mut files: Vec<_> = fs::read_dir(folder.as_ref() as &Path)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let metadata = fs::metadata(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(&path).unwrap(), metadata.ino(), metadata.mtime_nsec())
        })
        .collect();
    files.sort();
    files
}

/// Repairs as tnsctl does, and tells the PIDs that were moved.
fn mend(folder: &Folder) -> anyhow::Result<Vec<u32>> {
    let images = Images::read(folder)?;
    let moves = repair::plan(&images, folder, here())?;
    originals::apply(&images, folder, moves.iter().map(|one| &one.edit))?;
    Ok(moves.iter().map(|one| one.pid).collect())
}

#[test]
fn a_mixed_image_is_read() {
    let (_temporary, folder) = mixed();
    let images = Images::read(&folder).unwrap();
    assert_eq!((images.first().pid, images.first().time(), images.criu), (1, Some(13), Some(5)));
    assert_eq!(images.tasks().iter().map(|task| task.pid).collect::<Vec<_>>(), [1, 7, 300, 9]);
    assert_eq!(images.strays().map(|task| task.pid).collect::<Vec<_>>(), [7, 300]);
    assert_eq!(images.command(&folder, 7).unwrap(), "a\\u{1b}b");
    let (clocks, _) = images.clocks(&folder).unwrap().unwrap();
    assert_eq!((clocks.monotonic_ns.0, clocks.boottime_ns.0), (100_000_000_005, 200_999_999_999));
}

#[test]
fn repair_changes_one_number_of_a_stray_and_undo_brings_the_same_files_back() {
    let (_temporary, folder) = mixed();
    fs::set_permissions(folder.path("ids-7.img"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = snapshot(&folder);
    let images = Images::read(&folder).unwrap();
    assert_eq!(repair::plan(&images, &folder, here()).unwrap().len(), 2);
    assert_eq!(snapshot(&folder), before, "a plan changes nothing");

    assert_eq!(mend(&folder).unwrap(), [7, 300]);
    assert_eq!(fs::read(folder.path("ids-7.img")).unwrap(), ids(13));
    assert_eq!(fs::metadata(folder.path("ids-7.img")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read(folder.path("ids-7.img.tns-orig")).unwrap(), ids(5));
    assert_eq!(originals::names(&folder).unwrap(), ["ids-300.img", "ids-7.img"]);
    let repaired = snapshot(&folder);
    assert_eq!(repaired.len(), before.len() + 4, "no temporary file is left");
    assert_eq!(mend(&folder).unwrap(), [0; 0]);
    assert_eq!(snapshot(&folder), repaired, "a second repair changes nothing");

    let images = Images::read(&folder).unwrap();
    assert_eq!(originals::undo(&folder, &images, true).unwrap(), ["ids-300.img", "ids-7.img"]);
    assert_eq!(snapshot(&folder), repaired, "a dry run changes nothing");
    assert_eq!(originals::undo(&folder, &images, false).unwrap(), ["ids-300.img", "ids-7.img"]);
    assert_eq!(snapshot(&folder), before, "the very same files");
    assert!(originals::undo(&folder, &images, false).unwrap().is_empty());
}

#[test]
fn a_number_of_another_length_changes_the_length_of_its_message_only() {
    for (from, to) in [(5, 300), (300, 5), (5, u64::from(u32::MAX)), (u64::from(u32::MAX), 0)] {
        let (_temporary, folder) = mixed();
        fs::write(folder.path("ids-1.img"), ids(to)).unwrap();
        fs::rename(folder.path("timens-13.img"), folder.path(&format!("timens-{to}.img"))).unwrap();
        for pid in [7, 300] {
            fs::write(folder.path(&format!("ids-{pid}.img")), ids(from)).unwrap();
        }
        assert_eq!(mend(&folder).unwrap(), [7, 300]);
        assert_eq!(fs::read(folder.path("ids-7.img")).unwrap(), ids(to), "{from} to {to}");
    }
}

#[test]
fn a_padded_number_is_understood_and_stays_where_it_agrees() {
    let (_temporary, folder) = mixed();
    let mut message = [ids_message(None), vec![12 << 3]].concat();
    padded(&mut message, 13, 5);
    let padded = file(&[COMMON, 0x5443_2030], &[record(&message)]);
    fs::write(folder.path("ids-7.img"), &padded).unwrap();
    assert_eq!(mend(&folder).unwrap(), [300]);
    assert_eq!(fs::read(folder.path("ids-7.img")).unwrap(), padded);
}

#[test]
fn images_of_the_first_version_have_one_magic_number() {
    let (_temporary, folder) = mixed();
    fs::write(folder.path("inventory.img"), inventory(1)).unwrap();
    for entry in fs::read_dir(folder.as_ref() as &Path).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&COMMON.to_le_bytes()) {
            fs::write(&path, &bytes[4..]).unwrap();
        }
    }
    assert_eq!(mend(&folder).unwrap(), [7, 300]);
    assert_eq!(fs::read(folder.path("ids-300.img")).unwrap(), ids(13)[4..]);
}

#[test]
fn a_kernel_without_time_namespaces_leaves_nothing_to_disagree_about() {
    let (_temporary, folder) = mixed();
    for pid in [1, 7, 300] {
        let bytes = file(&[COMMON, 0x5443_2030], &[record(&ids_message(None))]);
        fs::write(folder.path(&format!("ids-{pid}.img")), bytes).unwrap();
    }
    let images = Images::read(&folder).unwrap();
    assert_eq!(images.strays().count(), 0);
    assert!(images.clocks(&folder).unwrap().is_none());
}

#[test]
fn what_another_checkpoint_left_is_neither_kept_nor_put_back() {
    let (_temporary, folder) = mixed();
    assert_eq!(mend(&folder).unwrap(), [7, 300]);
    // A later checkpoint, in which PID 300 agrees by itself; its files could be taken for repaired ones.
    for (name, bytes) in [("inventory.img", inventory_of(8)), ("ids-7.img", ids(14)), ("ids-300.img", ids(13))] {
        fs::write(folder.path(name), bytes).unwrap();
    }
    let images = Images::read(&folder).unwrap();
    let before = snapshot(&folder);
    let error = originals::undo(&folder, &images, false).unwrap_err().to_string();
    assert!(error.contains("of another checkpoint"), "{error}");
    assert_eq!(snapshot(&folder), before);
    assert_eq!(mend(&folder).unwrap(), [7]);
    assert_eq!(originals::names(&folder).unwrap(), ["ids-7.img"]);
    assert_eq!(fs::read(folder.path("ids-7.img.tns-orig")).unwrap(), ids(14));
}

#[test]
fn what_somebody_else_has_changed_is_not_put_back() {
    let (_temporary, folder) = mixed();
    assert_eq!(mend(&folder).unwrap(), [7, 300]);
    fs::write(folder.path("ids-7.img"), file(&[COMMON, 0x5443_2030], &[record(&ids_message(Some(77)))])).unwrap();
    let images = Images::read(&folder).unwrap();
    let before = snapshot(&folder);
    let error = originals::undo(&folder, &images, false).unwrap_err().to_string();
    assert!(error.contains("ids-7.img is not what is made of ids-7.img.tns-orig"), "{error}");
    assert_eq!(snapshot(&folder), before);
}

/// Holds the image on the host's time, as restore does, and tells the names of the files that were changed.
fn hold(folder: &Folder) -> Vec<String> {
    let images = Images::read(folder).unwrap();
    let edits = host_time::plan(&images, folder).unwrap();
    originals::apply(&images, folder, &edits).unwrap();
    edits.into_iter().map(|edit| edit.name).collect()
}

#[test]
fn an_image_is_held_on_the_hosts_time_and_let_go() {
    let (_temporary, folder) = mixed();
    let before = snapshot(&folder);
    let is_held = || host_time::is_held(&Images::read(&folder).unwrap(), &folder).unwrap();
    assert!(!is_held());
    // A repaired one, too: what is undone is both.
    for repaired in [false, true] {
        if repaired {
            assert_eq!(mend(&folder).unwrap(), [7, 300]);
            assert_eq!(hold(&folder), ["ids-300.img", "ids-7.img", "ids-1.img"]);
        } else {
            assert_eq!(hold(&folder), ["ids-1.img"], "the others are there already");
        }
        let images = Images::read(&folder).unwrap();
        assert!(is_held() && images.strays().count() == 0);
        assert_eq!((images.first().time(), images.clocks(&folder).unwrap()), (Some(5), None));
        assert!(hold(&folder).is_empty());
        originals::undo(&folder, &images, false).unwrap();
        assert_eq!(snapshot(&folder), before);
        assert!(!is_held());
    }
}

#[test]
fn clocks_dumped_in_criu_s_own_namespace_are_put_aside_and_back() {
    let (_temporary, folder) = mixed();
    fs::write(folder.path("ids-1.img"), ids(5)).unwrap();
    fs::rename(folder.path("timens-13.img"), folder.path("timens-0.img")).unwrap();
    let before = snapshot(&folder);
    assert_eq!(hold(&folder), ["timens-0.img"]);
    let images = Images::read(&folder).unwrap();
    assert!(host_time::is_held(&images, &folder).unwrap() && !folder.path("timens-0.img").exists());
    assert_eq!(originals::undo(&folder, &images, false).unwrap(), ["timens-0.img"]);
    assert_eq!(snapshot(&folder), before);
    // A later checkpoint into the same folder brings its own clocks.
    hold(&folder);
    fs::write(folder.path("timens-0.img"), timens((1, 1), (2, 2))).unwrap();
    fs::write(folder.path("inventory.img"), inventory_of(8)).unwrap();
    assert!(!host_time::is_held(&Images::read(&folder).unwrap(), &folder).unwrap());
}

#[test]
fn a_hold_that_was_interrupted_leads_back_to_the_containers_own_clocks() {
    let (_temporary, folder) = mixed();
    assert_eq!(mend(&folder).unwrap(), [7, 300]);
    let images = Images::read(&folder).unwrap();
    let edits = host_time::plan(&images, &folder).unwrap();
    for done in 1..edits.len() {
        originals::apply(&images, &folder, &edits[..done]).unwrap();
        assert_eq!(mend(&folder).unwrap().len(), done);
        let images = Images::read(&folder).unwrap();
        assert_eq!((images.first().time(), images.strays().count()), (Some(13), 0));
    }
}

#[test]
fn an_interrupted_repair_is_gone_on_with_or_undone() {
    for undo in [false, true] {
        let (_temporary, folder) = mixed();
        let before = snapshot(&folder);
        // Interrupted between the second name and the new content.
        fs::copy(folder.path("inventory.img"), folder.path("inventory.img.tns-orig")).unwrap();
        fs::hard_link(folder.path("ids-7.img"), folder.path("ids-7.img.tns-orig")).unwrap();
        if undo {
            let images = Images::read(&folder).unwrap();
            assert_eq!(originals::undo(&folder, &images, false).unwrap(), ["ids-7.img"]);
            assert_eq!(snapshot(&folder), before);
        } else {
            assert_eq!(mend(&folder).unwrap(), [7, 300]);
            assert_eq!(fs::read(folder.path("ids-7.img.tns-orig")).unwrap(), ids(5));
        }
    }
}

#[test]
fn an_undo_that_was_interrupted_at_its_end_is_gone_on_with() {
    let (_temporary, folder) = mixed();
    let before = snapshot(&folder);
    mend(&folder).unwrap();
    // All originals are back by then, and what says whose they were is still there.
    for name in originals::names(&folder).unwrap() {
        fs::rename(folder.path(&format!("{name}.tns-orig")), folder.path(&name)).unwrap();
    }
    assert_ne!(snapshot(&folder), before);
    let images = Images::read(&folder).unwrap();
    assert!(originals::undo(&folder, &images, true).unwrap().is_empty());
    assert_ne!(snapshot(&folder), before);
    assert!(originals::undo(&folder, &images, false).unwrap().is_empty());
    assert_eq!(snapshot(&folder), before);
}

#[test]
fn a_link_is_not_replaced() {
    let (_temporary, folder) = mixed();
    fs::rename(folder.path("ids-300.img"), folder.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", folder.path("ids-300.img")).unwrap();
    let before = snapshot(&folder);
    assert!(mend(&folder).unwrap_err().to_string().contains("ids-300.img is a link"));
    assert_eq!(snapshot(&folder), before);
}

/// Damages one file, and expects an error that names it and the byte, and no change to any file.
#[test]
fn a_file_that_has_changed_since_it_was_read_is_left_as_it_is_and_so_are_all_others() {
    let (_temporary, folder) = mixed();
    let images = Images::read(&folder).unwrap();
    let moves = repair::plan(&images, &folder, here()).unwrap();
    // Another checkpoint has come, with an image as long as that one.
    fs::write(folder.path("ids-300.img"), ids(7)).unwrap();
    let before = snapshot(&folder);
    let error = originals::apply(&images, &folder, moves.iter().map(|one| &one.edit)).unwrap_err().to_string();
    assert!(error.contains("ids-300.img") && error.contains("has changed it just now"), "{error}");
    assert_eq!(snapshot(&folder), before);
}

fn refused(name: &str, damaged: Option<Vec<u8>>, words: &str) {
    let (_temporary, folder) = mixed();
    match damaged {
        Some(bytes) => fs::write(folder.path(name), bytes).unwrap(),
        None => fs::remove_file(folder.path(name)).unwrap(),
    }
    let before = snapshot(&folder);
    let error = format!("{:#}", mend(&folder).expect_err(name));
    assert!(error.contains(name) && error.contains(words), "{name}: {error}");
    assert_eq!(snapshot(&folder), before, "{name}: {error}");
}

const READ: [&str; 7] =
    ["inventory.img", "pstree.img", "ids-1.img", "ids-7.img", "ids-300.img", "timens-13.img", "core-7.img"];

fn original(name: &str) -> Vec<u8> {
    let (_temporary, folder) = mixed();
    fs::read(folder.path(name)).unwrap()
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    for name in READ {
        let whole = original(name);
        for length in 0..whole.len() {
            // pstree.img is a list: cut off between two entries it is shorter, and some of it is whole.
            let (_temporary, folder) = mixed();
            fs::write(folder.path(name), &whole[..length]).unwrap();
            let before = snapshot(&folder);
            match mend(&folder) {
                Err(error) => {
                    let error = format!("{error:#}");
                    assert!(error.contains(name) && error.contains("byte "), "{name} {length}: {error}");
                    assert_eq!(snapshot(&folder), before, "{name} {length}");
                }
                Ok(_) => assert_eq!(name, "pstree.img", "{length}"),
            }
        }
    }
}

#[test]
fn wrong_magic_numbers_and_lengths_are_refused_where_they_stand() {
    for name in READ {
        let whole = original(name);
        let magics = if name == "inventory.img" { 4 } else { 8 };
        for at in 0..magics {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            refused(name, Some(bytes), &format!("byte {}: not the magic number", at / 4 * 4));
        }
        for length in [u32::MAX, 0x7fff_ffff, u32::try_from(whole.len()).unwrap()] {
            let mut bytes = whole.clone();
            bytes[magics..magics + 4].copy_from_slice(&length.to_le_bytes());
            refused(name, Some(bytes), &format!("byte {magics}: a message is longer than its file"));
        }
        if name != "pstree.img" {
            refused(name, Some([&whole[..], &[0]].concat()), &format!("byte {}: something follows", whole.len()));
        }
        refused(name, None, "there is no");
    }
    refused("inventory.img", Some(inventory(3)), "byte 8: an unknown version");
}

#[test]
fn messages_that_could_be_read_in_two_ways_or_in_none_are_refused() {
    let with = |more: &[u8]| Some(file(&[COMMON, 0x5443_2030], &[record(&[&ids_message(None)[..], more].concat())]));
    refused("ids-7.img", with(&[0x60, 5, 0x60, 13]), "byte 36: a field is there twice");
    refused("ids-7.img", with(&[&[0x60][..], &[0xff; 9], &[0x7f]].concat()), "byte 35: a number of more than 64 bits");
    refused("ids-7.img", with(&[0x60, 0x85]), "byte 36: the message ends within a number");
    refused("ids-7.img", with(&[0x60, 0xff, 0xff, 0xff, 0xff, 0x7f]), "byte 34: a number of more than 32 bits");
    refused("ids-7.img", with(&[0x62, 1, 5]), "byte 34: a field should be a number");
    refused("ids-7.img", with(&[0x63, 0x64]), "byte 34: a kind of field");
    refused("ids-7.img", with(&[0x72, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]), "byte 35: a field is longer");
    refused("ids-7.img", with(&[]), "only one of");
    refused("ids-7.img", Some(file(&[COMMON, 0x5443_2030], &[record(&number(12, 5))])), "lacks a field");
    refused("ids-7.img", Some(file(&[COMMON, 0x5443_2030], &[])), "byte 8");
    refused("timens-13.img", Some(timens((1, 1_000_000_000), (1, 0))), "a time that no clock shows");
    refused("timens-13.img", Some(timens((u64::MAX, 0), (1, 0))), "below 2^63");
    refused("timens-13.img", Some(timens((1, 0), (i64::MAX as u64 / 1_000_000_000, 999_999_999))), "no clock shows");
    refused("pstree.img", Some(pstree(&[])), "no process");
    refused("pstree.img", Some(pstree(&[(7, 1), (1, 0)])), "before its parent");
    refused("pstree.img", Some(pstree(&[(1, 0), (7, 0)])), "there are two");
    refused("pstree.img", Some(pstree(&[(1, 0), (7, 1), (7, 1)])), "there twice");
    refused("pstree.img", Some(pstree(&[(1, 0), (7, 8)])), "without one");
    refused("pstree.img", Some(pstree(&[(1, 0), (u64::from(u32::MAX), 1)])), "a PID that cannot be one");
    refused("pstree.img", Some(pstree(&[(1, 0), (0, 1)])), "a PID that cannot be one");
}

#[test]
fn what_is_no_file_is_refused() {
    let (_temporary, folder) = mixed();
    fs::remove_file(folder.path("ids-7.img")).unwrap();
    nix::unistd::mkfifo(&folder.path("ids-7.img"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let error = format!("{:#}", Images::read(&folder).unwrap_err());
    assert!(error.contains("read ids-7.img: no regular file"), "{error}");
}

#[test]
fn a_link_may_stand_for_a_file_but_not_for_an_original() {
    let (_temporary, folder) = mixed();
    fs::rename(folder.path("ids-7.img"), folder.path("elsewhere")).unwrap();
    for name in ["ids-7.img", "ids-7.img.tns-orig"] {
        std::os::unix::fs::symlink("elsewhere", folder.path(name)).unwrap();
    }
    assert_eq!(Images::read(&folder).unwrap().tasks()[1].time(), Some(5));
    assert_eq!(folder.file("ids-7.img.tns-orig").unwrap_err().raw_os_error(), Some(libc::ELOOP));
}

/// Every single bit of every file that is read: an error with nothing written, or an image in which all agree afterwards
/// and from which undo comes back.
#[test]
fn a_flipped_bit_never_harms() {
    let mut refusals = 0;
    let mut repairs = 0;
    for name in READ {
        let whole = original(name);
        for bit in 0..whole.len() * 8 {
            let (_temporary, folder) = mixed();
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(folder.path(name), bytes).unwrap();
            let before = snapshot(&folder);
            if mend(&folder).is_err() {
                refusals += 1;
                assert_eq!(snapshot(&folder), before, "{name} {bit}");
                continue;
            }
            repairs += 1;
            let images = Images::read(&folder).unwrap();
            assert_eq!(images.strays().count(), 0, "{name} {bit}");
            originals::undo(&folder, &images, false).unwrap();
            assert_eq!(snapshot(&folder), before, "{name} {bit}");
        }
    }
    assert!(refusals > 1000 && repairs > 100, "{refusals} refused, {repairs} repaired");
}
