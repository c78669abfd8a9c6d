// SPDX-License-Identifier: Apache-2.0
//! What the shim costs: wall time, page faults and memory that it adds to a call of the runtime.
//!
//! Programs are run in turn: a static stand-in for the runtime directly; through a program that only calls execve, in four
//! variants (with std's own start and glibc, as anybody would write it, which is what the goals are about; the same with
//! musl; in C; and without a C library, which is what the kernel takes); and through the shim. Every figure is the median
//! of the differences between a run and the direct run of the same turn, so what else the machine does cancels out.
//! It is a measurement, not a test: it never fails by a figure.
//!
//! Run as root, by `make bench`. Everything happens in a mount namespace of its own with a tmpfs on /run, and ends with
//! this process. `SHIM=FILE` measures another build of the shim, `EXECVE_MUSL=FILE` is the variant with musl where rustc has no
//! musl by itself.

#[path = "common/measure.rs"]
mod measure;
#[path = "common/programs.rs"]
mod programs;
#[path = "common/table.rs"]
mod table;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use measure::{Call, Cost, Turns};
use programs::copy;
use table::{Asked, Table, verdict};

/// The programs: on disk, as installed ones are.
const PROGRAMS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/overhead");
/// The runtime is found in the third folder, as /usr/sbin/runc is in root's usual PATH.
const PATH: &str = concat!("/usr/local/sbin:/usr/local/bin:", env!("CARGO_TARGET_TMPDIR"), "/overhead/bin");
const BUNDLE: &str = "/run/bench/bundle";
const ROOT: &str = "/run/bench/root";

/// What the shim is compared with: what it is called, and its file.
const NO_LIBC: &str = "no libc";
const C: &str = "C";
const STD: &str = "Rust glibc";
const STD_MUSL: &str = "Rust musl";
const UNSHARE: &str = "unshare";
const SHIM: &str = "shim";

/// A program in front of the runtime.
struct Wrapper {
    called: &'static str,
    built: PathBuf,
}

/// A call to measure.
struct Row {
    name: String,
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

fn main() -> Result<()> {
    let Asked { turns, brief } = Asked::read();
    ensure!(nix::unistd::geteuid().is_root(), "must be run as root: it makes mount and time namespaces");
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    // First apart from the host's, then shared within, as systemd has them: that is what a copy of them costs.
    for kind in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, kind | MsFlags::MS_REC, None::<&str>).context("separate the mounts")?;
    }
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).context("mount a tmpfs on /run")?;
    for folder in [BUNDLE, ROOT] {
        fs::create_dir_all(folder)?;
    }
    install_runtimes()?;
    let shim = PathBuf::from(std::env::var_os("SHIM").unwrap_or(env!("CARGO_BIN_EXE_tns-shim").into()));
    let wrappers = build(&shim)?;

    // They read a pipe that this process holds, so they end with it, however it ends.
    let here = container("here", &["cat"])?;
    let elsewhere = container("elsewhere", &["unshare", "--time", "--boottime=86400", "--fork", "cat"])?;
    println!("median of {turns} turns; microseconds added to a direct call of the runtime");
    let mut goals = Table::new(&["", "measured", "goal", "verdict"]);
    let title = "What each program in front of a runtime adds";
    let worst = table(title, "overhead-verbs", &verbs()?, &wrappers, turns, &mut goals)?;
    goals.add(goal("peak memory beside Rust glibc, KiB (worst call)", worst, 0.0, 0));
    #[allow(clippy::cast_precision_loss)]
    let size = fs::metadata(&shim)?.len() as f64 / 1e6;
    goals.add(goal("size of the program, MB", size, 0.8, 2));
    table("create, by the size of config.json", "overhead-sizes", &sizes()?, &wrappers, turns, &mut goals)?;
    // Last, because what is mounted stays until this process ends.
    mounts(&wrappers, turns.div_ceil(5), brief)?;
    drop((here, elsewhere));

    println!("\nGoals\n");
    goals.print();
    goals.keep("overhead-goals")?;
    let mut facts = Table::new(&["", ""]);
    for (name, value) in [
        ("Rust", table::version("rustc", "--version")),
        ("tns-shim", format!("{}, {size:.2} MB, built for {}", env!("CARGO_PKG_VERSION"), library_of(&shim)?)),
        ("Turns of each call", turns.to_string()),
    ] {
        facts.add(vec![name.to_owned(), value]);
    }
    facts.keep("overhead-facts")
}

/// The C library of a static program, by what only glibc's start knows.
fn library_of(program: &Path) -> Result<&'static str> {
    let bytes = fs::read(program)?;
    let mark = b"GLIBC_TUNABLES";
    Ok(if bytes.windows(mark.len()).any(|window| window == mark) { "glibc" } else { "musl" })
}

fn goal(what: &str, measured: f64, most: f64, digits: usize) -> Vec<String> {
    vec![what.to_owned(), format!("{measured:.digits$}"), format!("{most}"), verdict(measured, most).to_owned()]
}

