//! The log on disk: commits appended, synced together, and read back after a crash.
//!
//! A data directory holds `lock`, at most one live `snapshot-N.gl`, and the segments
//! `log-N+1.gl`, `log-N+2.gl`, … that came after it. Every file begins with a header of 24 bytes
//! (`GANGLINE`, version, zero, sequence number of the first commit in or after it); then frames
//! follow: length (4 bytes, little-endian), CRC-32 of the rest (4), sequence number of the commit
//! (8), number of the last commit that was synced before (8), content. A length of zero ends a
//! segment: files are made at their full size in zeros, since a sync that changes no file size
//! costs half. A snapshot ends with a frame without content.
//!
//! A frame that cannot be read is what a crash left of an unsynced commit, unless a later frame
//! says that this commit had been synced: then the file is damaged, and loading it fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::queue::fact::FACTS_VERSION;

const MAGIC: &[u8; 8] = b"GANGLINE";
const HEADER_BYTES: u64 = 24;
const FRAME_BYTES: usize = 24;

/// Size at which a new segment is begun, in bytes.
const SEGMENT_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 32 << 20 };

/// How much is filled with zeros at a time, at most and at first, in bytes. It doubles in between,
/// so that a queue of a few items opens fast.
const ZEROS_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 4 << 20 };
const FIRST_ZEROS_BYTES: u64 = ZEROS_BYTES / 16;

/// Snapshots are taken when the log since the last one has grown beyond this, in bytes, and
/// beyond twice the snapshot, so that their cost stays in proportion to what is written.
const SNAPSHOT_AFTER_BYTES: u64 = 64 << 20;

/// Something that keeps commits; the real one, or one that fails when a test wants it to.
pub trait Disk: Send + 'static {
    /// Gives every kept commit to `each`, oldest first. Called once, before anything is appended.
    ///
    /// # Errors
    ///
    /// When a commit cannot be read, or is damaged where no crash can have damaged it.
    fn load(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;

    /// Appends a commit. It survives the process, not yet the machine.
    ///
    /// # Errors
    ///
    /// When it cannot be written; nothing may be appended any more.
    fn append(&mut self, commit: &[u8]) -> io::Result<()>;

    /// Makes all that was appended survive the machine.
    ///
    /// # Errors
    ///
    /// When that is not certain; nothing may be appended any more.
    fn sync(&mut self) -> io::Result<()>;

    /// Tells whether the log has grown so much that a snapshot pays.
    fn wants_snapshot(&self) -> bool;

    /// Puts a snapshot in the place of everything appended so far.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the log is as it was.
    fn snapshot(&mut self, parts: &mut dyn Iterator<Item = Vec<u8>>) -> io::Result<()>;
}

/// A data directory.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    _lock: File,
    segment: Option<Segment>,
    next_sequence: u64,
    synced: u64,
    log_bytes: u64,
    /// Log bytes at the last snapshot that failed: another is not tried at once.
    snapshot_after: u64,
    snapshot_bytes: u64,
    /// A write or sync has failed: what is on the disk is not known.
    broken: bool,
    frame: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    file: File,
    end: u64,
    zeroed: u64,
}

