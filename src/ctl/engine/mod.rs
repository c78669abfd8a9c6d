// SPDX-License-Identifier: Apache-2.0
//! The engines: where each is told of a runtime, how that is written without touching what somebody else wrote, and how the
//! engine says whether it has understood.

pub(super) mod containerd;
pub(super) mod crio;
pub(super) mod docker;
mod imports;
mod own;
pub(super) mod podman;
mod running;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{AccessFlags, access, geteuid};
use serde::Serialize;

use crate::files::{self, Links};
use crate::runtime::abilities::{self, Kind};
use crate::runtime::{Binary, helper, locate};
use crate::text::printable;

/// The name of the runtime in every engine.
const NAME: &str = "tns-shim";
/// Where the files in contrib say that the shim is.
const FOLDER_IN_CONTRIB: &str = "/usr/local/bin";
/// Where programs are installed.
const USUAL_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
/// Engines' configurations have some KiB.
const LARGEST: u64 = 1 << 20;
/// An engine looks at all its images before it answers, and the machine may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// The shim as it is installed.
#[derive(Debug)]
pub(super) struct Shim {
    folder: String,
    /// Which of its names an engine is to call: a link says which runtime is wrapped.
    name: String,
}

impl Shim {
    /// Beside tnsctl, under the name that leads to that runtime.
    pub(super) fn beside_this(runtime: Option<&str>) -> Result<Self> {
        let own = std::env::current_exe().context("find tnsctl itself")?;
        let behind = own.parent().unwrap_or(Path::new("/"));
        // Which also have other names: /bin.
        let is_usual = USUAL_FOLDERS.iter().any(|usual| behind == Path::new(usual));
        let called = called_in().filter(|folder| !is_usual && leads_to(folder, behind));
        let folder = called.as_deref().unwrap_or(behind).to_str().filter(|path| is_plain(path));
        let folder = folder.with_context(|| {
            let path = printable(&own.to_string_lossy(), 1024);
            format!("{path} is in a folder whose name cannot be written into every configuration: install it elsewhere")
        })?;
        let name = runtime.map_or(NAME.to_owned(), |runtime| format!("{NAME}-{runtime}"));
        let shim = Self { folder: folder.to_owned(), name };
        let path = shim.path();
        let may_run = Path::new(&path).is_file() && access(path.as_str(), AccessFlags::X_OK).is_ok();
        ensure!(may_run, "there is no program {path}, which must be beside tnsctl: `make install` puts both there");
        Ok(shim)
    }

    /// What an engine is to call.
    fn path(&self) -> String {
        format!("{}/{}", self.folder, self.name)
    }

    /// A file of contrib, for where the shim is here. All but the name `tns-shim` stay what they are.
    fn in_text(&self, contrib: &str) -> String {
        contrib
            .replace(&format!("\"{FOLDER_IN_CONTRIB}/{NAME}\""), &format!("\"{}\"", self.path()))
            .replace(&format!("\"{FOLDER_IN_CONTRIB}/"), &format!("\"{}/", self.folder))
    }

    /// The runtime behind it.
    fn wraps(&self) -> Result<Kind> {
        let binary = locate::runtime(self.name.as_ref())?;
        Ok(abilities::of(&binary).kind)
    }
}

/// The folder that this was called in, by its path or by PATH.
fn called_in() -> Option<PathBuf> {
    let called = PathBuf::from(std::env::args_os().next()?);
    let is_name = called.components().count() == 1;
    let path = if is_name { which::which_global(&called).ok()? } else { called };
    path.is_absolute().then(|| path.parent().map(Path::to_owned)).flatten()
}

/// Whether the shim in one folder is that in the other, behind links, and nobody else can lead it elsewhere. Then the former is what
/// stays when the latter, with a version in its name, goes with an upgrade.
fn leads_to(folder: &Path, behind: &Path) -> bool {
    let file = |folder: &Path| fs::metadata(folder.join(NAME)).map(|file| (file.dev(), file.ino())).ok();
    let is_safe = |owner: u32, mode: u32| (owner == 0 || owner == geteuid().as_raw()) && mode & 0o022 == 0;
    folder != behind
        && file(folder).is_some_and(|found| file(behind) == Some(found))
        && fs::metadata(folder).is_ok_and(|folder| is_safe(folder.uid(), folder.mode()))
}

