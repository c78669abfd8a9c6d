// SPDX-License-Identifier: Apache-2.0
//! Time namespaces: what one is, making one, entering one. See `time_namespaces(7)`.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use crate::sys;

/// Absent from nix's list of flags.
const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

/// Which namespace: equal exactly where the namespaces are the same. Shown as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    device: u64,
    inode: u64,
}

impl Id {
    /// The namespace behind a link such as `/proc/self/ns/time`.
    ///
    /// # Errors
    /// ENOENT where the kernel has no time namespaces or the process is gone; EACCES where it may not be looked at, which
    /// happens even to root for `/proc/1/ns/time`.
    pub fn of(path: impl AsRef<Path>) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self { device: metadata.dev(), inode: metadata.ino() })
    }

    /// The one that this process is in.
    ///
    /// # Errors
    /// As [`Id::of`].
    pub fn own() -> io::Result<Self> {
        Self::of("/proc/self/ns/time")
    }

    /// The one that process `pid` is in.
    ///
    /// # Errors
    /// As [`Id::of`].
    pub fn of_process(pid: i32) -> io::Result<Self> {
        Self::of(format!("/proc/{pid}/ns/time"))
    }

    /// The one that the children of process `pid` will be in.
    ///
    /// # Errors
    /// As [`Id::of`].
    pub fn of_children(pid: i32) -> io::Result<Self> {
        Self::of(format!("/proc/{pid}/ns/time_for_children"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "time:[{}]", self.inode)
    }
}

/// How far a time namespace's clocks are from those of the initial one, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Offsets {
    /// Of `CLOCK_MONOTONIC`.
    pub monotonic_ns: i64,
    /// Of `CLOCK_BOOTTIME`.
    pub boottime_ns: i64,
}

impl Offsets {
    /// The clocks are those of the initial time namespace.
    pub const NONE: Self = Self { monotonic_ns: 0, boottime_ns: 0 };

    /// Those of the namespace that the children of process `pid` (a number or `self`) will be in, which is its own one
    /// unless it has just made another.
    ///
    /// # Errors
    /// The process has ended, or the kernel has no time namespaces.
    pub fn of_process(pid: impl fmt::Display) -> Result<Self> {
        let path = format!("/proc/{pid}/timens_offsets");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Self::parse(&text).with_context(|| format!("understand {path}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let clock = |name: &str| {
            let mut words = text
                .lines()
                .map(str::split_ascii_whitespace)
                .find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
            let seconds: i64 = words.next()?.parse().ok()?;
            let nanoseconds: i64 = words.next()?.parse().ok()?;
            seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
        };
        Some(Self { monotonic_ns: clock("monotonic")?, boottime_ns: clock("boottime")? })
    }
}

impl fmt::Display for Offsets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |nanoseconds: i64| {
            let sign = if nanoseconds < 0 { '-' } else { '+' };
            let size = nanoseconds.unsigned_abs();
            format!("{sign}{}.{:09} s", size / 1_000_000_000, size % 1_000_000_000)
        };
        write!(formatter, "monotonic {}, boottime {}", seconds(self.monotonic_ns), seconds(self.boottime_ns))
    }
}

/// What the kernel offers this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Time namespaces can be made, as far as can be told without making one.
    Able,
    /// Before Linux 5.6, or built without `CONFIG_TIME_NS`, or /proc is not mounted.
    NoTimeNamespaces,
    /// The sysctl `user.max_time_namespaces` is 0.
    MaxIsZero,
    /// As many as `user.max_time_namespaces` allows exist already, in this user namespace or in one above it.
    AtLimit,
    /// Somebody between this process and the kernel, who can be told only by trying: a seccomp filter, a security module.
    Denied,
}

impl Kernel {
    /// Looks at /proc.
    pub fn look() -> Self {
        if fs::symlink_metadata("/proc/self/ns/time").is_err() {
            return Self::NoTimeNamespaces;
        }
        match fs::read("/proc/sys/user/max_time_namespaces") {
            Ok(text) if text.trim_ascii() == b"0" => Self::MaxIsZero,
            _ => Self::Able,
        }
    }

