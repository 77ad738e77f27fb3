//! A disk whose commits and syncs are counted.

use std::io;
use std::sync::Arc;

use tokio::time::Instant;

use super::disk::Disk;
use crate::metrics::Metrics;

/// Another disk, counted.
pub struct Metered<D> {
    inner: D,
    metrics: Arc<Metrics>,
}

impl<D: Disk> Metered<D> {
    /// Counts what a disk does.
    pub fn new(inner: D, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl<D> std::fmt::Debug for Metered<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metered").finish_non_exhaustive()
    }
}

impl<D: Disk> Disk for Metered<D> {
    fn load(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.inner.load(each)
    }

    fn append(&mut self, commit: &[u8]) -> io::Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "commits are a few megabytes")]
        let bytes = commit.len() as f64;
        self.metrics.log.commit_bytes.observe(bytes);
        self.inner.append(commit)
    }

    fn sync(&mut self) -> io::Result<()> {
        let started = Instant::now();
        self.inner.sync()?;
        let took = started.elapsed();
        self.metrics.log.sync.observe(took.as_secs_f64());
        Ok(())
    }

    fn wants_snapshot(&self) -> bool {
        self.inner.wants_snapshot()
    }

    fn snapshot(&mut self, parts: &mut dyn Iterator<Item = Vec<u8>>) -> io::Result<()> {
        self.inner.snapshot(parts)?;
        self.metrics.log.snapshots.inc();
        Ok(())
    }
}
