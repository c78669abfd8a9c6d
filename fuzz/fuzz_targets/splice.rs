// SPDX-License-Identifier: Apache-2.0
//! Any bytes as a config.json: changed in every way that there is. Each changed text is the old one but for the places of
//! the change; where a JSON parser understands it, it sees the same document with nothing else than what was meant; and the
//! same change again changes nothing.
//!
//! The first byte of the input is about the offsets, the rest is the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Deserializer, Value, json};
use tns_shim::bundle::{Declared, Reading, View};
use tns_shim::json::{Splice, pieces};
use tns_shim::settings::Settings;
use tns_shim::timens::Offsets;

const WHY: &str = "a reason with \"quotes\" and a \\";

/// The first value in the text, as the runtimes read it, and nothing if it is deeper than a parser follows.
fn document(text: &[u8]) -> Option<Value> {
    Deserializer::from_slice(text).into_iter().next()?.ok()
}

fn changed(text: &[u8], mut change: Vec<Splice>) -> Vec<u8> {
    let after = pieces(text, &mut change).concat();
    // Back again: what was inserted goes, what was removed comes back.
    let mut back = after.clone();
    for Splice { remove, insert } in change.iter().rev() {
        let before: isize = change
            .iter()
            .filter(|other| other.remove.start < remove.start)
            .map(|other| other.insert.len() as isize - other.remove.len() as isize)
            .sum();
        let at = remove.start.checked_add_signed(before).unwrap();
        assert_eq!(&back[at..at + insert.len()], insert.as_bytes());
        back.splice(at..at + insert.len(), text[remove.clone()].iter().copied());
    }
    assert_eq!(back, text);
    after
}

fn is_time(entry: &Value) -> bool {
    entry["type"] == "time"
}

fn clock(nanoseconds: i64) -> Value {
    json!({ "secs": nanoseconds.div_euclid(1_000_000_000), "nanosecs": nanoseconds.rem_euclid(1_000_000_000) })
}

fn entries(document: &mut Value) -> &mut Vec<Value> {
    document["linux"]["namespaces"].as_array_mut().unwrap()
}

fuzz_target!(|input: &[u8]| {
    let Some((how, text)) = input.split_first() else { return };
    let offsets =
        Offsets { monotonic_ns: i64::from(*how as i8) * 300_000_001, boottime_ns: i64::from(*how) << (*how % 56) };
    let reading = Reading::of(text);
    let _ = reading.annotations(&Settings::default());
    let changes = [reading.declare(None), reading.declare(Some(offsets)), reading.undeclare(), reading.refuse(WHY)];
    let View::Understood { declared, .. } = reading.view else {
        assert!(changes.iter().all(Vec::is_empty));
        return;
    };
    let [declared_plainly, shifted, undeclared, refused] = changes.map(|change| changed(text, change));

    // What was there, and what shall be.
    if let Some(before) = document(text) {
        let had_time = entries(&mut before.clone()).iter().any(is_time);
        let mut expected = before.clone();
        if !had_time {
            entries(&mut expected).push(json!({ "type": "time" }));
        }
        assert_eq!(document(&declared_plainly).unwrap(), expected);
        expected["linux"]["timeOffsets"] =
            json!({ "monotonic": clock(offsets.monotonic_ns), "boottime": clock(offsets.boottime_ns) });
        assert_eq!(document(&shifted).unwrap(), expected);

        let mut expected = before.clone();
        entries(&mut expected).retain(|entry| !is_time(entry));
        if before["linux"].get("timeOffsets").is_some_and(|offsets| *offsets != json!({})) {
            expected["linux"]["timeOffsets"] = Value::Null;
        }
        assert_eq!(document(&undeclared).unwrap(), expected);

        let mut expected = before;
        entries(&mut expected).push(json!({ "type": WHY }));
        assert_eq!(document(&refused).unwrap(), expected);
    }

    // The same once more.
    let again = Reading::of(&declared_plainly);
    assert!(again.declare(None).is_empty());
    let expected = if declared == Declared::No { Declared::Plain } else { declared };
    assert!(matches!(again.view, View::Understood { declared, .. } if declared == expected));
    let again = Reading::of(&shifted);
    assert_eq!(changed(&shifted, again.declare(Some(offsets))), shifted);
    let again = Reading::of(&undeclared);
    assert!(again.undeclare().is_empty());
    assert!(matches!(again.view, View::Understood { declared: Declared::No, .. }));
    assert!(matches!(Reading::of(&refused).view, View::Understood { .. }));
});
