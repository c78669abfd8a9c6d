// SPDX-License-Identifier: Apache-2.0
//! Docker: `daemon.json`, of which there is only one, and in which nobody can leave a remark. So what is added is always
//! the same text at the same place, and is taken out only where it still is that text.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::running::{arguments_of_running, running, value_of, values_of};
use super::{
    Answer, Engine, NAME, Plan, Program, Runtime, Shim, Standing, Wish, read, run_within, search_path, text_of,
};
use crate::json::{self, Found};

const PATH: &str = "/etc/docker/daemon.json";
const SOCKET: &str = "unix:///var/run/docker.sock";
const CONTRIB: &str = include_str!("../../../contrib/docker/daemon.json");
const DEFAULT: &str = "\n  \"default-runtime\": \"tns-shim\",";

#[derive(Debug)]
pub(in crate::ctl) struct Docker {
    program: Program,
    config: PathBuf,
}

impl Docker {
    pub(in crate::ctl) fn find(config: Option<&Path>, program: Option<&Path>, patience: Duration) -> Result<Self> {
        // The one that the daemon reads that runs here.
        let in_use = || {
            let named = value_of(&arguments_of_running("dockerd")?, &["--config-file"]).map(PathBuf::from);
            named.filter(|path| path.is_absolute())
        };
        let config = config.map(Path::to_owned).or_else(in_use).unwrap_or(PATH.into());
        Ok(Self { program: Program::find("dockerd", program, patience)?, config })
    }

    /// `--validate`, since Docker 23.
    fn validate(&self, file: &Path) -> Result<Answer> {
        let file = file.to_str().context("its path is no text of UTF-8")?;
        let said = self.program.ask(&["--validate", "--config-file", file])?;
        if said.errors.contains("unknown flag: --validate") {
            let version = &self.program.version;
            return Ok(Answer::Unknown(format!(
                "dockerd {version} cannot be asked before it reads the file (Docker 23 and newer can)"
            )));
        }
        said.or_its_words("dockerd --validate")?;
        Ok(Answer::AsWished("dockerd --validate".to_owned()))
    }

    /// What the daemon has that runs here: its runtimes, and the name of the default one. None where none runs, because to
    /// ask would start it where systemd listens for it, or where it does not tell this user.
    fn in_force(&self) -> Option<(Vec<Runtime>, String)> {
        const INFO: [&str; 3] = ["info", "--format", "{{json .Runtimes}}{{json .DefaultRuntime}}"];
        #[derive(Deserialize)]
        struct Program {
            path: String,
        }
        running("dockerd")?;
        let client = which::which_in_global("docker", Some(search_path())).ok()?.next()?;
        let mut command = Command::new(client);
        // This one, and not the one elsewhere that the user works with.
        command.args(["--host", SOCKET]).args(INFO).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        let said = run_within(self.program.patience, &mut command).ok().filter(|said| said.good)?;
        let mut values = serde_json::Deserializer::from_str(&said.output).into_iter::<Value>();
        let (runtimes, default) = (values.next()?.ok()?, values.next()?.ok()?);
        let runtimes: BTreeMap<String, Value> = serde_json::from_value(runtimes).ok()?;
        let program = |value| serde_json::from_value(value).ok().map(|Program { path }| path);
        // Those of a containerd runtime have no path.
        let runtimes = runtimes.into_iter().filter_map(|(name, value)| Some(Runtime::new(&name, &program(value)?)));
        Some((runtimes.collect(), default.as_str()?.to_owned()))
    }
}

/// What a file says: its runtimes, and the name of the default one, if it does.
fn runtimes(text: &str) -> Result<(Vec<Runtime>, Option<String>)> {
    let [runtimes, default] = json::members(root(text)?, ["runtimes", "default-runtime"]).context("it is no object")?;
    let entries = match runtimes {
        Found::One(runtimes) => entries_of(runtimes, "")?,
        _ => Vec::new(),
    };
    let default = match default {
        Found::One(default) => json::string(default).map(std::borrow::Cow::into_owned),
        _ => None,
    };
    Ok((entries.iter().map(|Entry { name, path }| Runtime::new(name, path)).collect(), default))
}

/// The entries of contrib's file whose program is there, as Docker is to read them.
fn entries(shim: &Shim) -> Result<Vec<Entry>> {
    let contrib = shim.in_text(CONTRIB);
    let [Found::One(runtimes)] = json::members(&contrib, ["runtimes"])? else {
        bail!("there are no runtimes in contrib's file")
    };
    let entries = entries_of(runtimes, NAME)?.into_iter();
    Ok(entries.filter(|entry| entry.name == NAME || Path::new(&entry.path).exists()).collect())
}

