//! The directory of a run: what was asked for, and the queue that knows how far it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use gangline_worker::exec::shell;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::private::{create_directory, random, state_home};

/// The file that says what a directory was made by.
const FILE: &str = "run.json";

/// The same before it is whole: all that there is when a run is killed at its very begin.
const NEW_FILE: &str = "run.json.new";

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
    /// An earlier run has begun the job.
    pub(super) is_resumed: bool,
    /// Made by this run without being asked for by name.
    own: bool,
    /// Nothing in it is needed any more.
    is_done: AtomicBool,
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
        let is_resumed = match fs::read(&file) {
            Ok(bytes) => {
                check(&path, &bytes, &record)?;
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                refuse_foreign(&path)?;
                write(&path, &file, &record).map_err(|error| {
                    Error::disk(format!("cannot write {}: {error}", file.display()))
                })?;
                false
            }
            Err(error) => {
                return Err(Error::disk(format!(
                    "cannot read {}: {error}",
                    file.display()
                )));
            }
        };
        Ok(Self {
            path,
            token: random(),
            is_resumed,
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
        // It may come from the environment, which another shell does not have.
        let is_given = |word: &String| word.starts_with("--data-dir");
        if !words[..end].iter().any(is_given) {
            words.insert(end, format!("--data-dir={}", self.path.display()));
        }
        shell::line(words)
    }
}

fn check(path: &Path, bytes: &[u8], record: &Record) -> Result<(), Error> {
    let there: Record = serde_json::from_slice(bytes).map_err(|error| {
        Error::usage(format!("{} is damaged: {error}", path.join(FILE).display()))
    })?;
    if there == *record {
        return Ok(());
    }
    let text = format!(
        "{} keeps a run of another command: {}",
        path.display(),
        shell::line(&there.command)
    );
    Err(Error::usage(text).hint("resume it with that command, or take another --data-dir"))
}

/// A directory with other things in it is somebody else's.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    let empty = match fs::read_dir(path) {
        Ok(mut entries) => {
            entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == NEW_FILE))
        }
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

fn write(path: &Path, file: &Path, record: &Record) -> std::io::Result<()> {
    create_directory(path)?;
    let new = path.join(NEW_FILE);
    fs::write(&new, serde_json::to_vec_pretty(record)?)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, file)?;
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<RunDir, Error> {
        RunDir::open(Some(path.to_owned()), vec!["true".into()])
    }

    #[test]
    fn a_directory_that_a_run_had_just_begun_to_make_is_taken_and_a_foreign_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NEW_FILE), "{").unwrap();
        assert!(!open(dir.path()).unwrap().is_resumed);
        assert!(open(dir.path()).unwrap().is_resumed);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let refused = open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("is not empty"), "{refused}");
    }
}
