// SPDX-License-Identifier: Apache-2.0
//! containerd, and that of K3s and RKE2.
//!
//! Releases disagree about what an import does to a file that imports it, so containerd itself is asked before anything is
//! changed: `config dump` must show the handler, and nothing else may differ. A drop-in is tried first; where that takes the
//! place of what config.toml says, as in containerd 1, a block at its end; and that with the runc which containerd 1 no longer
//! has by itself once it reads another runtime.

mod distribution;
mod dump;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::{NamedTempFile, TempDir};
use toml::{Table, Value};

use self::distribution::{MADE_TEMPLATE, Template, template, writer};
use self::dump::{default_runtime, differs_only_by_us, handler, is_without_cri, plugin, runtime, runtimes, section};
use super::imports::{self, Top};
use super::running::{all_running, arguments_of, value_of};
use super::{Answer, Engine, NAME, Plan, Program, Runtime, Standing, Wish, is_ours, own, read, text_of, whole_file};
use crate::replacement;

const ENGINE: &str = "containerd";
const PATH: &str = "/etc/containerd/config.toml";
const V2: &str = include_str!("../../../contrib/containerd/config-v2.toml");
const V3: &str = include_str!("../../../contrib/containerd/config-v3.toml");
/// Begins a file that is there only for the block or the import in it.
const MADE: &str = "# Made by `tnsctl enable containerd`, and removed with that unless something is added. Folders ";

#[derive(Debug)]
pub(in crate::ctl) struct Containerd {
    program: Program,
    config: PathBuf,
    /// A person has named it.
    named: bool,
}

/// A configuration as it is without us.
struct Own {
    path: PathBuf,
    /// What is there, with us.
    before: Option<Vec<u8>>,
    text: String,
    top: Top,
}

impl Containerd {
    pub(in crate::ctl) fn find(config: Option<&Path>, program: Option<&Path>, patience: Duration) -> Result<Self> {
        let named = config.is_some();
        let config = match config {
            Some(config) => std::path::absolute(config).context("find the working folder")?,
            None => usual_config(),
        };
        let found = distribution::program(&config);
        Ok(Self { program: Program::find(ENGINE, program.or(found.as_deref()), patience)?, config, named })
    }

    /// Where the drop-in is or would be.
    fn dropin(path: &Path) -> PathBuf {
        path.with_file_name("conf.d").join("50-tns-shim.toml")
    }

    /// The configuration that a containerd reads which runs here, if none reads this one.
    fn elsewhere(&self) -> Option<PathBuf> {
        let is_this =
            |path: &Path| path == self.config || fs::canonicalize(path).ok() == fs::canonicalize(&self.config).ok();
        let arguments = all_running(ENGINE).filter_map(|process| arguments_of(&process));
        let configs: Vec<_> =
            arguments.map(|words| PathBuf::from(value_of(&words, &["--config", "-c"]).unwrap_or(PATH))).collect();
        if configs.iter().any(|config| is_this(config)) { None } else { configs.into_iter().next() }
    }

    /// What containerd makes of a configuration of that text, which is read beside the real one: imports may be relative.
    fn dump(&self, path: &Path, text: &str) -> Result<Table> {
        let place = Candidate::of(path, text)?;
        self.dump_of(&place.path())
    }

    fn dump_of(&self, path: &Path) -> Result<Table> {
        if let Some(gone) = read(path)?.1.and_then(|bytes| Top::of(&text_of(path, bytes).ok()?).ok()?.missing(path)) {
            bail!("containerd does not start with it: it imports {}, which is not there", gone.display());
        }
        let path = path.to_str().context("its path is no text of UTF-8")?;
        let printed =
            self.program.ask(&["--config", path, "config", "dump"])?.or_its_words("containerd config dump")?;
        printed.parse().context("read what `containerd config dump` prints")
    }

    fn own(&self) -> Result<Own> {
        let (path, before) = read(&self.config)?;
        let text = before.clone().map(|bytes| taken_out(&text_of(&path, bytes)?, &Self::dropin(&path)));
        let text = text
            .unwrap_or_else(|| self.made_for_us(&path))
            .with_context(|| format!("{} is left alone", path.display()))?;
        let top = Top::of(&text).with_context(|| format!("{} is left alone", path.display()))?;
        Ok(Own { path, before, text, top })
    }

