//! The private view of the file system in which a program sees its volumes where its container mounts them.
//!
//! The machine's own files are never touched for it: where a mount point is missing, its directory is replaced, in this view only,
//! by one that has it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, chroot, getegid, geteuid, pivot_root};
use serde::{Deserialize, Serialize};

/// A directory with more entries is not rebuilt to make a mount point in it: each costs a mount.
const ENTRIES_MAX: usize = 2048;
/// The bit of a directory such as `/tmp`, where everybody makes what he likes.
const STICKY: u32 = 0o1000;

/// A file or directory that the program sees in another place too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::kubelet) struct Mount {
    pub(in crate::kubelet) source: PathBuf,
    pub(in crate::kubelet) target: PathBuf,
    pub(in crate::kubelet) read_only: bool,
}

/// Gives this process, which has one thread, a view of its own with these mounts; `stage` is an empty directory.
pub(super) fn enter(mounts: &[Mount], stage: &Path) -> io::Result<()> {
    let cwd = std::env::current_dir()?;
    private_view()?;
    // Those that others lie in come first.
    let mut mounts: Vec<&Mount> = mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    let is_inner = |mount: &Mount| {
        let mut others = mounts.iter().filter(|other| **other != mount);
        others.any(|other| mount.target.starts_with(&other.target))
    };
    let mut rebuilt = Vec::new();
    for mount in &mounts {
        if !is_inner(mount) {
            make_point(mount, stage, &mut rebuilt)
                .map_err(|error| about("mountPath", &mount.target, &error))?;
        }
    }
    for dir in rebuilt {
        // What is written beside a mount point would be lost: better an error.
        make_read_only(&dir)?;
    }
    // Opened before anything lies over the way to them, and after the last change of the root, which would cut them off.
    let mut opened = Vec::new();
    for mount in mounts {
        let source = File::options()
            .read(true)
            .custom_flags(OFlag::O_PATH.bits())
            .open(&mount.source)
            .map_err(|error| about("volume", &mount.source, &error))?;
        opened.push((mount, source));
    }
    for (mount, source) in opened {
        bind(&source, mount).map_err(|error| about("mountPath", &mount.target, &error))?;
    }
    // The same directory, but by its way in this view.
    std::env::set_current_dir(cwd).or_else(|_| std::env::set_current_dir("/"))
}

fn about(what: &str, path: &Path, error: &io::Error) -> io::Error {
    let message = format!("{what} {:?}: {error}", path.display());
    io::Error::new(error.kind(), message)
}

/// Leaves the machine's view of the file system, as its administrator or as an ordinary user.
fn private_view() -> io::Result<()> {
    let (user, group) = (geteuid(), getegid());
    let left = match unshare(CloneFlags::CLONE_NEWNS) {
        Err(Errno::EPERM) => unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
            .map_err(io::Error::from)
            .and_then(|()| {
                fs::write("/proc/self/setgroups", "deny")?;
                fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
                fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
            }),
        done => done.map_err(io::Error::from),
    };
    let own = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    left.and_then(|()| Ok(mount(None::<&str>, "/", None::<&str>, own, None::<&str>)?))
        .map_err(|error| {
            io::Error::other(format!(
                "volumeMounts: this machine lets no ordinary user have a view of the file system of his own ({error}): leave them out, and find each volume by its name below $GANGLINE_VOLUMES"
            ))
        })
}

fn bind(source: &File, wanted: &Mount) -> io::Result<()> {
    let target = &wanted.target;
    let is_dir = source.metadata()?.is_dir();
    if !target.exists() {
        // It lies in another volume, which is the Pod's own.
        make(target, is_dir)?;
    }
    if target.is_dir() != is_dir {
        let what = if is_dir { "a directory" } else { "a file" };
        return Err(io::Error::other(format!("is not {what}, as its volume is")));
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    attach(&source, target)?;
    if wanted.read_only {
        make_read_only(target)?;
    }
    Ok(())
}

fn attach(source: &Path, target: &Path) -> io::Result<()> {
    let all = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(
        Some(source),
        target,
        None::<&str>,
        all,
        None::<&str>,
    )?)
}

fn make_read_only(target: &Path) -> io::Result<()> {
    let has = statvfs(target)?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    // What the machine's administrator has set must be said again.
    for (is, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if has.contains(is) {
            flags |= flag;
        }
    }
    Ok(mount(
        None::<&str>,
        target,
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

/// Sees to it that there is something to mount on.
fn make_point(wanted: &Mount, stage: &Path, rebuilt: &mut Vec<PathBuf>) -> io::Result<()> {
    let target = &wanted.target;
    if target.exists() {
        return Ok(());
    }
    let is_dir = wanted.source.is_dir();
    let above = target.ancestors().find(|above| above.exists());
    let above = above.ok_or(io::ErrorKind::NotFound)?;
    let found = above.metadata()?;
    let user = geteuid();
    let own = found.uid() == user.as_raw() && !user.is_root();
    // In a user's own directory and in those for everybody an empty directory does no harm. Anywhere else it might.
    if own || found.mode() & STICKY != 0 || rebuilt.iter().any(|dir| dir == above) {
        match make(target, is_dir) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            done => return done,
        }
    }
    let missing = target.strip_prefix(above).map_err(io::Error::other)?;
    rebuild(above, stage)?;
    make(&stage.join(missing), is_dir)?;
    put_in_place(stage, above)?;
    rebuilt.push(above.to_owned());
    Ok(())
}

fn make(point: &Path, is_dir: bool) -> io::Result<()> {
    if is_dir {
        return fs::create_dir_all(point);
    }
    if let Some(dir) = point.parent() {
        fs::create_dir_all(dir)?;
    }
    File::create(point).map(drop)
}

/// Makes `stage` look as the directory does.
fn rebuild(dir: &Path, stage: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), stage, Some("tmpfs"), flags, Some("mode=755"))?;
    for (count, entry) in fs::read_dir(dir)?.enumerate() {
        if count >= ENTRIES_MAX {
            let what = format!("{:?} has more than {ENTRIES_MAX} entries", dir.display());
            return Err(io::Error::other(what));
        }
        let entry = entry?;
        let (from, to) = (entry.path(), stage.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
            continue;
        }
        make(&to, kind.is_dir())?;
        attach(&from, &to)?;
    }
    Ok(())
}

fn put_in_place(stage: &Path, dir: &Path) -> io::Result<()> {
    if dir != Path::new("/") {
        return Ok(mount(
            Some(stage),
            dir,
            None::<&str>,
            MsFlags::MS_MOVE,
            None::<&str>,
        )?);
    }
    chdir(stage)?;
    match pivot_root(".", ".") {
        // The old root lies over the new one until it is taken away.
        Ok(()) => umount2(".", MntFlags::MNT_DETACH)?,
        // An initial file system cannot be left behind.
        Err(Errno::EINVAL) => chroot(".")?,
        Err(error) => return Err(error.into()),
    }
    Ok(chdir("/")?)
}
