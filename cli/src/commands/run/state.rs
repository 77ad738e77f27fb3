//! The directory of a run: what was asked for, and the queue that knows how far it is.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The file that says what a directory was made by.
const FILE: &str = "run.json";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    version: u32,
    command: Vec<String>,
}

/// An open directory of a run.
#[derive(Debug)]
pub(super) struct RunDir {
    pub(super) path: PathBuf,
    /// The token of this run's service.
    pub(super) token: String,
    /// Made by this run without being asked for by name.
    own: bool,
    /// Nothing in it is needed any more.
    is_done: AtomicBool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a run names itself and its token once, here"
)]
pub(crate) fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

pub(crate) fn state_home() -> Result<PathBuf, Error> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(|| {
            Error::usage("neither HOME nor XDG_STATE_HOME is set").hint("--data-dir DIR")
        })
}

impl RunDir {
    pub(super) fn open(given: Option<PathBuf>, command: Vec<String>) -> Result<Self, Error> {
        let own = given.is_none();
        let path = match given {
            Some(path) => std::path::absolute(path).map_err(Error::disk)?,
            None => state_home()?.join("gangline/runs").join(random()),
        };
        let record = Record {
            version: 1,
            command,
        };
        let file = path.join(FILE);
        match fs::read(&file) {
            Ok(bytes) => check(&path, &bytes, &record)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                refuse_foreign(&path)?;
                write(&path, &file, &record).map_err(|error| {
                    Error::disk(format!("cannot write {}: {error}", file.display()))
                })?;
            }
            Err(error) => {
                return Err(Error::disk(format!(
                    "cannot read {}: {error}",
                    file.display()
                )));
            }
        }
        Ok(Self {
            path,
            token: random(),
            own,
            is_done: AtomicBool::new(false),
        })
    }

    /// Says that nobody needs the directory any more.
    pub(super) fn forget_if_new(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }

    /// Removes a directory that nobody asked for and nobody needs any more; nobody may write into
    /// it by now.
    pub(super) fn close(self) {
        if self.own && self.is_done.into_inner() {
            // What stays behind is only disk space.
            let _ = fs::remove_dir_all(&self.path);
        }
    }

    /// Says where the job is kept, to whoever may want to go on with it.
    pub(super) fn note(&self) {
        let path = self.path.display();
        crate::output::note(format_args!(
            "the job is kept in {path}; to go on with it: {}",
            self.resume_command()
        ));
    }

    /// Returns what to type to go on where this run has stopped.
    pub(super) fn resume_command(&self) -> String {
        let words = std::env::args_os();
        let mut words: Vec<String> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let end = words
            .iter()
            .position(|word| word == "--")
            .unwrap_or(words.len());
        if self.own {
            words.insert(end, format!("--data-dir={}", self.path.display()));
        }
        words
            .iter()
            .map(|word| quote(word))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn check(path: &Path, bytes: &[u8], record: &Record) -> Result<(), Error> {
    let there: Record = serde_json::from_slice(bytes).map_err(|error| {
        Error::usage(format!("{} is damaged: {error}", path.join(FILE).display()))
    })?;
    if there == *record {
        return Ok(());
    }
    let was: Vec<String> = there.command.iter().map(|word| quote(word)).collect();
    let text = format!(
        "{} keeps a run of another command: {}",
        path.display(),
        was.join(" ")
    );
    Err(Error::usage(text).hint("resume it with that command, or take another --data-dir"))
}

/// A directory with other things in it is somebody else's.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    let empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => {
            return Err(Error::usage(format!(
                "cannot use {}: {error}",
                path.display()
            )));
        }
    };
    if empty {
        return Ok(());
    }
    let text = format!(
        "{} is not empty, and not the directory of a run",
        path.display()
    );
    Err(Error::usage(text).hint("take an empty or a new one for --data-dir"))
}

/// Makes a directory that others may not look into: items and results are in it.
pub(crate) fn create_private(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn write(path: &Path, file: &Path, record: &Record) -> std::io::Result<()> {
    create_private(path)?;
    let new = path.join("run.json.new");
    fs::write(&new, serde_json::to_vec_pretty(record)?)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, file)?;
    fs::File::open(path)?.sync_all()
}

/// Quotes a word for a POSIX shell.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quote("a/b.c"), "a/b.c");
        assert_eq!(quote("it's $1"), r"'it'\''s $1'");
        assert_eq!(quote(""), "''");
    }
}
