// SPDX-License-Identifier: Apache-2.0
//! Any text as runc's state.json or crun's status: refused, or read, and shown with another start time, which is then the
//! only difference.
//!
//! The first byte of the input says whose it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tns_shim::container::{ClockTicks, State};
use tns_shim::runtime::abilities::Kind;

fuzz_target!(|input: &str| {
    let Some((kind, text)) = input.split_at_checked(1) else { return };
    let kind = if kind == "c" { Kind::Crun } else { Kind::Runc };
    let parse = |text: &str| State::parse(kind, "state".into(), text.to_owned());
    let Ok(state) = parse(text) else { return };
    let _ = state.annotation("org.tns-shim.mode");
    let shown = |state: &State, start| {
        let mut shown = Vec::new();
        state.write_with_start(start, &mut shown).unwrap();
        String::from_utf8(shown).unwrap()
    };
    // A number has one form, but for -0.
    let same = shown(&state, state.start);
    assert!(same == text || text.contains("-0"));
    for start in [0, 1, u64::MAX] {
        let other = parse(&shown(&state, ClockTicks(start))).unwrap();
        assert_eq!((other.pid, other.start, other.lists_time), (state.pid, ClockTicks(start), state.lists_time));
        assert_eq!(shown(&other, state.start), same);
    }
});
