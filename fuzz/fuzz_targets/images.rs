// SPDX-License-Identifier: Apache-2.0
//! Any bytes in the place of one file of a real mixed image: read, edited, and read again.
//!
//! The first byte of the input says which file, the rest is its content. Beside the seeds, which are the files themselves:
//!
//! ```text
//! fuzz/run 60 images
//! ```

#![no_main]

use std::io;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tns_shim::clocks::{Here, Nanoseconds};
use tns_shim::criu::images::{Images, Source, Stored};
use tns_shim::criu::record::{self, Record};
use tns_shim::criu::{host_time, repair};

// Written by runc 1.1 and CRIU 4.1: PID 19 is in another time namespace than PID 1; its parent is PID 1.
const FILES: [(&str, &[u8]); 8] = [
    ("ids-19.img", include_bytes!("../seeds/ids-19.img")),
    ("ids-1.img", include_bytes!("../seeds/ids-1.img")),
    ("pstree.img", include_bytes!("../seeds/pstree.img")),
    ("inventory.img", include_bytes!("../seeds/inventory.img")),
    ("timens-13.img", include_bytes!("../seeds/timens-13.img")),
    ("core-19.img", include_bytes!("../seeds/core-19.img")),
    ("core-1.img", include_bytes!("../seeds/core-1.img")),
    (record::NAME, include_bytes!("../seeds/tns-shim.json")),
];

struct Memory<'a> {
    /// The files that are not as they were.
    changed: Vec<(String, &'a [u8])>,
}

impl Source for Memory<'_> {
    fn file(&self, name: &str) -> io::Result<Option<Stored>> {
        let changed = self.changed.iter().rev().find(|(changed, _)| changed == name).map(|(_, bytes)| *bytes);
        // The image has two more processes, which are like these two.
        let name = name.replace("-6.img", "-1.img").replace("-25.img", "-19.img");
        let bytes = changed.or_else(|| FILES.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes));
        Ok(bytes.map(|bytes| Stored { bytes: bytes.to_vec(), modified: Nanoseconds(0) }))
    }
}

fuzz_target!(|input: &[u8]| {
    static HERE: OnceLock<Here> = OnceLock::new();
    let Some((which, content)) = input.split_first() else { return };
    let (name, _) = FILES[usize::from(*which) % FILES.len()];
    let source = Memory { changed: vec![(name.to_owned(), content)] };
    let Ok(images) = Images::read(&source) else { return };
    for task in images.tasks() {
        let _ = images.command(&source, task.pid);
    }
    // Held on the host's time, all are where CRIU was, or there are no namespaces to be in.
    if let Ok(edits) = host_time::plan(&images, &source) {
        let held: Vec<(String, &[u8])> =
            edits.iter().filter_map(|edit| Some((edit.name.clone(), edit.after.as_deref()?))).collect();
        let held = Memory { changed: source.changed.iter().cloned().chain(held).collect() };
        let held = Images::read(&held).unwrap();
        if images.criu.is_some() && images.first().time().is_some() {
            assert!(held.tasks().iter().all(|task| task.ids.is_none() || task.time() == images.criu));
        }
    }
    let _ = Record::read(&source);
    let here = *HERE.get_or_init(|| Here::look().unwrap());
    let Ok(moves) = repair::plan(&images, &source, here) else { return };
    assert_eq!(moves.len(), images.strays().count());

    // What repair would write is understood, agrees, and differs in the number and the length alone.
    let to = images.first().time();
    let edited: Vec<(String, Vec<u8>)> = images
        .strays()
        .map(|task| {
            let ids = task.ids.as_ref().unwrap();
            let after = ids.moved_to(to.unwrap()).unwrap();
            let name = format!("ids-{}.img", task.pid);
            let again = images.understand_ids(&name, after.clone()).unwrap();
            let there_and_back = again.moved_to(ids.time.unwrap()).unwrap();
            // A number with superfluous bytes comes back without them.
            assert!(there_and_back.len() <= ids.file().len());
            assert!(there_and_back.len() < ids.file().len() || there_and_back == ids.file());
            (name, after)
        })
        .collect();
    let mut source = source;
    source.changed.extend(edited.iter().map(|(name, bytes)| (name.clone(), bytes.as_slice())));
    let repaired = Images::read(&source).unwrap();
    assert_eq!(repaired.strays().count(), 0);
});
