// SPDX-License-Identifier: Apache-2.0
//! What the caller asks for, read from argv the way the real runtimes read it.
//!
//! Nothing is rejected here. What is not understood has no verb or no id, and a call without them is passed on as it is:
//! the runtime's own parser has the last word.
//!
//! Sources: runc's `main.go` and its commands (urfave/cli, Go's flag package), crun's `src/*.c` (argp with `ARGP_IN_ORDER`).

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The verbs that the shim knows; every other one is the runtime's own business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verb {
    Create,
    Run,
    Exec,
    Checkpoint,
    Restore,
    Features,
    Other,
}

impl fmt::Display for Verb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Create => "create",
            Self::Run => "run",
            Self::Exec => "exec",
            Self::Checkpoint => "checkpoint",
            Self::Restore => "restore",
            Self::Features => "features",
            Self::Other => "another verb",
        })
    }
}

impl Verb {
    fn from_word(word: &[u8]) -> Self {
        match word {
            b"create" => Self::Create,
            b"run" => Self::Run,
            b"exec" => Self::Exec,
            b"checkpoint" => Self::Checkpoint,
            b"restore" => Self::Restore,
            b"features" => Self::Features,
            _ => Self::Other,
        }
    }

    /// The flags of this verb that take a value, in either runtime. No flag takes one in only one of them.
    fn value_flags(self) -> &'static [ValueFlag] {
        match self {
            Self::Create | Self::Run => CREATE_FLAGS,
            Self::Exec => EXEC_FLAGS,
            Self::Checkpoint => CHECKPOINT_FLAGS,
            Self::Restore => RESTORE_FLAGS,
            Self::Features | Self::Other => &[],
        }
    }
}

/// Whose rules the words after the verb follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Go: `-bundle X` is `--bundle X`, no bundled short flags, options also after the id (except for exec).
    Runc,
    /// argp: `-b/x`, `-td`, unambiguous prefixes of long options, the id ends the options.
    Crun,
}

#[derive(Clone, Copy)]
struct ValueFlag {
    long: &'static str,
    short: Option<u8>,
    /// crun does not know it, so that a prefix of it may stand for another flag there.
    runc_only: bool,
}

const fn long(long: &'static str) -> ValueFlag {
    ValueFlag { long, short: None, runc_only: false }
}

const fn both(long: &'static str, short: u8) -> ValueFlag {
    ValueFlag { long, short: Some(short), runc_only: false }
}

const fn runc_only(flag: ValueFlag) -> ValueFlag {
    ValueFlag { runc_only: true, ..flag }
}

const GLOBAL_FLAGS: &[ValueFlag] = &[
    long("cgroup-manager"),
    long("criu"),
    long("log"),
    long("log-format"),
    long("log-level"),
    long("root"),
    long("rootless"),
];
const CREATE_FLAGS: &[ValueFlag] = &[
    both("bundle", b'b'),
    both("config", b'f'),
    long("console-socket"),
    long("pid-file"),
    runc_only(long("pidfd-socket")),
    long("preserve-fds"),
];
const EXEC_FLAGS: &[ValueFlag] = &[
    runc_only(both("additional-gids", b'g')),
    long("apparmor"),
    both("cap", b'c'),
    long("cgroup"),
    long("console-socket"),
    long("cwd"),
    both("env", b'e'),
    long("pid-file"),
    runc_only(long("pidfd-socket")),
    long("preserve-fds"),
    both("process", b'p'),
    long("process-label"),
    both("user", b'u'),
];
const CHECKPOINT_FLAGS: &[ValueFlag] = &[
    runc_only(long("empty-ns")),
    long("image-path"),
    long("manage-cgroups-mode"),
    long("network-lock"),
    runc_only(long("page-server")),
    long("parent-path"),
    runc_only(long("status-fd")),
    long("work-path"),
];
const RESTORE_FLAGS: &[ValueFlag] = &[
    both("bundle", b'b'),
    long("console-socket"),
    runc_only(long("empty-ns")),
    long("image-path"),
    long("lsm-mount-context"),
    long("lsm-profile"),
    long("manage-cgroups-mode"),
    long("network-lock"),
    long("parent-path"),
    long("pid-file"),
    long("work-path"),
];

/// The flags before the verb that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globals<'a> {
    /// `--root`: where the runtime keeps its containers.
    pub root: Option<&'a OsStr>,
    /// `--log`: the file that engines read errors from.
    pub log: Option<&'a OsStr>,
    /// `--log-format`: `json`, else text.
    pub log_format: Option<&'a OsStr>,
    /// runc's `--criu`: the CRIU to run, ignored since 1.2.
    pub criu: Option<&'a OsStr>,
    /// `--debug`, or crun's `--log-level=debug`.
    pub debug: bool,
}

