//! The log on disk: commits appended, synced together, and read back after a crash.
//!
//! A data directory holds `lock`, at most one live `snapshot-N.gl`, and the segments
//! `log-N.gl`, `log-N+1.gl`, … that came after it. Every file begins with a header of 16 bytes
//! (`GANGLINE`, version, zero); then frames follow: length (4 bytes, little-endian), CRC-32 of
//! sequence number and content (4), sequence number of the commit (8), content. A length of zero
//! ends a segment: files are made at their full size in zeros, since a sync that changes no file
//! size costs half.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::queue::fact::FACTS_VERSION;

const MAGIC: &[u8; 8] = b"GANGLINE";
const HEADER_BYTES: u64 = 16;
const FRAME_BYTES: usize = 16;

/// Size at which a new segment is begun, in bytes.
const SEGMENT_BYTES: u64 = 32 << 20;

/// How much is filled with zeros at a time, in bytes.
const ZEROS_BYTES: u64 = 4 << 20;

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
    log_bytes: u64,
    snapshot_bytes: u64,
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
            log_bytes: 0,
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

    fn new_segment(&mut self, number: u64) -> io::Result<()> {
        let path = self.path("log", number);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)?;
        file.write_all_at(&header(), 0)?;
        let mut segment = Segment {
            number,
            file,
            end: HEADER_BYTES,
            zeroed: HEADER_BYTES,
        };
        segment.fill(ZEROS_BYTES)?;
        segment.file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        self.segment = Some(segment);
        Ok(())
    }

    /// Reads the frames of a file and returns where they end.
    fn read_frames(
        &mut self,
        path: &Path,
        is_last: bool,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut bytes = Vec::new();
        File::open(path)?.read_to_end(&mut bytes)?;
        let damaged = |at: usize| {
            let text = format!("{} is damaged at byte {at}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        if bytes.len() < HEADER_BYTES as usize || bytes[..8] != *MAGIC {
            return Err(damaged(0));
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if version != FACTS_VERSION {
            let text = format!(
                "{} has layout version {version}; this program reads version {FACTS_VERSION}",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut at = HEADER_BYTES as usize;
        while let Some((sequence, content, end)) = frame_at(&bytes, at) {
            if sequence < self.next_sequence {
                break;
            }
            each(content)?;
            self.next_sequence = sequence + 1;
            at = end;
        }
        let ended = bytes[at..].iter().take(4).all(|byte| *byte == 0);
        // A frame that a crash tore apart can only be the very last one.
        if !ended && !is_last {
            return Err(damaged(at));
        }
        Ok(at as u64)
    }
}

fn header() -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FACTS_VERSION.to_le_bytes());
    header
}

/// Returns sequence number, content and end of the whole frame at a place, if there is one.
fn frame_at(bytes: &[u8], at: usize) -> Option<(u64, &[u8], usize)> {
    let head = bytes.get(at..at + FRAME_BYTES)?;
    let len = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    if len == 0 {
        return None;
    }
    let crc = u32::from_le_bytes(head[4..8].try_into().ok()?);
    let sequence = u64::from_le_bytes(head[8..16].try_into().ok()?);
    let content = bytes.get(at + FRAME_BYTES..at + FRAME_BYTES + len)?;
    (checksum(sequence, content) == crc).then_some((sequence, content, at + FRAME_BYTES + len))
}

fn checksum(sequence: u64, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

fn write_frame(frame: &mut Vec<u8>, sequence: u64, content: &[u8]) -> io::Result<()> {
    let len = u32::try_from(content.len()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "a commit is larger than 4 GiB")
    })?;
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&checksum(sequence, content).to_le_bytes());
    frame.extend_from_slice(&sequence.to_le_bytes());
    frame.extend_from_slice(content);
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
            // Frames of a snapshot are numbered from 1; the log after it goes its own way.
            self.snapshot_bytes = self.read_frames(&path, false, each)?;
            self.next_sequence = 1;
        }
        let segments = self.numbers("log")?;
        for number in segments
            .iter()
            .copied()
            .filter(|number| *number <= snapshot)
        {
            fs::remove_file(self.path("log", number))?;
        }
        let segments: Vec<u64> = segments.into_iter().filter(|n| *n > snapshot).collect();
        for number in &segments {
            let path = self.path("log", *number);
            let is_last = Some(number) == segments.last();
            // A crash can leave a last segment without its header: it has nothing to tell.
            if is_last && fs::metadata(&path)?.len() < HEADER_BYTES {
                continue;
            }
            self.log_bytes += self.read_frames(&path, is_last, each)?;
        }
        self.new_segment(segments.last().copied().unwrap_or(snapshot) + 1)
    }

    fn append(&mut self, commit: &[u8]) -> io::Result<()> {
        self.frame.clear();
        let mut frame = std::mem::take(&mut self.frame);
        write_frame(&mut frame, self.next_sequence, commit)?;
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
            segment.fill(ZEROS_BYTES.max(frame.len() as u64 + 4))?;
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
        self.segment
            .as_ref()
            .map_or(Ok(()), |segment| segment.file.sync_data())
    }

    fn wants_snapshot(&self) -> bool {
        self.log_bytes > SNAPSHOT_AFTER_BYTES.max(2 * self.snapshot_bytes)
    }

    fn snapshot(&mut self, parts: &mut dyn Iterator<Item = Vec<u8>>) -> io::Result<()> {
        let last = self.segment.as_ref().map_or(0, |segment| segment.number);
        let unfinished = self.dir.join("snapshot.unfinished");
        let mut file = io::BufWriter::new(File::create(&unfinished)?);
        file.write_all(&header())?;
        let mut bytes = HEADER_BYTES;
        let mut frame = Vec::new();
        for (sequence, part) in (1..).zip(parts) {
            frame.clear();
            write_frame(&mut frame, sequence, &part)?;
            file.write_all(&frame)?;
            bytes += frame.len() as u64;
        }
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&unfinished, self.path("snapshot", last))?;
        File::open(&self.dir)?.sync_all()?;
        self.next_sequence = 1;
        self.new_segment(last + 1)?;
        for number in self
            .numbers("log")?
            .into_iter()
            .filter(|number| *number <= last)
        {
            fs::remove_file(self.path("log", number))?;
        }
        for number in self
            .numbers("snapshot")?
            .into_iter()
            .filter(|number| *number < last)
        {
            fs::remove_file(self.path("snapshot", number))?;
        }
        self.log_bytes = 0;
        self.snapshot_bytes = bytes;
        Ok(())
    }
}
