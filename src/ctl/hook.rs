// SPDX-License-Identifier: Apache-2.0
//! `tnsctl hook precreate`: the shim's decision about a new container, for engines that pass its config.json through a hook.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use log::Level;

use super::Verdict;
use crate::bundle::{LARGEST, Reading};
use crate::decision::{self, Action, ConfigFacts};
use crate::json::{self, Splice};
use crate::runtime::abilities::{self, Abilities};
use crate::runtime::locate;
use crate::settings::{Settings, Wanted};
use crate::system_log;
use crate::timens::Kernel;

/// Engines take what is printed for the container's config.json, so on every way out it is printed or the call fails.
pub(super) fn precreate(runtime: Option<&Path>) -> Result<Verdict> {
    let mut stdin = io::stdin().lock();
    let mut text = Vec::new();
    stdin.by_ref().take(LARGEST + 1).read_to_end(&mut text).context("read config.json from standard input")?;
    let reading = Reading::of(&text);
    let change = if text.len() as u64 <= LARGEST {
        change(&reading, runtime)
    } else {
        system_log::tell(Level::Warn, "hook: config.json is larger than 64 MiB, and is left as it is");
        Ok(Vec::new())
    };
    let mut change = match change {
        Ok(change) => change,
        Err(error) => {
            system_log::tell(Level::Error, &format!("hook: {error:#}"));
            let refusal =
                if errors_are_thrown_away() { reading.refuse(&format!("tns-shim: {error:#}")) } else { Vec::new() };
            if refusal.is_empty() {
                return Err(error);
            }
            refusal
        }
    };
    let mut stdout = io::stdout();
    json::pieces(&text, &mut change)
        .iter()
        .try_for_each(|piece| stdout.write_all(piece))
        .and_then(|()| io::copy(&mut stdin, &mut stdout))
        .and_then(|_| stdout.flush())
        .context("write config.json to standard output")?;
    Ok(Verdict::Good)
}

/// What is to be changed in config.json. An error if the container must not start.
fn change(reading: &Reading<'_>, runtime: Option<&Path>) -> Result<Vec<Splice>> {
    let settings = Settings::read()?;
    let Wanted { mode, shift, .. } = Wanted::of(&settings, reading.annotations(&settings)?);
    let candidates = candidates(runtime)?;
    let kernel = Kernel::try_out();
    let decision = decision::create_by_hook(&candidates, |runtime| ConfigFacts {
        kernel,
        runtime,
        view: reading.view,
        writable: true,
        mode,
        shift,
    });
    let decision = decision.context("there is no runtime")?;
    let change = match decision.action {
        Action::Declare { shifted: true } => reading.declare(Some(shift.offsets()?)),
        Action::Declare { .. } => reading.declare(None),
        Action::Undeclare => reading.undeclare(),
        Action::Refuse if runtime.is_none() => {
            bail!("{} (tnsctl hook precreate --runtime names the one that containers are given to)", decision.reason)
        }
        Action::Refuse => bail!(decision.reason),
        _ => Vec::new(),
    };
    if decision.hindered {
        // For whoever runs it by hand, and engines that show it. There is no log of theirs to write to.
        let _ = writeln!(io::stderr(), "tnsctl: {}, though {}", decision.action, decision.reason);
        system_log::tell(Level::Warn, &format!("hook: {}, though {}", decision.action, decision.reason));
    }
    Ok(change)
}

/// Of the runtime that is named; else of all that the container could be given to.
fn candidates(named: Option<&Path>) -> Result<Vec<Abilities>> {
    let mut candidates = vec![super::runtime(named)?];
    if named.is_none() {
        candidates.extend(locate::installed());
    }
    Ok(candidates.iter().map(abilities::of).collect())
}

/// Podman gives hooks /dev/null for their standard error, and of one that fails says nothing but the exit status.
fn errors_are_thrown_away() -> bool {
    let same = || -> io::Result<bool> {
        let own = File::from(io::stderr().as_fd().try_clone_to_owned()?).metadata()?;
        let null = fs::metadata("/dev/null")?;
        Ok(own.file_type().is_char_device() && own.rdev() == null.rdev())
    };
    same().unwrap_or(false)
}
