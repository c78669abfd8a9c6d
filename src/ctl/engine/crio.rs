// SPDX-License-Identifier: Apache-2.0
//! CRI-O: a file in `crio.conf.d`, of which it reads all, key by key.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Answer, Engine, NAME, Plan, Program, Wish, run, whole_file};
use crate::runtime::abilities::Kind;

const PATH: &str = "/etc/crio/crio.conf.d/50-tns-shim.conf";
const CONTRIB: &str = include_str!("../../../contrib/crio/50-tns-shim.conf");

#[derive(Debug)]
pub(in crate::ctl) struct Crio {
    program: Program,
}

impl Crio {
    pub(in crate::ctl) fn find() -> Result<Self> {
        Ok(Self { program: Program::find("crio", None)? })
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

/// Whether what `crio config` prints is as wished: it says what is not.
fn is_as_wished(printed: &str, wish: Option<&Wish>) -> Result<()> {
    let table: toml::Table = printed.parse().context("read what `crio config` prints")?;
    let runtime = table.get("crio").and_then(|crio| crio.get("runtime"));
    let default = runtime.and_then(|runtime| runtime.get("default_runtime")?.as_str());
    let handler = runtime.and_then(|runtime| runtime.get("runtimes")?.get(NAME)?.get("runtime_path")?.as_str());
    let Some(wish) = wish else { return Ok(()) };
    let path = wish.shim.path();
    ensure!(
        handler == Some(path.as_str()),
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
            "Kubernetes chooses it by a RuntimeClass with the handler `tns-shim`: contrib/kubernetes/runtimeclass.yaml"
                .to_owned()
        } else {
            "pods that were made with it need it to the end: remove them before CRI-O restarts".to_owned()
        });
        Ok(plan)
    }

    fn ask(&self, wish: Option<&Wish>) -> Result<Answer> {
        let printed = run(&mut self.program.command(&["config"]))?.or_its_words("crio config")?;
        is_as_wished(&printed, wish)?;
        Ok(Answer::AsWished("crio config".to_owned()))
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

    /// As its template prints it: what is the default stands there as a remark.
    #[test]
    fn what_crio_prints_is_understood() {
        let printed = |default: &str, path: &str| {
            format!(
                "# The CRI-O configuration file\n[crio]\n# root = \"/var/lib/containers/storage\"\n[crio.api]\n\
                 [crio.runtime]\n# no_pivot = false\n{default}\n# default_env = [\n# ]\n\
                 # [crio.runtime.runtimes.crun]\n# runtime_path = \"\"\n# platform_runtime_paths = {{}}\n\n\
                 [crio.runtime.runtimes.tns-shim]\nruntime_path = \"{path}\"\nruntime_type = \"oci\"\nruntime_root = \"/run/runc\"\n\
                 monitor_cgroup = \"\"\nallowed_annotations = []\n[crio.image]\n"
            )
        };
        let ours = "default_runtime = \"tns-shim\"";
        let said = |text: &str, default| is_as_wished(text, Some(&wish(default))).map_err(|error| format!("{error:#}"));
        assert_eq!(said(&printed("# default_runtime = \"crun\"", "/usr/bin/tns-shim"), false), Ok(()));
        assert_eq!(said(&printed(ours, "/usr/bin/tns-shim"), true), Ok(()));
        assert!(
            said(&printed("# default_runtime = \"crun\"", "/usr/bin/tns-shim"), true)
                .unwrap_err()
                .contains("CRI-O's own")
        );
        assert!(said(&printed(ours, "/x"), true).unwrap_err().contains("is /x, and not /usr/bin/tns-shim"));
        assert!(said("[crio]\n", false).unwrap_err().contains("is not there"));
        assert!(said("[crio", false).unwrap_err().contains("crio config"));
    }
}
