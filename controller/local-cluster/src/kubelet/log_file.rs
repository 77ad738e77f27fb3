//! The log of a run as its supervisor writes it: CRI records in two files, so that its size has a bound.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A line is cut into partial records of at most this many bytes, as CRI runtimes do.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Records are written together up to about this size, which is small against any sensible bound of a log.
const WRITE_BYTES: usize = 16 * 1024;

/// The files of a run's log, the older one first.
pub(super) fn files(run: &Path) -> [PathBuf; 2] {
    let beside = |suffix: &str| {
        let mut name = run.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    };
    [beside(".log.1"), beside(".log")]
}

/// Writes the records of both streams.
pub(super) struct LogFile {
    run: PathBuf,
    /// Opened with the first record: a program that says nothing costs no file.
    file: Option<File>,
    bytes: u64,
    bytes_max: u64,
}

impl LogFile {
    /// Keeps the newest records beside the state file `run`, at least half of `bytes_max` and never more.
    pub(super) fn new(run: PathBuf, bytes_max: u64) -> Self {
        Self {
            run,
            file: None,
            bytes: 0,
            bytes_max,
        }
    }

    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        let [older, current] = files(&self.run);
        let len = records.len() as u64;
        if self.bytes > 0 && self.bytes + len > self.bytes_max / 2 {
            self.file = None;
            fs::rename(&current, older)?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                self.bytes = 0;
                none.insert(File::create(current)?)
            }
        };
        self.bytes += len;
        file.write_all(records)
    }
}

/// One stream of the program.
pub(super) struct Source<R> {
    pub(super) pipe: R,
    name: &'static str,
    /// The beginning of a line whose end is still to come.
    rest: Vec<u8>,
}

impl<R: Read> Source<R> {
    pub(super) fn new(pipe: R, name: &'static str) -> Self {
        Self {
            pipe,
            name,
            rest: Vec::new(),
        }
    }

    /// Takes one buffer of output into the log; `false` at the end of the stream.
    ///
    /// A log that cannot be written still drains the pipe: the program must not block on it.
    pub(super) fn copy(&mut self, buffer: &mut [u8], log: &mut LogFile) -> io::Result<bool> {
        let count = match self.pipe.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            count => count?,
        };
        self.rest
            .extend_from_slice(buffer.get(..count).unwrap_or_default());
        let _ = self.take_records(count == 0, log);
        Ok(count > 0)
    }

    fn take_records(&mut self, at_end: bool, log: &mut LogFile) -> io::Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        let mut written = Ok(());
        let head = format!("{:.9} {} ", Timestamp::now(), self.name);
        let mut push = |tag: &[u8], line: &[u8]| {
            records.extend_from_slice(head.as_bytes());
            records.extend_from_slice(tag);
            records.extend_from_slice(line);
            records.push(b'\n');
            if records.len() >= WRITE_BYTES {
                written = log.write(&records);
                records.clear();
            }
        };
        let mut left = self.rest.as_slice();
        loop {
            let end = left
                .iter()
                .take(LINE_BYTES_MAX)
                .position(|byte| *byte == b'\n');
            if let Some((line, more)) = end.and_then(|end| left.split_at_checked(end)) {
                push(b"F ", line);
                left = more.get(1..).unwrap_or_default();
            } else if let Some((part, more)) = left.split_at_checked(LINE_BYTES_MAX) {
                push(b"P ", part);
                left = more;
            } else {
                break;
            }
        }
        if at_end && !left.is_empty() {
            push(b"P ", left);
            left = &[];
        }
        let kept = left.len();
        self.rest.drain(..self.rest.len() - kept);
        if !records.is_empty() {
            written = log.write(&records);
        }
        written
    }
}