impl DataDir {
    /// Opens a data directory, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when another process has it open; anything else that the file system says.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                format!(
                    "data directory {} is in use by another process",
                    dir.display()
                ),
            ),
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
            segment: None,
            next_sequence: 1,
            synced: 0,
            log_bytes: 0,
            snapshot_after: 0,
            broken: false,
            snapshot_bytes: 0,
            frame: Vec::new(),
        })
    }

    fn path(&self, kind: &str, number: u64) -> PathBuf {
        self.dir.join(format!("{kind}-{number:010}.gl"))
    }

    /// Returns the numbers of the files of a kind, smallest first.
    fn numbers(&self, kind: &str) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let number = name
                .strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix('-'));
            let number = number.and_then(|rest| rest.strip_suffix(".gl"));
            numbers.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes what a snapshot has made superfluous.
    fn remove_up_to(&self, snapshot: u64) -> io::Result<()> {
        for number in self.numbers("log")?.into_iter().filter(|n| *n <= snapshot) {
            fs::remove_file(self.path("log", number))?;
        }
        for number in self
            .numbers("snapshot")?
            .into_iter()
            .filter(|n| *n < snapshot)
        {
            fs::remove_file(self.path("snapshot", number))?;
        }
        Ok(())
    }

    fn new_segment(&mut self, number: u64) -> io::Result<()> {
        let path = self.path("log", number);
        let segment = self.make_segment(&path, number);
        if segment.is_err() && fs::exists(&path)? {
            // The log goes on in the segment before: nothing may seem to come after that.
            self.broken = true;
            fs::remove_file(&path)?;
            self.broken = false;
        }
        self.segment = Some(segment?);
        Ok(())
    }

    fn make_segment(&self, path: &Path, number: u64) -> io::Result<Segment> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)?;
        file.write_all_at(&header(self.next_sequence), 0)?;
        let mut segment = Segment {
            number,
            file,
            end: HEADER_BYTES,
            zeroed: HEADER_BYTES,
        };
        segment.fill(FIRST_ZEROS_BYTES)?;
        segment.file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        Ok(segment)
    }

    /// Gives the frames of a file to `each`.
    fn read_frames(
        &mut self,
        path: &Path,
        kind: Kind,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let bytes = fs::read(path)?;
        let first = first_sequence(&bytes, path)?;
        if kind == Kind::Snapshot {
            // Frames of a snapshot are numbered from 1; the header says where the log goes on.
            self.next_sequence = 1;
        } else if first != self.next_sequence {
            return Err(damaged(path, HEADER_BYTES as usize - 8));
        }
        let mut at = HEADER_BYTES as usize;
        let mut finished = false;
        while let Some(frame) = frame_at(&bytes, at)
            && frame.sequence == self.next_sequence
        {
            finished = frame.content.is_empty();
            each(frame.content).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{} at byte {at}: {error}", path.display()),
                )
            })?;
            self.next_sequence += 1;
            at = frame.end;
        }
        let ended = bytes[at..].iter().take(4).all(|byte| *byte == 0);
        match kind {
            Kind::Snapshot if !finished => return Err(damaged(path, at)),
            Kind::Snapshot => self.next_sequence = first,
            Kind::Segment if !ended => return Err(damaged(path, at)),
            Kind::Segment => {}
            Kind::LastSegment => {
                if was_synced(&bytes, at, self.next_sequence) {
                    return Err(damaged(path, at));
                }
                // What was read is shown from now on, and what was not must never come back.
                let file = OpenOptions::new().write(true).open(path)?;
                file.set_len(at as u64)?;
                file.sync_all()?;
            }
        }
        Ok(at as u64)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Snapshot,
    Segment,
    /// The one that a crash may have torn.
    LastSegment,
}

#[derive(Debug)]
struct Frame<'a> {
    sequence: u64,
    synced: u64,
    content: &'a [u8],
    end: usize,
}

fn damaged(path: &Path, at: usize) -> io::Error {
    let text = format!("{} is damaged at byte {at}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn header(first_sequence: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FACTS_VERSION.to_le_bytes());
    header[16..].copy_from_slice(&first_sequence.to_le_bytes());
    header
}

/// Tells whether a segment was being made when a crash came: it holds nothing yet.
///
/// Its header and zeros are synced before anything else is written to it.
fn is_unfinished(path: &Path) -> io::Result<bool> {
    let bytes = fs::read(path)?;
    let header_bytes = bytes.len().min(HEADER_BYTES as usize);
    let torn =
        header_bytes < HEADER_BYTES as usize || bytes[..8] != *MAGIC || bytes[16..24] == [0; 8];
    Ok(torn && bytes[header_bytes..].iter().all(|byte| *byte == 0))
}

/// Checks the header of a file and returns the sequence number in it.
fn first_sequence(bytes: &[u8], path: &Path) -> io::Result<u64> {
    if bytes.len() < HEADER_BYTES as usize || bytes[..8] != *MAGIC {
        return Err(damaged(path, 0));
    }
    let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if !(1..=FACTS_VERSION).contains(&version) {
        let text = format!(
            "{} has layout version {version}; this program reads versions 1 to {FACTS_VERSION}",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    number_at(bytes, 16).ok_or_else(|| damaged(path, 16))
}

fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    let number = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(number.try_into().ok()?))
}

/// Returns the whole frame at a place, if there is one.
fn frame_at(bytes: &[u8], at: usize) -> Option<Frame<'_>> {
    let head = bytes.get(at..at + FRAME_BYTES)?;
    let len = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(head[4..8].try_into().ok()?);
    let sequence = number_at(head, 8)?;
    let end = (at + FRAME_BYTES).checked_add(len)?;
    let content = bytes.get(at + FRAME_BYTES..end)?;
    // Zeros are no frame; neither the first sequence number nor a checksum of zeros is zero.
    if sequence == 0 || crc32fast::hash(&bytes[at + 8..end]) != crc {
        return None;
    }
    Some(Frame {
        sequence,
        synced: number_at(head, 16)?,
        content,
        end,
    })
}

/// Tells whether a frame after a place says that a commit had been synced.
fn was_synced(bytes: &[u8], at: usize, sequence: u64) -> bool {
    (at + 1..bytes.len().saturating_sub(FRAME_BYTES)).any(|at| {
        // Cheap to look at first: a frame that says so has a number in reach.
        number_at(bytes, at + 8)
            .is_some_and(|number| number > sequence && number - sequence < 1 << 32)
            && frame_at(bytes, at).is_some_and(|frame| frame.synced >= sequence)
    })
}

