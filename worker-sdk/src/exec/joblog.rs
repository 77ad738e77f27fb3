//! A line for each run of a program, in the columns of GNU parallel's `--joblog`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::child::Exit;
use super::process::Ended;
use super::shell;

const HEADER: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";
/// What GNU parallel calls this machine.
const HOST: &str = ":";

/// A file that several workers may write to at a time.
#[derive(Debug)]
pub struct JobLog {
    file: File,
}

/// A run that is to be noted once it has ended.
#[derive(Debug)]
pub(super) struct Entry {
    /// The item's number.
    pub(super) seq: u64,
    pub(super) command: String,
    /// Bytes that go to the program's stdin.
    pub(super) sent: usize,
    started: SystemTime,
}

impl Entry {
    #[expect(
        clippy::disallowed_methods,
        reason = "a note for people; nothing is decided by it"
    )]
    pub(super) fn start(seq: u64, arguments: &[String], stdin: Option<&str>) -> Self {
        Self {
            seq,
            command: shell::line(arguments),
            sent: stdin.map_or(0, str::len),
            started: SystemTime::now(),
        }
    }
}

impl JobLog {
    /// Begins a log; what was in the file is gone.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(HEADER.as_bytes())?;
        Ok(Self { file })
    }

    /// Opens a log to be gone on with; a new one begins with the names of its columns.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.append(true);
        let file = match options.clone().create_new(true).open(path) {
            Ok(mut file) => {
                file.write_all(HEADER.as_bytes())?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path)?,
            Err(error) => return Err(error),
        };
        Ok(Self { file })
    }

    /// Notes a run in one write, so that the lines of several workers stay apart.
    pub(super) fn note(&self, entry: Entry, ended: &Ended) -> io::Result<()> {
        let runtime = entry.started.elapsed().unwrap_or_default();
        (&self.file).write_all(line(entry, runtime, ended).as_bytes())
    }
}

fn line(entry: Entry, runtime: Duration, ended: &Ended) -> String {
    let Entry {
        seq,
        command,
        sent,
        started,
    } = entry;
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    // -1: ended by us, or never begun; no program can answer that.
    let (received, code, signal) = match ended {
        Ended::Exited { exit, stdout, .. } => match exit {
            Exit::Code(code) => (stdout.len(), *code, 0),
            Exit::Signal(signal) => (stdout.len(), 0, *signal as i32),
        },
        Ended::TooLong(_) | Ended::TooMuch | Ended::Cancelled => {
            (0, -1, nix::sys::signal::Signal::SIGTERM as i32)
        }
        Ended::NotStarted(_) => (0, -1, 0),
    };
    format!(
        "{seq}\t{HOST}\t{:.3}\t{:10.3}\t{sent}\t{received}\t{code}\t{signal}\t{command}\n",
        started.as_secs_f64(),
        runtime.as_secs_f64(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(ended: Ended) -> String {
        let entry = Entry {
            seq: 7,
            command: "wc -l 'a b'".into(),
            sent: 3,
            started: UNIX_EPOCH + Duration::from_millis(1_500),
        };
        line(entry, Duration::from_millis(12), &ended)
    }

    fn exited(exit: Exit) -> Ended {
        Ended::Exited {
            exit,
            stdout: b"12345".to_vec(),
            stderr: Vec::new(),
        }
    }

    #[test]
    fn a_line_has_the_columns_of_gnu_parallel() {
        let start = "7\t:\t1.500\t     0.012\t3\t";
        let end = "\twc -l 'a b'\n";
        let cases = [
            (exited(Exit::Code(4)), "5\t4\t0"),
            (
                exited(Exit::Signal(nix::sys::signal::Signal::SIGKILL)),
                "5\t0\t9",
            ),
            (Ended::TooLong(Duration::ZERO), "0\t-1\t15"),
            (Ended::NotStarted(io::Error::other("no")), "0\t-1\t0"),
        ];
        for (ended, middle) in cases {
            assert_eq!(line_of(ended), format!("{start}{middle}{end}"));
        }
    }

    #[test]
    fn a_log_is_gone_on_with_and_has_one_heading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for seq in [1, 2] {
            let log = JobLog::open(&path).unwrap();
            let entry = Entry::start(seq, &["true".into()], None);
            log.note(entry, &exited(Exit::Code(0))).unwrap();
        }
        let text = std::fs::read_to_string(path).unwrap();
        let firsts: Vec<_> = text.lines().map(|line| line.split('\t').next()).collect();
        assert_eq!(firsts, [Some("Seq"), Some("1"), Some("2")]);
    }
}