    /// What is written where there is no configuration, apart from what it is written for.
    fn made_for_us(&self, path: &Path) -> Result<String> {
        let printed = self.program.ask(&["config", "default"])?.or_its_words("containerd config default")?;
        let default: Table = printed.parse().context("read what `containerd config default` prints")?;
        let version = default.get("version").and_then(Value::as_integer).unwrap_or(2);
        Ok(format!("{MADE}{}.\nversion = {version}\n", super::missing_folders(path)))
    }

    /// Adds what takes us out.
    fn leave(plan: &mut Plan, own: Own, template: Option<Template>) -> Result<()> {
        let dropin = dropin_in_force(&own.path, &own.top, Self::dropin(&own.path));
        ensure!(
            !own.top.names(&own.path, &dropin) || !is_ours(&dropin)?,
            "{} imports {} in another way than tnsctl has written it, and containerd does not start without that file: take it \
             out of `imports` by hand, and try again",
            own.path.display(),
            dropin.display()
        );
        if let Some(Template { path, before, text }) = template {
            let after = (text != MADE_TEMPLATE && before.is_some()).then(|| text.into_bytes());
            plan.change(&path, before, after, 0);
        } else {
            let folders = made(&own.text);
            let after = (own.before.is_some() && folders.is_none()).then(|| own.text.into_bytes());
            plan.change(&own.path, own.before, after, folders.unwrap_or(0));
        }
        whole_file(plan, ENGINE, &dropin, None)
    }

    /// Adds what puts us in.
    fn enter(&self, plan: &mut Plan, own: Own, template: Option<Template>, wish: &Wish) -> Result<()> {
        let Own { path, before, text, top } = own;
        ensure!(
            top.version >= 2,
            "{} is of version {}; it must be 2 or 3: `containerd config migrate` prints it in its newest version",
            path.display(),
            top.version
        );
        let dropin = dropin_in_force(&path, &top, Self::dropin(&path));
        // What containerd is asked about: as if the drop-in were not there.
        let question = imports::passing_over(&text, &top, &path, &dropin);
        let top_of_question = Top::of(&question)?;
        let bare = self
            .dump(&path, &question)
            .context("containerd cannot read its configuration as it is, which is left alone")?;
        if let Some(theirs) = handler(&bare) {
            bail!(
                "{} has a runtime {NAME} already, by {theirs}, which tnsctl has not written: it is left alone. To have tnsctl \
                 care for it, take that out and try again",
                path.display()
            );
        }
        let snippet = snippet(top.version, wish, &bare);
        let is_right = |candidate: &str| -> Result<bool> {
            Ok(self.dump(&path, candidate).is_ok_and(|dump| differs_only_by_us(bare.clone(), dump, wish)))
        };
        if template.as_ref().is_none_or(|template| template.before.is_none() && top.covers(&path, &dropin)) {
            let alone = format!("version = {}\n{snippet}", top.version);
            let candidate = Candidate::of(&dropin, &alone).or_else(|_| Candidate::of(&path, &alone))?;
            let name = candidate.path();
            let name = name.to_str().context("its path is no text of UTF-8")?;
            if is_right(&imports::with(&question, &top_of_question, name))? {
                let name = dropin.to_str().context("its path is no text of UTF-8")?;
                whole_file(plan, ENGINE, &dropin, Some(&alone))?;
                let after = if top.covers(&path, &dropin) { text } else { imports::with(&text, &top, name) };
                plan.change(&path, before, Some(after.into_bytes()), 0);
                return Ok(());
            }
        }
        let with_runc = format!("{snippet}{}", section(&bare, top.version, "runc").unwrap_or_default());
        for block in [snippet.as_str(), with_runc.as_str()] {
            if !is_right(&own::with_block(&question, ENGINE, block))? {
                continue;
            }
            match template {
                Some(template) => {
                    let after = own::with_block(&template.text, ENGINE, block);
                    plan.change(&template.path, template.before, Some(after.into_bytes()), 0);
                }
                None => plan.change(&path, before, Some(own::with_block(&text, ENGINE, block).into_bytes()), 0),
            }
            return whole_file(plan, ENGINE, &dropin, None);
        }
        let by_hand = if wish.default { ", or --default left out," } else { "" };
        bail!(
            "no way was found to add the runtime to {} and to change nothing else, so it is left alone: is the plugin cri \
             disabled there? By hand{by_hand} it is this, where it belongs:\n{snippet}",
            path.display()
        )
    }
}

