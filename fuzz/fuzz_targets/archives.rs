// SPDX-License-Identifier: Apache-2.0
//! Any bytes as an archive: read, and if it holds a mixed checkpoint, repaired and read again.
//!
//! The first byte of the input says what the rest is: an archive as it is; a tar, whose checksums are made right, so that
//! what is behind them is reached; or a list of changes to a real archive. The tar may then be compressed, or become a blob
//! of an OCI image layout.
//!
//! ```text
//! fuzz/run 60 archives
//! ```

#![no_main]

use std::io::Write;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tns_shim::archive::collect::Checkpoint;
use tns_shim::archive::compression::{Compression, Encoder};
use tns_shim::archive::{members, rewrite};
use tns_shim::clocks::Here;
use tns_shim::criu::images::Images;
use tns_shim::criu::repair;

// The mixed image of the other target. Two of its processes, 6 and 25, have the files of 1 and 19.
const FILES: [(&str, &[u8]); 11] = [
    ("inventory.img", include_bytes!("../seeds/inventory.img")),
    ("pstree.img", include_bytes!("../seeds/pstree.img")),
    ("timens-13.img", include_bytes!("../seeds/timens-13.img")),
    ("ids-1.img", include_bytes!("../seeds/ids-1.img")),
    ("ids-6.img", include_bytes!("../seeds/ids-1.img")),
    ("ids-19.img", include_bytes!("../seeds/ids-19.img")),
    ("ids-25.img", include_bytes!("../seeds/ids-19.img")),
    ("core-1.img", include_bytes!("../seeds/core-1.img")),
    ("core-6.img", include_bytes!("../seeds/core-1.img")),
    ("core-19.img", include_bytes!("../seeds/core-19.img")),
    ("core-25.img", include_bytes!("../seeds/core-19.img")),
];

fn tar(files: &[(String, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Gives every block of which the flags of a member are among those known, and that has some name, the right checksum.
fn mend(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if block[0] != 0
            && matches!(block[156], 0 | b'0'..=b'7' | b'S' | b'x' | b'g' | b'L' | b'K')
            && block[149] != 0xff
        {
            let sum = format!("{:06o}\0 ", members::checksum(block));
            block[148..156].copy_from_slice(sum.as_bytes());
        }
    }
}

/// Each change is a position in two bytes, and a byte.
fn change(tar: &mut [u8], changes: &[u8]) {
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % tar.len();
        tar[at] = change[2];
    }
}

fn archive(how: u8, rest: &[u8]) -> Vec<u8> {
    static REAL: OnceLock<Vec<u8>> = OnceLock::new();
    let real = REAL.get_or_init(|| {
        let name = |name: &str| format!("checkpoint/{name}");
        tar(&FILES.map(|(known, bytes)| (name(known), bytes)))
    });
    let tar_in = match how & 3 {
        0 => return rest.to_vec(),
        1 => {
            let mut tar = rest.to_vec();
            mend(&mut tar);
            tar
        }
        // Changed before the checksums are made right, or after.
        when => {
            let mut tar = real.clone();
            change(&mut tar, rest);
            if when == 2 {
                mend(&mut tar);
            }
            tar
        }
    };
    let compression = [Compression::None, Compression::Gzip, Compression::Zstd][usize::from(how >> 2 & 3) % 3];
    let packed = compressed(compression, &tar_in);
    if how & 0x10 == 0 {
        return packed;
    }
    tar(&[(format!("blobs/sha256/{}", "0a".repeat(32)), &packed), ("index.json".to_owned(), b"{}")])
}

fuzz_target!(|input: &[u8]| {
    static HERE: OnceLock<Here> = OnceLock::new();
    let Some((how, rest)) = input.split_first() else { return };
    let before = archive(*how, rest);
    let Ok(checkpoint) = Checkpoint::read(&before[..]) else { return };
    let Ok(images) = Images::read(&checkpoint) else { return };
    let here = *HERE.get_or_init(|| Here::look().unwrap());
    let Ok(moves) = repair::plan(&images, &checkpoint, here) else { return };
    let Ok(patches) = checkpoint.patches(moves.iter().map(|one| &one.edit)) else { return };

    let mut after = Vec::new();
    let count = patches.len();
    let Ok(sum) = rewrite::copy(&before[..], checkpoint.sum, patches, &mut after) else { return };
    let again = Checkpoint::read(&after[..]).unwrap();
    assert_eq!(again.sum, sum);
    assert_eq!(again.sum.length, checkpoint.sum.length);
    assert_eq!(again.compression, checkpoint.compression);
    assert_eq!(again.sum == checkpoint.sum, count == 0);
    assert_eq!(Images::read(&again).unwrap().strays().count(), 0);
});
