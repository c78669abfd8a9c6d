// SPDX-License-Identifier: Apache-2.0
//! What `tnsctl doctor` tells, as its JSON has it: docs/doctor.md says of every key what it means, and a test that both agree.
//!
//! The same kind of value is always under the same key, and null is only what is not known. Why something is not known, or not
//! as it should be, is a list of sentences: empty, if all is well.

use serde::Serialize;

use crate::ctl::engine;
use crate::ctl::inspect::all::Summary;
use crate::runtime::abilities::Kind;
use crate::settings::LogTo;
use crate::system_log::Listener;
use crate::timens::{self, Offsets};

/// Another one where a key goes or means something else. Keys may be added without.
pub(super) const SCHEMA: u32 = 1;

/// Words that can be under a key.
macro_rules! words {
    ($(#[$about:meta])* $name:ident: $($word:ident),+) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub(super) enum $name {
            $($word),+
        }

        impl $name {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$word),+];
        }
    };
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub schema: u32,
    #[serde(flatten)]
    pub facts: Facts,
    pub next: Vec<Step>,
}

#[derive(Debug, Serialize)]
pub(super) struct Facts {
    /// Whether root asks, who alone sees all.
    pub root: bool,
    pub kernel: Kernel,
    pub criu: Criu,
    pub settings: Settings,
    pub log: Log,
    pub containers: Containers,
    pub runtimes: Vec<Runtime>,
    pub engines: Vec<Engine>,
    /// Whether a runtime here can leave what exec starts outside a restored container's time namespace.
    pub shim_needed: Option<bool>,
    /// Why there is no runtime that the shim would wrap.
    pub troubles: Vec<String>,
    /// What installs a package here.
    #[serde(skip)]
    pub installer: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct Kernel {
    pub release: Option<String>,
    pub time_namespaces: bool,
    pub max_time_namespaces: Option<u64>,
    /// None for a user who may not, without a user namespace of their own.
    pub can_make: Option<bool>,
    pub obstacle: Obstacle,
    pub troubles: Vec<String>,
    pub own_namespace: Option<String>,
    pub own_offsets: Option<Offsets>,
}

words! {
    /// What keeps time namespaces from being made.
    Obstacle: None, NoTimeNamespaces, LimitIsZero, LimitIsReached, Denied, Other
}

impl Obstacle {
    pub(super) fn of(kernel: timens::Kernel) -> Self {
        match kernel {
            timens::Kernel::Able => Self::None,
            timens::Kernel::NoTimeNamespaces => Self::NoTimeNamespaces,
            timens::Kernel::MaxIsZero => Self::LimitIsZero,
            timens::Kernel::AtLimit => Self::LimitIsReached,
            timens::Kernel::Denied => Self::Denied,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Criu {
    pub found: bool,
    pub version: Option<String>,
    /// `criu check --feature timens`, which only root is told.
    pub time_namespaces: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct Settings {
    pub file: Option<String>,
    pub there: bool,
    pub holds: bool,
    pub holds_for_all: Option<bool>,
    pub troubles: Vec<String>,
    #[serde(skip)]
    pub mistaken: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Log {
    pub setting: LogTo,
    pub listener: Listener,
    /// Whether what the shim has to say is to be seen in the system's log.
    pub seen: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Containers {
    #[serde(flatten)]
    pub summary: Summary,
    /// Whether there are no others.
    pub complete: bool,
}

#[derive(Debug, Serialize)]
#[allow(clippy::struct_excessive_bools)] // Each is a key.
pub(super) struct Runtime {
    pub path: String,
    pub kind: Kind,
    pub version: Option<String>,
    /// The one that the shim wraps, or that was asked for.
    pub chosen: bool,
    pub lists_time: bool,
    pub declares: bool,
    pub joins_by_itself: bool,
    pub exec: Exec,
    /// What happens to a new container.
    pub mode: Mode,
    pub reason: String,
    pub troubles: Vec<String>,
    /// As people call it: `runc 1.1.15`.
    #[serde(skip)]
    pub name: String,
}

words! {
    /// Who makes exec enter PID 1's time namespace.
    Exec: Nobody, Runtime, RuntimeUnlessUserNamespace, RuntimeIfListed, Shim
}

words! {
    Mode: Declare, Emulate, Pass, Refuse
}

impl Mode {
    pub(super) fn protects(self) -> bool {
        matches!(self, Self::Declare | Self::Emulate)
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Engine {
    pub name: &'static str,
    /// A user's own, which only Podman knows.
    pub rootless: bool,
    pub path: Option<String>,
    pub version: Option<String>,
    pub shim: Option<Use>,
    pub told_by: Option<engine::Teller>,
    /// Those that are the shim.
    pub runtimes: Vec<Named>,
    pub default_runtime: Option<engine::Runtime>,
    /// Whether containers can ask it for a runtime by name.
    pub takes_names: Option<bool>,
    /// Whether the daemon that runs has read what is written.
    pub in_force: Option<bool>,
    pub troubles: Vec<String>,
}

words! {
    /// How an engine uses the shim.
    Use: Default, ByName, No
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Named {
    #[serde(flatten)]
    pub runtime: engine::Runtime,
    /// The program is there, and is the shim.
    pub works: bool,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub id: Id,
    /// What is there does not protect, or somebody is at risk. Else it is offered.
    pub needed: bool,
    pub why: String,
    /// To copy.
    pub commands: Vec<String>,
}

words! {
    /// By importance.
    Id: InspectContainers, UpdateKernel, RaiseLimit, LiftDenial, InstallRuntime, RepairSettings, RepairRuntime, ChangeMode, RepairEngine, ReloadEngine, EnableEngine, AskEngine, ShareSettings, InstallCriu, UpdateCriu, StartLog, AskAsRoot
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::super::next;
    use super::*;

    /// A machine on which all is well: Podman has the shim, which wraps an old runc.
    pub(in super::super) fn well() -> Facts {
        Facts {
            root: true,
            kernel: Kernel {
                release: Some("6.12.1".to_owned()),
                time_namespaces: true,
                max_time_namespaces: Some(31231),
                can_make: Some(true),
                obstacle: Obstacle::None,
                troubles: Vec::new(),
                own_namespace: Some("time:[4026531834]".to_owned()),
                own_offsets: Some(Offsets::NONE),
            },
            criu: Criu { found: true, version: Some("4.1.1".to_owned()), time_namespaces: Some(true) },
            settings: Settings {
                file: Some("/etc/tns-shim/config.toml".to_owned()),
                there: true,
                holds: true,
                holds_for_all: Some(true),
                troubles: Vec::new(),
                mistaken: false,
            },
            log: Log { setting: LogTo::System, listener: Listener::Journal, seen: true },
            containers: Containers { summary: Summary { total: 1, ..Summary::default() }, complete: true },
            runtimes: vec![runtime("runc", false)],
            engines: vec![engine("podman", Use::ByName)],
            shim_needed: Some(true),
            troubles: Vec::new(),
            installer: Some("apt-get install"),
        }
    }

    pub(in super::super) fn runtime(name: &str, joins_by_itself: bool) -> Runtime {
        Runtime {
            path: format!("/usr/bin/{name}"),
            kind: if name == "crun" { Kind::Crun } else { Kind::Runc },
            version: Some("1.1.15".to_owned()),
            chosen: name == "runc",
            lists_time: false,
            declares: joins_by_itself,
            joins_by_itself,
            exec: if joins_by_itself { Exec::Runtime } else { Exec::Shim },
            mode: if joins_by_itself { Mode::Declare } else { Mode::Emulate },
            reason: "it is so".to_owned(),
            troubles: Vec::new(),
            name: format!("{name} 1.1.15"),
        }
    }

    pub(in super::super) fn engine(name: &'static str, shim: Use) -> Engine {
        let runtime =
            |name: &str, program: &str| engine::Runtime { name: name.to_owned(), program: program.to_owned() };
        let ours = Named { runtime: runtime("tns-shim", "/usr/local/bin/tns-shim"), works: true };
        let default = if shim == Use::Default { ours.runtime.clone() } else { runtime("runc", "runc") };
        Engine {
            name,
            rootless: false,
            path: Some(format!("/usr/bin/{name}")),
            version: Some("5.4.2".to_owned()),
            shim: Some(shim),
            told_by: Some(if shim == Use::No { engine::Teller::Nobody } else { engine::Teller::Tnsctl }),
            runtimes: if shim == Use::No { Vec::new() } else { vec![ours] },
            default_runtime: Some(default),
            takes_names: Some(true),
            in_force: None,
            troubles: Vec::new(),
        }
    }

    /// By name of each key, as jq has it, the kind of its value.
    fn kinds(value: &Value, name: &str, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(elements) => {
                assert!(!elements.is_empty(), "nothing is said of what is in {name}");
                for element in elements {
                    kinds(element, &format!("{name}[]"), found);
                }
                "array"
            }
            Value::Object(members) => {
                for (key, member) in members {
                    kinds(member, &format!("{name}.{key}"), found);
                }
                "object"
            }
        };
        if !name.is_empty() {
            found.entry(name.to_owned()).or_default().insert(kind);
        }
    }

    fn all_kinds(reports: &[Report]) -> BTreeMap<String, BTreeSet<&'static str>> {
        let mut found = BTreeMap::new();
        for report in reports {
            kinds(&serde_json::to_value(report).unwrap(), "", &mut found);
        }
        found
    }

    fn report(facts: Facts) -> Report {
        Report { schema: SCHEMA, next: next::next(&facts), facts }
    }

    /// With something in every list.
    fn full() -> Facts {
        let words = || vec!["why".to_owned()];
        let mut facts = well();
        facts.root = false;
        facts.troubles = words();
        facts.kernel.troubles = words();
        facts.settings.troubles = words();
        facts.containers.summary.at_risk = words();
        facts.containers.summary.troubles = words();
        facts.runtimes[0].troubles = words();
        facts.engines[0].troubles = words();
        facts
    }

    /// With all unknown that can be.
    fn unknown() -> Facts {
        let mut facts = full();
        let Facts { kernel, criu, settings, runtimes, engines, .. } = &mut facts;
        kernel.release = None;
        kernel.max_time_namespaces = None;
        kernel.can_make = None;
        kernel.own_namespace = None;
        kernel.own_offsets = None;
        criu.version = None;
        criu.time_namespaces = None;
        settings.file = None;
        settings.holds_for_all = None;
        runtimes[0].version = None;
        let mut engine = engine("docker", Use::Default);
        engine.troubles = vec!["why".to_owned()];
        engine.path = None;
        engine.version = None;
        engine.shim = None;
        engine.told_by = None;
        engine.default_runtime = None;
        engine.takes_names = None;
        engine.in_force = None;
        engines.push(engine);
        engines[0].in_force = Some(true);
        facts.shim_needed = None;
        facts
    }

    /// The rows of the tables in the document: a key, its kinds, and all the words that can be there.
    fn documented() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
        let page = include_str!("../../../docs/doctor.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `."));
        let parts = rows.map(|row| row.splitn(3, " | ").collect::<Vec<_>>());
        let quoted = |text: &str| {
            let words = text.split('`').skip(1).step_by(2).filter_map(|word| word.strip_prefix('"')?.strip_suffix('"'));
            words.map(str::to_owned).collect()
        };
        let mut all = BTreeMap::new();
        for part in parts {
            let [key, kinds, meaning] = part[..] else { panic!("no row of three: {part:?}") };
            let kinds = kinds.split(" or ").map(str::to_owned).collect();
            let old = all.insert(format!(".{}", key.trim_end_matches('`')), (kinds, quoted(meaning)));
            assert!(old.is_none(), "{key} is there twice");
        }
        all
    }

    #[test]
    fn the_document_has_every_key_with_its_kinds_and_no_other() {
        let found = all_kinds(&[report(full()), report(unknown())]);
        let found: BTreeMap<_, BTreeSet<String>> =
            found.into_iter().map(|(key, kinds)| (key, kinds.into_iter().map(str::to_owned).collect())).collect();
        let documented: BTreeMap<_, _> = documented().into_iter().map(|(key, (kinds, _))| (key, kinds)).collect();
        assert_eq!(found, documented);
    }

    #[test]
    fn the_document_has_every_word_and_no_other() {
        fn words<T: Serialize>(all: &[T]) -> BTreeSet<String> {
            all.iter().map(|one| serde_json::to_value(one).unwrap().as_str().unwrap().to_owned()).collect()
        }
        // One more of these does not compile until it is in the lists below.
        let _ = |setting, listener, kind, teller| match (setting, listener) {
            (LogTo::System | LogTo::None, Listener::Journal | Listener::Syslog | Listener::Nobody) => {
                match (kind, teller) {
                    (
                        Kind::Runc | Kind::Crun | Kind::Youki | Kind::Other,
                        engine::Teller::Tnsctl | engine::Teller::Hand | engine::Teller::Nobody,
                    ) => {}
                }
            }
        };
        let documented = documented();
        let mut with_words: BTreeSet<_> =
            documented.iter().filter(|(_, (_, words))| !words.is_empty()).map(|(key, _)| key.as_str()).collect();
        for (key, words) in [
            (".kernel.obstacle", words(Obstacle::ALL)),
            (".log.setting", words(&[LogTo::System, LogTo::None])),
            (".log.listener", words(&[Listener::Journal, Listener::Syslog, Listener::Nobody])),
            (".runtimes[].kind", words(&[Kind::Runc, Kind::Crun, Kind::Youki, Kind::Other])),
            (".runtimes[].exec", words(Exec::ALL)),
            (".runtimes[].mode", words(Mode::ALL)),
            (".engines[].name", words(&["podman", "containerd", "docker", "cri-o"])),
            (".engines[].shim", words(Use::ALL)),
            (".engines[].told_by", words(&[engine::Teller::Tnsctl, engine::Teller::Hand, engine::Teller::Nobody])),
            (".next[].id", words(Id::ALL)),
        ] {
            assert_eq!(documented[key].1, words, "{key}");
            with_words.remove(key);
        }
        assert!(with_words.is_empty(), "{with_words:?}");
    }
}
