// SPDX-License-Identifier: Apache-2.0
//! Podman, root's or a user's own: a file in `containers.conf.d`, which it reads at every call.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use super::{Answer, Engine, NAME, Plan, Program, Runtime, Said, Standing, Wish, is_ours, whole_file};
use crate::files::{self, Links};

const FILE: &str = "50-tns-shim.conf";
const FOR_5: &str = include_str!("../../../contrib/containers.conf.d/50-tns-shim.conf");
const FOR_4: &str = include_str!("../../../contrib/containers.conf.d/podman-4/50-tns-shim.conf");
/// The lists that Podman 4 takes from the last file that has them.
const LISTS: [&str; 2] = ["runtime_supports_json", "runtime_supports_nocgroup"];

#[derive(Debug)]
pub(in crate::ctl) struct Podman {
    program: Program,
    /// Where configuration is: /etc/containers, or the user's own.
    folder: PathBuf,
    rootless: bool,
}

impl Podman {
    pub(in crate::ctl) fn find(rootless: bool, patience: Duration) -> Result<Self> {
        let folder = match (rootless, geteuid().is_root()) {
            (false, true) => PathBuf::from("/etc/containers"),
            (false, false) => bail!("root's Podman is for root to configure; --rootless is for your own"),
            (true, true) => bail!("--rootless is for the user whose Podman it is: call it as that user"),
            (true, false) => own_folder()?,
        };
        Ok(Self { program: Program::find("podman", None, patience)?, folder, rootless })
    }

    /// What it says of the runtime of that name, or of the default one: its name and its path.
    fn info(&self, runtime: Option<&str>) -> Result<Said> {
        const INFO: [&str; 3] = ["info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}"];
        let chosen = runtime.map(|name| ["--runtime", name]);
        self.program.ask(&chosen.iter().flatten().copied().chain(INFO).collect::<Vec<_>>())
    }

    /// In the order in which Podman reads them; those that win over ours are not among them.
    fn files_before_ours(&self) -> Vec<PathBuf> {
        let mut folders = vec![PathBuf::from("/etc/containers")];
        if self.rootless {
            folders.push(self.folder.clone());
        }
        let mut files = vec![PathBuf::from("/usr/share/containers/containers.conf")];
        for folder in folders {
            files.push(folder.join("containers.conf"));
            let entries = fs::read_dir(folder.join("containers.conf.d")).into_iter().flatten().flatten();
            let mut dropins: Vec<_> = entries.map(|entry| entry.path()).filter(|path| is_conf(path)).collect();
            dropins.sort();
            files.extend(
                dropins.into_iter().filter(|path| folder != self.folder || path.file_name() < Some(FILE.as_ref())),
            );
        }
        files
    }

    /// A remark, where the shim wraps another runtime than Podman takes by itself.
    fn other_than_its_own(&self, wish: &Wish) -> Option<String> {
        let said = self.info(None).ok().filter(|said| said.good)?;
        let own = said.output.trim().split_once(' ')?.0;
        let wrapped = crate::ctl::runtime(None).ok().filter(|_| wish.shim.name == NAME)?.path;
        let is_other = ["runc", "crun"].contains(&own) && !wrapped.ends_with(own);
        is_other.then(|| {
            format!(
                "Podman's own runtime is {own}, and what {NAME} wraps is {}: `--runtime {own}` keeps it",
                wrapped.display()
            )
        })
    }

    /// What the lists are without ours, where somebody has set them.
    fn lists(&self) -> [Option<Vec<String>>; 2] {
        let files = self.files_before_ours();
        let read = |path: &PathBuf| files::read(path, Links::Follow, super::LARGEST).ok()?;
        let texts: Vec<_> = files.iter().filter_map(read).filter_map(|bytes| String::from_utf8(bytes).ok()).collect();
        LISTS.map(|list| texts.iter().filter_map(|text| list_in(text, list)).next_back())
    }
}

fn is_conf(path: &Path) -> bool {
    path.extension() == Some("conf".as_ref())
}

/// Where Podman looks for what is a user's own.
fn own_folder() -> Result<PathBuf> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = named("XDG_CONFIG_HOME").or_else(|| Some(named("HOME")?.join(".config")));
    Ok(folder.context("neither XDG_CONFIG_HOME nor HOME says where your configuration is")?.join("containers"))
}

/// The strings of a list under `[engine]`.
fn list_in(text: &str, list: &str) -> Option<Vec<String>> {
    let table: toml::Table = text.parse().ok()?;
    let elements = table.get("engine")?.get(list)?.as_array()?;
    Some(elements.iter().filter_map(|element| element.as_str().map(str::to_owned)).collect())
}

