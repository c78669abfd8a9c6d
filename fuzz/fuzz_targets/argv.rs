// SPDX-License-Identifier: Apache-2.0
//! Any words, one a line, as argv: read for both runtimes. What is found in them are the words themselves or ends of them,
//! and no id leads out of the folder where the runtime keeps its containers.

#![no_main]

use std::ffi::{CStr, CString, OsStr};
use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use tns_shim::container;
use tns_shim::invocation::{Dialect, Invocation, Verb};
use tns_shim::runtime::abilities::Kind;

fn is_of(words: &[&CStr], part: &OsStr) -> bool {
    let part = part.as_encoded_bytes().as_ptr_range();
    words.iter().any(|word| {
        let word = word.to_bytes().as_ptr_range();
        // It ends where the word does: a value is never cut off.
        word.start <= part.start && part.end == word.end
    })
}

fuzz_target!(|input: &[u8]| {
    let words: Vec<CString> = input.split(|byte| *byte == b'\n').filter_map(|word| CString::new(word).ok()).collect();
    let words: Vec<&CStr> = words.iter().map(|word| word.as_c_str()).collect();
    let invocation = Invocation::parse(&words);
    assert_eq!(invocation.args, words);
    let globals = &invocation.globals;
    for part in [globals.root, globals.log, globals.log_format, globals.criu].into_iter().flatten() {
        assert!(is_of(&words, part), "{part:?}");
    }
    for (dialect, kind) in [(Dialect::Runc, Kind::Runc), (Dialect::Crun, Kind::Crun)] {
        let operands = invocation.operands(dialect);
        assert_eq!(operands, invocation.operands(dialect));
        for part in [operands.id, operands.bundle, operands.config, operands.image_path].into_iter().flatten() {
            assert!(is_of(&words, part), "{part:?}");
        }
        assert!(!operands.pre_dump || invocation.verb == Verb::Checkpoint);
        if let Some(folder) = operands.id.and_then(|id| container::folder(kind, Some("/r".as_ref()), id).ok()) {
            assert!(folder != Path::new("/r") && folder.starts_with("/r"), "{folder:?}");
            assert!(folder.components().all(|part| part != Component::ParentDir), "{folder:?}");
        }
    }
});