/// The stand-in, as three runtimes. They stay as they are, because the shim would ask a new one for its abilities again.
fn install_runtimes() -> Result<()> {
    fs::create_dir_all(in_programs("bin"))?;
    let runtime = in_programs("runtime.built");
    programs::rust("runtime", None, &runtime)?;
    for name in ["runc", "runc-1.1", "crun"] {
        copy(&runtime, &in_programs("bin").join(name))?;
    }
    // Where the others look for it: a mount and not a link, which would have to be followed.
    File::create(programs::RUNTIME)?;
    mount(Some(&in_programs("bin/runc")), programs::RUNTIME, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("bind the runtime")
}

fn build(shim: &Path) -> Result<Vec<Wrapper>> {
    let mut wrappers = Vec::new();
    for (called, name) in [(NO_LIBC, "no-libc"), (C, "c"), (STD, "std"), (STD_MUSL, "musl"), (UNSHARE, "unshare")] {
        let built = in_programs(&format!("{name}.built"));
        match called {
            NO_LIBC => programs::bare(None, &built)?,
            UNSHARE => programs::bare(Some(CloneFlags::CLONE_NEWNS.bits()), &built)?,
            C => programs::c("execve_c", &[], &built)?,
            STD => programs::rust("execve_std", None, &built)?,
            _ => match programs::musl(&built) {
                Ok(()) => {}
                Err(error) => {
                    println!("without the variant for musl: {error:#}");
                    continue;
                }
            },
        }
        wrappers.push(Wrapper { called, built });
    }
    wrappers.push(Wrapper { called: SHIM, built: shim.to_owned() });
    Ok(wrappers)
}

/// The programs in front of it, as new files each time: how a file happens to lie in the page cache is worth 40 µs, and
/// what a linker has just written lies worst.
fn install(wrappers: &[&Wrapper], row: &Row) -> Result<()> {
    wrappers.iter().try_for_each(|wrapper| copy(&wrapper.built, &installed(wrapper, row)))
}

fn installed(wrapper: &Wrapper, row: &Row) -> PathBuf {
    match wrapper.called {
        SHIM => in_programs(row.shim),
        called => in_programs(&called.replace(' ', "-")),
    }
}

fn in_programs(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
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

const WITH_A_VIEW: &str = "exec: enter, with a state view";
const PASSED: &str = "state: passed on";

fn exec(id: &str) -> [&str; 5] {
    ["exec", "--process", "/run/bench/process.json", "--detach", id]
}

fn verbs() -> Result<Vec<Row>> {
    let row = |name: &str, shim, does, args: &[&str], config, goal| {
        let args = [&["--root", ROOT], args].concat().into_iter().map(str::to_owned).collect();
        Row { name: name.to_owned(), shim, does, args, config, goal }
    };
    let create = ["create", "--bundle", BUNDLE, "--pid-file", "/run/bench/pid", "new"];
    let config = Some(config(25)?);
    Ok(vec![
        row(PASSED, "tns-shim", "", &["state", "x"], None, Some(0.33)),
        row("create: splice, 25 KB", "tns-shim", "create: declare", &create, config.clone(), Some(0.75)),
        row("exec: nothing to do, runc 1.1", "tns-shim-runc-1.1", "exec: pass", &exec("here"), None, Some(0.6)),
        row("exec: nothing to do, crun", "tns-shim-crun", "exec: pass", &exec("here"), None, Some(0.4)),
        row(WITH_A_VIEW, "tns-shim-runc-1.1", "exec: enter", &exec("elsewhere"), None, Some(1.5)),
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
    let row = |(name, kb, goal): (&str, _, _)| {
        Ok(Row {
            name: format!("create: config.json of {name}"),
            shim: "tns-shim",
            does: "create: declare",
            args: ["--root", ROOT, "create", "--bundle", BUNDLE, "new"].map(str::to_owned).into(),
            config: Some(config(kb)?),
            goal,
        })
    };
    sizes.map(row).into_iter().collect()
}

/// Measures and shows rows. The most KiB by which the shim's peak is above that of the execve-only program.
fn table(title: &str, name: &str, rows: &[Row], wrappers: &[Wrapper], turns: usize, goals: &mut Table) -> Result<f64> {
    let wrappers: Vec<&Wrapper> = wrappers.iter().filter(|wrapper| wrapper.called != UNSHARE).collect();
    let columns = [NO_LIBC, C, STD, STD_MUSL, SHIM];
    let rest = ["x no libc", "x Rust glibc", "goal", "verdict", "faults", "KiB more"];
    let mut table = Table::begin(title, &[&["µs"], &columns[..], &rest].concat());
    let mut worst = f64::MIN;
    for row in rows {
        let added = measure(row, &wrappers, turns)?;
        let of = |called| added.iter().find(|added| added.called == called);
        let [bare, std, shim] = [NO_LIBC, STD, SHIM].map(|called| of(called).map_or(&Added::NOTHING, |added| added));
        let more = shim.peak - std.peak;
        worst = worst.max(more);
        let ratio = shim.time / std.time;
        let mut line = vec![row.name.clone()];
        line.extend(columns.map(|called| of(called).map_or("–".to_owned(), |added| format!("{:.0}", added.time))));
        line.extend([format!("{:.2}", shim.time / bare.time), format!("{ratio:.2}")]);
        line.extend(row.goal.map_or([String::new(), String::new()], |most| {
            goals.add(goal(&format!("{}, x Rust glibc", row.name), ratio, most, 2));
            [format!("{most}"), verdict(ratio, most).to_owned()]
        }));
        line.extend([format!("{:.0}", shim.faults), format!("{more:+.0}")]);
        table.tell(line);
        if row.name == PASSED {
            goals.add(goal("a passed call, x the program without libc", shim.time / bare.time, 3.0, 2));
            goals.add(goal("a passed call, minor page faults", shim.faults, 20.0, 0));
        }
    }
    table.keep(name)?;
    Ok(worst)
}

/// exec with a view copies the mount table, so it costs more where there are more mounts.
fn mounts(wrappers: &[Wrapper], turns: usize, brief: bool) -> Result<()> {
    let wrappers: Vec<&Wrapper> =
        wrappers.iter().filter(|wrapper| [STD, UNSHARE, SHIM].contains(&wrapper.called)).collect();
    let columns = ["µs", "Rust glibc", "unshare alone", "shim", "shim − unshare"];
    let mut table = Table::begin("exec with a state view, by the number of mounts on the host", &columns);
    let [small, places] = ["/run/bench/small", "/run/bench/mounts"].map(Path::new);
    fs::create_dir(small)?;
    fs::create_dir(places)?;
    mount(Some("tmpfs"), small, Some("tmpfs"), MsFlags::empty(), None::<&str>).context("mount a small tmpfs")?;
    // Private, or all of them would be peers of one group, which the mounts of a real host are not.
    mount(None::<&str>, small, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    let there = || -> Result<usize> { Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().count()) };
    for wanted in [100, 1000, 8000] {
        for number in there()?..wanted {
            let place = places.join(number.to_string());
            fs::create_dir(&place)?;
            mount(Some(small), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("make many mounts")?;
        }
        let mut row = verbs()?.into_iter().find(|row| row.name == WITH_A_VIEW).context("no such call")?;
        row.name = format!("{} mounts", there()?);
        let turns = if brief { turns.min(5) } else { turns };
        let added = measure(&row, &wrappers, turns)?;
        let time = |called| added.iter().find(|added| added.called == called).map_or(f64::NAN, |added| added.time);
        let [std, unshare, shim] = [STD, UNSHARE, SHIM].map(time);
        let cells = [std, unshare, shim, shim - unshare].map(|time| format!("{time:.0}"));
        table.tell([vec![row.name], cells.to_vec()].concat());
    }
    table.keep("overhead-mounts")
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
        .env("PATH", PATH)
        .stdout(Stdio::null())
        .status()?;
    let log = fs::read_to_string(LOG).unwrap_or_default();
    ensure!(status.success() && log.contains(row.does), "{}: the shim has done something else: {log}", row.name);
    fs::remove_file(LOG).or_else(|error| if row.does.is_empty() { Ok(()) } else { Err(error) })?;
    Ok(())
}

/// Medians of what a program costs more than the direct call; of the peak, its own.
struct Added {
    called: &'static str,
    /// Microseconds.
    time: f64,
    /// Minor page faults.
    faults: f64,
    /// KiB.
    peak: f64,
}

impl Added {
    const NOTHING: Self = Self { called: "", time: f64::NAN, faults: f64::NAN, peak: f64::NAN };
}

fn measure(row: &Row, wrappers: &[&Wrapper], turns: usize) -> Result<Vec<Added>> {
    install(wrappers, row)?;
    check(row)?;
    let mut calls = vec![Call::new(in_programs("bin/runc"), &row.args, PATH)?];
    for wrapper in wrappers {
        calls.push(Call::new(installed(wrapper, row), &row.args, PATH)?);
    }
    let before_turn = |turn| if turn % 24 == 0 { install(wrappers, row) } else { Ok(()) };
    let before_call = || match &row.config {
        Some(config) => Ok(fs::copy(config, format!("{BUNDLE}/config.json")).map(drop)?),
        None => Ok(()),
    };
    let costs: Turns = measure::turns(&calls, turns, before_turn, before_call)?;
    let added = wrappers.iter().enumerate().map(|(index, wrapper)| {
        let of = |figure: fn(&Cost) -> f64| costs.median(|turn| figure(&turn[index + 1]) - figure(&turn[0]));
        Added {
            called: wrapper.called,
            time: of(|cost| cost.time),
            faults: of(|cost| cost.faults),
            peak: costs.median(|turn| turn[index + 1].peak),
        }
    });
    Ok(added.collect())
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
