//! Finalizers that nobody would remove any more.

use std::sync::Arc;
use std::time::Duration;

use super::cache::{self, Key};
use super::cluster::lock;
use super::service::QueueService;
use super::sync::{SOON, SyncError, Syncer, kubernetes};
use crate::api::names::TRACKING_FINALIZER;
use crate::api::{Job, Pod};
use crate::plan::conditions;
use crate::plan::orphan::{OwnerJob, must_lose_finalizer};

impl<Q: QueueService> Syncer<Q> {
    /// Takes the finalizer off Pods that name this Job and that nobody will count any more.
    ///
    /// A key without a name stands for the Pods of its namespace that nothing manages.
    pub(super) async fn release_orphans(
        &self,
        key: &Key,
        job: Option<&Arc<Job>>,
    ) -> Result<Option<Duration>, SyncError> {
        let owner = match job {
            None => OwnerJob::Missing,
            Some(job) => OwnerJob::Found {
                uid: job.uid(),
                finished: conditions::finished(&job.status.conditions).is_some(),
                managed_elsewhere: !self.settings.scope().contains(job),
            },
        };
        let candidates = {
            let pods = lock(&self.cluster.pods);
            if key.name.is_empty() {
                pods.unowned(&key.namespace)
            } else {
                pods.owned(key)
            }
        };
        let orphans: Vec<Arc<Pod>> = candidates
            .into_iter()
            .filter(|pod| pod.is_tracked() && must_lose_finalizer(pod.controller(), owner))
            .filter(|pod| !key.name.is_empty() || self.nobody_wants(pod))
            .collect();
        if orphans.is_empty() {
            return Ok(None);
        }
        // The cache may lag behind a Job that is new.
        let is_missing = job.is_none() && !key.name.is_empty();
        if is_missing {
            let found = self.cluster.read_job(key).await;
            if found.map_err(kubernetes("look for a Job"))?.is_some() {
                return Ok(Some(SOON));
            }
        }
        for pod in orphans {
            tracing::debug!(
                pod.name = pod.name(),
                "{TRACKING_FINALIZER} has lost its purpose"
            );
            let removed = self.cluster.untrack(&pod).await;
            removed.map_err(kubernetes("remove an orphan's finalizer"))?;
        }
        Ok(None)
    }

    fn nobody_wants(&self, pod: &Pod) -> bool {
        self.settings.unmanaged && cache::could_belong_to(&lock(&self.cluster.jobs), pod).is_empty()
    }
}
