//! The log of a container as `kubectl logs` wants it: the bytes that the program wrote, in order of their records.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader};

use super::log_file::files;
use super::run::Run;

/// How often a log that is followed is looked at: a run ends only when the logs of its Pods have.
const POLL: Duration = Duration::from_millis(20);
/// Output is given in pieces of about this size.
const PIECE_BYTES: usize = 32 * 1024;
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// What a termination message may take from a log (Kubernetes: `MaxContainerTerminationMessageLogLength` and `…LogLines`).
const MESSAGE_BYTES_MAX: usize = 2048;
const MESSAGE_LINES_MAX: usize = 80;

/// Which part of a log is wanted, and how; the default is all there is now. Named as the parameters of a Pod's `log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Goes on until the run ends.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only what was written at this time or later. `sinceSeconds` counts back from now.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Ends after so many bytes.
    pub limit_bytes: Option<u64>,
    /// The log of the run before the present one.
    pub previous: bool,
    /// The log of the run after so many restarts, and not of the present one. Kubernetes has no such parameter.
    pub restart_count: Option<u32>,
}

/// Why there is no log to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The container has had no run; Kubernetes answers 400.
    #[error("container {0:?} is waiting to start")]
    NotStarted(String),
    /// It has had no run before this one, or its log is no longer kept; Kubernetes answers 400.
    #[error("previous terminated container {0:?} not found")]
    NoPrevious(String),
}

/// The log of a run. The stream ends early if the log cannot be read on.
pub(super) fn read(run: Run, options: LogOptions) -> BoxStream<'static, Bytes> {
    let reader = Reader {
        left: options.limit_bytes.unwrap_or(u64::MAX),
        run,
        options,
        files: None,
        record: Vec::new(),
        skip: 0,
        in_line: false,
        passed: true,
        ending: false,
    };
    stream::unfold(reader, |mut reader| async move {
        let piece = reader.piece().await.ok()?;
        (!piece.is_empty()).then(|| (Bytes::from(piece), reader))
    })
    .boxed()
}

/// The end of a log, for a termination message.
pub(super) fn last_lines(run: &Run) -> Option<String> {
    let text: Vec<u8> = files(run.path())
        .iter()
        .filter_map(|file| fs::read(file).ok())
        .flatten()
        .collect();
    let mut output = Vec::new();
    for record in text.split(|byte| *byte == b'\n').filter_map(Record::parse) {
        output.extend_from_slice(record.text);
        if record.full {
            output.push(b'\n');
        }
    }
    let output = String::from_utf8_lossy(&output);
    let lines: Vec<&str> = output.trim_end_matches('\n').split('\n').collect();
    let lines = lines
        .get(lines.len().saturating_sub(MESSAGE_LINES_MAX)..)?
        .join("\n");
    let from = lines.len().saturating_sub(MESSAGE_BYTES_MAX);
    let from = (from..=lines.len()).find(|at| lines.is_char_boundary(*at))?;
    lines
        .get(from..)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

struct Record<'a> {
    at: &'a str,
    /// Whether it ends its line.
    full: bool,
    text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads `TIME STREAM TAG TEXT`.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let at = std::str::from_utf8(parts.next()?).ok()?;
        let full = parts.nth(1)? == b"F";
        let text = parts.next()?;
        Some(Self { at, full, text })
    }
}

struct Reader {
    run: Run,
    options: LogOptions,
    /// Those still to be read; `None` before the first read.
    files: Option<VecDeque<BufReader<File>>>,
    /// A record that is still being written.
    record: Vec<u8>,
    /// Lines before those wanted.
    skip: u64,
    /// The last record was part of a line.
    in_line: bool,
    /// The line of the last record is wanted.
    passed: bool,
    /// The run was over before the last look at its log.
    ending: bool,
    left: u64,
}