/// The drop-in for that Podman, where others have set those lists.
fn body(major: u32, wish: &Wish, lists: &[Option<Vec<String>>; 2]) -> String {
    let mut text = wish.shim.in_text(&without_second_place(if major < 5 { FOR_4 } else { FOR_5 }));
    if major < 5 {
        for (list, theirs) in LISTS.iter().zip(lists) {
            let Some(theirs) = theirs else { continue };
            let ours = list_in(&text, list).unwrap_or_default().into_iter().filter(|name| name.starts_with(NAME));
            let all: Vec<_> = theirs.iter().cloned().chain(ours.filter(|name| !theirs.contains(name))).collect();
            let line =
                format!("{list} = [{}]", all.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "));
            let lines = text.lines().map(|old| if old.starts_with(list) { line.as_str() } else { old });
            text = lines.collect::<Vec<_>>().join("\n") + "\n";
        }
    }
    if wish.default { text.replace("#runtime = \"tns-shim\"", "runtime = \"tns-shim\"") } else { text }
}

/// contrib knows two places where the shim may be.
fn without_second_place(contrib: &str) -> String {
    let lines = contrib.lines().map(|line| match line.split_once(", \"/usr/bin/tns-shim") {
        Some((first, _)) => format!("{first}]\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

impl Engine for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn plan(&self, wish: Option<&Wish>) -> Result<Plan> {
        let mut plan = Plan::default();
        let body = wish.map(|wish| body(self.program.major(), wish, &self.lists()));
        whole_file(&mut plan, "podman", &self.folder.join("containers.conf.d").join(FILE), body.as_deref())?;
        plan.notes.push(if wish.is_some() {
            "Podman reads it at every call; only a `podman system service` that runs already has to be restarted"
                .to_owned()
        } else {
            "a container that was made with it needs it for all that Podman does with it, also to stop and to remove it: \
             enable the runtime again if there is one"
                .to_owned()
        });
        plan.notes.extend(wish.and_then(|wish| self.other_than_its_own(wish)));
        Ok(plan)
    }

    fn ask(&self, wish: Option<&Wish>) -> Result<Answer> {
        let Some(wish) = wish else {
            self.info(None)?.or_its_words("podman info")?;
            return Ok(Answer::AsWished("podman info".to_owned()));
        };
        let said = self.info(Some(NAME))?;
        // It does without what it cannot read.
        let complains = said.errors.lines().any(|line| line.contains(FILE));
        ensure!(said.good && !complains, "podman info: {}", said.words());
        let path = wish.shim.path();
        let expected = format!("{NAME} {path}");
        ensure!(
            said.output.trim() == expected,
            "podman info: the runtime {NAME} is {}, and not {path}",
            said.output.trim()
        );
        if wish.default {
            let said = self.info(None)?.or_its_words("podman info")?;
            let is = said.trim();
            ensure!(
                is == expected,
                "podman info: the default runtime is still {is}. Another file sets `runtime`, and is read later"
            );
        }
        Ok(Answer::AsWished("podman info".to_owned()))
    }

    fn standing(&self) -> Result<Standing> {
        let runtime = |said: &str| said.trim().split_once(' ').map(|(name, path)| Runtime::new(name, path));
        let default = runtime(&self.info(None)?.or_its_words("podman info")?);
        let named = self.info(Some(NAME))?;
        // One that it does not know is an error.
        let named = if named.good { runtime(&named.output) } else { None };
        let name = default.as_ref().map(|default| default.name.clone());
        let mut all: Vec<_> = default.into_iter().chain(named).collect();
        all.dedup();
        let folders = [self.folder.as_path(), Path::new("/etc/containers")];
        let mut files = folders.iter().map(|folder| folder.join("containers.conf.d").join(FILE));
        let by_tnsctl = files.any(|file| is_ours(&file).unwrap_or(false));
        Ok(Standing { in_force: Some(true), ..Standing::of(all, name.as_deref(), by_tnsctl) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shim;
    use super::*;

    fn wish(name: &str, default: bool) -> Wish {
        Wish { shim: Shim { folder: "/opt/bin".to_owned(), name: name.to_owned() }, default }
    }

    fn runtimes(text: &str) -> toml::Table {
        let table: toml::Table = text.parse().unwrap();
        table["engine"].as_table().unwrap().clone()
    }

    #[test]
    fn the_drop_in_names_the_shim_that_is_installed() {
        for major in [4, 5, 6] {
            let engine = runtimes(&body(major, &wish("tns-shim", false), &[None, None]));
            let path = |name: &str| engine["runtimes"][name].as_array().unwrap().clone();
            for name in ["tns-shim", "tns-shim-runc", "tns-shim-crun"] {
                assert_eq!(path(name), [toml::Value::from(format!("/opt/bin/{name}"))]);
            }
            assert!(!engine.contains_key("runtime"));
            let engine = runtimes(&body(major, &wish("tns-shim-crun", true), &[None, None]));
            assert_eq!(engine["runtime"].as_str(), Some("tns-shim"));
            assert_eq!(engine["runtimes"]["tns-shim"][0].as_str(), Some("/opt/bin/tns-shim-crun"));
        }
    }

    #[test]
    fn podman_4_keeps_the_lists_of_somebody_else_and_5_adds_to_them() {
        let theirs = [Some(vec!["mine".to_owned(), "tns-shim-runc".to_owned()]), None];
        let text = body(4, &wish("tns-shim", false), &theirs);
        let json = ["mine", "tns-shim-runc", "tns-shim", "tns-shim-crun"].map(str::to_owned);
        assert_eq!(list_in(&text, LISTS[0]).unwrap(), json);
        assert_eq!(list_in(&text, LISTS[1]), list_in(FOR_4, LISTS[1]));
        let text = body(5, &wish("tns-shim", false), &theirs);
        assert!(text.contains("{append = true}") && !text.contains("mine"));
    }
}
