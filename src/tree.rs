// SPDX-License-Identifier: Apache-2.0
//! The processes of a container and the time namespaces they are in.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};

use crate::text::printable;
use crate::timens::Id;

/// A process. Its threads are all in its time namespace: clone(2) refuses `CLONE_THREAD` where they would not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// In the reader's pid namespace.
    pub pid: i32,
    /// Its command line, or its name in brackets where it has none; control characters escaped. Empty if nobody asked.
    pub command: String,
    /// The time namespace it is in.
    pub namespace: Id,
    /// The one its children will be in.
    pub children: Id,
}

impl Task {
    /// Looks at process `pid`, whose command line is asked for by what else it is: to read it takes as long as all the rest.
    fn look(pid: i32, is_to_be_named: impl Fn(&Self) -> bool) -> io::Result<Self> {
        let (namespace, children) = (Id::of_process(pid)?, Id::of_children(pid)?);
        let mut task = Self { pid, namespace, children, command: String::new() };
        if is_to_be_named(&task) {
            task.command = command(pid);
        }
        Ok(task)
    }

    /// It and its children are in that time namespace.
    pub fn is_wholly_in(&self, namespace: Id) -> bool {
        self.namespace == namespace && self.children == namespace
    }
}

/// Process `root` and everything below it: what CRIU dumps. Processes that end while this looks are left out. Those have a
/// command line that `is_to_be_named` says yes to.
///
/// # Errors
/// The kernel has no /proc/PID/task/TID/children (`CONFIG_PROC_CHILDREN`, which CRIU needs as well), or a living process
/// may not be looked at.
pub fn below(root: i32, is_to_be_named: impl Fn(&Task) -> bool) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([root]);
    while let Some(pid) = queue.pop_front() {
        if !seen.insert(pid) {
            continue;
        }
        match Task::look(pid, &is_to_be_named) {
            Ok(task) => tasks.push(task),
            Err(error) if has_ended(&error) || is_zombie(pid) => {}
            Err(error) => return Err(error).with_context(|| format!("look at PID {pid}")),
        }
        queue.extend(children(pid).with_context(|| format!("list the children of PID {pid}"))?);
    }
    Ok(tasks)
}

/// Every child of every thread of `pid`.
fn children(pid: i32) -> io::Result<Vec<i32>> {
    let folder = format!("/proc/{pid}/task");
    let read = |text: String| text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>();
    // Of one thread there is no list to be made, which takes longer than to read its children. A folder has two names by itself,
    // and one by each thread. Source: fs/proc/base.c, proc_task_getattr
    if fs::metadata(&folder).is_ok_and(|metadata| metadata.nlink() == 3) {
        if let Ok(text) = fs::read_to_string(format!("{folder}/{pid}/children")) {
            return Ok(read(text));
        }
    }
    let mut children = Vec::new();
    let threads = match fs::read_dir(folder) {
        Ok(threads) => threads,
        Err(error) if has_ended(&error) => return Ok(children),
        Err(error) => return Err(error),
    };
    for thread in threads {
        let thread = match thread {
            Ok(thread) => thread.path(),
            Err(error) if has_ended(&error) => break,
            Err(error) => return Err(error),
        };
        match fs::read_to_string(thread.join("children")) {
            Ok(text) => children.extend(read(text)),
            // Ended meanwhile; but a living thread without that file means a kernel without it.
            Err(error) if has_ended(&error) && !thread.exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

/// The control groups of every process, looked at once: with many containers, /proc is the same for all.
#[derive(Debug)]
pub struct Groups(Vec<(i32, String)>);

impl Groups {
    /// Reads /proc.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn look() -> Result<Self> {
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc").context("list /proc")? {
            let name = entry.context("list /proc")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Ok(groups) = groups(pid) {
                all.push((pid, groups));
            }
        }
        Ok(Self(all))
    }

    /// Every process whose control groups are those of `init` or below them: also an exec'd one whose parent is outside the
    /// container. None if `init` is in the root groups, where that says nothing. Processes that have ended are left out.
    ///
    /// # Errors
    /// `init` has ended.
    pub fn of(&self, init: i32) -> Result<Vec<Task>> {
        let own = groups(init).with_context(|| format!("read the control groups of PID {init}"))?;
        if own.lines().all(|line| line.ends_with(":/")) {
            return Ok(Vec::new());
        }
        let members = self.0.iter().filter(|(_, groups)| are_inside(groups, &own)).map(|(pid, _)| *pid);
        // The number can be another process's by now.
        let looked = members.filter_map(|pid| Task::look(pid, |_| true).ok());
        Ok(looked.filter(|task| groups(task.pid).is_ok_and(|groups| are_inside(&groups, &own))).collect())
    }
}

/// The lines of /proc/PID/cgroup.
fn groups(pid: i32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/cgroup"))
}

/// Whether each of these control groups is the one of the same hierarchy in `outer`, or below it.
fn are_inside(groups: &str, outer: &str) -> bool {
    let is_inside = |(group, outer): (&str, &str)| {
        let rest = group.strip_prefix(outer);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || outer.ends_with(":/"))
    };
    groups.lines().count() == outer.lines().count() && groups.lines().zip(outer.lines()).all(is_inside)
}

fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])))
}

fn command(pid: i32) -> String {
    // prctl(2) lets everybody have any part of the own memory as a command line, gigabytes of it.
    const MOST: u64 = 4096;
    let read = |file: &str| {
        let mut start = Vec::new();
        let file = File::open(format!("/proc/{pid}/{file}"));
        file.and_then(|file| file.take(MOST).read_to_end(&mut start)).map_or(Vec::new(), |_| start)
    };
    let line = read("cmdline");
    let text = String::from_utf8_lossy(&line).replace('\0', " ");
    let text =
        if text.trim().is_empty() { format!("[{}]", String::from_utf8_lossy(&read("comm")).trim()) } else { text };
    printable(text.trim(), 120)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_are_inside_others_in_every_hierarchy() {
        let outer = "2:pids:/a/c1\n1:cpu,cpuacct:/\n0::/a/c1\n";
        for (groups, inside) in [
            (outer, true),
            ("2:pids:/a/c1/x\n1:cpu,cpuacct:/y\n0::/a/c1\n", true),
            ("2:pids:/a/c10\n1:cpu,cpuacct:/\n0::/a/c1\n", false),
            ("2:pids:/a/c1\n1:cpu,cpuacct:/\n0::/a\n", false),
            ("2:pids:/a/c1\n1:cpu,cpuacct:/\n", false),
            ("", false),
        ] {
            assert_eq!(are_inside(groups, outer), inside, "{groups}");
        }
    }
}