/// Whether TOML and JSON have nothing to escape in it, nor a shell.
fn is_plain(path: &str) -> bool {
    path.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._+-~@".contains(letter))
}

/// What an engine is to be told.
#[derive(Debug)]
pub(super) struct Wish {
    pub shim: Shim,
    /// For all containers that ask for no runtime.
    pub default: bool,
}

/// A file that is to be another, or not to be any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub path: PathBuf,
    pub before: Option<Vec<u8>>,
    pub after: Option<Vec<u8>>,
    /// With it goes so many of the folders it is in, if they are empty.
    pub folders: usize,
}

/// What is to be done, and what people must know of it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In this order.
    pub changes: Vec<Change>,
    /// What a person is told who enables or disables it.
    pub notes: Vec<String>,
    /// What makes the engine read it.
    pub restart: Option<String>,
}

impl Plan {
    /// Adds a change, unless it is none.
    fn change(&mut self, path: &Path, before: Option<Vec<u8>>, after: Option<Vec<u8>>, folders: usize) {
        if before != after {
            self.changes.push(Change { path: path.to_owned(), before, after, folders });
        }
    }
}

/// What an engine says about its configuration.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is as wished, by that command.
    AsWished(String),
    /// It cannot be known yet, or not at all: why.
    Unknown(String),
}

/// An engine that is installed.
pub(super) trait Engine {
    /// As it is called here.
    fn name(&self) -> &'static str;
    fn program(&self) -> &Program;
    /// What takes it from what is there to what is wished; with no wish, to what was there before.
    fn plan(&self, wish: Option<&Wish>) -> Result<Plan>;
    /// Asks it what it makes of what is there now.
    fn ask(&self, wish: Option<&Wish>) -> Result<Answer>;
    /// Which of its runtimes are the shim now, whoever has told it. Starts nothing.
    fn standing(&self) -> Result<Standing>;
}

/// A runtime as an engine has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Runtime {
    /// As containers ask for it.
    pub name: String,
    /// The program, by its path or its name in PATH.
    pub program: String,
}

impl Runtime {
    fn new(name: &str, program: &str) -> Self {
        Self { name: printable(name, 128), program: printable(program, 1024) }
    }

    /// Whether what it calls is the shim, and can be called.
    pub(super) fn is_shim(&self) -> bool {
        let found = which::which_in_global(&self.program, Some(search_path())).ok().and_then(|mut found| found.next());
        found.is_some_and(|path| Binary::is_shim(&path))
    }
}

/// Who has told an engine of the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Teller {
    Tnsctl,
    Hand,
    Nobody,
}

/// How an engine stands to the shim.
#[derive(Debug)]
pub(super) struct Standing {
    /// What a container gets that asks for none; none where the engine does not say.
    pub default: Option<Runtime>,
    /// Those that are the shim, or should be by their name.
    pub ours: Vec<Runtime>,
    /// Who has written so into its configuration.
    pub told_by: Teller,
    /// Whether the daemon that runs has the same; none if that is not known.
    pub in_force: Option<bool>,
    /// Why nobody can ask it for a runtime, if so.
    pub closed: Option<&'static str>,
}

impl Standing {
    /// With those of all its runtimes that are the shim.
    fn of(all: Vec<Runtime>, default: Option<&str>, by_tnsctl: bool) -> Self {
        let default = default.and_then(|name| all.iter().find(|runtime| runtime.name == name).cloned());
        let ours: Vec<_> = all.into_iter().filter(|runtime| runtime.name == NAME || runtime.is_shim()).collect();
        let told_by = match by_tnsctl {
            _ if ours.is_empty() => Teller::Nobody,
            true => Teller::Tnsctl,
            false => Teller::Hand,
        };
        Self { default, ours, told_by, in_force: None, closed: None }
    }
}

/// An engine that is not here.
#[derive(Debug)]
pub(super) struct NotInstalled(String);

impl std::error::Error for NotInstalled {}

impl std::fmt::Display for NotInstalled {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folders = printable(&search_path().to_string_lossy(), 1024);
        write!(formatter, "{} is not installed: it is in none of the folders {folders}", self.0)
    }
}

