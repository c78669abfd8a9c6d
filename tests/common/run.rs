// SPDX-License-Identifier: Apache-2.0
//! One call of a program in a [`World`], and what came of it.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use super::World;

const PATIENCE: Duration = Duration::from_secs(60);

type Step = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// A call that is being prepared.
pub struct Run {
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    folder: PathBuf,
    binds: Vec<(PathBuf, PathBuf)>,
    read_only: Option<PathBuf>,
    steps: Vec<Step>,
    root: PathBuf,
}

/// What came of it.
pub struct Outcome {
    pub pid: u32,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The one that the program was called in, as its link reads.
    pub mount_namespace: String,
    pub report: Option<Report>,
}

/// What the stand-in wrote down.
#[derive(Clone)]
pub struct Report(String);

fn c_string(bytes: impl AsRef<[u8]>) -> CString {
    CString::new(bytes.as_ref()).unwrap()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

impl Run {
    pub(super) fn new<A: AsRef<[u8]>>(world: &World, program: &Path, args: impl IntoIterator<Item = A>) -> Self {
        let program = c_string(program.as_os_str().as_bytes());
        let mut words = vec![program.clone()];
        words.extend(args.into_iter().map(c_string));
        let mut env = vec![format!("PATH={}", text(&world.path("bin")))];
        let mut binds = Vec::new();
        if geteuid().is_root() {
            binds = ["run", "etc"].map(|name| (world.path(name), Path::new("/").join(name))).into();
        } else {
            env.push(format!("XDG_RUNTIME_DIR={}", text(&world.path("run"))));
            env.push(format!("XDG_CONFIG_HOME={}", text(&world.path("etc"))));
        }
        let env = env.into_iter().map(c_string).collect();
        let (folder, root) = (world.path("bundle"), world.path(""));
        Self { program, args: words, env, folder, binds, read_only: None, steps: Vec::new(), root }
    }

    /// argv\[0\].
    pub fn called(mut self, name: impl AsRef<[u8]>) -> Self {
        self.args[0] = c_string(name);
        self
    }

    /// Another file than the shim that was built.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = c_string(path.as_os_str().as_bytes());
        self
    }

    /// One more entry of the environment, in any bytes; `PATH=` takes the place of the default.
    pub fn env(mut self, entry: impl AsRef<[u8]>) -> Self {
        let entry = c_string(entry);
        if entry.as_bytes().starts_with(b"PATH=") {
            self.env[0] = entry;
        } else {
            self.env.push(entry);
        }
        self
    }

    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// Nothing below this folder can be changed, by root neither.
    pub fn read_only(mut self, folder: impl Into<PathBuf>) -> Self {
        self.read_only = Some(folder.into());
        self
    }

    /// With this folder as /dev, with nothing else in it than null. Only root can.
    pub fn devices(self, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let null = folder.join("null");
        File::create(&null).unwrap();
        let none = None::<&str>;
        self.step(move || {
            mount(Some("/dev/null"), &null, none, MsFlags::MS_BIND, none)?;
            mount(Some(&folder), "/dev", none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
            Ok(())
        })
    }

    /// In the new process, right before the program.
    pub fn step(mut self, step: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.steps.push(Box::new(step));
        self
    }

    /// Starts the program, and ends it with the test.
    pub fn start(mut self) -> (Child, PathBuf) {
        let root = self.root.clone();
        drop(fs::remove_file(root.join("bin/report")));
        // Only its fork is used: the program is executed by the last step, with just this argv and environment.
        let mut command = Command::new("/nonexistent");
        command.current_dir(&self.folder);
        command.stdin(File::open(root.join("input")).unwrap());
        command.stdout(File::create(root.join("stdout")).unwrap());
        command.stderr(File::create(root.join("stderr")).unwrap());
        let child = step::before_exec(&mut command, move || {
            step::death_signal(libc::SIGKILL)?;
            self.mounts()?;
            self.steps.iter_mut().try_for_each(|step| step())?;
            nix::unistd::execve(&self.program, &self.args, &self.env)?;
            Ok(())
        })
        .spawn();
        (child.unwrap(), root)
    }

    fn mounts(&self) -> io::Result<()> {
        let none = None::<&str>;
        let own = !self.binds.is_empty() || self.read_only.is_some();
        if own {
            unshare(CloneFlags::CLONE_NEWNS)?;
        }
        fs::write(self.root.join("mnt"), fs::read_link("/proc/self/ns/mnt")?.as_os_str().as_bytes())?;
        if !own {
            return Ok(());
        }
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
        for (from, to) in &self.binds {
            mount(Some(from), to, none, MsFlags::MS_BIND, none)?;
        }
        if let Some(folder) = &self.read_only {
            mount(Some(folder), folder, none, MsFlags::MS_BIND, none)?;
            mount(none, folder, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
            // The working folder is still the one below the new mount.
            std::env::set_current_dir(&self.folder)?;
        }
        Ok(())
    }

    /// Runs the program to its end.
    pub fn go(self) -> Outcome {
        let (mut child, root) = self.start();
        let status = wait(&mut child);
        let output = |name| fs::read(root.join(name)).unwrap();
        let report = fs::read_to_string(root.join("bin/report")).ok().map(Report);
        let mount_namespace = fs::read_to_string(root.join("mnt")).unwrap();
        Outcome { pid: child.id(), status, stdout: output("stdout"), stderr: output("stderr"), mount_namespace, report }
    }
}

/// Waits, though not forever: a shim that hands over to itself never ends.
pub fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still running after {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

impl Outcome {
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// That the runtime was run, that it was the last word, and that nothing was printed.
    #[track_caller]
    pub fn assert_quiet_success(&self) -> &Report {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr());
        assert_eq!((self.stdout.as_slice(), self.stderr().as_str()), (&b""[..], ""));
        self.report.as_ref().expect("the runtime was run")
    }

    /// That the shim ended the call itself, and what it said; the runtime was not run.
    #[track_caller]
    pub fn assert_refused(&self) -> String {
        assert_eq!(self.status.code(), Some(1), "{}", self.stderr());
        assert!(self.report.is_none(), "the runtime was run");
        assert_eq!(self.stdout, b"");
        self.stderr()
    }
}

impl Report {
    /// Its lines without what may differ: argv\[0\] and the process's number, which are asked for by name.
    fn comparable(&self) -> impl Iterator<Item = &str> {
        self.0.lines().filter(|line| !line.starts_with("argv0 ") && !line.starts_with("pid "))
    }

    pub fn lines(&self, keep: impl Fn(&str) -> bool) -> Vec<String> {
        self.comparable().filter(|line| keep(line)).map(str::to_owned).collect()
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.lines().filter_map(move |line| line.strip_prefix(key)).filter_map(|value| {
            let value = value.strip_prefix([' ', ':'])?;
            Some(value.trim())
        })
    }

    #[track_caller]
    pub fn one(&self, key: &str) -> &str {
        self.values(key).next().unwrap_or_else(|| panic!("the report has no {key}:\n{}", self.0))
    }

    /// What was written in hexadecimal, each time it was.
    pub fn bytes(&self, key: &str) -> Vec<Vec<u8>> {
        let digits = |hex: &str| {
            let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
        };
        self.values(key).map(digits).collect()
    }

    /// The numbers of the open descriptors.
    pub fn fds(&self) -> Vec<i32> {
        let mut fds: Vec<i32> =
            self.values("fd").map(|value| value.split(' ').next().unwrap().parse().unwrap()).collect();
        fds.sort_unstable();
        fds
    }

    /// A namespace, as its link reads.
    #[track_caller]
    pub fn namespace(&self, kind: &str) -> String {
        String::from_utf8(self.bytes(&format!("ns {kind}")).remove(0)).unwrap()
    }

    pub fn time_namespace(&self) -> String {
        self.namespace("time")
    }
}

/// The test's own time namespace.
pub fn own_time_namespace() -> String {
    let target = fs::read_link("/proc/self/ns/time").unwrap();
    OsStr::to_str(target.as_os_str()).unwrap().to_owned()
}

/// What a new process can be made to do before the program: system calls without a safe binding here.
#[allow(unsafe_code)]
pub mod step {
    use super::{CString, Command, Path, c_string, io};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::process::CommandExt;

    fn checked(result: libc::c_int) -> io::Result<()> {
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub fn before_exec(
        command: &mut Command,
        steps: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Command {
        // SAFETY: the steps make system calls; where they allocate, the C library's allocator is whole after its fork.
        unsafe { command.pre_exec(steps) }
    }

    pub fn death_signal(signal: libc::c_int) -> io::Result<()> {
        // SAFETY: takes integers only.
        checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })
    }

    pub fn ignore(signal: libc::c_int) -> io::Result<()> {
        // SAFETY: no handler is installed.
        let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
        if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub fn block(signal: libc::c_int) -> io::Result<()> {
        // SAFETY: the set is a local, made before it is used; a set of all zeroes is a valid one.
        checked(unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
        })
    }

    /// Sends a signal to this process, which had better block or ignore it.
    pub fn raise(signal: libc::c_int) -> io::Result<()> {
        // SAFETY: takes integers only.
        checked(unsafe { libc::kill(libc::getpid(), signal) })
    }

    /// Root's programs do not get it back.
    pub fn drop_capability(number: libc::c_int) -> io::Result<()> {
        // SAFETY: takes integers only.
        checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number) })
    }

    /// Who asks for a time namespace gets this error from now on.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Each of these numbers is small.
    pub fn deny_time_namespaces(error: libc::c_int) -> impl FnMut() -> io::Result<()> + Send + Sync + use<> {
        let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
        let jump =
            |test: u32, k: u32, jf: u8| libc::sock_filter { jf, ..statement(libc::BPF_JMP | test | libc::BPF_K, k) };
        let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
        let answer = |answer: u32| statement(libc::BPF_RET | libc::BPF_K, answer);
        // The number of the system call is at 0, the lower half of its first argument at 16.
        let mut program = [
            load(0),
            jump(libc::BPF_JEQ, libc::SYS_unshare as u32, 3),
            load(16),
            jump(libc::BPF_JSET, libc::CLONE_NEWTIME as u32, 1),
            answer(libc::SECCOMP_RET_ERRNO | error as u32),
            answer(libc::SECCOMP_RET_ALLOW),
        ];
        move || {
            let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
            // SAFETY: the filter is whole, and the kernel copies it.
            checked(unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
            })
        }
    }

    pub fn close(fd: libc::c_int) -> io::Result<()> {
        // SAFETY: nothing in this process uses the descriptor between here and execve.
        checked(unsafe { libc::close(fd) })
    }

    /// Makes `fd` a descriptor of the file that the program inherits.
    pub fn open(path: &Path, fd: libc::c_int) -> impl FnMut() -> io::Result<()> + Send + Sync + use<> {
        let path: CString = c_string(path.as_os_str().as_bytes());
        move || {
            // SAFETY: the path is NUL-terminated and lives as long as the closure; the descriptors are this process's.
            checked(unsafe {
                let opened = libc::open(path.as_ptr(), libc::O_RDONLY);
                if opened == -1 || opened == fd {
                    opened
                } else {
                    let result = libc::dup2(opened, fd);
                    libc::close(opened);
                    result
                }
            })
        }
    }
}