fn write_frame(frame: &mut Vec<u8>, sequence: u64, synced: u64, content: &[u8]) -> io::Result<()> {
    let len = u32::try_from(content.len()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "a commit is larger than 4 GiB")
    })?;
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&sequence.to_le_bytes());
    frame.extend_from_slice(&synced.to_le_bytes());
    frame.extend_from_slice(content);
    let crc = crc32fast::hash(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

impl Segment {
    /// Writes zeros ahead, so that commits change no file size.
    fn fill(&mut self, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let end = self.zeroed + bytes;
        while self.zeroed < end {
            let count = (end - self.zeroed).min(zeros.len() as u64);
            self.file
                .write_all_at(&zeros[..count as usize], self.zeroed)?;
            self.zeroed += count;
        }
        Ok(())
    }
}

impl Disk for DataDir {
    fn load(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let snapshot = self.numbers("snapshot")?.last().copied().unwrap_or(0);
        if snapshot > 0 {
            let path = self.path("snapshot", snapshot);
            self.snapshot_bytes = self.read_frames(&path, Kind::Snapshot, each)?;
        }
        self.remove_up_to(snapshot)?;
        let mut segments = self.numbers("log")?;
        if let Some(last) = segments.last().copied()
            && is_unfinished(&self.path("log", last))?
        {
            fs::remove_file(self.path("log", last))?;
            segments.pop();
        }
        for (number, expected) in segments.iter().zip(snapshot + 1..) {
            if *number != expected {
                let path = self.path("log", expected);
                let text = format!("{} is missing", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            let is_last = Some(number) == segments.last();
            let kind = if is_last {
                Kind::LastSegment
            } else {
                Kind::Segment
            };
            self.log_bytes += self.read_frames(&self.path("log", *number), kind, each)?;
        }
        self.synced = self.next_sequence - 1;
        self.new_segment(segments.last().copied().unwrap_or(snapshot) + 1)
    }

    fn append(&mut self, commit: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier sync of the log has failed"));
        }
        self.frame.clear();
        let mut frame = std::mem::take(&mut self.frame);
        write_frame(&mut frame, self.next_sequence, self.synced, commit)?;
        let full = self
            .segment
            .as_ref()
            .is_none_or(|segment| segment.end >= SEGMENT_BYTES);
        if full {
            let number = self
                .segment
                .as_ref()
                .map_or(1, |segment| segment.number + 1);
            // What was appended to the old segment must not be younger than the new one.
            self.sync()?;
            self.new_segment(number)?;
        }
        let segment = self.segment.as_mut().expect("a segment was opened");
        let end = segment.end + frame.len() as u64;
        if end + 4 > segment.zeroed {
            let bytes = segment.zeroed.min(ZEROS_BYTES);
            segment.fill(bytes.max(frame.len() as u64 + 4))?;
        }
        segment.file.write_all_at(&frame, segment.end)?;
        segment.end = end;
        self.log_bytes += frame.len() as u64;
        self.next_sequence += 1;
        frame.shrink_to(1 << 20);
        self.frame = frame;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(segment) = &self.segment {
            // After a sync that failed, the next one says nothing about what was written before.
            self.broken = true;
            segment.file.sync_data()?;
            self.broken = false;
            self.synced = self.next_sequence - 1;
        }
        Ok(())
    }

    fn wants_snapshot(&self) -> bool {
        self.log_bytes > self.snapshot_after + SNAPSHOT_AFTER_BYTES.max(2 * self.snapshot_bytes)
    }

    fn snapshot(&mut self, parts: &mut dyn Iterator<Item = Vec<u8>>) -> io::Result<()> {
        let covered = self.segment.as_ref().map_or(0, |segment| segment.number);
        self.snapshot_after = self.log_bytes;
        // The log goes on in a segment that the snapshot does not cover, whether or not there
        // will be a snapshot.
        self.sync()?;
        self.new_segment(covered + 1)?;
        let unfinished = self.dir.join("snapshot.unfinished");
        let bytes = match write_snapshot(&unfinished, self.next_sequence, parts) {
            Ok(bytes) => bytes,
            Err(error) => {
                // It may be what fills the disk.
                let _ = fs::remove_file(&unfinished);
                return Err(error);
            }
        };
        fs::rename(&unfinished, self.path("snapshot", covered))?;
        File::open(&self.dir)?.sync_all()?;
        self.log_bytes = 0;
        self.snapshot_after = 0;
        self.snapshot_bytes = bytes;
        self.remove_up_to(covered)
    }
}

fn write_snapshot(
    path: &Path,
    next_sequence: u64,
    parts: &mut dyn Iterator<Item = Vec<u8>>,
) -> io::Result<u64> {
    let mut file = io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&header(next_sequence))?;
    let mut bytes = HEADER_BYTES;
    let mut frame = Vec::new();
    for (sequence, part) in (1..).zip(parts.chain(std::iter::once(Vec::new()))) {
        frame.clear();
        write_frame(&mut frame, sequence, 0, &part)?;
        file.write_all(&frame)?;
        bytes += frame.len() as u64;
    }
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
