// SPDX-License-Identifier: Apache-2.0
//! What the shim costs: wall time, page faults and memory that it adds to a call of the runtime.
//!
//! Five programs are run in turn: a static stand-in for the runtime directly; through a program that only calls execve, in
//! three variants (with std's own start and glibc, as anybody would write it, which is what the goals are about; with the
//! shim's C `main`; and without a C library, which is what the kernel takes); and through the shim. Every figure is the
//! median of the differences between a run and the direct run of the same turn, so what else the machine does cancels out.
//! It is a measurement, not a test: it never fails by a figure.
//!
//! Run as root: `make bench`, or `make bench N=2000` for more turns. Everything happens in a mount namespace of its own
//! with a tmpfs on /run, and ends with this process. `SHIM=FILE` measures another build of the shim.

#![allow(unsafe_code)] // fork and wait4

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, fork};

/// The programs: on disk, as installed ones are.
const PROGRAMS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/overhead");
/// The runtime is found in the third folder, as /usr/sbin/runc is in root's usual PATH.
const PATH: &str = concat!("PATH=/usr/local/sbin:/usr/local/bin:", env!("CARGO_TARGET_TMPDIR"), "/overhead/bin");
const BUNDLE: &str = "/run/bench/bundle";
const ROOT: &str = "/run/bench/root";

/// The flags that the Makefile and the release profile set for the shim.
const FLAGS: &[&str] = &[
    "--edition=2024",
    "-Copt-level=2",
    "-Cpanic=abort",
    "-Clto=fat",
    "-Ccodegen-units=1",
    "-Cstrip=symbols",
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
];

/// What is called in each turn, beside the shim.
const DIRECT: usize = 0;
const EXECVE_BARE: usize = 1;
const EXECVE_C: usize = 2;
const EXECVE_STD: usize = 3;
const SHIM: usize = 4;
const PROGRAMS_IN_TURN: usize = 5;

/// A call to measure.
struct Row {
    name: &'static str,
    /// The shim's link, whose name says which runtime it wraps.
    shim: &'static str,
    /// What the shim says in its log that it does, so that nothing else is measured; empty where it says nothing.
    does: &'static str,
    args: Vec<String>,
    /// Copied into the bundle before each run.
    config: Option<PathBuf>,
    /// How many times what the execve-only program with std's own start adds; none where the row is for information.
    goal: Option<f64>,
}

/// One run: microseconds, minor page faults, KiB at the peak.
#[derive(Clone, Copy, Default)]
struct Cost {
    time: f64,
    faults: f64,
    peak: f64,
}

fn main() -> Result<()> {
    let turns = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(500);
    ensure!(nix::unistd::geteuid().is_root(), "must be run as root: it makes mount and time namespaces");
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).context("mount a tmpfs on /run")?;
    for folder in [BUNDLE, ROOT] {
        fs::create_dir_all(folder)?;
    }
    install_runtimes()?;
    let shim = PathBuf::from(std::env::var_os("SHIM").unwrap_or(env!("CARGO_BIN_EXE_tns-shim").into()));
    let wrappers = [
        (build_bare()?, "execve-bare"),
        (build("execve_c")?, "execve-c"),
        (build("execve_std")?, "execve-std"),
        (shim.clone(), "tns-shim"),
        (shim.clone(), "tns-shim-runc-1.1"),
        (shim, "tns-shim-crun"),
    ];

    // They read a pipe that this process holds, so they end with it, however it ends.
    let here = container("here", &["cat"])?;
    let elsewhere = container("elsewhere", &["unshare", "--time", "--boottime=86400", "--fork", "cat"])?;
    println!("median of {turns} turns; added to a direct call of the runtime\n");
    table(&verbs()?, &wrappers, turns)?;
    println!("\ncreate with a splice, by the size of config.json\n");
    table(&sizes()?, &wrappers, turns)?;
    drop((here, elsewhere));
    Ok(())
}

/// The stand-in, as three runtimes. They stay as they are, because the shim would ask a new one for its abilities again.
fn install_runtimes() -> Result<()> {
    fs::create_dir_all(in_programs("bin"))?;
    let runtime = build("runtime")?;
    for name in ["runc", "runc-1.1", "crun"] {
        copy(&runtime, &in_programs("bin").join(name))?;
    }
    Ok(())
}

/// The programs in front of it, as new files each time: how a file happens to lie in the page cache is worth 40 µs, and
/// what a linker has just written lies worst.
fn install(wrappers: &[(PathBuf, &str)]) -> Result<()> {
    wrappers.iter().try_for_each(|(built, name)| copy(built, &in_programs(name)))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new).with_context(|| format!("copy {}", from.display()))?;
    fs::rename(&new, to).with_context(|| format!("rename {}", new.display()))
}

