// SPDX-License-Identifier: Apache-2.0
//! What the shim costs where it is used: real containers of the real runtimes, with and without it, from create to delete, and
//! over a checkpoint and a restore by the real CRIU.
//!
//! Run as root, by `make bench`. Each combination runs in a stack of tests/stacks, which takes away everything that is made
//! in it, however it ends. This program begins in the machine, where it builds what is compared, and goes on as process 2 of the
//! stack. It is a measurement, not a test: it never fails by a figure.

#[path = "common/measure.rs"]
mod measure;
#[path = "common/programs.rs"]
mod programs;
#[path = "common/table.rs"]
mod table;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use measure::{Call, median};
use table::{Asked, Table, verdict};

/// Stacks and the runtimes in them, of which each makes a table.
const COMBINATIONS: [(&str, &str); 3] =
    [("debian-13", "runc"), ("debian-unstable", "runc"), ("debian-unstable", "crun")];
/// The programs, in the machine and in the stack.
const PROGRAMS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/lifecycle");
const HERE: &str = "/bench";
/// What the runtimes of the stacks, and CRIU, are found by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The same, but with stand-ins in the place of the runtimes.
const STANDIN_PATH: &str = "/bench/standin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const WORK: &str = "/tmp/bench";
const BUNDLE: &str = "/tmp/bench/bundle";
/// The container whose processes are checkpointed.
const ID: &str = "many";

fn main() -> Result<()> {
    let asked = Asked::read();
    let mut words = std::env::args().skip_while(|word| word != "--inside").skip(1);
    if let (Some(stack), Some(runtime)) = (words.next(), words.next()) {
        return Inside::new(&runtime, &format!("lifecycle-{stack}-{runtime}"))?.run(&asked);
    }
    prepare()?;
    let mut failed = Vec::new();
    for (stack, runtime) in COMBINATIONS {
        if let Err(error) = enter(stack, runtime, &asked) {
            failed.push(format!("{runtime} in the stack {stack}: {error:#}"));
        }
    }
    ensure!(failed.is_empty(), "could not be measured: {}", failed.join("; "));
    Ok(())
}

// ---- In the machine ----------------------------------------------------------------------------------------------------

fn prepare() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "must be run as root: it makes containers");
    let programs = Path::new(PROGRAMS);
    let standin = programs.join("standin");
    fs::create_dir_all(&standin)?;
    fs::create_dir_all(table::results())?;
    programs::rust("runtime", None, &programs.join("runtime"))?;
    for name in ["runc", "runc-1.1", "crun"] {
        programs::copy(&programs.join("runtime"), &standin.join(name))?;
    }
    programs::rust("execve_std", None, &programs.join("std"))?;
    programs::bare(None, &programs.join("no-libc"))?;
    programs::bare(Some(CLONE_NEWTIME), &programs.join("unshare-time"))?;
    let shim = PathBuf::from(std::env::var_os("SHIM").unwrap_or(env!("CARGO_BIN_EXE_tns-shim").into()));
    for name in ["tns-shim-runc", "tns-shim-runc-1.1", "tns-shim-crun"] {
        programs::copy(&shim, &programs.join(name))?;
    }
    programs::copy(Path::new("/proc/self/exe"), &programs.join("lifecycle"))
}

const CLONE_NEWTIME: i32 = 0x80;

