// SPDX-License-Identifier: Apache-2.0
//! `tnsctl config`: the settings in force, and where each comes from.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Verdict, print, table};
use crate::bundle::{self, Reading};
use crate::files::{self, Links};
use crate::settings::{self, Annotations, Honoured, Rule, Settings, Wanted};
use crate::text::printable;

#[derive(Serialize)]
struct Report {
    /// The file that is read, if it is there.
    file: Option<PathBuf>,
    /// Why it does not hold, if it does not: what is printed is what holds for this user.
    trouble: Option<&'static str>,
    settings: Vec<Setting>,
}

#[derive(Serialize)]
struct Setting {
    key: &'static str,
    value: String,
    /// `default`, `file` or `annotation`.
    source: &'static str,
}

pub(super) fn run(bundle: Option<&Path>, json: bool) -> Result<Verdict> {
    let file = Settings::read()?;
    let annotations = bundle.map_or(Ok(Annotations::default()), |bundle| annotations_of(bundle, &file))?;
    let report =
        Report { file: settings::path(), trouble: settings::trouble(), settings: in_force(&file, annotations)? };
    print(&report, json, text)?;
    Ok(Verdict::Good)
}

fn annotations_of(folder: &Path, file: &Settings) -> Result<Annotations> {
    let path = folder.join("config.json");
    let text = files::read(&path, Links::Follow, bundle::LARGEST)
        .and_then(|text| text.ok_or(io::ErrorKind::NotFound.into()))
        .with_context(|| format!("read {}", path.display()))?;
    Reading::of(&text).annotations(file)
}

fn in_force(file: &Settings, annotations: Annotations) -> Result<Vec<Setting>> {
    let wanted = Wanted::of(file, annotations);
    let mixed = file.checkpoint.mixed;
    let offset = |name: &'static str, nanoseconds: Option<i64>| {
        let value = nanoseconds.map_or("none".to_owned(), seconds);
        Setting { key: name, value, source: source(annotations.offsets.is_some(), false) }
    };
    let setting = |key, value: Result<String>, annotated, in_file| -> Result<Setting> {
        Ok(Setting { key, value: value?, source: source(annotated, in_file) })
    };
    let runtime = file.runtime.as_ref().map(|path| printable(&path.to_string_lossy(), 1024));
    let uptime = annotations.uptime.or(file.uptime).unwrap_or_default();
    Ok(vec![
        setting(
            "runtime",
            Ok(runtime.unwrap_or("the first of runc and crun in PATH".to_owned())),
            false,
            file.runtime.is_some(),
        )?,
        setting("mode", word(&wanted.mode), annotations.mode.is_some(), file.mode.is_some())?,
        setting("uptime", word(&uptime), annotations.uptime.is_some(), file.uptime.is_some())?,
        offset("offset.monotonic", annotations.offsets.map(|offsets| offsets.monotonic_ns)),
        offset("offset.boottime", annotations.offsets.map(|offsets| offsets.boottime_ns)),
        setting("checkpoint.mixed", word(&mixed.unwrap_or_default()), false, mixed.is_some())?,
        setting(
            "restore.clocks",
            word(&wanted.restore.clocks),
            annotations.restore_clocks.is_some(),
            file.restore.clocks.is_some(),
        )?,
        setting("restore.mixed", word(&wanted.restore.mixed), false, file.restore.mixed.is_some())?,
        setting("annotations", honoured(file.annotations.as_ref()), false, file.annotations.is_some())?,
        setting("log", word(&file.log.unwrap_or_default()), false, file.log.is_some())?,
    ])
}

fn seconds(nanoseconds: i64) -> String {
    format!("{:+}", crate::clocks::Nanoseconds(nanoseconds))
}

/// A value as it stands in the file.
fn word(value: &impl Serialize) -> Result<String> {
    let value = serde_json::to_value(value)?;
    value.as_str().map(str::to_owned).context("a setting that is no word")
}

/// The rule, or the names.
fn honoured(honoured: Option<&Honoured>) -> Result<String> {
    match honoured {
        None => word(&Rule::default()),
        Some(Honoured::By(rule)) => word(rule),
        Some(Honoured::Only(names)) => Ok(names.iter().map(word).collect::<Result<Vec<_>>>()?.join(", ")),
    }
}

fn source(annotated: bool, in_file: bool) -> &'static str {
    match (annotated, in_file) {
        (true, _) => "annotation",
        (false, true) => "file",
        (false, false) => "default",
    }
}

fn text(report: &Report) -> String {
    let file = report.file.as_ref().map_or("none".to_owned(), |file| {
        format!("{}{}", file.display(), if file.exists() { "" } else { " (not there)" })
    });
    let mut rows = vec![["KEY", "VALUE", "FROM"].map(str::to_owned)];
    rows.extend(
        report
            .settings
            .iter()
            .map(|Setting { key, value, source }| [(*key).to_owned(), value.clone(), (*source).to_owned()]),
    );
    let trouble = report.trouble.map_or(String::new(), |trouble| format!("{trouble}\n"));
    format!("file: {file}\n{trouble}\n{}", table::aligned(&rows))
}
