// SPDX-License-Identifier: Apache-2.0
//! Writes what is made from tnsctl's own command line into a folder: tnsctl(1), a page for each of its subcommands, and the completions
//! of bash, zsh and fish, each under the name by which its shell finds it. `make docs` runs this; it is not installed.
//!
//!     cargo run --example generate -- FOLDER
//!
//! The pages have the date that `SOURCE_DATE_EPOCH` says, or today's.

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::{Man, roff};

/// The names by which they are found: bash-completion and fish look for the command's, zsh's compinit for `_` before it.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "completions/bash/tnsctl"),
    (Shell::Zsh, "completions/zsh/_tnsctl"),
    (Shell::Fish, "completions/fish/tnsctl.fish"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).map(PathBuf::from).ok_or("where to? cargo run --example generate -- FOLDER")?;
    Ok(write(&folder)?)
}

/// Writes all of it into the folder, which need not be there.
pub fn write(folder: &Path) -> io::Result<()> {
    let mut command = tns_shim::ctl::command();
    command.build();
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    let all = Pages { date: date(), names: names(&command) };
    all.write(&command, &man)?;
    for (shell, path) in COMPLETIONS {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "tnsctl", &mut text);
        fs::write(path, text)?;
    }
    Ok(())
}

fn date() -> String {
    let asked = env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let time = asked.map_or_else(SystemTime::now, |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    let date = humantime::format_rfc3339_seconds(time).to_string();
    date.split('T').next().unwrap_or_default().to_owned()
}

/// The page's name of a command.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

/// Those of a command and of everything below it.
fn names(command: &Command) -> Vec<String> {
    std::iter::once(name(command).to_owned()).chain(command.get_subcommands().flat_map(names)).collect()
}

struct Pages {
    date: String,
    names: Vec<String>,
}

impl Pages {
    /// Writes the pages of a command and of everything below it.
    fn write(&self, command: &Command, folder: &Path) -> io::Result<()> {
        let man = Man::new(command.clone()).date(&self.date);
        let man = man.source(concat!("tns-shim ", env!("CARGO_PKG_VERSION"))).manual("tns-shim");
        let mut text = Vec::new();
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut text)?;
        }
        self.see_also(name(command)).to_writer(&mut text)?;
        fs::write(folder.join(man.get_filename()), text)?;
        command.get_subcommands().try_for_each(|command| self.write(command, folder))
    }

    fn see_also(&self, own: &str) -> roff::Roff {
        let others = self.names.iter().filter(|name| *name != own).map(|name| (name.as_str(), "1"));
        let mut others: Vec<_> =
            others.chain([("tns-shim.toml", "5"), ("time_namespaces", "7"), ("tns-shim", "8")]).collect();
        let last = others.pop();
        let mut roff = roff::Roff::new();
        roff.control("SH", ["SEE ALSO"]);
        for (name, section) in others {
            roff.control("BR", [name, &format!("({section}),")]);
        }
        if let Some((name, section)) = last {
            roff.control("BR", [name, &format!("({section})")]);
        }
        roff
    }
}