/// The engine's own program.
#[derive(Debug)]
pub(super) struct Program {
    pub path: PathBuf,
    pub version: String,
    /// How long it may take to answer.
    patience: Duration,
}

impl Program {
    /// The first of that name, or the one that a person names.
    fn find(name: &str, asked: Option<&Path>, patience: Duration) -> Result<Self> {
        let found = || which::which_in_global(name, Some(search_path())).ok()?.next();
        let path = asked.map(Path::to_owned).or_else(found).ok_or_else(|| NotInstalled(name.to_owned()))?;
        let path = std::path::absolute(path).context("find the working folder")?;
        // Podman reads its configuration before it tells even that, and what is wrong there may be what is to be taken away.
        let said = run_within(patience, Command::new(&path).arg("--version").env("CONTAINERS_CONF", "/dev/null"))?;
        let version = said.output.lines().find_map(version_in).filter(|_| said.good);
        let version =
            version.with_context(|| format!("{} does not tell its version: {}", path.display(), said.words()))?;
        Ok(Self { path, version, patience })
    }

    fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }

    /// What it says when it is called with these arguments.
    fn ask(&self, arguments: &[&str]) -> Result<Said> {
        run_within(self.patience, Command::new(&self.path).args(arguments))
    }
}

/// Daemons are in folders that not every user has in PATH. Relative ones are whoever's.
fn search_path() -> OsString {
    let own = helper::search_path();
    let usual = USUAL_FOLDERS.map(PathBuf::from);
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in std::env::split_paths(&own).filter(|folder| folder.is_absolute()).chain(usual) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    std::env::join_paths(folders).unwrap_or(own)
}

/// All programs of that name that are not the shim.
pub(super) fn programs(name: &str) -> impl Iterator<Item = PathBuf> {
    let found = which::which_in_global(name, Some(search_path())).into_iter().flatten();
    found.filter(|path| !Binary::is_shim(path))
}

/// The first number with dots in a line: `podman version 4.3.1`, `containerd github.com/… v2.1.9 …`.
fn version_in(line: &str) -> Option<String> {
    line.split([' ', ',']).map(|word| word.strip_prefix('v').unwrap_or(word)).find_map(|word| {
        let is_version = word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.');
        is_version.then(|| printable(word, 64))
    })
}

/// What a program has printed, on both its outputs.
struct Said {
    good: bool,
    output: String,
    errors: String,
}

impl Said {
    /// Its output, or its own words as the error.
    fn or_its_words(self, what: &str) -> Result<String> {
        ensure!(self.good, "{what}: {}", self.words());
        Ok(self.output)
    }

    /// What it says of what is wrong, line by line.
    fn words(&self) -> String {
        let lines = self.errors.lines().chain(self.output.lines()).filter(|line| !line.trim().is_empty());
        let words: Vec<_> = lines.map(|line| printable(line, 500)).take(20).collect();
        if words.is_empty() { "it does not say why".to_owned() } else { words.join("\n  ") }
    }
}

fn run_within(patience: Duration, command: &mut Command) -> Result<Said> {
    let mut errors = tempfile::tempfile().context("make a temporary file")?;
    command.stdin(std::process::Stdio::null()).stderr(errors.try_clone()?);
    let answer = helper::run_within(patience, command)?;
    let mut said = Vec::new();
    errors.rewind()?;
    errors.take(LARGEST).read_to_end(&mut said)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { good: answer.status.success(), output: text(&answer.output), errors: text(&said) })
}

/// The file that a path leads to, so that a link stays what it is; and what is in it.
fn read(path: &Path) -> Result<(PathBuf, Option<Vec<u8>>)> {
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            ensure!(fs::symlink_metadata(path).is_err(), "{} leads to nothing", path.display());
            path.to_owned()
        }
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
    };
    let bytes = files::read(&path, Links::Refuse, LARGEST).with_context(|| format!("read {}", path.display()))?;
    Ok((path, bytes))
}

/// What is in a configuration, as text.
fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).ok().with_context(|| format!("{} is no text of UTF-8: it is left alone", path.display()))
}

/// How many of the folders that a file is in are not there.
fn missing_folders(path: &Path) -> usize {
    path.ancestors().skip(1).take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).count()
}