impl Reader {
    /// The next piece of output; empty at the end.
    async fn piece(&mut self) -> io::Result<Vec<u8>> {
        if self.files.is_none() {
            self.open().await?;
        }
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES && self.left > 0 {
            if self.next_record().await? {
                self.take(&mut piece);
            } else if !piece.is_empty() || !self.wait().await? {
                break;
            }
        }
        Ok(piece)
    }

    /// Opens both files, and finds the first line that is wanted.
    async fn open(&mut self) -> io::Result<()> {
        let mut found: VecDeque<BufReader<File>> = VecDeque::new();
        let mut inode = None;
        // The newer one first: if it is rotated in between, it is found twice and not never.
        for path in files(self.run.path()).iter().rev() {
            let file = match File::open(path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let its = file.metadata().await?.ino();
            if inode.replace(its) != Some(its) {
                found.push_front(BufReader::with_capacity(READ_BUFFER_BYTES, file));
            }
        }
        if let Some(wanted) = self.options.tail_lines {
            let mut lines = 0;
            let mut open = false;
            for file in &mut found {
                let mut line = Vec::new();
                while file.read_until(b'\n', &mut line).await? > 0 {
                    if let Some(record) = Record::parse(&line) {
                        open = !record.full;
                        lines += u64::from(record.full);
                    }
                    line.clear();
                }
                file.rewind().await?;
            }
            self.skip = (lines + u64::from(open)).saturating_sub(wanted);
        }
        self.files = Some(found);
        Ok(())
    }

    /// Reads on to the end of a record; `false` at the end of what there is.
    async fn next_record(&mut self) -> io::Result<bool> {
        let files = self.files.get_or_insert_default();
        while let Some(file) = files.front_mut() {
            file.read_until(b'\n', &mut self.record).await?;
            if self.record.last() == Some(&b'\n') {
                return Ok(true);
            }
            if files.len() == 1 {
                break;
            }
            files.pop_front();
        }
        Ok(false)
    }

    /// Waits for more in a log that is followed; `false` when there will be none.
    async fn wait(&mut self) -> io::Result<bool> {
        if !self.options.follow {
            return Ok(false);
        }
        let [_, path] = files(self.run.path());
        let files = self.files.get_or_insert_default();
        let known = match files.front() {
            Some(file) => Some(file.get_ref().metadata().await?.ino()),
            None => None,
        };
        let newest = tokio::fs::metadata(&path)
            .await
            .ok()
            .map(|found| found.ino());
        if newest.is_some() && newest != known {
            files.push_back(BufReader::with_capacity(
                READ_BUFFER_BYTES,
                File::open(path).await?,
            ));
            return Ok(true);
        }
        if self.ending {
            return Ok(false);
        }
        // What was written before the end is read once more after it was seen.
        self.ending = self.run.exit().is_some() || !self.run.path().exists();
        if !self.ending {
            tokio::time::sleep(POLL).await;
        }
        Ok(true)
    }

    /// Turns a record into output.
    fn take(&mut self, piece: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.record);
        let Some(record) = Record::parse(line.strip_suffix(b"\n").unwrap_or(&line)) else {
            return;
        };
        let begins = !std::mem::replace(&mut self.in_line, !record.full);
        if begins {
            let since = self.options.since;
            self.passed = self.skip == 0
                && since
                    .is_none_or(|since| record.at.parse::<Timestamp>().is_ok_and(|at| at >= since));
        }
        if record.full {
            self.skip = self.skip.saturating_sub(1);
        }
        if !self.passed {
            return;
        }
        let from = piece.len();
        if begins && self.options.timestamps {
            piece.extend_from_slice(record.at.as_bytes());
            piece.push(b' ');
        }
        piece.extend_from_slice(record.text);
        if record.full {
            piece.push(b'\n');
        }
        let added = (piece.len() - from) as u64;
        let allowed = added.min(self.left);
        self.left -= allowed;
        piece.truncate(from + usize::try_from(allowed).unwrap_or(usize::MAX));
    }
}
