//! The state file of one run of one container: what a kubelet, its successor and the supervisor tell each other.
//!
//! Facts are lines that are only ever added; a line without its end is none. Whoever finds the file empty under its lock has
//! the run. One file and no directory, since a short Pod costs more for its inodes than for its processes. Nothing here
//! is synced: what a power failure could take with it are facts about processes that it has ended too.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::log_file;

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

/// A line of a state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Fact {
    /// The process that carries out the run.
    Supervisor(String),
    /// The program's process, and when it started.
    Program(String, Timestamp),
    /// How many seconds the program may take to end once it is told to.
    Grace(i64),
    /// How the run ended; the first one counts.
    Exit(Exit),
}

/// The state of a run, by the path of its file.
#[derive(Debug, Clone)]
pub struct Run {
    path: PathBuf,
}

impl Run {
    /// The run that keeps its state in the file `path`, and its log beside it.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The run whose state is in the file `path`, if it is such a file.
    pub(super) fn found(path: PathBuf) -> Option<Self> {
        let number = path.extension()?.to_str()?;
        number.parse::<u32>().ok()?;
        let run = Self::new(path);
        run.first(Some).map(|_| run)
    }

    /// Its state file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the run `by`'s to carry out; `false` when it is another's already.
    ///
    /// # Errors
    /// When the state file cannot be written.
    pub fn claim(&self, by: &Identity) -> io::Result<bool> {
        let file = File::options().create(true).append(true).open(&self.path)?;
        // Held until the file is closed, which the death of this process does too.
        file.lock()?;
        if file.metadata()?.len() > 0 {
            return Ok(false);
        }
        write(&file, &Fact::Supervisor(by.to_string())).map(|()| true)
    }

    fn append(&self, fact: &Fact) -> io::Result<()> {
        write(
            &File::options().create(true).append(true).open(&self.path)?,
            fact,
        )
    }

    /// What `find` makes of the first fact that it knows.
    fn first<T>(&self, find: impl Fn(Fact) -> Option<T>) -> Option<T> {
        let text = fs::read_to_string(&self.path).ok()?;
        let whole = text.get(..text.rfind('\n')?)?;
        whole
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find_map(find)
    }

    /// The process that has claimed the run.
    #[must_use]
    pub fn supervisor(&self) -> Option<Identity> {
        self.first(|fact| match fact {
            Fact::Supervisor(identity) => identity.parse().ok(),
            _ => None,
        })
    }

    /// Notes which process the program is.
    pub(super) fn set_program(&self, program: &Identity, started: Timestamp) -> io::Result<()> {
        self.append(&Fact::Program(program.to_string(), started))
    }

    /// The program's process.
    #[must_use]
    pub fn program(&self) -> Option<Identity> {
        self.first(|fact| match fact {
            Fact::Program(identity, _) => identity.parse().ok(),
            _ => None,
        })
    }

    /// When the program started.
    pub(super) fn started(&self) -> Option<Timestamp> {
        self.first(|fact| match fact {
            Fact::Program(_, started) => Some(started),
            _ => None,
        })
    }

    /// Leaves word of how long the program may take to end once it is told to; what is said later can only be less.
    pub(super) fn set_grace(&self, seconds: i64) -> io::Result<()> {
        self.append(&Fact::Grace(seconds))
    }

    pub(super) fn grace(&self) -> Option<i64> {
        let text = fs::read_to_string(&self.path).ok()?;
        text.lines()
            .filter_map(|line| match serde_json::from_str(line).ok()? {
                Fact::Grace(seconds) => Some(seconds),
                _ => None,
            })
            .min()
    }

    /// Records the end.
    pub(super) fn record(&self, exit: &Exit) -> io::Result<()> {
        self.append(&Fact::Exit(exit.clone()))
    }

    /// How the run ended; nothing while it has not.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.first(|fact| match fact {
            Fact::Exit(exit) => Some(exit),
            _ => None,
        })
    }

    fn remove(&self) {
        let logs = log_file::files(&self.path);
        for file in logs.iter().chain([&self.path]) {
            let _ = fs::remove_file(file);
        }
    }
}

/// Adds a line in one call. It begins with a line's end too, lest one that a killed process left half written takes it along.
fn write(mut file: &File, fact: &Fact) -> io::Result<()> {
    file.write_all(format!("\n{}\n", serde_json::to_string(fact)?).as_bytes())
}

/// The runs of a container, by number from 0: files `CONTAINER.NUMBER` in the directory of the Pod.
#[derive(Debug, Clone)]
pub(super) struct Runs {
    dir: PathBuf,
    container: String,
}

impl Runs {
    pub(super) fn of(root: &Path, uid: &str, container: &str) -> Self {
        Self {
            dir: root.join(uid),
            container: container.to_owned(),
        }
    }

    /// The number of the newest run.
    pub(super) fn newest(&self) -> Option<u32> {
        fs::read_dir(&self.dir)
            .ok()?
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let number = name.to_str()?.strip_prefix(&self.container)?;
                number.strip_prefix('.')?.parse().ok()
            })
            .max()
    }

    pub(super) fn get(&self, number: u32) -> Run {
        Run::new(self.dir.join(format!("{}.{number}", self.container)))
    }

    /// Makes room for a run; of the earlier ones, only the last is still asked for.
    pub(super) fn create(&self, number: u32) -> io::Result<Run> {
        if let Err(error) = fs::create_dir(&self.dir)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            // The directory of all Pods is missing, or there is a true obstacle.
            fs::create_dir_all(&self.dir)?;
        }
        if let Some(old) = number.checked_sub(2) {
            self.get(old).remove();
        }
        Ok(self.get(number))
    }
}
