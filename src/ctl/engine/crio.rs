// SPDX-License-Identifier: Apache-2.0
//! CRI-O: a file in `crio.conf.d`, of which it reads all, key by key.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Answer, Engine, NAME, Plan, Program, Runtime, Standing, Wish, is_ours, whole_file};
use crate::runtime::abilities::Kind;

const PATH: &str = "/etc/crio/crio.conf.d/50-tns-shim.conf";
/// What the section of a runtime begins with.
const RUNTIMES: &str = "[crio.runtime.runtimes.";
const CONTRIB: &str = include_str!("../../../contrib/crio/50-tns-shim.conf");

#[derive(Debug)]
pub(in crate::ctl) struct Crio {
    program: Program,
}

impl Crio {
    pub(in crate::ctl) fn find(patience: Duration) -> Result<Self> {
        Ok(Self { program: Program::find("crio", None, patience)? })
    }

    /// Its configuration, of all files.
    fn printed(&self) -> Result<String> {
        self.program.ask(&["config"])?.or_its_words("crio config")
    }
}

/// The drop-in, for a runtime that keeps its state where that one does.
fn body(wish: &Wish, wraps: Kind) -> String {
    let mut text = wish.shim.in_text(CONTRIB);
    if wraps == Kind::Crun {
        text = text.replace("\"/run/runc\"", "\"/run/crun\"");
    }
    if wish.default {
        let table = "[crio.runtime.runtimes.tns-shim]";
        text = text.replace(table, &format!("[crio.runtime]\ndefault_runtime = \"{NAME}\"\n\n{table}"));
    }
    text
}

/// A string in what `crio config` prints. It is a template, with remarks for what is the default, and not in every release valid TOML.
fn value<'a>(printed: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let lines = printed.lines().map(str::trim).skip_while(|line| *line != section).skip(1);
    let mut own = lines.take_while(|line| !line.starts_with('['));
    own.find_map(|line| {
        line.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim().strip_prefix('"')?.strip_suffix('"')
    })
}

/// All runtimes in what `crio config` prints.
fn runtimes(printed: &str) -> Vec<Runtime> {
    let sections = printed.lines().map(str::trim).filter(|line| line.starts_with(RUNTIMES));
    let named = sections.filter_map(|section| Some((section, section.strip_prefix(RUNTIMES)?.strip_suffix(']')?)));
    // What has no path is looked for in PATH under its name.
    let program =
        |section, name| value(printed, section, "runtime_path").filter(|path| !path.is_empty()).unwrap_or(name);
    named.map(|(section, name)| Runtime::new(name, program(section, name))).collect()
}

/// Whether what `crio config` prints is as wished: it says what is not.
fn is_as_wished(printed: &str, wish: Option<&Wish>) -> Result<()> {
    let default = value(printed, "[crio.runtime]", "default_runtime");
    let handler = value(printed, "[crio.runtime.runtimes.tns-shim]", "runtime_path");
    let Some(wish) = wish else { return Ok(()) };
    let path = wish.shim.path();
    ensure!(
        handler == Some(&*path),
        "crio config: the runtime {NAME} is {}, and not {path}",
        handler.unwrap_or("not there")
    );
    ensure!(
        !wish.default || default == Some(NAME),
        "crio config: the default runtime is still {}. Another file sets `default_runtime`, and is read later",
        default.unwrap_or("CRI-O's own")
    );
    Ok(())
}

impl Engine for Crio {
    fn name(&self) -> &'static str {
        "cri-o"
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn plan(&self, wish: Option<&Wish>) -> Result<Plan> {
        let body = wish.map(|wish| anyhow::Ok(body(wish, wish.shim.wraps()?))).transpose()?;
        let mut plan = Plan { restart: Some("systemctl restart crio".to_owned()), ..Plan::default() };
        whole_file(&mut plan, "cri-o", Path::new(PATH), body.as_deref())?;
        plan.notes.push(if wish.is_some() {
            "Kubernetes chooses it by a RuntimeClass with the handler `tns-shim`, as in the example runtimeclass.yaml"
                .to_owned()
        } else {
            "pods that were made with it need it to the end: remove them before CRI-O restarts".to_owned()
        });
        Ok(plan)
    }

