// SPDX-License-Identifier: Apache-2.0
//! `tnsctl doctor`: what the shim would do here, and why.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::{Verdict, print, table};
use crate::bundle::{Declared, PidNamespace, View};
use crate::decision::{self, Action, ConfigFacts, Decision};
use crate::runtime::abilities::{self, Abilities};
use crate::runtime::criu;
use crate::settings::{self, Annotations, Settings, Wanted};
use crate::timens::{self, Kernel, Offsets};

#[derive(Serialize)]
struct Report {
    kernel: KernelReport,
    runtime: RuntimeReport,
    criu: CriuReport,
    settings: SettingsReport,
    /// `declare`, `emulate`, `pass` or `refuse`: what happens to a new container.
    mode: &'static str,
    reason: String,
}

#[derive(Serialize)]
struct KernelReport {
    release: String,
    time_namespaces: bool,
    max_time_namespaces: Option<u64>,
    /// Whether making one was tried just now and worked; the obstacle if it did not.
    can_make: Result<(), String>,
    own_namespace: Option<String>,
    own_offsets: Option<Offsets>,
}

#[derive(Serialize)]
struct RuntimeReport {
    path: PathBuf,
    #[serde(flatten)]
    abilities: Abilities,
    /// `{"type":"time"}` in config.json works.
    declares: bool,
    /// Who makes exec enter PID 1's namespace.
    exec: &'static str,
    /// Why it does not tell what it can, if it does not; then this is what it is taken for.
    trouble: Option<String>,
}

#[derive(Serialize)]
struct SettingsReport {
    file: Option<PathBuf>,
    /// Why they do not hold, if they do not.
    trouble: Option<&'static str>,
}

#[derive(Serialize)]
struct CriuReport {
    version: Option<String>,
    /// `criu check --feature timens`.
    time_namespaces: bool,
}

pub(super) fn run(runtime: Option<&Path>, json: bool) -> Result<Verdict> {
    let binary = super::runtime(runtime)?;
    let (abilities, trouble) = match abilities::probe(&binary.path) {
        Ok(abilities) => (abilities, None),
        Err(error) => (Abilities::of_the_oldest(&binary.path), Some(format!("{error:#}"))),
    };
    let criu = look_at_criu();
    // Last, because it leaves this process in a new namespace.
    let kernel = kernel();
    let settings = Settings::read().map_err(|error| format!("{error:#}"));
    let Decision { action, reason, .. } = match &settings {
        Ok(settings) => new_container(&kernel, abilities, settings),
        Err(mistake) => Decision { action: Action::Refuse, reason: mistake.clone().into(), hindered: false },
    };
    let mode = match action {
        Action::Refuse => "refuse",
        Action::Declare { .. } => "declare",
        Action::Emulate { .. } => "emulate",
        _ => "pass",
    };
    let exec = match (abilities.exec_joins(false, false), abilities.exec_joins(true, false)) {
        _ if !kernel.time_namespaces => "nobody: this kernel has no time namespaces",
        (true, _) if abilities.exec_joins(false, true) => "the runtime",
        (true, _) => "the runtime, or the shim for a container in a user namespace",
        (false, true) => "the runtime where the container's saved configuration lists the namespace, else the shim",
        (false, false) => "the shim",
    };
    let runtime = RuntimeReport { path: binary.path, abilities, declares: abilities.declares(), exec, trouble };
    let settings = SettingsReport { file: settings::path(), trouble: settings::trouble() };
    let report = Report { kernel, runtime, criu, settings, mode, reason: reason.into_owned() };
    print(&report, json, text)?;
    Ok(if matches!(report.mode, "pass" | "refuse") { Verdict::Bad } else { Verdict::Good })
}

/// The decision about a container that says nothing of time namespaces itself.
fn new_container(kernel: &KernelReport, runtime: Abilities, settings: &Settings) -> Decision {
    let view = View::Understood { declared: Declared::No, pid: PidNamespace::New, user_namespace: false };
    let Wanted { mode, shift, .. } = Wanted::of(settings, Annotations::default());
    let facts = ConfigFacts { kernel: Kernel::try_out(), runtime, view, writable: true, mode, shift };
    let decision = decision::create(facts);
    match (&kernel.can_make, decision.action) {
        (Err(obstacle), Action::Emulate { .. }) => Decision::hindered(obstacle.clone()),
        _ => decision,
    }
}

fn kernel() -> KernelReport {
    let trimmed = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    KernelReport {
        release: trimmed("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
        time_namespaces: Kernel::look() != Kernel::NoTimeNamespaces,
        max_time_namespaces: trimmed("/proc/sys/user/max_time_namespaces").and_then(|text| text.parse().ok()),
        own_namespace: timens::Id::own().ok().map(|id| id.to_string()),
        own_offsets: Offsets::of_process("self").ok(),
        can_make: timens::make().map_err(|error| format!("{error:#}")),
    }
}

fn look_at_criu() -> CriuReport {
    let program = OsStr::new("criu");
    let time_namespaces = criu::output(program, &["check", "--feature", "timens"]).is_some();
    CriuReport { version: criu::version(program), time_namespaces }
}

fn text(report: &Report) -> String {
    let Report { kernel, runtime, criu, settings, mode, reason } = report;
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let row = |what: &str, value: String| [what.to_owned(), value];
    let mut rows = vec![
        row("kernel", kernel.release.clone()),
        row("  time namespaces", yes_no(kernel.time_namespaces)),
        row(
            "  user.max_time_namespaces",
            kernel.max_time_namespaces.map_or("unknown".to_owned(), |max| max.to_string()),
        ),
        row(
            "  can make one",
            kernel.can_make.as_ref().map_or_else(|obstacle| format!("no: {obstacle}"), |()| "yes".to_owned()),
        ),
    ];
    if let (Some(namespace), Some(offsets)) = (&kernel.own_namespace, &kernel.own_offsets) {
        rows.push(row("  own namespace", format!("{namespace}, {offsets}")));
    }
    rows.extend([
        row("runtime", format!("{} ({})", runtime.path.display(), runtime.abilities)),
        row(
            "  tells what it can",
            runtime.trouble.as_ref().map_or("yes".to_owned(), |trouble| format!("no: {trouble}")),
        ),
        row("  features lists time", yes_no(runtime.abilities.lists_time)),
        row("  makes declared ones", yes_no(runtime.declares)),
        row("  exec is made to join by", runtime.exec.to_owned()),
        row("CRIU", criu.version.clone().unwrap_or_else(|| "none in PATH: no checkpoint, no restore".to_owned())),
        row("  time namespaces", yes_no(criu.time_namespaces)),
        row("settings", settings.file.as_ref().map_or("none".to_owned(), |file| file.display().to_string())),
        row("  hold", settings.trouble.map_or("yes".to_owned(), |trouble| format!("no: {trouble}"))),
        row("new containers", format!("{mode}: {reason}")),
    ]);
    table::aligned(&rows)
}
