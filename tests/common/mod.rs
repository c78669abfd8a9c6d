// SPDX-License-Identifier: Apache-2.0
//! A world of its own for each test: a stand-in runtime, and a folder each for what the shim finds at /run and /etc.
//!
//! Root's are mounted in a mount namespace that only the called process is in, so nothing has to be cleaned up but one
//! temporary folder. Somebody else's are given by `XDG_RUNTIME_DIR` and `XDG_CONFIG_HOME`.

// Each test program uses a part.
#![allow(dead_code, unused_imports, clippy::missing_panics_doc)]

mod run;
mod skip;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::unistd::geteuid;
use tempfile::TempDir;

pub use run::{Outcome, Report, Run, own_time_namespace, step, wait};
pub use skip::{NO_FILTERS, OWN_MEMORY, OWN_SIGNALS, TWO_THREADS, is_emulated, skip};

/// What the stand-in plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    pub name: &'static str,
    pub version: &'static str,
    pub lists_time: bool,
}

/// Cannot make or join time namespaces.
pub const RUNC_1_1: Role = Role { name: "runc", version: "runc version 1.1.15\nspec: 1.0.2-dev\n", lists_time: false };
/// Makes what is declared.
pub const RUNC_1_3: Role = Role { name: "runc", version: "runc version 1.3.6\nspec: 1.2.1\n", lists_time: true };
/// Makes what is declared, though it does not say so.
pub const CRUN: Role = Role { name: "crun", version: "crun version 1.21\ncommit: 0\n", lists_time: false };

pub const SHIM: &str = env!("CARGO_BIN_EXE_tns-shim");

pub struct World {
    folder: TempDir,
    role: Role,
}

impl World {
    /// None, after a line that says what is missing, where the machine's own /run could not be kept out of it.
    pub fn new(role: Role) -> Option<Self> {
        if geteuid().is_root() && !tns_shim::timens::may_make() {
            return skip("root without CAP_SYS_ADMIN cannot be given a /run of its own");
        }
        let folder = tempfile::Builder::new().prefix("tns-shim-test-").tempdir().unwrap();
        let world = Self { folder, role };
        for name in ["bin", "bundle", "etc/tns-shim", "run"] {
            fs::create_dir_all(world.path(name)).unwrap();
        }
        fs::write(world.path("input"), "what the container reads\n").unwrap();
        world.install(role);
        Some(world)
    }

    /// As [`World::new`], for a test that root's rights are needed for; `what` says which.
    pub fn as_root(role: Role, what: &str) -> Option<Self> {
        if geteuid().is_root() {
            return Self::new(role);
        }
        skip(&format!("root is needed to {what}"))
    }

    /// As [`World::as_root`], where time namespaces must be there to be made.
    pub fn with_time_namespaces(role: Role) -> Option<Self> {
        if let Some(obstacle) = tns_shim::timens::Kernel::look().obstacle() {
            return skip(obstacle);
        }
        if is_emulated(TWO_THREADS) {
            return None;
        }
        Self::as_root(role, "make a time namespace")
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the stand-in is.
    pub fn runtime(&self) -> PathBuf {
        self.path("bin").join(self.role.name)
    }

    /// Puts a stand-in into the bin folder, in place of one that may be there.
    pub fn install(&self, role: Role) {
        copy_program(&standin(), &self.path("bin").join(role.name));
        self.play(role);
    }

    /// Makes the installed stand-in say something else of itself.
    pub fn play(&self, role: Role) {
        let features = if role.lists_time {
            r#"{"linux":{"namespaces":["pid","time"]}}"#
        } else {
            r#"{"linux":{"namespaces":["pid"]}}"#
        };
        fs::write(self.path("bin").join(format!("{}.version", role.name)), role.version).unwrap();
        fs::write(self.path("bin").join(format!("{}.features", role.name)), features).unwrap();
    }

    /// How the stand-in ends: an exit code, or the negative of a signal.
    pub fn end_with(&self, end: i32) {
        fs::write(self.path("bin").join(format!("{}.end", self.role.name)), end.to_string()).unwrap();
    }

    /// How often the stand-in was asked what it is; two questions are one probe.
    pub fn questions(&self) -> usize {
        let asked = self.path("bin").join(format!("{}.asked", self.role.name));
        fs::read_to_string(asked).map_or(0, |text| text.lines().count())
    }

    /// The folder that the shim remembers abilities in.
    pub fn memory(&self) -> PathBuf {
        self.path("run/tns-shim")
    }

    pub fn config(&self) -> PathBuf {
        self.path("bundle/config.json")
    }

    pub fn write_config(&self, text: impl AsRef<[u8]>) {
        fs::write(self.config(), text).unwrap();
    }

    /// A call of the shim under the name that asks for this runtime.
    pub fn shim<A: AsRef<[u8]>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        Run::new(self, Path::new(SHIM), args).called(format!("tns-shim-{}", self.role.name))
    }