/// One call of the shim.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// argv, whole, in the caller's bytes.
    pub args: &'a [&'a CStr],
    /// The flags before the verb.
    pub globals: Globals<'a>,
    /// What to do.
    pub verb: Verb,
    rest: &'a [&'a CStr],
}

/// The words after the verb that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operands<'a> {
    /// The container's id; `None` where there is not exactly one, so that the runtime will refuse or explain.
    pub id: Option<&'a OsStr>,
    /// `--bundle`.
    pub bundle: Option<&'a OsStr>,
    /// crun's `--config`: another name for config.json, relative to the caller's folder.
    pub config: Option<&'a OsStr>,
    /// `--image-path`.
    pub image_path: Option<&'a OsStr>,
    /// What else names files that the runtime reads, writes or connects to: `--pid-file`, `--process`, `--console-socket`.
    pub files: Vec<&'a OsStr>,
    /// `--pre-dump`: memory only, and the container runs on.
    pub pre_dump: bool,
}

impl<'a> Invocation<'a> {
    /// Reads the global flags and the verb. Both runtimes stop at the first word that is no flag, so a container named
    /// `create` is not taken for a verb.
    pub fn parse(args: &'a [&'a CStr]) -> Self {
        let mut globals = Globals::default();
        let mut explains = false;
        let mut words = Words::new(args.get(1..).unwrap_or_default());
        let mut verb = Verb::Other;
        while let Some(word) = words.next() {
            let word = match Word::of(word) {
                Word::Plain(word) => {
                    verb = Verb::from_word(word);
                    break;
                }
                // What follows is the verb, whatever it looks like.
                Word::End => {
                    verb = words.next().map_or(Verb::Other, Verb::from_word);
                    break;
                }
                Word::Flag { name, value, .. } => (name, value),
            };
            let (name, value) = word;
            let Some(flag) = long_flag(GLOBAL_FLAGS, name) else {
                match name {
                    b"debug" => globals.debug = value.is_none_or(is_true),
                    b"help" | b"h" | b"version" | b"v" | b"V" | b"?" | b"usage" => explains = true,
                    _ => {}
                }
                continue;
            };
            let value = value.or_else(|| words.next()).map(OsStr::from_bytes);
            match flag {
                "root" => globals.root = value,
                "log" => globals.log = value,
                "log-format" => globals.log_format = value,
                "criu" => globals.criu = value,
                "log-level" => globals.debug = value.is_some_and(|level| level == "debug"),
                _ => {}
            }
        }
        // `runc --help create` only prints.
        let verb = if explains { Verb::Other } else { verb };
        Self { args, globals, verb, rest: words.rest }
    }

    /// Reads the words after the verb.
    pub fn operands(&self, dialect: Dialect) -> Operands<'a> {
        match dialect {
            Dialect::Runc => self.go_operands(),
            Dialect::Crun => self.argp_operands(),
        }
    }

    fn go_operands(&self) -> Operands<'a> {
        // urfave/cli moves options that follow the id before it; `exec` switches that off (SkipArgReorder).
        let permutes = self.verb != Verb::Exec;
        let flags = self.verb.value_flags();
        let mut operands = Operands::default();
        let mut plain = 0;
        let mut words = Words::new(self.rest);
        while let Some(word) = words.next() {
            match Word::of(word) {
                Word::Plain(word) => {
                    plain += 1;
                    operands.id = Some(OsStr::from_bytes(word));
                    if !permutes {
                        return operands;
                    }
                }
                Word::End => {
                    if let Some(word) = words.next() {
                        plain += 1;
                        operands.id = Some(OsStr::from_bytes(word));
                    }
                    plain += if permutes { words.rest.len() } else { 0 };
                    break;
                }
                Word::Flag { name: b"help" | b"h", .. } => return Operands::default(),
                Word::Flag { name, value, .. } => {
                    operands.pre_dump |=
                        self.verb == Verb::Checkpoint && name == b"pre-dump" && value.is_none_or(is_true);
                    let known = flags
                        .iter()
                        .find(|flag| flag.long.as_bytes() == name || flag.short.is_some_and(|short| name == [short]));
                    match known {
                        Some(flag) => operands.set(flag.long, value.or_else(|| words.next())),
                        // A plain word behind a switch moves with it, in case it is its value; it then ends the options,
                        // and what follows it are too many operands.
                        None if permutes && value.is_none() => {
                            let next = words.rest.first().map(|word| Word::of(word.to_bytes()));
                            if let Some(Word::Plain(word)) = next {
                                plain += words.rest.len();
                                operands.id = Some(OsStr::from_bytes(word));
                                break;
                            }
                        }
                        None => {}
                    }
                }
            }
        }
        if plain != 1 {
            operands.id = None;
        }
        operands
    }

    fn argp_operands(&self) -> Operands<'a> {
        let flags = self.verb.value_flags();
        let mut operands = Operands::default();
        let mut words = Words::new(self.rest);
        while let Some(word) = words.next() {
            match Word::of(word) {
                Word::Plain(word) => {
                    operands.id = Some(OsStr::from_bytes(word));
                    break;
                }
                Word::End => {
                    operands.id = words.next().map(OsStr::from_bytes);
                    break;
                }
                Word::Flag { name, dashes: 2, .. } if explains(name) => return Operands::default(),
                Word::Flag { name, value, dashes: 2 } => {
                    // From its second letter on it is no prefix of --parent-path.
                    operands.pre_dump |=
                        self.verb == Verb::Checkpoint && name.len() >= 2 && b"pre-dump".starts_with(name);
                    if let Some(flag) = long_flag(flags, name) {
                        operands.set(flag, value.or_else(|| words.next()));
                    }
                }
                Word::Flag { .. } => {
                    // A cluster of short options: the first that takes a value takes the rest of the word.
                    let cluster = &word[1..];
                    let taking = cluster.iter().enumerate().find_map(|(at, short)| {
                        if self.verb == Verb::Exec && *short == b't' {
                            // Its value is optional: the rest of the word, or nothing.
                            return Some((at, None));
                        }
                        let flag = flags.iter().find(|flag| flag.short == Some(*short) && !flag.runc_only)?;
                        Some((at, Some(flag.long)))
                    });
                    if cluster.contains(&b'?') && taking.is_none() {
                        return Operands::default();
                    }
                    if let Some((at, Some(flag))) = taking {
                        let attached = &cluster[at + 1..];
                        let value = if attached.is_empty() { words.next() } else { Some(attached) };
                        operands.set(flag, value);
                    }
                }
            }
        }
        operands
    }
}

