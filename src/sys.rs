// SPDX-License-Identifier: Apache-2.0
//! Every `unsafe` of the project, each behind a safe function.

#![allow(unsafe_code)]

pub mod arena;

use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Makes `$run` (`fn(&[&CStr]) -> u8`: the whole argv in, the exit code out) the C `main` of a binary.
///
/// Rust's own start ignores SIGPIPE and opens /dev/null on closed standard descriptors, which the runtime would
/// inherit. A binary with this macro must say `#![no_main]`.
#[macro_export]
macro_rules! c_main {
    ($run:path) => {
        /// The C `main`.
        // SAFETY: the only definition of `main` in a `#![no_main]` binary, with the signature that C gives it.
        #[unsafe(no_mangle)]
        #[allow(unsafe_code)]
        pub unsafe extern "C" fn main(argc: std::ffi::c_int, argv: *const *const std::ffi::c_char) -> std::ffi::c_int {
            // SAFETY: these are the arguments that the C runtime calls `main` with.
            let args = unsafe { $crate::sys::borrow_args(argc, argv) };
            std::ffi::c_int::from($run(&args))
        }
    };
}

/// In the first [`MARK_WITHIN`] bytes of every program of tns-shim, where the shim looks for it in what it would hand over
/// to: as the name of an ELF note, which linkers put before all else, and `strip` leaves.
pub const MARK: [u8; 20] = *b"org.tns-shim.program";
/// Bytes.
pub const MARK_WITHIN: usize = 4096;

/// As elf(5) has notes: the length of the name with its end, that of the description, and the type.
#[repr(C)]
struct Note {
    header: [u32; 3],
    name: [u8; MARK.len()],
    end_of_name: [u8; 4],
}

// SAFETY: the section holds nothing but notes, and this is one; it is never changed.
#[unsafe(link_section = ".note.tns-shim")]
#[used]
static NOTE: Note = Note { header: [21, 0, 1], name: MARK, end_of_name: [0; 4] };

/// The arguments of a C `main` as slices that live as long as the process.
///
/// # Safety
/// `argv` must hold `count` pointers to NUL-terminated strings that are never changed or freed.
pub unsafe fn borrow_args(count: c_int, argv: *const *const c_char) -> Vec<&'static CStr> {
    let count = usize::try_from(count).unwrap_or(0);
    (0..count)
        // SAFETY: the caller promises `count` valid, immutable strings.
        .map(|index| unsafe { CStr::from_ptr(*argv.add(index)) })
        .collect()
}

