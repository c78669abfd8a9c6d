// SPDX-License-Identifier: Apache-2.0
//! Any text as the settings file and as annotations: understood, or refused in words that name what is wrong.
//!
//! Up to a line of three dashes the input is the file; then each line is an annotation, NAME=VALUE.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tns_shim::settings::{Annotations, Settings, Wanted};

fuzz_target!(|input: &str| {
    let (file, annotations) = input.split_once("---\n").unwrap_or((input, ""));
    let settings = toml::from_str::<Settings>(file).unwrap_or_default();
    let pairs: Vec<(&str, &str)> = annotations.lines().filter_map(|line| line.split_once('=')).collect();
    match Annotations::of(pairs.iter().copied(), &settings) {
        Ok(annotations) => {
            let wanted = Wanted::of(&settings, annotations);
            assert!(annotations.mode.is_none_or(|mode| mode == wanted.mode));
            assert!(annotations.restore_clocks.is_none_or(|clocks| clocks == wanted.restore.clocks));
            assert_eq!(
                annotations.offsets.is_some() || annotations.uptime.is_some_and(|_| wanted.shift.is_asked_for()),
                { wanted.shift.is_asked_for() }
            );
            // The order does not matter, but where one is there twice.
            let names: std::collections::BTreeSet<_> = pairs.iter().map(|(name, _)| name).collect();
            let is_full = |name: &&&str| name.starts_with(tns_shim::settings::ANNOTATIONS);
            if names.len() == pairs.len() && names.iter().all(|name| is_full(&name)) {
                assert_eq!(Annotations::of(pairs.iter().rev().copied(), &settings).unwrap(), annotations);
            }
        }
        Err(error) => assert!(format!("{error:#}").contains("config.json")),
    }
});
