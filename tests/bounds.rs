// SPDX-License-Identifier: Apache-2.0
//! Checkpoints made to take memory: each is read, or refused in its own words, by a process that has [`ROOM`] and no more.

#![cfg(feature = "ctl")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/handmade.rs"]
mod handmade;
#[path = "common/skip.rs"]
mod skip;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use handmade::*;
use tempfile::TempDir;

/// Of address space, in KiB: more than what a process can have in memory.
const ROOM: u64 = 320 << 10;

/// `tnsctl` in that room.
fn in_room(words: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("ulimit -v {ROOM} && exec \"$@\""), "sh", env!("CARGO_BIN_EXE_tnsctl")]).args(words);
    command
}

/// Its exit code, and what it says.
fn tnsctl(words: &[&str]) -> (Option<i32>, String) {
    let output = in_room(words).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stderr) + &text(output.stdout))
}

fn refused(path: &Path, words: &str) {
    let (code, said) = tnsctl(&["images", path.to_str().unwrap()]);
    assert!(code == Some(2) && said.contains(words), "{code:?} {said}");
}

fn put(folder: &TempDir, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn tar_of(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Compressed so that it takes 128 MiB to read, as the frame says.
fn with_large_window(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An inventory.img of so many bytes, nearly all of them fields of two.
fn of_fields(length: usize) -> Vec<u8> {
    file(&[0x5831_3116], &[record(&number(1, 2).repeat(length / 2 - 4))])
}

/// An ids-PID.img with a field that nobody knows, of so many bytes.
fn ids_of(length: usize, time: u64) -> Vec<u8> {
    let mut message = [&ids_message(Some(time))[..], &[14 << 3 | 2]].concat();
    padded(&mut message, length as u64, 0);
    file(&[COMMON, 0x5443_2030], &[record(&[message, vec![0; length]].concat())])
}

fn memory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

#[test]
fn a_message_takes_no_more_memory_than_its_bytes() {
    let folder = memory();
    let large = of_fields(64 << 20);
    put(&folder, "inventory.img", &large);
    refused(folder.path(), "read inventory.img: larger than 65536 bytes");
    let archive = zstd::encode_all(&tar_of([("checkpoint/inventory.img".to_owned(), large)])[..], 1).unwrap();
    assert!(archive.len() < 10_000, "{}", archive.len());
    refused(&put(&folder, "archive", &archive), "read inventory.img: too large for such an image");
    put(&folder, "inventory.img", &of_fields(64 << 10));
    refused(folder.path(), "understand inventory.img: byte 10: a field is there twice");
    // Where such a message may be large.
    let (_temporary, folder) = mixed();
    let body = number(2, 1).repeat(1 << 20);
    fs::write(folder.path("core-7.img"), file(&[COMMON, 0x5505_3847], &[record(&body)])).unwrap();
    refused(&folder.0, "understand core-7.img: byte 12: a message lacks a field that it must have");
}

#[test]
fn many_processes_with_large_files_are_refused() {
    let (_temporary, folder) = mixed();
    let tasks: Vec<_> = (2..6000).map(|pid| (pid, 1)).collect();
    fs::write(folder.path("pstree.img"), pstree(&[&[(1, 0)], &tasks[..]].concat())).unwrap();
    let large = folder.path("large");
    fs::write(&large, ids_of(65_000, 5)).unwrap();
    for (pid, _) in tasks {
        let name = folder.path(&format!("ids-{pid}.img"));
        let _ = fs::remove_file(&name);
        fs::hard_link(&large, name).unwrap();
    }
    refused(&folder.0, "more than 8 MiB of processes, the last one PID 130");
}

#[test]
fn a_list_of_more_processes_than_there_can_be_is_not_read() {
    let (_temporary, folder) = mixed();
    fs::write(folder.path("pstree.img"), pstree(&[(1, 0), (2, 1)]).repeat(1 << 19)).unwrap();
    refused(&folder.0, "read pstree.img: larger than 16777216 bytes");
}

#[test]
fn many_checkpoints_with_one_file_each_are_refused() {
    let folder = memory();
    let files = (0..60_000).map(|number| (format!("{number}/inventory.img"), Vec::new()));
    refused(&put(&folder, "many", &tar_of(files)), "more than 64 MiB of inventory, pstree, ids");
}

#[test]
fn a_repair_of_all_that_may_be_there_stays_within() {
    if skip::is_emulated(skip::OWN_MEMORY) {
        return;
    }
    let folder = memory();
    let pids = 2..125_u64;
    let tasks: Vec<_> = pids.clone().map(|pid| (pid, 1)).collect();
    let mut files = vec![
        ("inventory.img".to_owned(), inventory(2)),
        ("pstree.img".to_owned(), pstree(&[&[(1, 0)], &tasks[..]].concat())),
        ("ids-1.img".to_owned(), ids(13)),
        ("timens-13.img".to_owned(), timens((1, 0), (1, 0))),
    ];
    for pid in pids {
        files.push((format!("ids-{pid}.img"), ids_of(65_000, 5)));
        files.push((format!("core-{pid}.img"), core(b"a", 1)));
    }
    // Left over, and as large as they may be.
    files.extend((1000..1002).map(|pid| (format!("core-{pid}.img"), vec![0; 16 << 20])));
    let archive = put(&folder, "archive", &with_large_window(&tar_of(files)));
    let new = folder.path().join("new");
    let (code, said) = tnsctl(&["repair", archive.to_str().unwrap(), "--output", new.to_str().unwrap()]);
    assert!(code == Some(0) && said.contains("All processes agree about time in"), "{code:?} {said}");
}

/// Makes a gigabyte of its memory, which takes none, its command line, and waits. The numbers are those of mmap(2) and
/// prctl(2) on perl's machine, which need not be the one that this is compiled for.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const LONG_COMMAND_LINE: &str = r#"
    use Config;
    my ($mmap, $prctl) = $Config{archname} =~ /^aarch64/ ? (222, 167) : (9, 157);
    my $size = 1 << 30;
    my $at = syscall($mmap, 0, $size, 1, 0x4022, -1, 0);
    open(my $file, "<", "/proc/self/stat");
    my @s = split(/ /, <$file> =~ s/.*\) //r);
    my $map = pack("Q11QL2", @s[23, 24, 42, 43, 44, 44, 25], $at, $at + $size, @s[47, 48], 0, 0, 0xffffffff);
    $| = 1;
    print syscall($prctl, 35, 14, $map, length($map), 0), "\n";
    sleep(60);
"#;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[test]
fn a_command_line_of_gigabytes_is_not_read() {
    let mut process = Command::new("perl").args(["-e", LONG_COMMAND_LINE]).stdout(Stdio::piped()).spawn().unwrap();
    let mut answer = [0; 2];
    process.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"0\n", "prctl");
    let mut tnsctl = Command::new(env!("CARGO_BIN_EXE_tnsctl"))
        .args(["inspect", &process.id().to_string()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let peak = |pid: u32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
    };
    let mut most = 0;
    while tnsctl.try_wait().unwrap().is_none() {
        most = most.max(peak(tnsctl.id()).unwrap_or(0));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(most < ROOM, "{most} KiB");
}

#[test]
fn a_config_of_any_size_comes_out_of_the_hook_as_it_went_in() {
    if skip::is_emulated(skip::OWN_MEMORY) {
        return;
    }
    let size = 400 << 20;
    let folder = memory();
    let path = put(&folder, "config.json", b"{");
    File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
    let mut hook = in_room(&["hook", "precreate"]);
    hook.stdin(File::open(path).unwrap()).stdout(Stdio::piped());
    let mut child = hook.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut start = [0; 1];
    stdout.read_exact(&mut start).unwrap();
    let rest = io::copy(&mut stdout, &mut io::sink()).unwrap();
    assert_eq!((child.wait().unwrap().code(), &start, rest), (Some(0), b"{", size - 1));
}

#[test]
fn what_zstd_needs_is_bounded_in_an_archive_within_an_archive_too() {
    if skip::is_emulated(skip::OWN_MEMORY) {
        return;
    }
    let folder = memory();
    let blob = with_large_window(&tar_of([("inventory.img".to_owned(), inventory(2))]));
    let name = format!("blobs/sha256/{}", "0a".repeat(32));
    let archive = with_large_window(&tar_of([(name.clone(), blob)]));
    refused(&put(&folder, "archive", &archive), &format!("read {name}"));
}