    fn ask(&self, wish: Option<&Wish>) -> Result<Answer> {
        is_as_wished(&self.printed()?, wish)?;
        Ok(Answer::AsWished("crio config".to_owned()))
    }

    fn standing(&self) -> Result<Standing> {
        let printed = self.printed()?;
        let by_tnsctl = is_ours(Path::new(PATH))?;
        Ok(Standing::of(runtimes(&printed), value(&printed, "[crio.runtime]", "default_runtime"), by_tnsctl))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shim;
    use super::*;

    fn wish(default: bool) -> Wish {
        Wish { shim: Shim { folder: "/usr/bin".to_owned(), name: "tns-shim".to_owned() }, default }
    }

    #[test]
    fn the_drop_in_says_where_shim_and_state_are() {
        for (wraps, state) in [(Kind::Runc, "/run/runc"), (Kind::Crun, "/run/crun"), (Kind::Other, "/run/runc")] {
            for default in [false, true] {
                let table: toml::Table = body(&wish(default), wraps).parse().unwrap();
                let runtime = &table["crio"]["runtime"];
                assert_eq!(runtime["runtimes"][NAME]["runtime_path"].as_str(), Some("/usr/bin/tns-shim"));
                assert_eq!(runtime["runtimes"][NAME]["runtime_root"].as_str(), Some(state));
                assert_eq!(runtime.get("default_runtime").and_then(toml::Value::as_str), default.then_some(NAME));
            }
        }
    }

    /// As the template of CRI-O 1.37 prints it, which has remarks for what is the default.
    #[test]
    fn what_crio_prints_is_understood() {
        let printed = |default: &str, path: &str| {
            format!(
                "# The CRI-O configuration file\n[crio]\n# root = \"/var/lib/containers/storage\"\n[crio.api]\n\
                 # The crio.runtime table contains settings\n[crio.runtime]\n# no_pivot = false\n{default}\n# default_env = [\n# ]\n\
                 # [crio.runtime.runtimes.runtime-handler]\n# runtime_path = \"/path/to/the/executable\"\n\n\
                 [crio.runtime.runtimes.crun]\nruntime_path = \"/usr/libexec/crio/crun\"\nmonitor_env = [\n\t\"PATH=/bin\",\n]\n\n\
                 [crio.runtime.runtimes.tns-shim]\nruntime_path = \"{path}\"\nruntime_type = \"oci\"\nruntime_root = \"/run/runc\"\n\
                 inherit_default_runtime = false\nmonitor_cgroup = \"\"\n\n\nprivileged_without_host_devices = false\n\n[crio.image]\n"
            )
        };
        let (ours, theirs) = ("default_runtime = \"tns-shim\"", "# default_runtime = \"crun\"");
        let said = |text: &str, default| is_as_wished(text, Some(&wish(default))).map_err(|error| format!("{error:#}"));
        assert_eq!(said(&printed(theirs, "/usr/bin/tns-shim"), false), Ok(()));
        assert_eq!(said(&printed(ours, "/usr/bin/tns-shim"), true), Ok(()));
        assert!(said(&printed(theirs, "/usr/bin/tns-shim"), true).unwrap_err().contains("CRI-O's own"));
        assert!(said(&printed(ours, "/x"), true).unwrap_err().contains("is /x, and not /usr/bin/tns-shim"));
        assert!(said("[crio]\n", false).unwrap_err().contains("is not there"));
        let text = printed(ours, "/usr/bin/tns-shim");
        let wanted = [Runtime::new("crun", "/usr/libexec/crio/crun"), Runtime::new(NAME, "/usr/bin/tns-shim")];
        assert_eq!(runtimes(&text), wanted);
        // What has no path is found by its name.
        let text = text.replace("runtime_path = \"/usr/bin/tns-shim\"\n", "# runtime_path = \"\"\n");
        assert_eq!(runtimes(&text)[1], Runtime::new(NAME, NAME));
    }
}