/// A file that is an engine's alone to read and ours alone to write, as it is to be: with `body`, or none.
fn whole_file(plan: &mut Plan, engine: &str, path: &Path, body: Option<&str>) -> Result<()> {
    let (path, before) = read(path)?;
    let folders = match &before {
        None => missing_folders(&path),
        Some(bytes) => match (own::whose(bytes), body) {
            (own::Whose::Ours { folders }, _) => folders,
            (own::Whose::Changed, _) => bail!(
                "{} was changed since tnsctl wrote it: it is left alone. Move away what you want to keep, remove the file, \
                 and try again",
                path.display()
            ),
            (own::Whose::Foreign, Some(_)) => bail!(
                "{} is there already, and tnsctl has not written it: it is left alone. If it is a copy from contrib, all is \
                 done; else move it away and try again",
                path.display()
            ),
            (own::Whose::Foreign, None) => {
                plan.notes.push(format!("{} is left alone: tnsctl has not written it", path.display()));
                return Ok(());
            }
        },
    };
    let after = body.map(|body| own::sealed(engine, folders, body).into_bytes());
    plan.change(&path, before, after, folders);
    Ok(())
}

/// Whether a file is there that tnsctl has written, and nobody has changed.
fn is_ours(path: &Path) -> Result<bool> {
    Ok(read(path)?.1.is_some_and(|bytes| matches!(own::whose(&bytes), own::Whose::Ours { .. })))
}

/// Whether a path is in that folder.
fn is_in(path: &Path, folder: &str) -> bool {
    path.as_os_str().as_bytes().starts_with(folder.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_engines_print() {
        for (line, version) in [
            ("podman version 4.3.1", Some("4.3.1")),
            ("Docker version 20.10.24+dfsg1, build 5d6db84", Some("20.10.24+dfsg1")),
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", Some("1.6.20~ds1")),
            ("containerd github.com/containerd/containerd/v2 v2.1.9 unknown", Some("2.1.9")),
            ("crio version 1.30.0", Some("1.30.0")),
            ("nothing of the kind", None),
        ] {
            assert_eq!(version_in(line).as_deref(), version);
        }
    }

    #[test]
    fn the_files_of_contrib_get_the_path_of_the_shim_that_is_here() {
        let text = r#"a = "/usr/local/bin/tns-shim" b = "/usr/local/bin/tns-shim-runc" # /usr/local/bin"#;
        let shim = |name: &str| Shim { folder: "/usr/bin".to_owned(), name: name.to_owned() };
        assert_eq!(
            shim("tns-shim").in_text(text),
            r#"a = "/usr/bin/tns-shim" b = "/usr/bin/tns-shim-runc" # /usr/local/bin"#
        );
        assert_eq!(
            shim("tns-shim-crun").in_text(text),
            r#"a = "/usr/bin/tns-shim-crun" b = "/usr/bin/tns-shim-runc" # /usr/local/bin"#
        );
    }

    #[test]
    fn a_folder_of_links_is_written_if_it_leads_to_the_same_and_to_nobody_else_s() {
        use std::fs::Permissions;
        use std::os::unix::fs::{PermissionsExt, symlink};

        let world = tempfile::tempdir().unwrap();
        let [version, stable, other] = ["app-1.0/bin", "bin", "other"].map(|folder| world.path().join(folder));
        for folder in [&version, &stable, &other] {
            fs::create_dir_all(folder).unwrap();
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(version.join(NAME), "").unwrap();
        fs::write(other.join(NAME), "").unwrap();
        assert!(!leads_to(&stable, &version));
        symlink(version.join(NAME), stable.join(NAME)).unwrap();
        assert!(leads_to(&stable, &version));
        assert!(!leads_to(&version, &version) && !leads_to(&other, &version));
        fs::set_permissions(&stable, Permissions::from_mode(0o775)).unwrap();
        assert!(!leads_to(&stable, &version));
    }

    #[test]
    fn only_paths_that_nobody_has_to_quote_are_written() {
        assert!(is_plain("/usr/local/bin") && is_plain("/opt/tns-shim_1.0~rc1"));
        for path in ["/a b", "/a\"b", "/a\\b", "/a\nb", "/a$b", "/ä"] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
