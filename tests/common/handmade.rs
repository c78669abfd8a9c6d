// SPDX-License-Identifier: Apache-2.0
//! Checkpoint images made by hand.

// Each test program uses a part.
#![allow(dead_code, clippy::missing_panics_doc)]

use std::fs;

use tempfile::TempDir;
use tns_shim::criu::images::Folder;

pub const COMMON: u32 = 0x5456_4319;

pub fn number(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    padded(&mut bytes, value, 0);
    bytes
}

/// `value` as a varint of at least `least` bytes.
pub fn padded(bytes: &mut Vec<u8>, mut value: u64, least: usize) {
    let start = bytes.len();
    while value >= 0x80 || bytes.len() - start + 1 < least {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
}

pub fn nested(field: u8, message: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2, u8::try_from(message.len()).unwrap()], message].concat()
}

pub fn record(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_le_bytes()[..], message].concat()
}

pub fn file(magics: &[u32], records: &[Vec<u8>]) -> Vec<u8> {
    [magics.iter().flat_map(|magic| magic.to_le_bytes()).collect(), records.concat()].concat()
}

pub fn ids_message(time: Option<u64>) -> Vec<u8> {
    let first: Vec<u8> = (1..=11).flat_map(|field| number(field, 40 + u64::from(field))).collect();
    [first, time.map_or(Vec::new(), |time| number(12, time))].concat()
}

pub fn ids(time: u64) -> Vec<u8> {
    // And a field that nobody knows yet.
    file(&[COMMON, 0x5443_2030], &[record(&[ids_message(Some(time)), number(15, 999)].concat())])
}

pub fn pstree(tasks: &[(u64, u64)]) -> Vec<u8> {
    let entry = |(pid, parent): &(u64, u64)| {
        record(&[number(1, *pid), number(2, *parent), number(3, 1), number(4, 1), number(5, *pid)].concat())
    };
    file(&[COMMON, 0x5027_3030], &tasks.iter().map(entry).collect::<Vec<_>>())
}

pub fn inventory(version: u64) -> Vec<u8> {
    inventory_with(version, 7)
}

/// Of another checkpoint.
pub fn inventory_of(uptime: u64) -> Vec<u8> {
    inventory_with(2, uptime)
}

pub fn inventory_with(version: u64, uptime: u64) -> Vec<u8> {
    let message = [number(1, version), number(2, 1), nested(3, &ids_message(Some(5))), number(8, uptime)].concat();
    file(&[0x5831_3116], &[record(&message)])
}

pub fn core(name: &[u8], state: u64) -> Vec<u8> {
    let task = [number(1, state), number(2, 0), nested(6, name)].concat();
    file(&[COMMON, 0x5505_3847], &[record(&[number(1, 1), nested(3, &task)].concat())])
}

pub fn timens(monotonic: (u64, u64), boottime: (u64, u64)) -> Vec<u8> {
    let time = |(seconds, nanoseconds)| [number(1, seconds), number(2, nanoseconds)].concat();
    file(&[COMMON, 0x4311_4433], &[record(&[nested(1, &time(monotonic)), nested(2, &time(boottime))].concat())])
}

/// PID 1 in the time namespace 13, its child 7 and 7's child 300 in CRIU's own, which is 5; 9 is a zombie.
pub fn mixed() -> (TempDir, Folder) {
    // In memory: every repair waits for the disk, and there are thousands here.
    let temporary = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let folder = Folder(temporary.path().to_owned());
    let put = |name: &str, bytes: Vec<u8>| fs::write(folder.path(name), bytes).unwrap();
    put("inventory.img", inventory(2));
    put("pstree.img", pstree(&[(1, 0), (7, 1), (300, 7), (9, 1)]));
    put("ids-1.img", ids(13));
    put("ids-7.img", ids(5));
    put("ids-300.img", ids(5));
    put("timens-13.img", timens((100, 5), (200, 999_999_999)));
    for (pid, name) in [(1, &b"init"[..]), (7, b"a\x1bb"), (300, b"sh"), (9, b"dead")] {
        put(&format!("core-{pid}.img"), core(name, if pid == 9 { 2 } else { 1 }));
    }
    // Of an earlier checkpoint.
    put("ids-55.img", b"left over".to_vec());
    (temporary, folder)
}

/// As CRIU before 4.1 writes it: nothing tells it from that of another checkpoint.
pub fn plain_inventory() -> Vec<u8> {
    let message = [number(1, 2), number(2, 1), nested(3, &ids_message(Some(5)))].concat();
    file(&[0x5831_3116], &[record(&message)])
}
