// SPDX-License-Identifier: Apache-2.0
//! tnsctl: looks at what the shim can do here, and at the time namespaces of containers and checkpoints. Only `repair`
//! changes anything.

mod checkpoint;
mod doctor;
mod images;
mod inspect;
mod progress;
mod repair;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde::Serialize;

/// Looks at the time namespaces of containers, and at what tns-shim can do on this machine.
#[derive(Parser)]
#[command(name = "tnsctl", version, disable_help_subcommand = true)]
struct Arguments {
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What kernel, runtime and CRIU can do here, and what the shim would do with a new container.
    ///
    /// Exit status: 0 if the shim can give containers a time namespace of their own, 1 if not, 2 on errors.
    Doctor {
        /// The runtime to look at instead of the one that the shim would wrap: a path, or a name in PATH
        #[arg(long)]
        runtime: Option<PathBuf>,
    },
    /// A container's time namespace, and every process of it that is in another one.
    ///
    /// Exit status: 0 if all processes agree, 1 if some do not, 2 on errors.
    Inspect {
        /// A container's id, or the PID of its first process
        #[arg(value_name = "ID|PID")]
        container: String,
        /// Where the runtime keeps its containers [default: the places that runc, crun and the engines use]
        #[arg(long, value_name = "DIR")]
        root: Vec<PathBuf>,
    },
    /// The processes of a checkpoint, its clocks, and whether it can be restored.
    ///
    /// Exit status: 0 if all processes agree about time, 1 if some do not, 2 on errors, which an image that is not
    /// understood is.
    Images {
        /// The folder that was given as --image-path, an archive that Podman or containerd has exported (tar, gzip, zstd),
        /// or the folder that one was unpacked into
        path: PathBuf,
    },
    /// Makes a checkpoint restorable whose processes disagree about time: all get the clocks of the first one.
    ///
    /// Says by how much the clocks of each will jump. The originals stay beside, as *.tns-orig; of an archive, a repaired
    /// copy is written. What is not understood is left as it is, all of it.
    ///
    /// Exit status: 0 if it is done or there was nothing to do, 1 if --dry-run has found something to repair, 2 on errors.
    Repair {
        /// The folder that was given as --image-path, an archive that Podman has exported (tar, gzip, zstd), or the folder
        /// that one was unpacked into
        path: PathBuf,
        /// Where to write the repaired archive; an archive itself is never changed
        #[arg(long, value_name = "NEW", conflicts_with = "undo")]
        output: Option<PathBuf>,
        /// Put the originals back
        #[arg(long)]
        undo: bool,
        /// Say what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Whether what was looked at is as it should be.
enum Verdict {
    Good,
    Bad,
}

/// Runs the command line of `tnsctl`.
pub fn main() -> ExitCode {
    env_logger::init();
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Doctor { runtime } => doctor::run(runtime.as_deref(), arguments.json),
        Command::Inspect { container, root } => inspect::run(&container, root, arguments.json),
        Command::Images { path } => images::run(&path, arguments.json),
        Command::Repair { path, output, undo, dry_run } => {
            let how = repair::How { output: output.as_deref(), undo, dry_run };
            repair::run(&path, how, arguments.json)
        }
    };
    match result {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(io::stderr(), "tnsctl: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Prints a report, as JSON or as the text that `text` makes of it.
fn print<T: Serialize>(report: &T, json: bool, text: impl FnOnce(&T) -> String) -> Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { text(report) };
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to standard output")
}