/// Those of a file's `runtimes` that are called so, or longer.
fn entries_of(runtimes: &str, prefix: &str) -> Result<Vec<Entry>> {
    let all = json::members_with_prefix(runtimes, prefix).context("its `runtimes` is no object")?;
    Ok(all.into_iter().filter_map(|(name, value)| Some(Entry { name, path: path_of(value)? })).collect())
}

/// A runtime by its path, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    path: String,
}

impl Entry {
    fn text(&self) -> String {
        format!("\"{}\": {{ \"path\": \"{}\" }}", self.name, self.path)
    }
}

fn path_of(value: &str) -> Option<String> {
    match json::members(value, ["path"]).ok()? {
        [Found::One(path)] => json::string(path).map(std::borrow::Cow::into_owned),
        _ => None,
    }
}

fn joined(entries: &[Entry], separator: &str) -> String {
    entries.iter().map(Entry::text).collect::<Vec<_>>().join(separator)
}

// What is put in is told by what follows the bracket of `runtimes`: an end of line in a file that was made, a space in a member that
// was added, nothing before the runtimes of somebody.

fn member_of_made(entries: &[Entry]) -> String {
    format!("\n  \"runtimes\": {{\n    {}\n  }}", joined(entries, ",\n    "))
}

fn member(entries: &[Entry]) -> String {
    format!("\n  \"runtimes\": {{ {} }}", joined(entries, ", "))
}

fn inner(entries: &[Entry]) -> String {
    joined(entries, ", ")
}

/// What is written where there is no file.
fn whole(entries: &[Entry], default: bool) -> String {
    format!("{{{}{}\n}}\n", if default { DEFAULT } else { "" }, member_of_made(entries))
}

/// An object of a text, up to and with its bracket, and from there.
fn opened<'a>(text: &'a str, object: &str) -> (&'a str, &'a str) {
    text.split_at(json::span(text, object).start + 1)
}

/// The object that a text is.
fn root(text: &str) -> Result<&str> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    ensure!(!text.is_empty(), "it is empty: remove it and try again");
    serde_json::from_str::<&serde_json::value::RawValue>(text).context("it is no valid JSON")?;
    Ok(text)
}

/// The text with the runtimes, and the default one.
fn with(text: &str, entries: &[Entry], default: bool) -> Result<String> {
    let [runtimes, theirs] = json::members(root(text)?, ["runtimes", "default-runtime"]).context("it is no object")?;
    let has_members = |object: &str| object.get(1..).is_some_and(|rest| !rest.trim_start().starts_with('}'));
    let comma = |object: &str| if has_members(object) { "," } else { "" };
    let mut changed = match runtimes {
        Found::Absent => {
            let (before, after) = opened(text, root(text)?);
            format!("{before}{}{}{after}", member(entries), comma(root(text)?))
        }
        Found::One(runtimes) => {
            let [there] = json::members(runtimes, [NAME]).context("its `runtimes` is no object")?;
            ensure!(there == Found::Absent, "it has a runtime {NAME} already, which tnsctl has not written in");
            let (before, after) = opened(text, runtimes);
            format!("{before}{}{}{after}", inner(entries), comma(runtimes))
        }
        Found::Null(_) | Found::Ambiguous => {
            bail!(
                "its `runtimes` is null, there more than once, or in other letters: nobody can say what Docker makes of that"
            )
        }
    };
    if default {
        ensure!(
            theirs == Found::Absent,
            "it has a `default-runtime` already: write `\"default-runtime\": \"{NAME}\"` there, or leave out --default"
        );
        let (before, after) = opened(&changed, root(&changed)?);
        changed = format!("{before}{DEFAULT}{after}");
    }
    Ok(changed)
}

/// What is left of a file without what was put in.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    Text(String),
}

