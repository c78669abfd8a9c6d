// SPDX-License-Identifier: Apache-2.0
//! Mounts that only this process sees, and what it becomes: the one place that makes a mount namespace.
//!
//! What is mounted here must not reach the host, and all else has to stay as it is: a runtime binds a container's volumes
//! from what it sees, and a shared one must remain a peer of the host's. A new mount namespace alone keeps every mount in its
//! group. So only the mount that is to be covered is taken out of its group, here, and put back afterwards, as a peer of
//! the host's own (`MOVE_MOUNT_SET_GROUP`, Linux 5.15 and later stable releases of 5.10). All of it ends with the last
//! process in the namespace. Source: fs/namespace.c, `do_set_group`; `mount_namespaces(7)`.
//!
//! A runtime that only enters a container mounts nothing for anybody. Its namespace just follows the host's ([`Cover::following`]),
//! which is simpler and possible in every chroot.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

use crate::{files, sys};

/// A folder that this process sees covered by an empty one.
#[derive(Debug)]
pub struct Cover {
    /// What is seen now (`O_PATH`).
    cover: File,
    /// What was there (`O_PATH`).
    below: File,
}

impl Cover {
    /// Makes this process, and what it becomes, see an empty `folder` of the same mode and owner, in a mount namespace of its
    /// own. What was there is seen in a folder in it, if `window` names one.
    ///
    /// # Errors
    /// EPERM without `CAP_SYS_ADMIN`; ENOENT if there is no such folder; the folder cannot be covered without the host
    /// seeing it. Then everything is seen as it is, though perhaps in a new mount namespace.
    pub fn new(folder: &Path, window: Option<&str>) -> Result<Self> {
        Self::make(folder, window).with_context(|| format!("cover {}", folder.display()))
    }

    /// Makes this process, and what it becomes, see an empty `folder` that is root's alone, in a mount namespace of its own in
    /// which nothing is mounted for others: what is unmounted on the host from a shared mount is unmounted here, too, and
    /// nothing goes back.
    ///
    /// # Errors
    /// EPERM without `CAP_SYS_ADMIN`, in a chroot without `CAP_SYS_CHROOT`; ENOENT if there is no such folder.
    pub fn following(folder: &Path) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        follow().context("separate the mount namespace")?;
        let cover = || Self::mounted_over(place(folder)?, folder, "mode=700", None);
        cover().with_context(|| format!("cover {}", folder.display()))
    }

    fn make(folder: &Path, window: Option<&str>) -> Result<Self> {
        let outside = Mount::of(&place(folder)?)?;
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        // Files that are open lead to mounts of the namespace that they were opened in.
        let below = place(folder)?;
        let inside = Mount::of(&below)?;
        let metadata = below.metadata()?;
        // Without the sticky bit: in such a folder, links are followed only where their owner is the reader's.
        let options = format!("mode={:o},uid={},gid={}", metadata.mode() & 0o777, metadata.uid(), metadata.gid());
        let apart = inside.take_out_of_its_group()?;
        let cover = Self::mounted_over(below, folder, &options, window);
        if apart {
            if let Err(error) = sys::join_mount_group(outside.root.as_fd(), inside.root.as_fd()) {
                log::warn!("put the mount that {} lies on back into its group: {error}", folder.display());
            }
        }
        cover
    }

    fn mounted_over(below: File, folder: &Path, options: &str, window: Option<&str>) -> Result<Self> {
        // Before it is covered, or the copy would have the cover as well.
        let copy = window.map(|_| sys::copy_mounts(below.as_fd()).context("copy the mount")).transpose()?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), &path_of(&below), Some("tmpfs"), flags, Some(options)).context("mount a tmpfs")?;
        let seen = || -> Result<Self> {
            // Relative paths of whoever stands in the folder have to lead to what is seen from now on. Whether they do is asked next.
            if window.is_some() {
                drop(env::current_dir().and_then(env::set_current_dir));
            }
            let cover = Self { cover: place(folder)?, below };
            ensure!(cover.cover.metadata()?.dev() != cover.below.metadata()?.dev(), "something else is seen there");
            if let Some((name, copy)) = window.zip(copy) {
                let place = cover.path().join(name);
                fs::create_dir(&place)?;
                sys::attach_mounts(copy.as_fd(), self::place(&place)?.as_fd()).context("mount what was there")?;
            }
            Ok(cover)
        };
        // Or what is there would be hidden from what goes on without help.
        seen().inspect_err(|_| {
            if let Err(error) = umount2(folder, MntFlags::MNT_DETACH) {
                log::warn!("unmount what covers {}: {error}", folder.display());
            }
        })
    }

    /// The folder that is seen now (`O_PATH`).
    pub fn folder(&self) -> &File {
        &self.cover
    }

    /// A way to it that does not depend on what paths name by now.
    pub fn path(&self) -> PathBuf {
        path_of(&self.cover)
    }

    /// Takes the cover away again, but for one file of it, which is seen in the place of the one of that name below. Only of one
    /// that follows: on a mount that is back in its group the host would see it.
    ///
    /// # Errors
    /// There is no such file, here or there.
    pub fn narrow_to(self, name: &str) -> Result<()> {
        let [file, covered] = [&self.cover, &self.below].map(|folder| path_of(folder).join(name));
        let done = mount(Some(&file), &covered, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        self.lift();
        done.with_context(|| format!("bind {name}"))
    }

    /// Takes the cover away again.
    pub fn lift(self) {
        if let Err(error) = umount2(&self.path(), MntFlags::MNT_DETACH) {
            log::warn!("unmount what covers a folder: {error}");
        }
    }
}