    /// Makes one and leaves it, because only that tells: limits hold along the whole chain of user namespaces, and filters
    /// are not seen. Where the caller may not, the runtime may, in a user namespace of its own.
    pub fn try_out() -> Self {
        let Ok(own) = File::open("/proc/self/ns/time") else { return Self::NoTimeNamespaces };
        let made = if sys::is_filtered() {
            try_in_a_child(if may_make() { CLONE_NEWTIME } else { CloneFlags::CLONE_NEWUSER | CLONE_NEWTIME })
        } else if enter(&own).is_ok() {
            unshare(CLONE_NEWTIME).inspect(|()| {
                if let Err(error) = enter(&own) {
                    log::warn!("{error:#}");
                }
            })
        } else if may_make() {
            // There is no way back: the own one belongs to a user namespace above, as under a Podman that is not root's.
            try_in_a_child(CLONE_NEWTIME)
        } else {
            try_in_a_child(CloneFlags::CLONE_NEWUSER | CLONE_NEWTIME)
        };
        match made {
            Ok(()) => Self::Able,
            // Then it is the user namespace that cannot be made here, or gives no rights, and the runtime may know a way.
            Err(_) if !may_make() && try_in_a_child(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS).is_err() => {
                Self::look()
            }
            Err(Errno::ENOSPC) if Self::look() == Self::Able => Self::AtLimit,
            Err(Errno::EINVAL) => Self::NoTimeNamespaces,
            Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) => Self::Denied,
            Err(_) => Self::look(),
        }
    }

    /// Why nothing can be made, if so.
    pub fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Able => None,
            Self::NoTimeNamespaces => Some("this kernel has no time namespaces (/proc/self/ns/time is missing)"),
            Self::MaxIsZero => Some("user.max_time_namespaces is 0"),
            Self::AtLimit => {
                Some("the limit of user.max_time_namespaces is reached, here or in a user namespace above")
            }
            Self::Denied => Some("a seccomp filter or a security module denies making time namespaces"),
        }
    }
}

/// Puts this process into a new time namespace with its own clocks unchanged: a new namespace begins with its parent's
/// offsets. On error the process stays in the one it was in, and so will its children.
///
/// The namespace is entered by setns, because execve moves a task into its `time_for_children` only since about Linux 6.2,
/// and before that a task whose two namespaces differ cannot create threads, which ends a Go program at its start.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`; ENOSPC at the limit of `user.max_time_namespaces`; EINVAL on kernels without.
pub fn make() -> Result<()> {
    let own = File::open("/proc/self/ns/time").context("open /proc/self/ns/time")?;
    if sys::is_filtered() {
        try_in_a_child(CLONE_NEWTIME).context("make a time namespace")?;
    }
    unshare(CLONE_NEWTIME).context("make a time namespace")?;
    let settle = || -> Result<()> {
        let path = "/proc/self/ns/time_for_children";
        enter(File::open(path).with_context(|| format!("open {path}"))?)
    };
    settle().inspect_err(|_| {
        // Back to one namespace for the process and its children.
        if let Err(error) = enter(&own) {
            log::warn!("{error:#}");
        }
    })
}

/// Moves this process, and what it starts from now on, into an existing time namespace. It must have one thread.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN` in the user namespace that owns it and in the own one.
pub fn enter(namespace: impl AsFd) -> Result<()> {
    setns(namespace, CLONE_NEWTIME).context("enter a time namespace")
}

/// Whether this process has `CAP_SYS_ADMIN` in its user namespace, which making and entering take; see capabilities(7).
pub fn may_make() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set >> CAP_SYS_ADMIN & 1 == 1)
}

fn try_in_a_child(flags: CloneFlags) -> Result<(), Errno> {
    sys::without_sigchld(|| sys::try_unshare(flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_the_kernel_writes_them() {
        let offsets = Offsets::parse("monotonic        -3   5000000\nboottime    86400         0\n").unwrap();
        assert_eq!(offsets, Offsets { monotonic_ns: -2_995_000_000, boottime_ns: 86_400_000_000_000 });
        assert_eq!(offsets.to_string(), "monotonic -2.995000000 s, boottime +86400.000000000 s");
        assert_eq!(Offsets::parse("monotonic 0 0\n"), None);
    }
}