fn enter(stack: &str, runtime: &str, asked: &Asked) -> Result<()> {
    let status = Command::new("setpriv")
        // So that all of it ends when this does.
        .args(["--pdeathsig", "TERM", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stacks/enter"), stack])
        .args(["--bind", &format!("{PROGRAMS}:{HERE}:ro")])
        .args(["--bind", &format!("{}:{RESULTS}", table::results().display())])
        .args(["--", "/bench/lifecycle", &asked.turns.to_string()])
        .args(asked.brief.then_some("brief"))
        .args(["--inside", stack, runtime])
        .stdin(Stdio::null())
        .status()
        .context("run setpriv")?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

// ---- In the stack ------------------------------------------------------------------------------------------------------

/// Where the results are to be left.
const RESULTS: &str = "/results";

/// The verbs that a container's life consists of.
const VERBS: [&str; 4] = ["create", "start", "exec", "delete"];

/// What is compared.
const ALONE: usize = 0;
const NAMESPACE: usize = 1;
const NO_LIBC: usize = 2;
const STD: usize = 3;
const SHIM: usize = 4;
const WAYS: usize = 5;
const WAY_NAMES: [&str; WAYS] = ["alone", "time namespace", "no libc", "Rust glibc", "shim"];

struct Inside {
    /// How the runtime is called, `runc` or `crun`.
    runtime: String,
    /// Its file.
    binary: PathBuf,
    /// Whether it makes a time namespace that config.json declares.
    declares: bool,
    /// Where it keeps its containers.
    root: String,
    /// Of the files of results.
    name: String,
}

impl Inside {
    fn new(runtime: &str, name: &str) -> Result<Self> {
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname")?;
        ensure!(hostname.starts_with("tns-debian-"), "this runs only in a stack: make bench");
        let binary = PATH.split(':').map(|folder| Path::new(folder).join(runtime)).find(|path| path.exists());
        let binary = binary.with_context(|| format!("this stack has no {runtime}"))?;
        make_rootfs().context("make a root folder")?;
        fs::create_dir_all("/run/bench")?;
        // Anywhere else crun cannot restore maskedPaths, with or without the shim.
        let root = if runtime == "crun" { "/run/crun".to_owned() } else { format!("{WORK}/state") };
        let mut inside = Self { runtime: runtime.to_owned(), binary, declares: true, root, name: name.to_owned() };
        inside.make_config("plain.json", "true", false)?;
        inside.make_config("declared.json", "true", true)?;
        // Asked by trying, because crun's `features` does not tell.
        let try_out = |name: &str| {
            fs::copy(config(name), config(IN_USE))?;
            inside.bare(&["run", "--bundle", BUNDLE, "try"])?.run()
        };
        try_out("plain.json").context("the runtime runs no container here")?;
        inside.declares = try_out("declared.json").is_ok();
        inside.make_config("plain.json", LOOP, false)?;
        inside.make_config("declared.json", LOOP, true)?;
        Ok(inside)
    }

    fn run(&self, asked: &Asked) -> Result<()> {
        println!("\n{} ({})", self.version(), self.name);
        if !self.declares {
            println!("It makes no time namespace: what one costs is seen by a program in front that only makes one.");
        }
        let mut goals = Table::new(&["", "measured", "goal", "verdict"]);
        self.lives(asked.turns, &mut goals)?;
        let criu = table::version("criu", "--version");
        self.cycles(asked, &mut goals)?;
        println!("\nGoals\n");
        goals.print();
        goals.keep_in(Path::new(RESULTS), &format!("{}-goals", self.name))?;
        let mut facts = Table::new(&["", ""]);
        facts.add(vec!["runtime".to_owned(), self.version()]);
        facts.add(vec!["CRIU".to_owned(), criu]);
        facts.add(vec!["control groups".to_owned(), control_groups().to_owned()]);
        facts.add(vec!["time namespaces".to_owned(), if self.declares { "declared" } else { "emulated" }.to_owned()]);
        facts.keep_in(Path::new(RESULTS), &format!("{}-facts", self.name))
    }

    fn version(&self) -> String {
        table::version(&self.runtime, "--version")
    }

    /// A call of the runtime through a program in front of it, or of itself.
    fn call(&self, program: &Path, path: &str, args: &[&str]) -> Result<Call> {
        Call::new(program, &[&["--root", &self.root], args].concat(), path)
    }

    fn bare(&self, args: &[&str]) -> Result<Call> {
        self.call(&self.binary, PATH, args)
    }

    fn shim(&self, args: &[&str]) -> Result<Call> {
        self.call(&Path::new(HERE).join(format!("tns-shim-{}", self.runtime)), PATH, args)
    }

    /// config.json as the runtime makes it, with PID 1 a shell that does `script`.
    fn make_config(&self, name: &str, script: &str, declared: bool) -> Result<()> {
        let in_use = config(IN_USE);
        let _ = fs::remove_file(&in_use);
        let status = Command::new(&self.binary).arg("spec").current_dir(BUNDLE).status().context("run the runtime")?;
        ensure!(status.success(), "{} spec ended with {status}", self.runtime);
        let mut config: Value = serde_json::from_slice(&fs::read(&in_use)?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["root"] = json!({"path": format!("{WORK}/rootfs"), "readonly": false});
        config["hostname"] = json!("bench");
        let namespaces = config["linux"]["namespaces"].as_array_mut().context("a configuration without namespaces")?;
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        if declared {
            namespaces.push(json!({"type": "time"}));
        }
        fs::write(self::config(name), serde_json::to_vec(&config)?)?;
        Ok(())
    }

    // ---- From create to delete -----------------------------------------------------------------------------------------

    fn lives(&self, turns: usize, goals: &mut Table) -> Result<()> {
        // By way and verb, one figure a turn.
        let mut times = vec![vec![Vec::with_capacity(turns); VERBS.len()]; WAYS];
        let mut again = 0;
        for turn in 0..=turns {
            for way in measure::order(WAYS, turn) {
                // Runtimes fail now and then, by themselves: said, and not often.
                let life = self.life(way).or_else(|error| {
                    again += 1;
                    println!("turn {turn}, {}: {error:#}", WAY_NAMES[way]);
                    ensure!(again <= turns / 50 + 1, "that is too often");
                    let _ = self.bare(&["delete", "--force", "life"]).and_then(|call| call.run());
                    self.life(way).with_context(|| format!("a second time in turn {turn}"))
                })?;
                if turn > 0 {
                    for (times, time) in times[way].iter_mut().zip(life) {
                        times.push(time);
                    }
                }
            }
        }
        let columns = [
            "ms",
            "alone",
            "time namespace",
            "±",
            "no libc",
            "Rust glibc",
            "%",
            "shim",
            "%",
            "shim alone",
            "±",
            "%",
            "goal",
            "verdict",
        ];
        let mut table = Table::begin("A container's life: the runtime alone, and what is added", &columns);
        let most = if self.runtime == "crun" { 8.0 } else { 2.0 };
        for verb in 0..=VERBS.len() {
            let verbs = if verb == VERBS.len() { 0..VERBS.len() } else { verb..verb + 1 };
            // In milliseconds.
            let time = |way: usize, turn: usize| verbs.clone().map(|verb| times[way][verb][turn]).sum::<f64>() / 1000.0;
            let of = |figure: &dyn Fn(usize) -> f64| Spread::of((0..turns).map(figure).collect());
            let added = |way: usize, turn: usize| time(way, turn) - time(ALONE, turn);
            let price = |turn: usize| {
                // The program that makes it is none of the namespace's price.
                let program = if self.declares || !verbs.contains(&0) {
                    0.0
                } else {
                    (times[NO_LIBC][0][turn] - times[ALONE][0][turn]) / 1000.0
                };
                added(NAMESPACE, turn) - program
            };
            let alone = of(&|turn| time(ALONE, turn)).median;
            let [namespace, own] = [of(&price), of(&|turn| added(SHIM, turn) - price(turn))];
            let [bare, std, shim] = [NO_LIBC, STD, SHIM].map(|way| of(&|turn| added(way, turn)).median);
            let percent = |added: f64| added / alone * 100.0;
            let mut line = vec![VERBS.get(verb).map_or("sum", |verb| verb).to_owned()];
            line.extend([alone, namespace.median, namespace.off, bare, std].map(|ms| format!("{ms:.2}")));
            line.extend([format!("{:.1}", percent(std)), format!("{shim:.2}"), format!("{:.1}", percent(shim))]);
            line.extend([own.median, own.off].map(|ms| format!("{ms:.2}")));
            line.push(format!("{:.1}", percent(own.median)));
            if verb == VERBS.len() {
                let met = match percent(own.off) {
                    off if off < (percent(own.median) - most).abs() => verdict(percent(own.median), most),
                    _ => "unclear",
                };
                line.extend([format!("{most}"), met.to_owned()]);
                goals.add(vec![
                    "create, start, exec and delete: the shim alone, %".to_owned(),
                    format!("{:.1} ± {:.1}", percent(own.median), percent(own.off)),
                    format!("{most}"),
                    met.to_owned(),
                ]);
            } else {
                line.extend([String::new(), String::new()]);
            }
            table.tell(line);
        }
        table.keep_in(Path::new(RESULTS), &format!("{}-lives", self.name))
    }

    /// The microseconds of each verb of a container's life.
    fn life(&self, way: usize) -> Result<[f64; VERBS.len()]> {
        let declared = way == NAMESPACE && self.declares;
        fs::copy(config(if declared { "declared.json" } else { "plain.json" }), config(IN_USE))?;
        let pid_file = format!("{WORK}/pid");
        let front = Path::new(HERE);
        let link = Path::new(programs::RUNTIME);
        let _ = fs::remove_file(link);
        symlink(&self.binary, link)?;
        let call = |args: &[&str]| match way {
            NAMESPACE if !self.declares && args[0] == "create" => self.call(&front.join("unshare-time"), PATH, args),
            ALONE | NAMESPACE => self.bare(args),
            NO_LIBC => self.call(&front.join("no-libc"), PATH, args),
            STD => self.call(&front.join("std"), PATH, args),
            _ => self.shim(args),
        };
        let mut times = [0.0; VERBS.len()];
        times[0] = call(&["create", "--bundle", BUNDLE, "--pid-file", &pid_file, "life"])?.run()?.time;
        let pid: i32 = fs::read_to_string(&pid_file)?.trim().parse().context("understand the PID file")?;
        let shifted = time_namespace(&pid.to_string())? != time_namespace("self")?;
        ensure!(
            shifted == [NAMESPACE, SHIM].contains(&way),
            "the container is {}in a time namespace of its own",
            if shifted { "" } else { "not " }
        );
        times[1] = call(&["start", "life"])?.run()?.time;
        times[2] = call(&["exec", "life", "true"])?.run()?.time;
        // Not by `delete --force`, because runc then sleeps for a tenth of a second.
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("end the container")?;
        wait_until("the container ends", || Ok(!Path::new(&format!("/proc/{pid}")).exists()))?;
        times[3] = call(&["delete", "life"])?.run()?.time;
        Ok(times)
    }

    // ---- Checkpoint and restore ----------------------------------------------------------------------------------------

    fn cycles(&self, asked: &Asked, goals: &mut Table) -> Result<()> {
        let columns = [
            "ms",
            "pairs",
            "alone",
            "with shim",
            "more",
            "shim alone",
            "Rust glibc",
            "µs a process",
            "%",
            "goal",
            "verdict",
        ];
        let mut table = Table::begin("Checkpoint and restore: the runtime and CRIU, and what the shim adds", &columns);
        // Processes; pairs of checkpoints and restores by the runtime, alone and through the shim; turns of the shim alone. Of the most
        // there are none: CRIU takes minutes for a restore.
        let mut sizes = vec![(10, 10, 200), (100, 10, 100), (1000, 3, 50), (5000, 0, 10)];
        if asked.brief {
            sizes.truncate(2);
        }
        let mut shares: Vec<[(f64, f64); 2]> = Vec::new();
        for (processes, pairs, turns) in sizes {
            let few = |most: usize, least: usize| if asked.brief { least } else { asked.turns.max(least) }.min(most);
            let [pairs, turns] = [few(pairs, 1), few(turns, 3)];
            let (times, alone) =
                self.cycle(processes, pairs, turns).with_context(|| format!("with {processes} processes"))?;
            let mut share = [(0.0, 0.0); 2];
            for (index, verb) in ["checkpoint", "restore"].into_iter().enumerate() {
                let [bare, shim] = [0, 1].map(|way| median(times[way][index].clone()) / 1000.0);
                let [std, own] = alone[index].map(|time| time / 1000.0);
                #[allow(clippy::cast_precision_loss)]
                let processes_ = processes as f64;
                let percent = own / bare * 100.0;
                share[index] = (processes_, own * 1000.0);
                let measured = |text: String| if pairs > 0 { text } else { "–".to_owned() };
                let (goal, met) = if pairs > 0 { ("1", verdict(percent, 1.0)) } else { ("", "") };
                table.tell(vec![
                    format!("{verb}, {processes} processes"),
                    pairs.to_string(),
                    measured(format!("{bare:.0}")),
                    measured(format!("{shim:.0}")),
                    measured(format!("{:+.1}", shim - bare)),
                    format!("{own:.2}"),
                    format!("{std:.2}"),
                    format!("{:.2}", own * 1000.0 / processes_),
                    measured(format!("{percent:.2}")),
                    goal.to_owned(),
                    met.to_owned(),
                ]);
                if pairs > 0 {
                    let what = format!("{verb} of {processes} processes: the shim alone, %");
                    goals.add(vec![what, format!("{percent:.2}"), goal.to_owned(), met.to_owned()]);
                }
            }
            shares.push(share);
        }
        for (index, verb) in ["checkpoint", "restore"].into_iter().enumerate() {
            // What one more process costs among many, beside what it costs among few.
            let slopes: Vec<f64> = shares
                .windows(2)
                .map(|pair| (pair[1][index].1 - pair[0][index].1) / (pair[1][index].0 - pair[0][index].0))
                .collect();
            let [.., few, many] = slopes.as_slice() else { continue };
            goals.add(vec![
                format!("{verb}: µs of one more process up to 5,000, x up to 1,000 ({many:.2} and {few:.2})"),
                format!("{:.2}", many / few),
                "1.25".to_owned(),
                verdict(many / few, 1.25).to_owned(),
            ]);
        }
        table.keep_in(Path::new(RESULTS), &format!("{}-cycles", self.name))
    }

    /// Microseconds: of the runtime alone and with the shim, by verb, one figure a pair; and what the execve-only program and the
    /// shim add to a stand-in for the runtime, by verb.
    #[allow(clippy::type_complexity)]
    fn cycle(&self, processes: usize, pairs: usize, turns: usize) -> Result<([[Vec<f64>; 2]; 2], [[f64; 2]; 2])> {
        self.start(processes)?;
        let mut times: [[Vec<f64>; 2]; 2] = Default::default();
        for pair in 0..pairs {
            for way in measure::order(2, pair) {
                let image = fresh("image")?;
                let work = fresh("work")?;
                let call = |args: &[&str]| if way == 0 { self.bare(args) } else { self.shim(args) };
                let paths = ["--image-path", &image, "--work-path", &work];
                let checkpoint = call(&[&["checkpoint"], &paths[..], &[ID]].concat())?;
                times[way][0].push(told(checkpoint.run(), &work, "dump.log")?.time);
                self.let_go()?;
                let restore =
                    call(&[&["restore", "--detach", "--bundle", BUNDLE], &paths[..], &[ID]].concat())?.silent();
                times[way][1].push(told(restore.run(), &work, "restore.log")?.time);
                self.wait_for(processes)?;
            }
        }
        let alone = self.shares(turns)?;
        self.end(processes)?;
        Ok((times, alone))
    }

    /// Begins a container of that many processes, in a time namespace of its own as the shim makes it.
    fn start(&self, processes: usize) -> Result<()> {
        // Their sleep is long: what wakes up disturbs. tail survives a restore, which a busybox sleep does not.
        let script = format!(
            "i=1; while [ $i -lt {processes} ]; do tail -f -s 10000 /dev/null & i=$((i + 1)); done; while :; do wait; done"
        );
        self.make_config("many.json", &script, false)?;
        fs::copy(config("many.json"), config(IN_USE))?;
        let log = format!("{WORK}/log");
        let run = self.shim(&["--log", &log, "run", "--detach", "--bundle", BUNDLE, ID])?.silent().run();
        run.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        self.wait_for(processes)
    }

    /// PID 1 of the container.
    fn pid(&self) -> Result<i32> {
        let output = Command::new(&self.binary).args(["--root", &self.root, "state", ID]).output()?;
        let state: Value = serde_json::from_slice(&output.stdout).context("understand the container's state")?;
        let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        pid.context("the container has ended")
    }

    fn wait_for(&self, processes: usize) -> Result<()> {
        let pid = self.pid()?;
        wait_until("the container has all its processes", || {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            Ok(children.split_ascii_whitespace().count() + 1 == processes)
        })
    }

    /// crun keeps what it has checkpointed.
    fn let_go(&self) -> Result<()> {
        let folder = Path::new(&self.root).join(ID);
        if folder.exists() {
            self.bare(&["delete", "--force", ID])?.run()?;
        }
        wait_until("the container is gone", || Ok(!folder.exists()))
    }

    fn end(&self, processes: usize) -> Result<()> {
        let pid = self.pid()?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("end the container")?;
        wait_until("the container ends", || Ok(!Path::new(&format!("/proc/{pid}")).exists()))?;
        self.bare(&["delete", "--force", ID])?.run().map(drop).with_context(|| format!("remove {processes} processes"))
    }

    /// The shim's share by itself, before the container that runs and its image: what CRIU takes hides it.
    fn shares(&self, turns: usize) -> Result<[[f64; 2]; 2]> {
        let image = fresh("image")?;
        let work = fresh("work")?;
        let real = ["checkpoint", "--image-path", &image, "--work-path", &work, "--leave-running", ID];
        told(self.bare(&real)?.run(), &work, "dump.log")?;
        let record = fresh("record")?;
        // The same arguments as above; but what the shim writes at a checkpoint goes beside the image that restore reads.
        let checkpoint = ["checkpoint", "--image-path", &record, "--work-path", &work, ID];
        let restore = ["restore", "--detach", "--bundle", BUNDLE, "--image-path", &image, "--work-path", &work, ID];
        let name = if self.declares { self.runtime.as_str() } else { "runc-1.1" };
        let standin = Path::new(HERE).join("standin").join(name);
        let link = Path::new(programs::RUNTIME);
        let _ = fs::remove_file(link);
        symlink(&standin, link)?;
        let programs = [standin, Path::new(HERE).join("std"), Path::new(HERE).join(format!("tns-shim-{name}"))];
        let mut shares = [[0.0; 2]; 2];
        for (share, args) in shares.iter_mut().zip([&checkpoint[..], &restore[..]]) {
            let mut calls = Vec::new();
            for program in &programs {
                calls.push(self.call(program, STANDIN_PATH, args)?);
            }
            let fresh = || Ok(fs::copy(config("many.json"), config(IN_USE)).map(drop)?);
            let costs = measure::turns(&calls, turns, |_| Ok(()), fresh)?;
            *share = [1, 2].map(|program| costs.median(|turn| turn[program].time - turn[0].time));
        }
        ensure!(Path::new(&record).join("tns-shim.json").exists(), "the shim has not looked at the container");
        Ok(shares)
    }
}

/// PID 1 of a container that only lives.
const LOOP: &str = "while :; do sleep 1000; done";
/// What the runtime reads.
const IN_USE: &str = "config.json";

fn config(name: &str) -> PathBuf {
    let folder = if name == IN_USE { BUNDLE } else { WORK };
    Path::new(folder).join(name)
}

/// As tests/integration/helpers.bash makes it.
fn make_rootfs() -> Result<()> {
    let root = Path::new(WORK).join("rootfs");
    for folder in ["bin", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::create_dir_all(BUNDLE)?;
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    for name in ["sh", "true", "sleep", "tail"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    Ok(())
}

/// An empty folder, in the place of the one before.
fn fresh(name: &str) -> Result<String> {
    let folder = format!("{WORK}/{name}");
    if Path::new(&folder).exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    Ok(folder)
}

fn time_namespace(process: &str) -> Result<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/time")).context("look at a time namespace")
}

fn control_groups() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "version 2" } else { "version 1" }
}

fn wait_until(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !is()? {
        if Instant::now() > deadline {
            bail!("waited in vain until {what}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// With the end of CRIU's log, if it has failed.
fn told<T>(result: Result<T>, work: &str, log: &str) -> Result<T> {
    result.with_context(|| {
        let text = fs::read_to_string(Path::new(work).join(log)).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(10).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    })
}

/// A median, and how far off it may be.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    /// Half of the interval in which the true median lies, in 19 of 20 cases.
    off: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        // As many of the values are on either side of the true median as heads are among so many coins.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let reach = (0.98 * (count as f64).sqrt()).ceil() as usize;
        let (low, high) = ((count / 2).saturating_sub(reach), (count / 2 + reach).min(count.saturating_sub(1)));
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        // Fewer values do not even reach that far.
        let off = if count < 6 { f64::INFINITY } else { (at(high) - at(low)) / 2.0 };
        Self { median: at(count / 2), off }
    }
}
