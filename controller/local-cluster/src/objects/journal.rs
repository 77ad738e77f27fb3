//! The objects on disk: a log of every change, and from time to time a snapshot in its place.
//!
//! A record is in the file before anybody sees its change, so that the end of this process loses
//! nothing; it is safe from the end of the machine when [`Journal::synced`] says so. Records are read
//! in any order: of each object, the newest version counts. Events are not kept.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::resource::Resource;
use super::{Object, Place};

/// A log of this size is replaced by a snapshot.
pub(super) const LOG_BYTES_MAX: u64 = 64 << 20;
/// Versions are promised to the disk so many at a time: those of a range are never given again.
const RESERVED: u64 = 1 << 20;

const SNAPSHOT: &str = "objects.snapshot";

/// Why the objects cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("failed to read or write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("another server keeps its objects in {}", .0.display())]
    InUse(PathBuf),
    #[error("{} is damaged at byte {at}", path.display())]
    Damaged { path: PathBuf, at: u64 },
}

/// What was found on disk.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) objects: Vec<(Resource, Value, u64)>,
    /// No version up to here may be given again.
    pub(crate) version: u64,
}

/// One record of a file.
#[derive(Debug, Deserialize)]
struct Record {
    /// A version, or with nothing else the end of a reserved range.
    version: u64,
    resource: Option<String>,
    object: Option<Value>,
    /// Namespace and name of an object that is gone.
    gone: Option<(String, String)>,
}

#[derive(Debug)]
struct Log {
    file: File,
    number: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    log_bytes_max: u64,
    log: Mutex<Log>,
    /// Records written, ever.
    written: AtomicU64,
    reserved: AtomicU64,
    has_failed: AtomicBool,
    /// How many records are safe.
    synced: watch::Sender<u64>,
    /// Wakes the thread that waits for the disk; what is in it already wakes it for all.
    wake: SyncSender<()>,
    /// Held as long as this server keeps its objects here, its thread included.
    _lock: File,
}

/// The log that is written to.
#[derive(Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    /// What [`start`](Self::start) takes.
    woken: Mutex<Option<Receiver<()>>>,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    |source| JournalError::Io { path, source }
}

fn log_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("objects.{number:010}.log"))
}

fn append_line(line: &mut Vec<u8>, json: &[u8]) {
    let sum = crc32fast::hash(json);
    line.extend_from_slice(format!("{sum:08x} ").as_bytes());
    line.extend_from_slice(json);
    line.push(b'\n');
}

fn put(resource: Resource, object: &Object) -> Vec<u8> {
    let mut json = format!(
        r#"{{"version":{},"resource":"{}","object":"#,
        object.version(),
        resource.qualified()
    )
    .into_bytes();
    json.extend_from_slice(object.bytes());
    json.push(b'}');
    json
}

fn gone(resource: Resource, object: &Object) -> Vec<u8> {
    let place = serde_json::json!([object.namespace(), object.name()]);
    format!(
        r#"{{"version":{},"resource":"{}","gone":{place}}}"#,
        object.version(),
        resource.qualified()
    )
    .into_bytes()
}

