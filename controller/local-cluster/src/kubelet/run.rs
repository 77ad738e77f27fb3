//! The directory of one run of one container: what a kubelet, its successor and the supervisor tell each other.
//!
//! A process is named by a symbolic link: it is made and filled in one step, and by one of two only. Nothing here is
//! synced: what a power failure could take with it are facts about processes that it has ended too.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 plus the signal for a program that a signal ended.
    pub code: i32,
    /// Kubernetes' reason when it is not simply `Completed` or `Error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What went wrong, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the program started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

impl Exit {
    /// An end that no program had: it did not start, or nobody saw how it ended.
    #[must_use]
    pub fn without_program(code: i32, reason: &str, message: String) -> Self {
        let now = Timestamp::now();
        Self {
            code,
            reason: Some(reason.to_owned()),
            message: Some(message),
            started: now,
            finished: now,
        }
    }
}

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

fn boot_id() -> &'static str {
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

/// The directory of a run.
#[derive(Debug, Clone)]
pub struct Run {
    dir: PathBuf,
}

impl Run {
    /// The run that keeps its state in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where it keeps its state.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the run `by`'s to carry out; `false` when it is another's already.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn claim(&self, by: &Identity) -> io::Result<bool> {
        match symlink(by.to_string(), self.dir.join("supervisor")) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// The process that has claimed the run.
    #[must_use]
    pub fn supervisor(&self) -> Option<Identity> {
        read_identity(&self.dir.join("supervisor"))
    }

    /// Notes which process the program is.
    pub(super) fn set_program(&self, program: &Identity) -> io::Result<()> {
        symlink(program.to_string(), self.dir.join("program"))
    }

    /// The program's process.
    #[must_use]
    pub fn program(&self) -> Option<Identity> {
        read_identity(&self.dir.join("program"))
    }

    /// When the program started.
    pub(super) fn started(&self) -> Option<Timestamp> {
        let made =
            fs::symlink_metadata(self.dir.join("program")).and_then(|found| found.modified());
        Timestamp::try_from(made.ok()?).ok()
    }

    /// Leaves word of how long the program may take to end once it is told to.
    pub(super) fn set_grace(&self, seconds: i64) -> io::Result<()> {
        fs::write(self.dir.join("grace"), seconds.to_string())
    }

    pub(super) fn grace(&self) -> Option<i64> {
        fs::read_to_string(self.dir.join("grace"))
            .ok()?
            .parse()
            .ok()
    }

    /// Records the end, so that a reader sees all of it or nothing.
    pub(super) fn record(&self, exit: &Exit) -> io::Result<()> {
        let fresh = self.dir.join("exit.new");
        fs::write(&fresh, serde_json::to_vec(exit)?)?;
        fs::rename(fresh, self.dir.join("exit.json"))
    }

    /// How the run ended; nothing while it has not.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        serde_json::from_slice(&fs::read(self.dir.join("exit.json")).ok()?).ok()
    }
}

fn read_identity(link: &Path) -> Option<Identity> {
    fs::read_link(link).ok()?.to_str()?.parse().ok()
}

/// The runs of a container, by number from 0.
#[derive(Debug, Clone)]
pub(super) struct Runs {
    dir: PathBuf,
}

impl Runs {
    pub(super) fn of(root: &Path, uid: &str, container: &str) -> Self {
        Self {
            dir: root.join(uid).join(container),
        }
    }

    /// The number of the newest run.
    pub(super) fn newest(&self) -> Option<u32> {
        fs::read_dir(&self.dir)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .max()
    }

    pub(super) fn get(&self, number: u32) -> Run {
        Run::new(self.dir.join(number.to_string()))
    }

    /// Makes the directory of a run; of the earlier ones, only the last is still asked for.
    pub(super) fn create(&self, number: u32) -> io::Result<Run> {
        let run = self.get(number);
        fs::create_dir_all(&run.dir)?;
        if let Some(old) = number.checked_sub(2) {
            let _ = fs::remove_dir_all(self.get(old).dir);
        }
        Ok(run)
    }
}