/// The text without what [`with`] or [`whole`] has put in.
///
/// # Errors
/// It has been changed since.
fn without(text: &str) -> Result<Rest> {
    let (before, after) = opened(text, root(text)?);
    let (default, after) = after.strip_prefix(DEFAULT).map_or((false, after), |after| (true, after));
    let plain = format!("{before}{after}");
    let [runtimes, theirs] =
        json::members(root(&plain)?, ["runtimes", "default-runtime"]).context("it is no object")?;
    let is_ours = |value: Found<'_>| matches!(value, Found::One(value) if json::string(value).as_deref() == Some(NAME));
    ensure!(
        !is_ours(theirs),
        "its `default-runtime` is {NAME}, which stands there in another way than tnsctl has written it: take it out by hand"
    );
    let Found::One(runtimes) = runtimes else { return Ok(Rest::Text(plain)) };
    let ours = entries_of(runtimes, NAME)?;
    if ours.is_empty() {
        return Ok(Rest::Text(plain));
    }
    if text == whole(&ours, default) {
        return Ok(Rest::Nothing);
    }
    // A whole member, or the first ones of somebody's; with their comma, where something follows.
    let members = [member(&ours), member_of_made(&ours)];
    let (place, ours) = match members.into_iter().find(|member| after.starts_with(member)) {
        Some(member) => (before.len(), member),
        None => (json::span(&plain, runtimes).start + 1, inner(&ours)),
    };
    let (before, after) = plain.split_at(place);
    let Some(after) = after.strip_prefix(&ours) else {
        bail!("its runtimes {NAME}* stand there in another way than tnsctl has written them: take them out by hand")
    };
    Ok(Rest::Text(format!("{before}{}", after.strip_prefix(',').unwrap_or(after))))
}

/// What is to be in the file.
fn edit(text: Option<&str>, wish: Option<(&[Entry], bool)>) -> Result<Option<String>> {
    if let (Some(text), None) = (text.filter(|text| text.trim().is_empty()), wish) {
        return Ok(Some(text.to_owned()));
    }
    let own = text.map(without).transpose()?;
    Ok(match (own, wish) {
        (None | Some(Rest::Nothing), None) => None,
        (Some(Rest::Text(own)), None) => Some(own),
        (None | Some(Rest::Nothing), Some((entries, default))) => Some(whole(entries, default)),
        (Some(Rest::Text(own)), Some((entries, default))) => Some(with(&own, entries, default)?),
    })
}

/// Whether one of the keys goes: dockerd takes their values without a restart, but not that they are gone.
fn loses_a_key(before: Option<&str>, after: Option<&str>) -> bool {
    let has = |text: Option<&str>| {
        let found = text.and_then(|text| json::members(text, ["runtimes", "default-runtime"]).ok());
        found.map_or([false; 2], |found| found.map(|value| value != Found::Absent))
    };
    has(before).into_iter().zip(has(after)).any(|(before, after)| before && !after)
}

/// Refuses what Docker refuses, or decides by itself: the same said by an option and in the file. Other runtimes may come from both.
fn not_by_options(arguments: &[String], wish: &Wish) -> Result<()> {
    let added = values_of(arguments, &["--add-runtime"]);
    ensure!(
        !added.iter().any(|runtime| runtime.split('=').next() == Some(NAME)),
        "dockerd is started with --add-runtime {NAME}=…: it is told of it already, where that option is"
    );
    ensure!(
        !(wish.default && value_of(arguments, &["--default-runtime"]).is_some()),
        "dockerd is started with --default-runtime, and then refuses one in its file. Where that option is, write: \
         --default-runtime {NAME}"
    );
    Ok(())
}

