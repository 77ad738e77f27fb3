//! How far a Job's queue has come, on the Job itself: what `kubectl get -o yaml` can show.

use std::sync::Arc;

use tokio::time::Instant;

use super::memory::Memory;
use super::service::QueueService;
use super::sync::Syncer;
use crate::api::Job;
use crate::api::names::PROGRESS;
use crate::plan::Plan;

impl<Q: QueueService> Syncer<Q> {
    /// Writes the progress down, seldom, and when the Job ends.
    ///
    /// Nothing depends on it: it comes after everything else, and is not repeated when it fails.
    pub(super) async fn write_progress(&self, job: &Arc<Job>, plan: &Plan, memory: &mut Memory) {
        let Some(text) = &plan.progress else { return };
        if job.annotation(PROGRESS) == Some(text) {
            return;
        }
        let is_recent = memory
            .progress_at
            .is_some_and(|at| at.elapsed() < self.settings.progress_interval);
        if is_recent && plan.end.is_none() {
            return;
        }
        memory.progress_at = Some(Instant::now());
        if let Err(error) = self.cluster.annotate(job, PROGRESS, text).await {
            tracing::debug!(%error, job.name = job.name(), "the progress was not written");
        }
    }
}
