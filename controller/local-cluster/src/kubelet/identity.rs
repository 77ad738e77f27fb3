//! Which process is which: pids come again, a pid with its start time and boot does not.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;
use std::sync::OnceLock;

/// Which process it is: a pid alone may be another process after a reboot or a wrap of the pid space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start: u64,
    /// The kernel's boot id.
    pub boot: String,
}

impl Identity {
    /// The identity of a living process.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = Stat::of(pid)?;
        (stat.state != 'Z').then(|| Self {
            pid,
            start: stat.start,
            boot: boot_id().to_owned(),
        })
    }

    /// Whether that very process still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Whether the machine was started anew since that process ran.
    #[must_use]
    pub fn is_of_earlier_boot(&self) -> bool {
        self.boot != boot_id()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}@{}", self.pid, self.start, self.boot)
    }
}

impl FromStr for Identity {
    type Err = io::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '@');
        let mut next = || parts.next().ok_or(io::ErrorKind::InvalidData);
        Ok(Self {
            pid: next()?.parse().map_err(io::Error::other)?,
            start: next()?.parse().map_err(io::Error::other)?,
            boot: next()?.to_owned(),
        })
    }
}

/// The id that the kernel gives itself at each start.
pub(crate) fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

/// What `/proc` says of a process.
pub(super) struct Stat {
    pub(super) parent: i32,
    pub(super) state: char,
    start: u64,
}

impl Stat {
    pub(super) fn of(pid: i32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name may hold spaces and parentheses: fields count from the last one.
        let mut fields = line.get(line.rfind(')')? + 2..)?.split(' ');
        Some(Self {
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            start: fields.nth(17)?.parse().ok()?,
        })
    }
}

/// All processes that descend from `root`, without itself.
pub(super) fn descendants(root: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::of(pid)?.parent)))
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| pid),
        );
        next += 1;
    }
    family.split_off(1)
}