fn reservation(version: u64) -> Vec<u8> {
    format!(r#"{{"version":{version}}}"#).into_bytes()
}

/// Whether a resource is kept on disk.
fn is_kept(resource: Resource) -> bool {
    resource != Resource::Events
}

impl Journal {
    /// Opens the journal in `dir`, and reads what is there. A log longer than `log_bytes_max` is
    /// replaced.
    pub(crate) fn open(dir: &Path, log_bytes_max: u64) -> Result<(Self, Recovered), JournalError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let lock_path = dir.join("objects.lock");
        let lock = File::create(&lock_path).map_err(io_error(&lock_path))?;
        lock.try_lock()
            .map_err(|_| JournalError::InUse(dir.to_owned()))?;
        let numbers = logs(dir).map_err(io_error(dir))?;
        let mut found = Found::default();
        found.read(&dir.join(SNAPSHOT), false)?;
        for number in &numbers {
            let is_last = Some(number) == numbers.last();
            found.read(&log_path(dir, *number), is_last)?;
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        let path = log_path(dir, number);
        let file = open_log(&path).map_err(io_error(&path))?;
        sync_dir(dir).map_err(io_error(dir))?;
        let (wake, woken) = sync_channel(1);
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            log_bytes_max,
            log: Mutex::new(Log {
                file,
                number,
                bytes: 0,
            }),
            written: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            synced: watch::Sender::new(0),
            wake,
            _lock: lock,
        });
        let journal = Self {
            shared,
            woken: Mutex::new(Some(woken)),
        };
        Ok((journal, found.recovered()))
    }

    /// Keeps a change, before it is seen. What goes wrong once stays wrong: nothing is written after
    /// a gap.
    pub(crate) fn keep(&self, resource: Resource, change: Kept<'_>) -> io::Result<()> {
        let object = match change {
            Kept::Put(object) | Kept::Gone(object) => object,
        };
        self.shared.reserve(object.version())?;
        if !is_kept(resource) {
            return Ok(());
        }
        let json = match change {
            Kept::Put(object) => put(resource, object),
            Kept::Gone(object) => gone(resource, object),
        };
        self.shared.append(&json)
    }

    /// Waits until everything written so far is safe on the disk.
    pub(crate) async fn synced(&self) -> io::Result<()> {
        let written = self.shared.written.load(Ordering::Acquire);
        let mut synced = self.shared.synced.subscribe();
        // A full channel wakes the thread as well.
        let _ = self.shared.wake.try_send(());
        let failed = || io::Error::other("the objects cannot be written to the disk");
        synced
            .wait_for(|synced| *synced >= written)
            .await
            .map_err(|_| failed())?;
        match self.shared.has_failed.load(Ordering::Acquire) {
            true => Err(failed()),
            false => Ok(()),
        }
    }

    /// Starts the thread that waits for the disk, and writes snapshots of what `objects` gives.
    pub(crate) fn start(&self, objects: impl Fn() -> Snapshot + Send + 'static) -> io::Result<()> {
        let shared = Arc::downgrade(&self.shared);
        let woken = self
            .woken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(|| io::Error::other("the journal has been started before"))?;
        let work = move || {
            while woken.recv().is_ok() {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                shared.sync();
                if let Err(error) = shared.shorten(&objects) {
                    tracing::error!(%error, "the log of objects was not replaced by a snapshot");
                }
            }
        };
        thread::Builder::new()
            .name("objects".into())
            .spawn(work)
            .map(drop)
    }
}

