//! A control group around the supervisor and all that it starts, where this user may make one: what
//! forks without end gets no more processes then, however fast it is.
//!
//! Joining one costs the kernel some milliseconds, so a supervisor does it once and not for each run.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

const PID_MAX: &str = "/proc/sys/kernel/pid_max";
/// Where the kernel's control groups are, as every distribution has them.
const GROUPS: &str = "/sys/fs/cgroup";
const PREFIX: &str = "gangline-";
/// Who is in a group; `0` is whoever writes it.
const MEMBERS: &str = "cgroup.procs";
const MAX: &str = "pids.max";
/// Bounds of memory, and what the kernel did about them: only in the second version of control groups, so that they
/// are in the same group.
const MEMORY_MAX: &str = "memory.max";
const SWAP_MAX: &str = "memory.swap.max";
const MEMORY_EVENTS: &str = "memory.events";
/// What the supervisor itself and the pages of the log may take of the group's memory.
const SUPERVISOR_BYTES: u64 = 8 << 20;

/// The group of this process; it is left and removed with this value.
pub(super) struct Fence {
    dir: PathBuf,
    /// Where this process was before.
    home: PathBuf,
}

impl Fence {
    /// Makes a group and joins it; nothing where that cannot be done.
    fn join() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let (home, parent) = places(&own)?;
        let name = format!("{PREFIX}{}", std::process::id());
        sweep(&parent);
        let dir = parent.join(&name);
        fs::create_dir(&dir).ok()?;
        let is_in = dir.join(MAX).exists() && fs::write(dir.join(MEMBERS), "0").is_ok();
        if !is_in {
            let _ = fs::remove_dir(&dir);
            return None;
        }
        Some(Self { dir, home })
    }

    /// Lets the group have so many processes beside the supervisor.
    pub(super) fn allow(&self, processes: usize) -> io::Result<()> {
        fs::write(self.dir.join(MAX), (processes + 1).to_string())
    }

    /// Lets the group have so many bytes of memory beside the supervisor's, and no swap; without a number, all there is.
    pub(super) fn allow_memory(&self, bytes: Option<u64>) -> io::Result<()> {
        let max = bytes.map(|bytes| bytes.saturating_add(SUPERVISOR_BYTES).to_string());
        // Where there is no swap, there is no bound of it either.
        let swap = if max.is_some() { "0" } else { "max" };
        let _ = set(&self.dir.join(SWAP_MAX), swap);
        set(&self.dir.join(MEMORY_MAX), max.as_deref().unwrap_or("max"))
    }

    /// How many of its processes the kernel has ended for want of memory; nothing where it does not count that.
    pub(super) fn kills(&self) -> Option<u64> {
        let events = fs::read_to_string(self.dir.join(MEMORY_EVENTS)).ok()?;
        let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
        events.lines().find_map(count)
    }

    /// The processes in the group, the supervisor among them.
    pub(super) fn members(&self) -> Option<Vec<i32>> {
        let text = fs::read_to_string(self.dir.join(MEMBERS)).ok()?;
        Some(text.lines().filter_map(|pid| pid.parse().ok()).collect())
    }
}

/// The group to be in from now on, or what there is instead of one.
pub(super) fn around() -> Option<Fence> {
    let fence = Fence::join();
    if fence.is_none() {
        leave_some_numbers();
    }
    fence
}

/// Where no group can be made: leaves a quarter of the numbers that the kernel has for processes to others than this user.
/// Root is not bound by it.
fn leave_some_numbers() {
    let text = fs::read_to_string(PID_MAX).unwrap_or_default();
    let limits = getrlimit(Resource::RLIMIT_NPROC);
    if let (Ok(numbers), Ok((soft, hard))) = (text.trim().parse::<u64>(), limits) {
        let max = numbers / 4 * 3;
        let _ = setrlimit(Resource::RLIMIT_NPROC, soft.min(max), hard.min(max));
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let _ = fs::write(self.home.join(MEMBERS), "0");
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Writes into a file of the group that is there.
fn set(file: &Path, value: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .open(file)?
        .write_all(value.as_bytes())
}

/// The group that counts this process, and where a new one is made: within it, so that no bound is
/// left that others have set. In the second version of control groups there may be none within one that
/// has processes itself, so it is beside the scope of a session, which is there to be ended and not to
/// bound anything.
fn places(own: &str) -> Option<(PathBuf, PathBuf)> {
    let find = |controller: &str| {
        own.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            let is_it = names.split(',').any(|name| name == controller);
            is_it.then(|| path.trim_start_matches('/'))
        })
    };
    if let Some(path) = find("pids") {
        let home = Path::new(GROUPS).join("pids").join(path);
        return Some((home.clone(), home));
    }
    let path = find("")?;
    let home = Path::new(GROUPS).join(path);
    let beside = home.parent().filter(|_| path.ends_with(".scope"));
    let parent = beside.unwrap_or(&home).to_owned();
    Some((home, parent))
}

/// Removes the groups of supervisors that were killed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let is_left = pid.is_some_and(|pid| {
            pid.bytes().all(|byte| byte.is_ascii_digit()) && !Path::new("/proc").join(pid).exists()
        });
        if is_left {
            // One with a process in it cannot be removed.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(own: &str, home: &str, parent: &str) {
        let expected = (PathBuf::from(home), PathBuf::from(parent));
        assert_eq!(places(own), Some(expected), "{own}");
    }

    #[test]
    fn groups_are_made_where_the_kernel_counts_processes() {
        let first = "/sys/fs/cgroup/pids/b/c";
        check("4:cpu,cpuacct:/a\n3:pids:/b/c\n0::/\n", first, first);
        check(
            "0::/user.slice/one.scope\n",
            "/sys/fs/cgroup/user.slice/one.scope",
            "/sys/fs/cgroup/user.slice",
        );
        let service = "/sys/fs/cgroup/system.slice/one.service";
        check("0::/system.slice/one.service\n", service, service);
        check("0::/\n", "/sys/fs/cgroup/", "/sys/fs/cgroup/");
        assert_eq!(places("1:cpu:/\n"), None);
    }
}