impl Engine for Containerd {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn plan(&self, wish: Option<&Wish>) -> Result<Plan> {
        let own = self.own()?;
        let written_by = writer(&own.path, &own.text);
        let restart = written_by.map_or("containerd", |distribution| distribution.services);
        let mut plan = Plan { restart: Some(format!("systemctl restart {restart}")), ..Plan::default() };
        let template = written_by.map(|_| template(&own.path, own.top.version)).transpose()?;
        if let Some(wish) = wish {
            if let Some(elsewhere) = self.elsewhere().filter(|_| !self.named) {
                bail!(
                    "the containerd that runs here reads {}, and not {}: say which one is meant, with --config. (Docker's own is \
                     told by `tnsctl enable docker`.)",
                    elsewhere.display(),
                    self.config.display()
                );
            }
            if let Some(distribution) = written_by.filter(|_| wish.default) {
                bail!(
                    "{} has a setting for the default runtime: write `default-runtime: {NAME}` into its config.yaml, and leave \
                     out --default",
                    distribution.name
                );
            }
            self.enter(&mut plan, own, template, wish)?;
            plan.notes.push("Kubernetes chooses it by a RuntimeClass with the handler `tns-shim`, as in the example runtimeclass.yaml".to_owned());
            plan.notes.push(format!("ctr takes no name from here, but --runc-binary {}", wish.shim.path()));
        } else {
            Self::leave(&mut plan, own, template)?;
            plan.notes.push(
                "remove the pods that were made with it before that: containerd 2 no longer executes anything in them after it".to_owned(),
            );
        }
        Ok(plan)
    }

    fn ask(&self, wish: Option<&Wish>) -> Result<Answer> {
        let own = self.own()?;
        let written_by = writer(&own.path, &own.text);
        let asked = || Answer::AsWished("containerd config dump".to_owned());
        if own.before.is_none() {
            return Ok(asked());
        }
        let is = handler(&self.dump_of(&self.config)?);
        let Some(wish) = wish else {
            // `config migrate` writes what was imported into the file itself. K3s has it until it starts again.
            return Ok(match is.filter(|_| written_by.is_none()) {
                Some(program) => Answer::Unknown(format!(
                    "it has a runtime {NAME} still, by {program}, which tnsctl has not written: take that out by hand"
                )),
                None => asked(),
            });
        };
        let wished = wish.shim.path();
        if is.as_ref() == Some(&wished) {
            return Ok(asked());
        }
        let Some(distribution) = written_by else {
            bail!(
                "containerd config dump: the runtime {NAME} is {}, and not {wished}",
                is.as_deref().unwrap_or("not there")
            )
        };
        let template = template(&own.path, own.top.version)?;
        let newer = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
        ensure!(
            newer(&template.path)? >= newer(&own.path)?,
            "{} was started since {} was written, and its containerd has no runtime {NAME}: does this {} use that template?",
            distribution.name,
            template.path.display(),
            distribution.name
        );
        Ok(Answer::Unknown(format!(
            "{} reads {} when it starts: call this once more after that, and it says whether containerd has the runtime",
            distribution.name,
            template.path.display()
        )))
    }

    fn standing(&self) -> Result<Standing> {
        let (path, Some(bytes)) = read(&self.config)? else {
            return Ok(Standing::of(vec![Runtime::new("runc", "runc")], Some("runc"), false));
        };
        let text = text_of(&path, bytes)?;
        let dump = self.dump_of(&path)?;
        let dropin = dropin_in_force(&path, &Top::of(&text)?, Self::dropin(&path));
        let by_tnsctl = own::without_block(&text).is_ok_and(|rest| rest != text) || is_ours(&dropin)?;
        let all = runtimes(&dump).map(|(_, all)| all.iter().filter_map(|(name, one)| runtime(name, one)).collect());
        let standing = Standing::of(all.unwrap_or_default(), default_runtime(&dump), by_tnsctl);
        let closed =
            is_without_cri(&dump).then_some("its plugin cri is disabled: nobody can ask it for a runtime by name");
        Ok(Standing { closed, ..standing })
    }
}

/// Debian's, or if there is none, that of K3s or RKE2.
fn usual_config() -> PathBuf {
    let installed =
        || which::which_in_global(ENGINE, Some(super::search_path())).is_ok_and(|mut found| found.next().is_some());
    match distribution::config() {
        Some(config) if !Path::new(PATH).is_file() && !installed() => config,
        _ => PATH.into(),
    }
}

/// A configuration without us.
fn taken_out(text: &str, dropin: &Path) -> Result<String> {
    let text = own::without_block(text).map_err(|changed| anyhow!("{changed}. Take them out by hand"))?;
    // One that somebody else has put there is imported on.
    if read(dropin)?.1.is_some_and(|bytes| own::whose(&bytes) == own::Whose::Foreign) {
        return Ok(text);
    }
    dropin.to_str().map_or_else(|| Ok(text.clone()), |dropin| imports::without(&text, dropin))
}