fn in_programs(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
}

/// One of the helper programs, built with the shim's flags.
fn build(name: &str) -> Result<PathBuf> {
    let built = in_programs(&format!("{name}.built"));
    let status = Command::new("rustc")
        .args(FLAGS)
        .arg(format!("{}/benches/helpers/{name}.rs", env!("CARGO_MANIFEST_DIR")))
        .arg("-o")
        .arg(&built)
        .env("RUNTIME", in_programs("bin/runc"))
        .status()
        .context("run rustc")?;
    ensure!(status.success(), "rustc cannot build {name}");
    Ok(built)
}

/// The one without a C library.
fn build_bare() -> Result<PathBuf> {
    let built = in_programs("execve_bare.built");
    let runtime = in_programs("bin/runc");
    let status = Command::new("cc")
        .args(["-O2", "-static", "-nostdlib", "-fno-stack-protector"])
        .arg(format!("-DRUNTIME=\"{}\"", runtime.display()))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/helpers/execve_bare.c"))
        .arg("-o")
        .arg(&built)
        .status()
        .context("run cc")?;
    ensure!(status.success(), "cc cannot build execve_bare");
    Ok(built)
}

/// A process, and runc's and crun's state of a container whose PID 1 it is.
fn container(id: &str, command: &[&str]) -> Result<Child> {
    let child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", command[0]))?;
    let own = format!("{}", child.id());
    let pid = if command.len() == 1 { own } else { child_of(&own)? };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Field 22; the second, in parentheses, is `cat`.
    let started = stat.split(' ').nth(21).context("a stat without a start time")?;
    fs::create_dir(format!("{ROOT}/{id}"))?;
    state(id, &pid, started, &Path::new(ROOT).join(id).join("state.json"))?;
    fs::write(format!("{ROOT}/{id}/status"), format!(r#"{{"pid":{pid},"process-start-time":{started}}}"#))?;
    Ok(child)
}

/// The only child of `pid`, once it has executed its program.
fn child_of(pid: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let child = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.trim().to_owned();
        if fs::read(format!("/proc/{child}/comm")).is_ok_and(|name| name == b"cat\n") {
            return Ok(child);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    anyhow::bail!("unshare has started nothing")
}

fn verbs() -> Result<Vec<Row>> {
    let row = |name, shim, does, args: &[&str], config, goal| {
        let args = [&["--root", ROOT], args].concat().into_iter().map(str::to_owned).collect();
        Row { name, shim, does, args, config, goal }
    };
    let create = ["create", "--bundle", BUNDLE, "--pid-file", "/run/bench/pid", "new"];
    let exec = |id| ["exec", "--process", "/run/bench/process.json", "--detach", id];
    let config = Some(config(25)?);
    Ok(vec![
        row("state: passed on", "tns-shim", "", &["state", "x"], None, Some(0.33)),
        row("create: splice, 25 KB", "tns-shim", "create: declare", &create, config.clone(), Some(0.75)),
        row("exec: nothing to do, runc 1.1", "tns-shim-runc-1.1", "exec: pass", &exec("here"), None, Some(0.6)),
        row("exec: nothing to do, crun", "tns-shim-crun", "exec: pass", &exec("here"), None, Some(0.4)),
        row("exec: enter, with a state view", "tns-shim-runc-1.1", "exec: enter", &exec("elsewhere"), None, Some(1.5)),
        row("create: emulate", "tns-shim-runc-1.1", "create: emulate", &create, config, None),
        row("checkpoint: no container", "tns-shim", "checkpoint: stand outside", &["checkpoint", "x"], None, None),
        row("features: time added", "tns-shim-runc-1.1", "features: list time", &["features"], None, Some(1.2)),
    ])
}

fn sizes() -> Result<Vec<Row>> {
    let sizes = [
        ("3 KB", 3, None),
        ("25 KB", 25, None),
        ("71 KB", 71, None),
        ("199 KB", 199, Some(1.4)),
        ("4.8 MB", 4800, None),
    ];
    let row = |(name, kb, goal)| {
        Ok(Row {
            name,
            shim: "tns-shim",
            does: "create: declare",
            args: ["--root", ROOT, "create", "--bundle", BUNDLE, "new"].map(str::to_owned).into(),
            config: Some(config(kb)?),
            goal,
        })
    };
    sizes.map(row).into_iter().collect()
}

fn table(rows: &[Row], wrappers: &[(PathBuf, &str)], turns: usize) -> Result<()> {
    println!(
        "{:<32}{:>8}{:>8}{:>8}{:>9}{:>9}{:>9}{:>6}{:>8}{:>8}{:>10}",
        "", "bare µs", "C µs", "std µs", "shim µs", "x bare", "x std", "goal", "", "faults", "peak KiB"
    );
    for row in rows {
        install(wrappers)?;
        check(row)?;
        let added = measure(row, wrappers, turns)?;
        let [bare, c, std, shim] = [EXECVE_BARE, EXECVE_C, EXECVE_STD, SHIM].map(|program| added[program].time);
        let (goal, verdict) = match row.goal {
            Some(goal) if shim <= goal * std => (format!("{goal}"), "met"),
            Some(goal) => (format!("{goal}"), "missed"),
            None => (String::new(), ""),
        };
        println!(
            "{:<32}{bare:>8.0}{c:>8.0}{std:>8.0}{shim:>9.0}{:>9.2}{:>9.2}{goal:>6}{verdict:>8}{:>8.0}{:>+10.0}",
            row.name,
            shim / bare,
            shim / std,
            added[SHIM].faults,
            added[SHIM].peak - added[EXECVE_STD].peak,
        );
    }
    Ok(())
}

/// Whether the shim does what the row is to measure. The answers of the runtime are remembered on the way.
fn check(row: &Row) -> Result<()> {
    const LOG: &str = "/run/bench/log";
    if let Some(config) = &row.config {
        fs::copy(config, format!("{BUNDLE}/config.json"))?;
    }
    let status = Command::new(in_programs(row.shim))
        .args(["--debug", "--log", LOG])
        .args(&row.args)
        .env_clear()
        .envs(PATH.split_once('='))
        .stdout(Stdio::null())
        .status()?;
    let log = fs::read_to_string(LOG).unwrap_or_default();
    ensure!(status.success() && log.contains(row.does), "{}: the shim has done something else: {log}", row.name);
    fs::remove_file(LOG).or_else(|error| if row.does.is_empty() { Ok(()) } else { Err(error) })?;
    Ok(())
}

/// Medians of what a program costs more than the direct call; of the peak, its own.
struct Added {
    /// Microseconds.
    time: f64,
    /// Minor page faults.
    faults: f64,
    /// KiB.
    peak: f64,
}

fn measure(row: &Row, wrappers: &[(PathBuf, &str)], turns: usize) -> Result<[Added; PROGRAMS_IN_TURN]> {
    let arguments: Vec<CString> = row.args.iter().map(|word| CString::new(word.as_str())).collect::<Result<_, _>>()?;
    let programs = ["bin/runc", "execve-bare", "execve-c", "execve-std", row.shim]
        .map(|name| CString::new(in_programs(name).as_os_str().as_bytes()));
    let mut calls = Vec::new();
    for program in programs {
        calls.push([vec![program?], arguments.clone()].concat());
    }
    let mut costs = vec![[Cost::default(); PROGRAMS_IN_TURN]; turns];
    // Some turns first, so that files and memories are there.
    for turn in 0..turns + 5 {
        if turn % 24 == 0 {
            install(wrappers)?;
        }
        for program in order(turn) {
            if let Some(config) = &row.config {
                fs::copy(config, format!("{BUNDLE}/config.json"))?;
            }
            let cost = run(&calls[program])?;
            if let Some(turn) = turn.checked_sub(5) {
                costs[turn][program] = cost;
            }
        }
    }
    Ok([DIRECT, EXECVE_BARE, EXECVE_C, EXECVE_STD, SHIM].map(|program| {
        let of = |difference: fn(&Cost, &Cost) -> f64| {
            median(costs.iter().map(|turn| difference(&turn[program], &turn[DIRECT])).collect())
        };
        Added {
            time: of(|cost, direct| cost.time - direct.time),
            faults: of(|cost, direct| cost.faults - direct.faults),
            peak: of(|cost, _| cost.peak),
        }
    }))
}

/// A turn's order. All 120 come in turn, because what ran before decides what is in the caches.
fn order(turn: usize) -> Vec<usize> {
    let mut left = vec![DIRECT, EXECVE_BARE, EXECVE_C, EXECVE_STD, SHIM];
    let mut number = turn;
    (1..=left.len())
        .rev()
        .map(|count| {
            let next = left.remove(number % count);
            number /= count;
            next
        })
        .collect()
}

/// Runs a program to its end.
fn run(args: &[CString]) -> Result<Cost> {
    let path = CString::new(PATH)?;
    let environment: [&CStr; 1] = [&path];
    let begin = Instant::now();
    // fork and not vfork: a child that shares this process's memory until execve would count it as its own peak.
    // SAFETY: this process has one thread, and the child does nothing but execve.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let _ = nix::unistd::execve(&args[0], args, &environment);
            // SAFETY: ends the child without running what belongs to its parent.
            unsafe { libc::_exit(127) }
        }
    };
    let mut status = 0;
    // SAFETY: all zeros is a valid rusage, and both places live until the call returns.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::wait4(child.as_raw(), &raw mut status, 0, &raw mut usage);
        usage
    };
    let time = begin.elapsed().as_secs_f64() * 1e6;
    ensure!(status == 0, "{} ended with wait status {status:#x}", args[0].to_string_lossy());
    #[allow(clippy::cast_precision_loss)]
    Ok(Cost { time, faults: usage.ru_minflt as f64, peak: usage.ru_maxrss as f64 })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A config.json of about that size, in the engines' order and without white space, as they write it.
fn config(kb: usize) -> Result<PathBuf> {
    let path = PathBuf::from(format!("/run/bench/config-{kb}.json"));
    write_grown(
        r#"{"ociVersion":"1.1.0","process":{"terminal":false,"user":{"uid":0,"gid":0,"additionalGids":[0,10]},"args":["/bin/server","--port","8080"],"env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"@env@],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN","CAP_FSETID","CAP_KILL"],"effective":["CAP_CHOWN","CAP_FSETID","CAP_KILL"],"permitted":["CAP_CHOWN","CAP_FSETID","CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":1048576,"soft":1048576}],"noNewPrivileges":true,"oomScoreAdj":968},"root":{"path":"rootfs"},"hostname":"web","mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]}@mounts@],"annotations":{"io.kubernetes.cri.container-name":"web"},"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":134217728},"cpu":{"shares":102,"quota":10000,"period":100000}},"cgroupsPath":"/kubepods/burstable/web","namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network","path":"/proc/1/ns/net"}],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}@rules@]}}}"#,
        kb * 1000,
        &path,
    )?;
    Ok(path)
}

/// runc's state.json of 30 KB: PID 1 and its start time, then what runc made of config.json.
fn state(id: &str, pid: &str, start: &str, path: &Path) -> Result<()> {
    let template = format!(
        r#"{{"id":"{id}","init_process_pid":{pid},"init_process_start":{start},"created":"2026-11-23T20:00:00.123456789Z","config":{{"no_pivot_root":false,"rootfs":"{BUNDLE}/rootfs","umask":null,"readonlyfs":false,"rootPropagation":0,"mounts":[{{"source":"proc","destination":"/proc","device":"proc","flags":14}}@mounts@],"labels":["bundle={BUNDLE}"@env@],"namespaces":[{{"type":"NEWNS","path":""}},{{"type":"NEWUTS","path":""}},{{"type":"NEWIPC","path":""}},{{"type":"NEWPID","path":""}},{{"type":"NEWNET","path":""}}],"seccomp":{{"default_action":3,"architectures":["amd64"],"syscalls":[{{"name":"read","action":2,"args":[]}}@rules@]}}}},"rootless":false,"cgroup_paths":{{"":"/sys/fs/cgroup/kubepods/web"}},"namespace_paths":{{"NEWNS":"/proc/{pid}/ns/mnt"}},"external_descriptors":["/dev/null","pipe:[1]","pipe:[2]"],"intel_rdt_path":""}}"#
    );
    write_grown(&template, 30_000, path)
}

/// Writes the template with so many elements at its marks that the file has about `size` bytes. What grows is what grows
/// in practice: the environment, the mounts and the seccomp rules. It is not made in memory, because this process's
/// memory is where the peak of a run begins.
fn write_grown(template: &str, size: usize, path: &Path) -> Result<()> {
    const BYTES_OF_THREE: usize = 240;
    let mut file = BufWriter::new(File::create(path)?);
    let count = size.saturating_sub(template.len()) / BYTES_OF_THREE;
    for (index, piece) in template.split('@').enumerate() {
        if index % 2 == 0 {
            file.write_all(piece.as_bytes())?;
            continue;
        }
        for number in 0..count {
            match piece {
                "env" => write!(file, r#","WEB_{number}_SERVICE_HOST=10.96.0.{}""#, number % 256)?,
                "mounts" => write!(
                    file,
                    r#",{{"destination":"/var/lib/web/{number}","type":"bind","source":"/var/lib/pods/{number}","options":["rbind","rprivate","ro"]}}"#
                )?,
                _ => write!(
                    file,
                    r#",{{"names":["syscall_{number}","syscall_{number}_time64"],"action":"SCMP_ACT_ALLOW"}}"#
                )?,
            }
        }
    }
    Ok(file.flush()?)
}