impl Engine for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn plan(&self, wish: Option<&Wish>) -> Result<Plan> {
        let (path, before) = read(&self.config)?;
        let text = before.clone().map(|bytes| text_of(&path, bytes)).transpose()?;
        let entries = wish.map(|wish| entries(&wish.shim)).transpose()?;
        if let Some(wish) = wish {
            not_by_options(&arguments_of_running("dockerd").unwrap_or_default(), wish)?;
        }
        let wished = entries.as_deref().zip(wish.map(|wish| wish.default));
        let after = edit(text.as_deref(), wished).with_context(|| format!("{} is left alone", path.display()))?;
        if let Some(after) = &after {
            // Before it is where dockerd would find it.
            let mut candidate = tempfile::NamedTempFile::new().context("make a temporary file")?;
            candidate.write_all(after.as_bytes()).context("write a temporary file")?;
            self.validate(candidate.path())?;
        }
        let folders = if before.is_none() { super::missing_folders(&path) } else { 0 };
        let how = if loses_a_key(text.as_deref(), after.as_deref()) { "restart" } else { "reload" };
        let mut plan = Plan { restart: Some(format!("systemctl {how} docker")), ..Plan::default() };
        plan.change(&path, before, after.map(String::into_bytes), folders);
        plan.notes.push(if wish.is_some() {
            "`docker checkpoint` also takes `\"experimental\": true` there, and a restart: that is left to you"
                .to_owned()
        } else {
            "a container that was made with it needs it to start again: make it anew, or enable the runtime again"
                .to_owned()
        });
        Ok(plan)
    }

    fn ask(&self, wish: Option<&Wish>) -> Result<Answer> {
        let (path, text) = read(&self.config)?;
        if text.is_none() {
            return Ok(Answer::AsWished("there is no daemon.json".to_owned()));
        }
        let answer = self.validate(&path)?;
        if wish.is_some_and(|wish| wish.default) && running("dockerd").is_none() {
            return Ok(Answer::Unknown(
                "dockerd does not run, so nobody knows its options: with a --default-runtime there it would not start"
                    .to_owned(),
            ));
        }
        Ok(answer)
    }

    fn standing(&self) -> Result<Standing> {
        let (path, bytes) = read(&self.config)?;
        let text = bytes.map(|bytes| text_of(&path, bytes)).transpose()?.filter(|text| !text.trim().is_empty());
        let said = text.as_deref().map(runtimes).transpose().with_context(|| format!("read {}", path.display()))?;
        let (mut all, default) = said.unwrap_or_default();
        let by_tnsctl = text.is_some_and(|text| without(&text).is_ok_and(|rest| rest != Rest::Text(text)));
        all.push(Runtime::new("runc", "runc"));
        let in_file = Standing::of(all, Some(default.as_deref().unwrap_or("runc")), by_tnsctl);
        let Some((all, in_force)) = self.in_force() else { return Ok(in_file) };
        let has_all = in_file.ours.iter().all(|ours| all.contains(ours)) && default.is_none_or(|name| name == in_force);
        let mut standing = Standing::of(all, Some(&in_force), by_tnsctl);
        let arguments = arguments_of_running("dockerd").unwrap_or_default();
        let by_options = !values_of(&arguments, &["--add-runtime"]).is_empty();
        let has_more = !by_options && in_file.ours.is_empty() && !standing.ours.is_empty();
        if !by_options {
            standing.told_by = in_file.told_by;
        }
        Ok(Standing { in_force: Some(has_all && !has_more), ..standing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Vec<Entry> {
        let entry = |name: &str| Entry { name: name.to_owned(), path: format!("/usr/local/bin/{name}") };
        vec![entry("tns-shim"), entry("tns-shim-runc")]
    }

    #[test]
    fn whatever_the_file_looks_like_it_gains_the_runtimes_and_gets_back_its_bytes() {
        for text in [
            "{}",
            "{}\n",
            "{\n}\n",
            "{\n  \"runtimes\": { }\n}\n",
            "{\n  \"runtimes\": {\n    }\n}\n",
            " { } ",
            "{\"runtimes\":{}}",
            "{ \"runtimes\" : { } }\n",
            "{\n\t\"log-driver\":\"json-file\",\n\n\n  \"runtimes\": {\"nvidia\":{\"path\":\"/x\",\"runtimeArgs\":[]}} }",
            "{\"data-root\": \"/mnt\", \"big\": 123456789012345678901234567890}\r\n",
            "{\n  \"runtimes\": {\n    \"kata\": { \"path\": \"/k\" }\n  },\n  \"default-ulimits\": {}\n}",
            "\n\n{\"runtimes\":{\"crun\":{\"path\":\"/usr/bin/crun\"}},\"default-runtime\":\"crun\"}",
        ] {
            for default in [false, true] {
                let Ok(Some(changed)) = edit(Some(text), Some((&ours(), default))) else {
                    assert!(default && text.contains("default-runtime"), "{text}");
                    continue;
                };
                let read: serde_json::Value = serde_json::from_str(&changed).unwrap();
                assert_eq!(read["runtimes"]["tns-shim-runc"]["path"], "/usr/local/bin/tns-shim-runc", "{changed}");
                assert_eq!(read["default-runtime"] == NAME, default, "{changed}");
                // Twice is once, and what was wished before is not in the way.
                assert_eq!(edit(Some(&changed), Some((&ours(), default))).unwrap().as_ref(), Some(&changed));
                assert_eq!(
                    edit(Some(&changed), Some((&ours()[..1], false))).unwrap(),
                    Some(with(text, &ours()[..1], false).unwrap())
                );
                assert_eq!(edit(Some(&changed), None).unwrap().as_deref(), Some(text));
            }
            assert_eq!(edit(Some(text), None).unwrap().as_deref(), Some(text));
        }
    }

    #[test]
    fn a_file_that_was_made_is_removed_and_what_somebody_adds_to_it_stays() {
        for default in [false, true] {
            let made = edit(None, Some((&ours(), default))).unwrap().unwrap();
            assert!(made.ends_with("\n}\n"), "{made}");
            assert_eq!(edit(Some(&made), None).unwrap(), None);
            let added = made.replacen("\n  }\n}", "\n  },\n  \"debug\": true\n}", 1);
            assert_eq!(edit(Some(&added), None).unwrap().as_deref(), Some("{\n  \"debug\": true\n}\n"));
        }
        assert_eq!(edit(None, None).unwrap(), None);
        assert_eq!(edit(Some("\n"), None).unwrap().as_deref(), Some("\n"));
        // Beside ours.
        let made = with("{}", &ours(), false).unwrap();
        let added = made.replace("tns-shim-runc\" }", "tns-shim-runc\" }, \"kata\": {}");
        assert!(edit(Some(&added), None).is_err());
    }

    #[test]
    fn what_cannot_be_done_without_doubt_is_left_alone() {
        let refused =
            |text: &str, default: bool| format!("{:#}", edit(Some(text), Some((&ours(), default))).unwrap_err());
        assert!(refused("", false).contains("it is empty"));
        assert!(refused("{", false).contains("no valid JSON"));
        assert!(refused("{} {}", false).contains("no valid JSON"));
        assert!(refused("[]", false).contains("no object"));
        assert!(refused("\u{feff}{}", false).contains("no valid JSON"));
        assert!(refused("{\"runtimes\": null}", false).contains("`runtimes` is null"));
        assert!(refused("{\"Runtimes\": {}}", false).contains("in other letters"));
        assert!(refused("{\"runtimes\": []}", false).contains("`runtimes` is no object"));
        assert!(refused("{\"default-runtime\": \"runc\"}", true).contains("`default-runtime` already"));
        assert!(refused("{\"runtimes\": {\"tns-shim\": {\"path\": \"/mine\"}}}", false).contains("in another way"));
        let changed = with("{\"a\": 1}", &ours(), true)
            .unwrap()
            .replace("/usr/local/bin/tns-shim\" }", "/usr/local/bin/tns-shim\" , \"runtimeArgs\": [] }");
        assert!(format!("{:#}", edit(Some(&changed), None).unwrap_err()).contains("in another way"));
        let moved = "{\"default-runtime\": \"tns-shim\"}";
        assert!(format!("{:#}", edit(Some(moved), None).unwrap_err()).contains("take it out by hand"));
    }

    #[test]
    fn a_reload_is_enough_unless_a_key_goes() {
        let (plain, runtimes) = ("{\"debug\": true}", "{\"runtimes\": {}}");
        let both = "{\"default-runtime\": \"tns-shim\", \"runtimes\": {}}";
        for (before, after, loses) in [
            (None, Some(both), false),
            (Some(plain), Some(runtimes), false),
            (Some(runtimes), Some(both), false),
            (Some(runtimes), Some(runtimes), false),
            (Some(both), Some(runtimes), true),
            (Some(runtimes), Some(plain), true),
            (Some(runtimes), None, true),
        ] {
            assert_eq!(loses_a_key(before, after), loses, "{before:?} {after:?}");
        }
    }

    #[test]
    fn what_dockerd_is_told_by_options_is_not_written_into_its_file() {
        let shim = || Shim { folder: "/usr/bin".to_owned(), name: "tns-shim".to_owned() };
        let check = |line: &str, default| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            not_by_options(&words, &Wish { shim: shim(), default }).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(check("dockerd -H fd:// --default-runtime=runc", false), Ok(()));
        assert!(check("dockerd --default-runtime=runc", true).unwrap_err().ends_with("--default-runtime tns-shim"));
        assert_eq!(check("dockerd --add-runtime x=/x --add-runtime=y=/y", true), Ok(()));
        for line in ["dockerd --add-runtime tns-shim=/x", "dockerd --add-runtime x=/x --add-runtime=tns-shim=/x"] {
            assert!(check(line, false).unwrap_err().contains("told of it already"), "{line}");
        }
    }
}