/// How many folders were made for a configuration that is there for us alone.
fn made(text: &str) -> Option<usize> {
    let (folders, rest) = text.strip_prefix(MADE)?.split_once(".\n")?;
    let version = rest.strip_prefix("version = ")?.strip_suffix('\n')?;
    version.parse::<u32>().ok()?;
    folders.parse().ok()
}

/// The drop-in's usual place, or the folder that is imported whole: K3s and RKE2 have one.
fn dropin_in_force(config: &Path, top: &Top, usual: PathBuf) -> PathBuf {
    if top.covers(config, &usual) {
        return usual;
    }
    let folder = config.parent().unwrap_or(Path::new("/"));
    let is_folder_of_parts = |import: &PathBuf| {
        let folder = import.parent().and_then(Path::extension);
        import.file_name() == Some("*.toml".as_ref()) && folder == Some("d".as_ref())
    };
    let pattern = top.imports.iter().map(|import| folder.join(import)).find(is_folder_of_parts);
    pattern.and_then(|pattern| Some(pattern.parent()?.join("50-tns-shim.toml"))).unwrap_or(usual)
}

/// What is added: contrib's, without remarks, without the runc.
fn snippet(version: i64, wish: &Wish, bare: &Table) -> String {
    let contrib = wish.shim.in_text(if version >= 3 { V3 } else { V2 });
    let systemd = runtimes(bare).and_then(|(containerd, runtimes)| {
        let default = containerd.get("default_runtime_name").and_then(Value::as_str).unwrap_or("runc");
        runtimes.get(default).or(runtimes.get("runc"))?.get("options")?.get("SystemdCgroup")?.as_bool()
    });
    let contrib = if systemd == Some(true) { contrib.replace("#SystemdCgroup", "SystemdCgroup") } else { contrib };
    let mut text = String::new();
    if wish.default {
        text = format!("[plugins.\"{}\".containerd]\n  default_runtime_name = \"{NAME}\"\n", plugin(version));
    }
    for line in contrib.lines().take_while(|line| !line.contains(".runtimes.runc]")) {
        if !line.is_empty() && !line.trim_start().starts_with('#') && !line.starts_with("version") {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// A file that containerd is asked about, gone when this is dropped.
enum Candidate {
    Beside(NamedTempFile),
    /// Where there is no folder yet.
    Apart(TempDir),
}

impl Candidate {
    fn of(path: &Path, text: &str) -> Result<Self> {
        if replacement::folder_of(path).is_dir() {
            let mut file = replacement::beside(path).with_context(|| {
                format!(
                    "write beside {}, where containerd is asked about what is to be written: are you root?",
                    path.display()
                )
            })?;
            file.write_all(text.as_bytes())?;
            return Ok(Self::Beside(file));
        }
        let folder = tempfile::tempdir().context("make a temporary folder")?;
        fs::write(folder.path().join("config.toml"), text)?;
        Ok(Self::Apart(folder))
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Beside(file) => file.path().to_owned(),
            Self::Apart(folder) => folder.path().join("config.toml"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shim;
    use super::*;

    fn wish(default: bool) -> Wish {
        Wish { shim: Shim { folder: "/usr/local/bin".to_owned(), name: "tns-shim".to_owned() }, default }
    }

    fn dump(plugin: &str, more: &str) -> Table {
        let text = format!(
            "version = 2\nimports = [\"/etc/containerd/config.toml\"]\n[plugins.\"{plugin}\".containerd]\n{more}\n\
             [plugins.\"{plugin}\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n  pod_annotations = []\n\
             [plugins.\"{plugin}\".containerd.runtimes.runc.options]\n    BinaryName = \"\"\n    SystemdCgroup = true\n"
        );
        text.parse().unwrap()
    }

    /// As containerd would read it behind that.
    fn with(dump: &Table, text: &str) -> Table {
        fn merge(into: &mut Table, from: Table) {
            for (key, value) in from {
                match (into.get_mut(&key), value) {
                    (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
                    (_, value) => drop(into.insert(key, value)),
                }
            }
        }
        let mut dump = dump.clone();
        merge(&mut dump, text.parse().unwrap());
        dump
    }

    #[test]
    fn the_snippet_is_contrib_s_and_takes_the_kind_of_cgroups_from_the_runtime_that_is_there() {
        for (version, plugin) in [(2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.runtime")] {
            let bare = dump(plugin, "");
            for default in [false, true] {
                let text = snippet(version, &wish(default), &bare);
                let read: Table = text.parse().unwrap();
                let containerd = read["plugins"][plugin]["containerd"].as_table().unwrap();
                assert_eq!(containerd.get("default_runtime_name").and_then(Value::as_str), default.then_some(NAME));
                let runtimes = containerd["runtimes"].as_table().unwrap();
                assert_eq!(runtimes.keys().collect::<Vec<_>>(), [NAME]);
                let options = runtimes[NAME]["options"].as_table().unwrap();
                assert_eq!(options["BinaryName"].as_str(), Some("/usr/local/bin/tns-shim"));
                assert_eq!(options["SystemdCgroup"].as_bool(), Some(true));
                assert!(!text.contains('#') && !read.contains_key("version"), "{text}");
            }
            let text = snippet(version, &wish(false), &Table::new());
            assert!(!text.contains("SystemdCgroup"));
        }
    }

    #[test]
    fn right_is_what_differs_by_the_handler_alone() {
        let plugin = "io.containerd.grpc.v1.cri";
        let bare = dump(plugin, "  snapshotter = \"overlayfs\"\n  default_runtime_name = \"runc\"");
        let right = |text: &str, default| differs_only_by_us(bare.clone(), with(&bare, text), &wish(default));
        let (plain, default) = (snippet(2, &wish(false), &bare), snippet(2, &wish(true), &bare));
        assert!(right(&plain, false) && right(&default, true));
        assert!(!right(&default, false) && !right(&plain, true) && !right("", false));
        assert!(right(&format!("imports = [\"x\"]\n{plain}"), false));
        assert!(!right(&format!("oom_score = 1\n{plain}"), false));
        assert!(!right(&plain.replace("/usr/local/bin", "/usr/bin"), false));
        // containerd 1, told of a runtime.
        let mut without_runc = with(&bare, &plain);
        let runtimes = &mut without_runc["plugins"][plugin]["containerd"]["runtimes"];
        runtimes.as_table_mut().unwrap().remove("runc");
        assert!(!differs_only_by_us(bare.clone(), without_runc.clone(), &wish(false)));
        let runc = section(&bare, 2, "runc").unwrap();
        assert!(differs_only_by_us(bare.clone(), with(&without_runc, &runc), &wish(false)), "{runc}");
    }

    #[test]
    fn the_drop_in_goes_where_a_folder_is_imported_already() {
        let place = |config: &str, imports: &str| {
            let top = Top::of(&format!("version = 3\nimports = [{imports}]\n")).unwrap();
            let config = Path::new(config);
            dropin_in_force(config, &top, Containerd::dropin(config)).display().to_string()
        };
        let k3s = "/var/lib/rancher/k3s/agent/etc/containerd";
        let config = format!("{k3s}/config.toml");
        assert_eq!(
            place(&config, &format!("\"{k3s}/config-v3.toml.d/*.toml\"")),
            format!("{k3s}/config-v3.toml.d/50-tns-shim.toml")
        );
        assert_eq!(place(&config, ""), format!("{k3s}/conf.d/50-tns-shim.toml"));
        assert_eq!(place(PATH, "'runtime.d/*.toml', 'conf.d/*.toml'"), "/etc/containerd/conf.d/50-tns-shim.toml");
        assert_eq!(place(PATH, "'runtime.d/*.toml'"), "/etc/containerd/runtime.d/50-tns-shim.toml");
        assert_eq!(place(PATH, "'/etc/containerd/*.toml', 'one.toml'"), "/etc/containerd/conf.d/50-tns-shim.toml");
    }

    #[test]
    fn a_configuration_made_for_us_is_told_from_one_with_something_added() {
        assert_eq!(made(&format!("{MADE}1.\nversion = 3\n")), Some(1));
        for text in [format!("{MADE}1.\nversion = 3\n[debug]\n"), format!("{MADE}1.\n"), "version = 3\n".to_owned()] {
            assert_eq!(made(&text), None, "{text}");
        }
    }

    #[test]
    fn what_a_person_has_changed_in_between_is_told() {
        let dropin = Path::new("/etc/containerd/conf.d/50-tns-shim.toml");
        let text = own::with_block("version = 2\n", ENGINE, "[x]\n");
        assert_eq!(taken_out(&text, dropin).unwrap(), "version = 2\n");
        let error = format!("{:#}", taken_out(&text.replace("[x]", "[y]"), dropin).unwrap_err());
        assert!(error.contains("were changed since tnsctl wrote them. Take them out by hand"), "{error}");
    }
}
