// SPDX-License-Identifier: Apache-2.0
//! One call of a program, and what is to be believed of many: the calls that are compared are made in turn, in changing
//! order, and what counts is the median of the differences within a turn, so that what else the machine does cancels out.

// Each program uses a part.
#![allow(dead_code)]
// fork, dup2 and wait4.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::unistd::{ForkResult, fork};

/// One run: microseconds, minor page faults, KiB at the peak.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub time: f64,
    pub faults: f64,
    pub peak: f64,
}

/// A program, its arguments and its environment.
pub struct Call {
    args: Vec<CString>,
    path: CString,
    /// What it complains of; none where that would become a container's.
    errors: Option<File>,
}

impl Call {
    /// Of the environment there is only PATH.
    pub fn new<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[A], path: &str) -> Result<Self> {
        let all = [program.as_ref()].into_iter().chain(args.iter().map(AsRef::as_ref));
        Ok(Self {
            args: all.map(|word| CString::new(word.as_bytes())).collect::<Result<_, _>>()?,
            path: CString::new(format!("PATH={path}"))?,
            errors: Some(tempfile::tempfile().context("make a temporary file")?),
        })
    }

    /// With /dev/null as standard error, too: it begins a container, and CRIU checkpoints none with a file from outside.
    pub fn silent(self) -> Self {
        Self { errors: None, ..self }
    }

    /// Runs it to its end, without input and output; what it says on standard error is in the error if it fails.
    pub fn run(&self) -> Result<Cost> {
        let nothing = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
        let environment: [&CStr; 1] = [&self.path];
        let begin = Instant::now();
        // fork and not vfork: a child that shares this process's memory until execve would count it as its own peak.
        // SAFETY: this process has one thread, and the child does nothing but dup2 and execve.
        let child = match unsafe { fork() }? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                for (standard, file) in (0..).zip([&nothing, &nothing, self.errors.as_ref().unwrap_or(&nothing)]) {
                    // SAFETY: a descriptor that is open, and one that is nobody else's in this process.
                    unsafe { libc::dup2(file.as_raw_fd(), standard) };
                }
                let _ = nix::unistd::execve(&self.args[0], &self.args, &environment);
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
        let words = || self.args.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        ensure!(status == 0, "{} ended with wait status {status:#x}: {}", words(), self.said());
        #[allow(clippy::cast_precision_loss)]
        Ok(Cost { time, faults: usage.ru_minflt as f64, peak: usage.ru_maxrss as f64 })
    }
}

impl Call {
    fn said(&self) -> String {
        let Some(mut file) = self.errors.as_ref() else { return String::new() };
        let mut text = Vec::new();
        let read = file.rewind().and_then(|()| file.read_to_end(&mut text));
        read.map_or_else(|error| error.to_string(), |_| String::from_utf8_lossy(&text).trim().to_owned())
    }
}

/// The costs of several calls, turn by turn.
pub struct Turns(Vec<Vec<Cost>>);

/// Makes these calls, so many turns. Some turns are made first, so that files and memories are there.
pub fn turns(
    calls: &[Call],
    count: usize,
    mut before_turn: impl FnMut(usize) -> Result<()>,
    mut before_call: impl FnMut() -> Result<()>,
) -> Result<Turns> {
    let first = if count < 5 { 1 } else { 5 };
    let mut costs = vec![vec![Cost::default(); calls.len()]; count];
    for turn in 0..count + first {
        before_turn(turn)?;
        for call in order(calls.len(), turn) {
            before_call()?;
            let cost = calls[call].run()?;
            if let Some(turn) = turn.checked_sub(first) {
                costs[turn][call] = cost;
            }
        }
    }
    Ok(Turns(costs))
}

impl Turns {
    /// The median of a figure of every turn.
    pub fn median(&self, figure: impl Fn(&[Cost]) -> f64) -> f64 {
        median(self.0.iter().map(|turn| figure(turn)).collect())
    }
}

/// The order of so many calls in a turn. All that there are come in turn, because what ran before decides what is in the
/// caches.
pub fn order(calls: usize, turn: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..calls).collect();
    let mut number = turn;
    (1..=calls)
        .rev()
        .map(|count| {
            let next = left.remove(number % count);
            number /= count;
            next
        })
        .collect()
}

/// The middle one of some values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
