//! The store on disks that fail: what was acknowledged is there after it, what was not is not shown.

use std::sync::Mutex;

use gangline_protocol::{NewItem, QueueStatus};

use super::*;
use crate::clock::{ManualClock, SystemRandom};
use crate::store::disk::DataDir;

/// What a machine remembers of a disk: commits, and how many of them were synced.
#[derive(Debug, Default)]
struct Platter {
    commits: Vec<Vec<u8>>,
    synced: usize,
    /// Calls of append and sync that still work.
    works_for: Option<usize>,
    /// Snapshots are wanted from so many commits on.
    snapshot_at: Option<usize>,
    snapshots: usize,
    snapshots_fail: bool,
}

#[derive(Debug, Clone, Default)]
struct Simulated(Arc<Mutex<Platter>>);

impl Simulated {
    fn platter(&self) -> std::sync::MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    /// The machine crashes: of what was not synced, the first `keeps` commits are left.
    fn crash(&self, keeps: usize) {
        let mut platter = self.platter();
        let kept = platter.synced + keeps;
        platter.commits.truncate(kept);
        platter.synced = platter.commits.len();
        platter.works_for = None;
    }
}

impl Platter {
    fn work(&mut self) -> io::Result<()> {
        match &mut self.works_for {
            Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for Simulated {
    fn load(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.platter()
            .commits
            .iter()
            .try_for_each(|commit| each(commit))
    }

    fn append(&mut self, commit: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.work()?;
        platter.commits.push(commit.to_vec());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.work()?;
        platter.synced = platter.commits.len();
        Ok(())
    }

    fn wants_snapshot(&self) -> bool {
        let platter = self.platter();
        platter
            .snapshot_at
            .is_some_and(|at| platter.commits.len() >= at)
    }

    fn snapshot(&mut self, parts: &mut dyn Iterator<Item = Vec<u8>>) -> io::Result<()> {
        let mut platter = self.platter();
        if platter.snapshots_fail {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        platter.commits = parts.collect();
        platter.synced = platter.commits.len();
        platter.snapshot_at = None;
        platter.snapshots += 1;
        Ok(())
    }
}

fn open(disk: impl Disk) -> Embedded {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000_000));
    Embedded::open(
        Box::new(disk),
        clock,
        Arc::new(SystemRandom),
        Hub::default(),
    )
    .unwrap()
}

fn queue() -> QueueName {
    "q".parse().unwrap()
}

async fn push(store: &Embedded) -> Result<Reply, StoreError> {
    let payload = serde_json::value::RawValue::from_string("1".into()).unwrap();
    let items = vec![NewItem::new(payload.into())];
    let (queue, batch, seal) = (queue(), None, false);
    store
        .execute(Command::Push {
            queue,
            items,
            batch,
            seal,
        })
        .await
}

async fn status(store: &Embedded) -> Result<Box<QueueStatus>, StoreError> {
    match store.query(Query::Status { queue: queue() }).await? {
        Reply::Status(status) => Ok(status),
        other => panic!("{other:?}"),
    }
}

async fn stop(store: Embedded) {
    let stopped = store.stopped();
    drop(store);
    stopped.cancelled().await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_wherever_the_disk_fails_and_nothing_more_is_shown() {
    for works_for in 0..12 {
        for keeps in 0..2 {
            let disk = Simulated::default();
            disk.platter().works_for = Some(works_for);
            let store = open(disk.clone());
            let mut acknowledged = 0;
            while push(&store).await.is_ok() {
                acknowledged += 1;
            }
            // Once it has failed, nothing is shown any more that could not be proved.
            assert!(matches!(
                status(&store).await,
                Err(StoreError::Unavailable(_))
            ));
            assert!(
                store
                    .trouble()
                    .is_some_and(|text| text.contains("cannot be written"))
            );
            stop(store).await;
            disk.crash(keeps);
            let store = open(disk.clone());
            let found = match status(&store).await {
                Ok(status) => status.counts.ready,
                Err(_) => 0,
            };
            // The push whose sync failed was answered with an error: it may be there.
            let may_be = acknowledged + keeps as u64;
            assert!(
                (acknowledged..=may_be).contains(&found),
                "{works_for}: {found}"
            );
            assert!(push(&store).await.is_ok());
            stop(store).await;
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_taken_when_it_is_wanted_and_its_failure_stops_nothing() {
    for fails in [false, true] {
        let disk = Simulated::default();
        let store = open(disk.clone());
        for n in 1..=10 {
            if n == 5 {
                let mut platter = disk.platter();
                (platter.snapshot_at, platter.snapshots_fail) = (Some(1), fails);
            }
            push(&store).await.unwrap();
            if n == 5 {
                status(&store).await.unwrap();
                disk.platter().snapshot_at = None;
            }
        }
        assert_eq!(disk.platter().snapshots, usize::from(!fails));
        stop(store).await;
        disk.crash(0);
        let store = open(disk);
        assert_eq!(status(&store).await.unwrap().counts.ready, 10);
    }
}

#[tokio::test]
async fn a_log_that_these_rules_did_not_write_is_refused() {
    let disk = Simulated::default();
    disk.platter().commits.push(vec![0xff; 9]);
    let clock = Arc::new(ManualClock::new(0));
    let opened = Embedded::open(
        Box::new(disk),
        clock,
        Arc::new(SystemRandom),
        Hub::default(),
    );
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_queue_is_found_again_in_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=3 {
        let store = open(DataDir::open(dir.path()).unwrap());
        push(&store).await.unwrap();
        assert_eq!(status(&store).await.unwrap().counts.ready, n);
        stop(store).await;
    }
}
