// SPDX-License-Identifier: Apache-2.0
//! tnsctl: looks at what the shim can do here, and at the time namespaces of containers and checkpoints. Only `enable`,
//! `disable` and `repair` change anything.

mod checkpoint;
mod config;
mod copy;
mod doctor;
mod enable;
mod engine;
mod hook;
mod images;
mod inspect;
mod progress;
mod repair;
mod table;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use serde::Serialize;

use crate::runtime::{Binary, locate};

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
    /// What is on this machine, what the shim does with it, and what to do next.
    ///
    /// Looks at the kernel, CRIU, the settings, the log, all containers, the runtimes, and the engines with whether they have been
    /// told of the shim. Changes and starts nothing. Without root it says what only root can see; a user's own Podman is seen
    /// by that user.
    ///
    /// Exit status: 0 if nothing has to be done: containers get a time namespace of their own, and none is at risk; 1 if
    /// something has to be done, which the report names, with the commands; 2 on errors. What is offered ("Optional")
    /// does not change it, so that a check that is run every hour does not fail because of a choice.
    ///
    /// What --json prints is described key by key in doctor.md, which tns-shim(8) says where to find.
    Doctor {
        /// The runtime to look at instead of those that are here: a path, or a name in PATH
        #[arg(long)]
        runtime: Option<PathBuf>,
    },
    /// The settings in force, and where each comes from.
    Config {
        /// Those of the container with this bundle: the annotations in its config.json win over the file
        #[arg(long, value_name = "DIR")]
        bundle: Option<PathBuf>,
    },
    /// Tells an engine of the shim, under the name `tns-shim`, and asks it whether it has understood.
    ///
    /// Writes a file of its own where the engine reads one, else adds only what is needed to the engine's. Changes no default,
    /// unless it is told to, and restarts nothing: it says what has to be. K3s and RKE2, which write containerd's configuration
    /// anew at every start, get it from their template.
    ///
    /// Exit status: 0 if it is done or there was nothing to do, 1 if --dry-run has found something to change, 2 on errors.
    Enable {
        #[command(flatten)]
        target: enable::Target,
        #[command(flatten)]
        how: enable::How,
    },
    /// Takes back exactly what `enable` has written, unless somebody has changed it since.
    ///
    /// Exit status: as for enable.
    Disable {
        #[command(flatten)]
        target: enable::Target,
    },
    /// For engines whose runtime may not be changed: a container's config.json on its way to the runtime.
    #[command(subcommand)]
    Hook(Hook),
    /// A container's time namespace, and every process of it that is in another one.
    ///
    /// Exit status: 0 if all processes agree, 1 if some do not, 2 on errors. With --all: 1 if a container is at risk, else 2
    /// if one could not be looked at.
    Inspect {
        /// A container's id, or the PID of its first process
        #[arg(value_name = "ID|PID", required_unless_present = "all", conflicts_with = "all")]
        container: Option<String>,
        /// List every container of runc and crun, and which are at risk: their processes disagree, so a checkpoint would be lost
        #[arg(long)]
        all: bool,
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
    /// Says by how much the clocks of each will jump. In a folder the originals stay beside, as *.tns-orig; of an archive,
    /// and of a folder that cannot be written, a repaired copy is written. What is not understood is left as it is, all of it.
    ///
    /// Exit status: 0 if it is done or there was nothing to do, 1 if --dry-run has found something to repair, 2 on errors.
    Repair {
        /// The folder that was given as --image-path, an archive that Podman has exported (tar, gzip, zstd), or the folder
        /// that one was unpacked into
        path: PathBuf,
        /// Where to write a repaired copy, of a folder the folder with the images; an archive itself is never changed
        #[arg(long, value_name = "NEW", conflicts_with = "undo")]
        output: Option<PathBuf>,
        /// Put the originals back, also those of an image that a build before the first release holds on the host's time
        #[arg(long)]
        undo: bool,
        /// Say what would be done, and change nothing: exit status 1 if something would be
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Subcommand)]
enum Hook {
    /// Reads config.json from standard input, declares a time namespace as the shim would, and prints it.
    ///
    /// Podman calls it at stage precreate. It sees neither exec nor checkpoint nor restore, and declares only what the runtime
    /// makes by itself.
    Precreate {
        /// The runtime that the container will be given to; without it, only what every installed one can is declared
        #[arg(long)]
        runtime: Option<PathBuf>,
    },
}

/// Whether what was looked at is as it should be.
enum Verdict {
    Good,
    Bad,
}

/// What clap knows of tnsctl's command line: its man pages and completions are made from that (docs/generate.rs).
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command line of `tnsctl`.
pub fn main() -> ExitCode {
    env_logger::init();
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Config { bundle } => config::run(bundle.as_deref(), arguments.json),
        Command::Enable { target, how } => enable::enable(&target, &how, arguments.json),
        Command::Disable { target } => enable::disable(&target, arguments.json),
        Command::Hook(Hook::Precreate { runtime }) => hook::precreate(runtime.as_deref()),
        Command::Doctor { runtime } => doctor::run(runtime.as_deref(), arguments.json),
        Command::Inspect { container: Some(container), root, .. } => inspect::run(&container, root, arguments.json),
        Command::Inspect { container: None, root, .. } => inspect::all::run(root, arguments.json),
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

/// The runtime that is asked for: a path, a name in PATH, or what the shim would wrap.
fn runtime(asked: Option<&Path>) -> Result<Binary> {
    match asked {
        Some(path) if path.components().count() > 1 => {
            let path = std::path::absolute(path).context("find the working folder")?;
            Binary::at(path.clone()).with_context(|| format!("look at {}", path.display()))
        }
        Some(name) => locate::named(name.as_os_str()),
        None => locate::runtime(OsStr::new("tns-shim")),
    }
}

/// Prints a report, as JSON or as the text that `text` makes of it.
fn print<T: Serialize>(report: &T, json: bool, text: impl FnOnce(&T) -> String) -> Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { text(report) };
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to standard output")
}
