// SPDX-License-Identifier: Apache-2.0
//! Mounts that only this process sees, and what it becomes: the one place that makes a mount namespace.
//!
//! What is mounted here must not reach the host, and all else has to stay as it is: a runtime binds a container's volumes
//! from what it sees, and a shared one must remain a peer of the host's. A new mount namespace alone keeps every mount in its
//! group. So only the mount that is to be covered is taken out of its group, here, and put back afterwards, as a peer of
//! the host's own (`MOVE_MOUNT_SET_GROUP`, Linux 5.15 and later stable releases of 5.10). All of it ends with the last
//! process in the namespace. Source: fs/namespace.c, `do_set_group`; `mount_namespaces(7)`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use crate::sys;

/// A folder that this process sees covered by an empty one.
#[derive(Debug)]
pub struct Cover(File);

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

    fn make(folder: &Path, window: Option<&str>) -> Result<Self> {
        let outside = Mount::of(&place(folder)?)?;
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        // Files that are open lead to mounts of the namespace that they were opened in.
        let below = place(folder)?;
        let inside = Mount::of(&below)?;
        let apart = inside.take_out_of_its_group()?;
        let cover = Self::mounted_over(&below, folder, window);
        if apart && let Err(error) = sys::join_mount_group(outside.root.as_fd(), inside.root.as_fd()) {
            log::warn!("put the mount that {} lies on back into its group: {error}", folder.display());
        }
        cover
    }

    fn mounted_over(below: &File, folder: &Path, window: Option<&str>) -> Result<Self> {
        let metadata = below.metadata()?;
        // Before it is covered, or the copy would have the cover as well.
        let copy = window.map(|_| sys::copy_mounts(below.as_fd()).context("copy the mount")).transpose()?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        // Without the sticky bit: in such a folder, links are followed only where their owner is the reader's.
        let options = format!("mode={:o},uid={},gid={}", metadata.mode() & 0o777, metadata.uid(), metadata.gid());
        mount(Some("tmpfs"), &path_of(below), Some("tmpfs"), flags, Some(options.as_str())).context("mount a tmpfs")?;
        let cover = Self(place(folder)?);
        ensure!(cover.0.metadata()?.dev() != metadata.dev(), "something else is seen there");
        if let Some((name, copy)) = window.zip(copy) {
            let place = cover.path().join(name);
            fs::create_dir(&place)?;
            sys::attach_mounts(copy.as_fd(), self::place(&place)?.as_fd()).context("mount what was there")?;
        }
        Ok(cover)
    }

    /// A way to it that does not depend on what paths name by now.
    pub fn path(&self) -> PathBuf {
        path_of(&self.0)
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

fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn place(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)
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