/// Shows a folder, and what is mounted below it, in another place.
///
/// # Errors
/// As mount(2) has them.
pub fn bind(folder: &Path, place: &Path) -> Result<()> {
    mount(Some(folder), place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("bind {}", folder.display()))
}

/// Makes every mount a slave of the host's.
fn follow() -> Result<()> {
    let follow = || mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>);
    match follow() {
        // This process's root is a folder on a mount that begins above it.
        Err(Errno::EINVAL) => from_the_top(follow),
        done => Ok(done?),
    }
}

/// Does something while the root folder is that of the mount namespace, and not one that was changed to by chroot(2).
fn from_the_top(act: impl FnOnce() -> nix::Result<()>) -> Result<()> {
    let [root, folder] = [place(Path::new("/"))?, place(Path::new("."))?];
    let own = File::open("/proc/self/ns/mnt")?;
    let back = || -> nix::Result<()> {
        fchdir(&root)?;
        chroot(".")?;
        fchdir(&folder)
    };
    // There must be a way back before this leaves.
    back().context("chroot")?;
    // To enter the own one changes nothing but the root and the working folder.
    setns(own, CloneFlags::CLONE_NEWNS).context("leave the chroot")?;
    let done = act();
    if let Err(error) = back() {
        // Nothing may run out there.
        log::error!("cannot go back into the chroot: {error}");
        std::process::exit(1);
    }
    Ok(done?)
}

fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn place(folder: &Path) -> io::Result<File> {
    files::place(folder, OFlag::O_DIRECTORY)
}

/// A mount.
struct Mount {
    /// The folder that is mounted (`O_PATH`).
    root: File,
    /// The first number of its line in /proc/self/mountinfo.
    id: String,
}

impl Mount {
    /// That which a folder lies on.
    fn of(folder: &File) -> Result<Self> {
        let id = mount_id(folder)?;
        let mut root = folder.try_clone()?;
        loop {
            let up = openat(&root, "..", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            let up = File::from(up);
            // The root of everything is its own parent.
            if mount_id(&up)? != id || same_folder(&up, &root)? {
                return Ok(Self { root, id });
            }
            root = up;
        }
    }

    /// Makes it private if it is shared, so that what is mounted on it stays here. Whether it can go back.
    fn take_out_of_its_group(&self) -> Result<bool> {
        if !self.is_shared()? {
            return Ok(false);
        }
        let can_go_back = sys::can_join_mount_groups();
        let (kind, name) = if can_go_back { (MsFlags::MS_PRIVATE, "private") } else { (MsFlags::MS_SLAVE, "slave") };
        mount(None::<&str>, &path_of(&self.root), None::<&str>, kind, None::<&str>).with_context(|| {
            format!("make the mount that it lies on {name}; in a chroot, that must not begin above the root")
        })?;
        if !can_go_back {
            log::warn!(
                "this kernel cannot give a mount back its group (MOVE_MOUNT_SET_GROUP, Linux 5.15): what is mounted in shared \
                 volumes from there reaches the host no longer"
            );
        }
        Ok(can_go_back)
    }

    /// Whether what is mounted on it appears elsewhere. One that is not listed is outside of this process's root, and may be.
    fn is_shared(&self) -> Result<bool> {
        let path = "/proc/self/mountinfo";
        let file = File::open(path).with_context(|| format!("open {path}"))?;
        for line in BufReader::with_capacity(64 << 10, file).split(b'\n') {
            let line = line.with_context(|| format!("read {path}"))?;
            let mut fields = line.split(|byte| *byte == b' ');
            if fields.next() == Some(self.id.as_bytes()) {
                // Number of the parent, device, root, place, options; then optional ones, up to a dash.
                return Ok(fields
                    .skip(5)
                    .take_while(|field| *field != b"-")
                    .any(|field| field.starts_with(b"shared:")));
            }
        }
        Ok(true)
    }
}

fn same_folder(one: &File, other: &File) -> io::Result<bool> {
    let [one, other] = [one.metadata()?, other.metadata()?];
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Which mount an open file lies on, see `proc_pid_fdinfo(5)`.
fn mount_id(file: &File) -> Result<String> {
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Ok(id.with_context(|| format!("{path} tells no mount"))?.trim().to_owned())
}