/// Keeps descriptors 0 to 2 taken while this process runs, without handing anything on: a file that the shim opens must
/// not become somebody's standard error. What was closed is closed again by execve.
///
/// # Errors
/// /dev/null cannot be opened.
pub fn occupy_standard_fds() -> io::Result<()> {
    for fd in 0..=2 {
        // SAFETY: F_GETFD only asks; a closed descriptor answers EBADF.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1 {
            continue;
        }
        // SAFETY: the path is a NUL-terminated literal. The lowest free descriptor is `fd`, because those below it are taken.
        // It is deliberately never closed by this process.
        if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether this process may have a seccomp filter, see seccomp(2). It may kill whoever asks for what it denies, as systemd's
/// `SystemCallFilter=` does, so a child asks first. (One that kills for this question lets no runtime live: they all set
/// something of their process by the same call.)
pub fn is_filtered() -> bool {
    // SAFETY: only asks, and takes nothing but the option.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) != 0 }
}

/// A descriptor that stands for the process `pid` and no later one of that number, see `pidfd_open(2)` (Linux 5.3).
///
/// # Errors
/// ESRCH if there is no such process; ENOSYS on older kernels.
pub fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers, touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = c_int::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a private mount into the group that another one of the same file system is in, as its peer or fellow slave, see
/// `mount_namespaces(7)`. Both are given by a descriptor of what is mounted, and may be in different mount namespaces.
///
/// # Errors
/// EINVAL if they are no such mounts; EPERM without `CAP_SYS_ADMIN` over both namespaces.
pub fn join_mount_group(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    set_mount_group(from.as_raw_fd(), to.as_raw_fd())
}

/// Whether the kernel knows [`join_mount_group`]: it has looked at the descriptors only if it has understood the flags.
pub fn can_join_mount_groups() -> bool {
    set_mount_group(-1, -1).is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

fn set_mount_group(from: RawFd, to: RawFd) -> io::Result<()> {
    /// `MOVE_MOUNT_SET_GROUP`, see linux/mount.h.
    const SET_GROUP: c_int = 0x100;
    move_mount(from, to, SET_GROUP)
}

/// A copy of a mount from a folder on, with all that is mounted below it, not attached to anything, see `open_tree(2)`
/// (Linux 5.2). The folder is given by a descriptor.
///
/// # Errors
/// EINVAL if it is not in this mount namespace; EPERM without `CAP_SYS_ADMIN`.
pub fn copy_mounts(folder: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE`, see linux/mount.h and linux/fcntl.h.
    const FLAGS: c_int = 0x1 | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | 0x8000;
    // SAFETY: the path is a NUL-terminated literal, everything else is integers.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, folder.as_raw_fd(), c"".as_ptr(), FLAGS) };
    let fd = c_int::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Mounts what [`copy_mounts`] has made on a folder that is given by a descriptor.
///
/// # Errors
/// As `move_mount(2)` has them.
pub fn attach_mounts(copy: BorrowedFd<'_>, folder: BorrowedFd<'_>) -> io::Result<()> {
    move_mount(copy.as_raw_fd(), folder.as_raw_fd(), 0)
}

fn move_mount(from: RawFd, to: RawFd, flags: c_int) -> io::Result<()> {
    /// `MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH`, see linux/mount.h.
    const BY_DESCRIPTOR: c_int = 0x4 | 0x40;
    let flags = BY_DESCRIPTOR | flags;
    // SAFETY: the paths are NUL-terminated literals, everything else is integers.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs `children`, which starts children and waits for them, so that they leave no trace: where the caller ignores SIGCHLD
/// it is at its default meanwhile, else the kernel would not tell how they ended; and the one that they leave is taken back
/// where the caller blocks it, else it would stay pending across execve and be the runtime's.
pub fn without_sigchld<T>(children: impl FnOnce() -> T) -> T {
    // SAFETY: a signal set of all zeroes is a valid one, and it is a local.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    };
    let is_pending = || {
        let mut pending = set;
        // SAFETY: both sets are valid and local.
        unsafe { libc::sigpending(&raw mut pending) == 0 && libc::sigismember(&raw const pending, libc::SIGCHLD) == 1 }
    };
    let before = is_pending();
    let is_ignored = || {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: only asks; the action is read if it was written.
        unsafe {
            libc::sigaction(libc::SIGCHLD, std::ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_IGN
        }
    };
    // Not where it is at its default, because to set that takes a pending signal away.
    let was_ignored = is_ignored();
    let dispose = |how| {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGCHLD, how) };
    };
    if was_ignored {
        dispose(libc::SIG_DFL);
    }
    let result = children();
    if !before && is_pending() {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time are valid and local, and nothing is to be told about the signal.
        unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now) };
    }
    if was_ignored {
        dispose(libc::SIG_IGN);
    }
    result
}

/// Whether this process can make such namespaces, and enter the time namespace among them, tried by a child, which has ended
/// when this returns.
///
/// # Errors
/// What the kernel says; EACCES if a filter has killed the child for asking; ECHILD if the child could not be asked.
pub fn try_unshare(flags: CloneFlags) -> Result<(), Errno> {
    const MADE: &CStr = c"/proc/self/ns/time_for_children";
    let is_of_time = flags.bits() & libc::CLONE_NEWTIME != 0;
    // SAFETY: the child makes some system calls, and none of them allocates or returns.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // A filter that kills leaves a core of this process otherwise, every time.
            let _ = nix::sys::prctl::set_dumpable(false);
            let mut result = unshare(flags);
            if result.is_ok() && is_of_time {
                // SAFETY: the path is a C string; what is opened is of this process, which ends.
                result = Errno::result(unsafe { libc::open(MADE.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })
                    // SAFETY: takes no memory.
                    .and_then(|made| Errno::result(unsafe { libc::setns(made, libc::CLONE_NEWTIME) }))
                    .map(drop);
            }
            let error = result.err().map_or(0, |errno| errno as c_int);
            // SAFETY: ends this process, and runs nothing of its parent's.
            unsafe { libc::_exit(error) }
        }
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                Ok(WaitStatus::Exited(_, error)) => return Err(Errno::from_raw(error)),
                Ok(WaitStatus::Signaled(_, Signal::SIGSYS, _)) => return Err(Errno::EACCES),
                Err(Errno::EINTR) => {}
                _ => return Err(Errno::ECHILD),
            }
        },
    }
}