/// A change to be kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kept<'a> {
    Put(&'a Object),
    Gone(&'a Object),
}

/// All objects as they are, and the newest version.
pub(crate) type Snapshot = (Vec<(Resource, Arc<Object>)>, u64);

impl Shared {
    fn append(&self, json: &[u8]) -> io::Result<()> {
        if self.has_failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write of objects failed"));
        }
        let mut line = Vec::with_capacity(json.len() + 10);
        append_line(&mut line, json);
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let result = log.file.write_all(&line);
        if let Err(error) = &result {
            self.has_failed.store(true, Ordering::Release);
            tracing::error!(%error, "objects cannot be written any more");
        }
        log.bytes += line.len() as u64;
        if log.bytes >= self.log_bytes_max {
            let _ = self.wake.try_send(());
        }
        self.written.fetch_add(1, Ordering::AcqRel);
        result
    }

    /// Sees to it that no version that was ever given is given again.
    fn reserve(&self, version: u64) -> io::Result<()> {
        let reserved = self.reserved.load(Ordering::Acquire);
        if version + RESERVED / 2 <= reserved {
            return Ok(());
        }
        let end = version + RESERVED;
        self.append(&reservation(end))?;
        self.reserved.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    fn sync(&self) {
        let written = self.written.load(Ordering::Acquire);
        let file = {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.file.try_clone()
        };
        if let Err(error) = file.and_then(|file| file.sync_data()) {
            self.has_failed.store(true, Ordering::Release);
            tracing::error!(%error, "objects cannot be written to the disk any more");
        }
        self.synced.send_replace(written);
    }

    /// Replaces a long log by a snapshot.
    fn shorten(&self, objects: &impl Fn() -> Snapshot) -> io::Result<()> {
        let old = {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            if log.bytes < self.log_bytes_max {
                return Ok(());
            }
            // What is awaited on the old log must not be taken for safe by a look at the new one.
            log.file.sync_data()?;
            let number = log.number + 1;
            let file = open_log(&log_path(&self.dir, number))?;
            let old = log.number;
            *log = Log {
                file,
                number,
                bytes: 0,
            };
            old
        };
        // From here on, changes are in the new log, whether the snapshot has them or not.
        let (objects, version) = objects();
        let path = self.dir.join("objects.snapshot.new");
        let mut file = BufWriter::new(File::create(&path)?);
        let mut line = Vec::new();
        append_line(&mut line, &reservation(version + RESERVED));
        for (resource, object) in objects {
            if is_kept(resource) {
                append_line(&mut line, &put(resource, &object));
            }
            file.write_all(&line)?;
            line.clear();
        }
        file.write_all(&line)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&path, self.dir.join(SNAPSHOT))?;
        sync_dir(&self.dir)?;
        for number in logs(&self.dir)?.into_iter().filter(|number| *number <= old) {
            fs::remove_file(log_path(&self.dir, number))?;
        }
        Ok(())
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The numbers of the logs in a directory, in order.
fn logs(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("objects.")?.strip_suffix(".log"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What has been read so far.
#[derive(Default)]
struct Found {
    /// The newest version of each object, and the object unless it is gone.
    objects: HashMap<Place, (u64, Option<Value>)>,
    version: u64,
}

impl Found {
    /// Reads a file. The last log may end in the middle of a record, which nobody has seen.
    fn read(&mut self, path: &Path, may_be_cut: bool) -> Result<(), JournalError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(io_error(path))?,
        };
        let mut lines = BufReader::new(file);
        let (mut at, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let bytes = lines.read_until(b'\n', &mut line).map_err(io_error(path))?;
            if bytes == 0 {
                return Ok(());
            }
            match parse(&line) {
                Some(record) => self.take(record),
                None if may_be_cut => {
                    let rest = lines.fill_buf().map_err(io_error(path))?;
                    if rest.is_empty() {
                        let cut = OpenOptions::new().write(true).open(path);
                        cut.and_then(|file| file.set_len(at))
                            .map_err(io_error(path))?;
                        return Ok(());
                    }
                    let path = path.to_owned();
                    return Err(JournalError::Damaged { path, at });
                }
                None => {
                    let path = path.to_owned();
                    return Err(JournalError::Damaged { path, at });
                }
            }
            at += bytes as u64;
        }
    }

    fn take(&mut self, record: Record) {
        self.version = self.version.max(record.version);
        let resource = record.resource.as_deref().and_then(by_name);
        let Some(resource) = resource else {
            return;
        };
        let (namespace, name) = match (&record.gone, &record.object) {
            (Some((namespace, name)), _) => (namespace.clone(), name.clone()),
            (None, Some(object)) => {
                let text = |key| super::text(object, key).to_owned();
                (text("namespace"), text("name"))
            }
            (None, None) => return,
        };
        let place = Place {
            resource,
            namespace,
            name,
        };
        let newest = self.objects.entry(place).or_insert((0, None));
        if record.version > newest.0 {
            *newest = (record.version, record.object);
        }
    }

    fn recovered(self) -> Recovered {
        let objects = self.objects.into_iter();
        let objects = objects
            .filter_map(|(place, (version, object))| Some((place.resource, object?, version)));
        Recovered {
            objects: objects.collect(),
            version: self.version,
        }
    }
}

fn parse(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = line.split_at_checked(9)?;
    let sum = std::str::from_utf8(sum.get(..8)?).ok()?;
    let is_whole = u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(json);
    is_whole
        .then(|| serde_json::from_slice(json).ok())
        .flatten()
}

fn by_name(name: &str) -> Option<Resource> {
    let (plural, group) = name.split_once('.').unwrap_or((name, ""));
    Resource::find(group, plural)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MAP: Resource = Resource::ConfigMaps;

    fn map(name: &str, version: u64) -> Object {
        let value = json!({ "metadata": { "namespace": "n", "name": name }, "data": { "k": "v" } });
        Object::new(value, version)
    }

    fn open(dir: &Path) -> (Journal, Recovered) {
        Journal::open(dir, LOG_BYTES_MAX).unwrap()
    }

    fn names(recovered: &Recovered) -> Vec<(String, u64)> {
        let objects = recovered.objects.iter();
        let mut names: Vec<_> = objects
            .map(|(_, value, version)| (super::super::text(value, "name").to_owned(), *version))
            .collect();
        names.sort();
        names
    }

    fn newest_log(dir: &Path) -> PathBuf {
        log_path(dir, *logs(dir).unwrap().last().unwrap())
    }

    #[test]
    fn the_newest_version_of_each_object_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, found) = open(dir.path());
        assert_eq!((found.objects.len(), found.version), (0, 0));
        for (name, version) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            journal.keep(MAP, Kept::Put(&map(name, version))).unwrap();
        }
        journal.keep(MAP, Kept::Gone(&map("b", 5))).unwrap();
        drop(journal);
        let (_journal, found) = open(dir.path());
        assert_eq!(names(&found), [("a".into(), 3), ("c".into(), 4)]);
        assert!(found.version >= RESERVED, "{}", found.version);
    }

    #[test]
    fn only_one_server_keeps_its_objects_in_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (_journal, _) = open(dir.path());
        let second = Journal::open(dir.path(), LOG_BYTES_MAX);
        assert!(matches!(second, Err(JournalError::InUse(_))));
    }

    #[test]
    fn a_record_that_was_cut_off_is_passed_over_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        for version in [1, 2] {
            journal.keep(MAP, Kept::Put(&map("a", version))).unwrap();
        }
        drop(journal);
        let path = newest_log(dir.path());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let (journal, found) = open(dir.path());
        assert_eq!(names(&found), [("a".into(), 1)]);
        drop(journal);
        let mut damaged = whole;
        damaged[20] ^= 1;
        fs::write(&path, damaged).unwrap();
        let refused = Journal::open(dir.path(), LOG_BYTES_MAX);
        assert!(matches!(refused, Err(JournalError::Damaged { at: 0, .. })));
    }

    #[tokio::test]
    async fn a_long_log_is_replaced_by_a_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), 1).unwrap();
        let (a, b) = (Arc::new(map("a", 1)), Arc::new(map("b", 8)));
        // As in the store: what is kept is there for every later snapshot.
        let all = Arc::new(Mutex::new(vec![(MAP, Arc::clone(&a))]));
        let there = Arc::clone(&all);
        journal
            .start(move || (there.lock().unwrap().clone(), 7))
            .unwrap();
        journal.keep(MAP, Kept::Put(&a)).unwrap();
        // The thread replaces the log after it has told that all is safe.
        while !dir.path().join(SNAPSHOT).exists()
            || dir.path().join("objects.0000000001.log").exists()
        {
            journal.synced().await.unwrap();
        }
        {
            let mut all = all.lock().unwrap();
            journal.keep(MAP, Kept::Put(&b)).unwrap();
            all.push((MAP, b));
        }
        journal.synced().await.unwrap();
        drop(journal);
        let found = loop {
            // The thread that had it lets it go in its own time.
            match Journal::open(dir.path(), LOG_BYTES_MAX) {
                Ok((_, found)) => break found,
                Err(JournalError::InUse(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(names(&found), [("a".into(), 1), ("b".into(), 8)]);
        assert!(found.version >= 7 + RESERVED);
    }
}