    /// A call of the stand-in.
    pub fn direct<A: AsRef<[u8]>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        Run::new(self, &self.runtime(), args)
    }

    /// A call of the shim that creates a container from [`World::config`].
    pub fn create(&self) -> Run {
        let bundle = self.path("bundle");
        self.shim([&b"create"[..], b"--bundle", bundle.as_os_str().as_bytes(), b"c1"])
    }

    /// Calls the stand-in directly and through the shim, and asserts that nothing can tell the difference but argv\[0\]
    /// and, where `same_time` is false, the time namespace. Each is in the mount namespace that it was called in, but for
    /// verbs whose runtime may be shown a view of a file.
    #[track_caller]
    pub fn assert_same<A: AsRef<[u8]> + Clone>(&self, args: &[A], same_time: bool, prepare: impl Fn(Run) -> Run) {
        let shown: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg.as_ref())).collect();
        let direct = prepare(self.direct(args)).go();
        let shimmed = prepare(self.shim(args)).go();
        let lines = |outcome: &Outcome| {
            let report = outcome.report.as_ref()?;
            assert_eq!(report.one("pid"), outcome.pid.to_string(), "{shown:?}: not the same process");
            let view = shown.iter().any(|arg| arg == "exec" || arg == "restore");
            if !view {
                assert_eq!(report.namespace("mnt"), outcome.mount_namespace, "{shown:?}");
            }
            // What was called had a mount namespace of its own.
            Some(report.lines(|line| (same_time || !line.starts_with("ns time")) && !line.starts_with("ns mnt ")))
        };
        assert_eq!(lines(&shimmed), lines(&direct), "{shown:?}: {}", shimmed.stderr());
        assert_eq!(shimmed.status, direct.status, "{shown:?}: {}", shimmed.stderr());
        assert_eq!(shimmed.stdout, direct.stdout, "{shown:?}");
        assert_eq!(shimmed.stderr(), direct.stderr(), "{shown:?}");
        // None for what the stand-in answers itself, --version and features.
        if let Some(report) = shimmed.report {
            assert_eq!(report.bytes("argv0"), [self.runtime().as_os_str().as_bytes()], "{shown:?}");
        }
    }
}

/// Copies a program in a process of its own: a child forked meanwhile by another test would hold the new file open for
/// writing, and executing it would fail with ETXTBSY.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--").args([from, to]).status().unwrap();
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}

/// The stand-in, compiled once.
fn standin() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/standin/standin.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let built = folder.join("standin");
        let unfinished = folder.join(format!("standin-{}", std::process::id()));
        let compile = |linking: &[&str]| {
            // Where the tests are compiled for another machine, see tests/emulated.
            let mut cc = Command::new(std::env::var_os("TNS_CC").unwrap_or("cc".into()));
            cc.args(["-O1", "-Wall", "-Werror"]).args(linking).arg("-o").args([&unfinished, Path::new(source)]);
            cc.output().expect("cc, which links Rust programs, too")
        };
        // Not every distribution installs a static C library.
        let mut output = compile(&["-static"]);
        if !output.status.success() {
            output = compile(&[]);
        }
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&unfinished, &built).unwrap();
        built
    };
    BUILT.get_or_init(build).clone()
}