impl<'a> Operands<'a> {
    fn set(&mut self, flag: &str, value: Option<&'a [u8]>) {
        let value = value.map(OsStr::from_bytes);
        match flag {
            "bundle" => self.bundle = value,
            "config" => self.config = value,
            "image-path" => self.image_path = value,
            "pid-file" | "process" | "console-socket" => self.files.extend(value),
            _ => {}
        }
    }
}

/// A flag by its name or by an unambiguous prefix of it (crun). runc rejects prefixes, so accepting them harms nothing.
fn long_flag(flags: &'static [ValueFlag], name: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        return None;
    }
    let exact = flags.iter().find(|flag| flag.long.as_bytes() == name);
    // A prefix of several is refused by crun itself; which of them is named here decides only whether a value follows.
    let matching = || flags.iter().find(|flag| !flag.runc_only && flag.long.as_bytes().starts_with(name));
    exact.or_else(matching).map(|flag| flag.long)
}

/// argp's own `--help` and `--usage`, or a prefix that is no other flag's (`--us` could be `--user`).
fn explains(name: &[u8]) -> bool {
    let is = |long: &[u8], least: usize| name.len() >= least && long.starts_with(name);
    is(b"help", 1) || is(b"usage", 3) || name == b"version"
}

/// What Go's strconv.ParseBool takes for true.
fn is_true(value: &[u8]) -> bool {
    matches!(value, b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True")
}

struct Words<'a> {
    rest: &'a [&'a CStr],
}

impl<'a> Words<'a> {
    fn new(rest: &'a [&'a CStr]) -> Self {
        Self { rest }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first.to_bytes())
    }
}

enum Word<'a> {
    Plain(&'a [u8]),
    Flag { name: &'a [u8], value: Option<&'a [u8]>, dashes: u8 },
    End,
}

impl<'a> Word<'a> {
    fn of(word: &'a [u8]) -> Self {
        let (body, dashes) = match word {
            b"--" => return Self::End,
            [b'-', b'-', body @ ..] => (body, 2),
            [b'-', body @ ..] if !body.is_empty() => (body, 1),
            _ => return Self::Plain(word),
        };
        match body.iter().position(|byte| *byte == b'=') {
            Some(at) => Self::Flag { name: &body[..at], value: Some(&body[at + 1..]), dashes },
            None => Self::Flag { name: body, value: None, dashes },
        }
    }
}
