//! One look at one Job: observe, plan, act, account.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use gangline_protocol::QueueUid;
use jiff::Timestamp;

use super::cache::{Key, Source};
use super::cluster::{Cluster, Creation, gone, lock};
use super::complaint::Complaint;
use super::events::Recorder;
use super::memory::{Memory, random};
use super::report::Reports;
use super::service::{QueueService, ServiceError};
use super::settings::Settings;
use super::tokens::Tokens;
use super::view::{self, FillError};
use crate::api::{Job, Pod, Uid};
use crate::plan::account::Outcome;
use crate::plan::queue::{ItemsSource, QueueSpec, WorkerSettings};
use crate::plan::{
    Accounting, Event, FinalizerFirst, NewPod, Observed, Plan, QueueAction, QueueView, account,
    claim, conditions, earliest, plan,
};

/// After so many failed syncs in a row it is said on the Job; fewer are everyday conflicts.
const STUCK_AFTER: u32 = 4;
/// Queues of Jobs that are gone that are remembered: they matter within the second in which a Job
/// is made anew.
const LEFT_MAX: usize = 1_000;
/// Calls of the API that one sync makes at a time.
pub(super) const CALLS_AT_A_TIME: usize = 32;
/// After a change of its queue a Job is looked at again this soon.
pub(super) const SOON: Duration = Duration::from_millis(20);

/// Why a sync did not come to its end. It is repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    #[error("failed to {what}")]
    Kubernetes {
        what: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("failed to {what} the queue")]
    Queue {
        what: &'static str,
        #[source]
        source: ServiceError,
    },
    #[error("failed to fill the queue")]
    Fill(#[from] FillError),
    #[error("failed to make or delete every Pod")]
    Pods(#[source] Complaint),
}

impl SyncError {
    /// Returns how long the API wants to be left alone.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Kubernetes { source, .. } => Complaint::from(&**source).retry_after,
            Self::Pods(complaint) => complaint.retry_after,
            Self::Queue { .. } | Self::Fill(_) => Duration::ZERO,
        }
    }

    /// Tells whether the API has no such object.
    fn is_not_found(&self) -> bool {
        let Self::Kubernetes { source, .. } = self else {
            return false;
        };
        matches!(&**source, kube::Error::Api(status) if status.code == 404)
    }

    /// Returns the whole of it, for people.
    pub(super) fn chain(&self) -> String {
        if let Self::Kubernetes { source, .. } = self {
            return format!("{self}: {}", Complaint::from(&**source));
        }
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<kube::Error>() {
                return format!("{text}: {}", Complaint::from(error));
            }
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

pub(super) fn kubernetes(what: &'static str) -> impl FnOnce(kube::Error) -> SyncError {
    move |source| SyncError::Kubernetes {
        what,
        source: Box::new(source),
    }
}

pub(super) fn queue(what: &'static str) -> impl FnOnce(ServiceError) -> SyncError {
    move |source| SyncError::Queue { what, source }
}

/// What all syncs share.
pub(crate) struct Syncer<Q> {
    pub(crate) cluster: Cluster,
    pub(crate) service: Q,
    pub(crate) settings: Settings,
    pub(crate) recorder: Recorder,
    pub(crate) memories: Mutex<HashMap<Uid, Memory>>,
    pub(crate) tokens: Mutex<Tokens>,
    /// Queues of Jobs that are gone, the oldest first: they may be met again under the same names.
    pub(crate) left: Mutex<VecDeque<QueueUid>>,
    pub(crate) reports: Reports,
}

impl<Q: QueueService> Syncer<Q> {
    /// Looks at the Job `key`; returns when to do so again, if nothing happens before.
    pub(crate) async fn sync(&self, key: &Key) -> Result<Option<Duration>, SyncError> {
        let job = lock(&self.cluster.jobs).get(key).cloned();
        let Some(job) = job else {
            let again = self.release_orphans(key, None).await?;
            return Ok(earliest(again, self.revoke_tokens(key, None).await));
        };
        let scope = self.settings.scope();
        if !scope.contains(&job) || conditions::finished(&job.status.conditions).is_some() {
            self.note_skipped(&job);
            let again = self.report(key).await;
            let orphans = self.release_orphans(key, Some(&job)).await?;
            let revoke_again = self.revoke_tokens(key, None).await;
            return Ok(earliest(earliest(orphans, again), revoke_again));
        }
        let revoke_again = self.revoke_tokens(key, Some(job.uid())).await;
        let uid = job.uid().to_owned();
        let mut memory = lock(&self.memories).remove(&uid).unwrap_or_default();
        let result = self.sync_live(job, &mut memory).await;
        memory.failures = match &result {
            Ok(_) => 0,
            Err(_) => memory.failures.saturating_add(1),
        };
        {
            // Pods may have gone meanwhile.
            let mut memories = lock(&self.memories);
            if let Some(meanwhile) = memories.remove(&uid) {
                for pod in meanwhile.gone {
                    memory.remember_gone(pod);
                }
            }
            memories.insert(uid, memory);
        }
        let again = self.report(key).await;
        result.map(|next| earliest(earliest(next, again), revoke_again))
    }

    /// Tells the queue service how the Job `key` is now; returns when to do so again.
    async fn report(&self, key: &Key) -> Option<Duration> {
        let job = lock(&self.cluster.jobs).get(key).cloned()?;
        if !self.settings.scope().contains(&job) {
            return None;
        }
        let mut pods = lock(&self.cluster.pods).owned(key);
        pods.retain(|pod| {
            pod.controller()
                .is_some_and(|owner| claim::is_owner(&job, owner))
        });
        self.reports.tell(&self.service, &job, &pods).await
    }

    /// Returns how many syncs of a Job have failed one after the other, the last one included.
    fn failures(&self, key: &Key) -> u32 {
        let job = lock(&self.cluster.jobs).get(key).cloned();
        job.map_or(1, |job| {
            lock(&self.memories)
                .get(job.uid())
                .map_or(1, |memory| memory.failures)
        })
    }

    /// Tells whether an object has probably been deleted while it was dealt with, which is no
    /// failure: the next sync knows.
    pub(crate) fn is_overtaken(&self, key: &Key, error: &SyncError) -> bool {
        error.is_not_found() && self.failures(key) <= 1
    }

    /// Returns how long to wait after a failed sync.
    pub(crate) fn retry_delay(&self, key: &Key) -> Duration {
        let doublings = self.failures(key).saturating_sub(1).min(16);
        self.settings
            .retry_base
            .saturating_mul(1 << doublings)
            .min(self.settings.retry_cap)
    }

    /// Says that a Job does not get ahead, once for each time that it is stuck.
    ///
    /// Pods and items that cannot be had say so themselves.
    pub(crate) fn say_stuck(&self, key: &Key, error: &SyncError) {
        if matches!(error, SyncError::Pods(_) | SyncError::Fill(_)) {
            return;
        }
        let Some(job) = lock(&self.cluster.jobs).get(key).cloned() else {
            return;
        };
        if self.failures(key) == STUCK_AFTER {
            let message = format!("{}; it is tried again", error.chain());
            let event = Event::warning("JobStuck", message);
            self.recorder.say(&job, &event, Timestamp::now());
        }
    }

    /// Remembers a Pod whose object is gone.
    pub(crate) fn note_gone(&self, pod: &Pod) {
        if let Some(owner) = pod.controller() {
            lock(&self.memories)
                .entry(owner.uid.clone())
                .or_default()
                .remember_gone(gone(pod));
        }
    }

    /// Forgets a Job that is gone, but for the queue that it may have left to others.
    pub(crate) fn forget(&self, job: &Job) {
        lock(&self.memories).remove(job.uid());
        self.reports.forget(job.uid());
        if let Some(queue) = crate::plan::queue::latched_uid(job) {
            let mut left = lock(&self.left);
            if left.len() == LEFT_MAX {
                left.pop_front();
            }
            left.push_back(queue);
        }
    }

    fn note_skipped(&self, job: &Arc<Job>) {
        let plan = plan(
            &self.observe(job, Vec::new(), &Memory::default()),
            Timestamp::now(),
        );
        let mut memories = lock(&self.memories);
        let memory = memories.entry(job.uid().to_owned()).or_default();
        // What else was remembered is of no use any more.
        *memory = Memory {
            said: std::mem::take(&mut memory.said),
            ..Memory::default()
        };
        self.recorder
            .say_all(job, &plan.events, &mut memory.said, Timestamp::now());
    }

    fn observe(&self, job: &Arc<Job>, pods: Vec<Arc<Pod>>, memory: &Memory) -> Observed {
        Observed {
            job: Arc::clone(job),
            pods,
            scope: self.settings.scope(),
            may_adopt: true,
            expectations_met: memory.unresolved.is_empty(),
            removals_in_flight: HashSet::new(),
            backoff: memory.backoff,
            retry_delay: self.settings.pod_retry_delay,
            queue: QueueView::Unread,
            gone: memory.gone.clone(),
            forgiven: memory.forgiven,
            workers: WorkerSettings::default(),
            seed: random(),
        }
    }

    async fn sync_live(
        &self,
        job: Arc<Job>,
        memory: &mut Memory,
    ) -> Result<Option<Duration>, SyncError> {
        self.resolve(&job, memory).await;
        let key = Key::of(&*job);
        let pods = {
            let pods = lock(&self.cluster.pods);
            [pods.owned(&key), pods.unowned(&key.namespace)].concat()
        };
        let mut observed = self.observe(&job, pods, memory);
        let spec = QueueSpec::of(&job).ok().flatten();
        if let Some(spec) = &spec {
            let own: Vec<Arc<Pod>> = observed
                .pods
                .iter()
                .filter(|pod| {
                    pod.controller()
                        .is_some_and(|owner| claim::is_owner(&job, owner))
                })
                .cloned()
                .collect();
            observed.queue = view::read(&self.service, &spec.queue, &job, &own, memory).await;
            if let QueueView::Seen(seen) = &mut observed.queue {
                seen.outlived_a_job = lock(&self.left).contains(&seen.status.uid);
            }
        }
        let mut plan = plan(&observed, Timestamp::now());
        if !plan.adopt.is_empty() && !self.may_adopt(&job).await? {
            observed.may_adopt = false;
            plan = crate::plan::plan(&observed, Timestamp::now());
        }
        self.recorder
            .say_all(&job, &plan.events, &mut memory.said, Timestamp::now());
        self.change_owners(&job, &plan).await?;
        let mut changed_queue = Ok(false);
        if let Some(spec) = &spec {
            self.latch(&mut observed, &plan).await?;
            changed_queue = self.ask_queue(&job, spec, &plan).await;
        }
        if let Some(spec) = &spec
            && !plan.create.is_empty()
        {
            // The template needs the token, which nobody had asked for until now.
            observed.workers = self.worker_settings(&job, spec).await?;
            let queue_actions = std::mem::take(&mut plan.queue_actions);
            plan = crate::plan::plan(&observed, Timestamp::now());
            plan.queue_actions = queue_actions;
        } else if let Some(spec) = &spec
            && matches!(observed.queue, QueueView::Seen(_))
            && !plan.basis.tally.active.is_empty()
        {
            self.renew_token(&job, spec).await;
        }
        let (outcome, failure) = self.change_pods(&job, &plan, memory).await;
        let job = self.write_down(&observed, &plan, &outcome, memory).await?;
        memory.forgiven = plan.basis.forgiven;
        self.write_progress(&job, &plan, memory).await;
        let changed_queue = changed_queue?;
        let no_template = plan.error.map(|why| Complaint {
            why,
            retry_after: Duration::ZERO,
        });
        match failure.or(no_template) {
            Some(failure) => Err(SyncError::Pods(failure)),
            None => {
                let poll = spec.is_some().then_some(self.settings.queue_poll);
                let soon = changed_queue.then_some(SOON);
                let unresolved =
                    (!memory.unresolved.is_empty()).then_some(self.settings.retry_base);
                let again = earliest(plan.requeue_after, poll);
                Ok(earliest(earliest(again, soon), unresolved))
            }
        }
    }

    /// Finds out about Pods of which nobody knew whether they were made.
    async fn resolve(&self, job: &Job, memory: &mut Memory) {
        let mut unresolved = Vec::new();
        for name in std::mem::take(&mut memory.unresolved) {
            if let Err(error) = self.cluster.find_created(job, &name).await {
                tracing::warn!(%error, pod.name = name, "cannot tell whether a Pod was made");
                unresolved.push(name);
            }
        }
        memory.unresolved = unresolved;
    }

    async fn may_adopt(&self, job: &Job) -> Result<bool, SyncError> {
        let now = self
            .cluster
            .read_job(&Key::of(job))
            .await
            .map_err(kubernetes("read the Job again"))?;
        Ok(now.is_some_and(|now| now.uid() == job.uid() && !now.is_deleting()))
    }

    async fn change_owners(&self, job: &Job, plan: &Plan) -> Result<(), SyncError> {
        for pod in &plan.release {
            let released = self.cluster.release(job, pod).await;
            released.map_err(kubernetes("release a Pod"))?;
        }
        for pod in &plan.adopt {
            let adopted = self.cluster.adopt(job, pod).await;
            adopted.map_err(kubernetes("adopt a Pod"))?;
        }
        Ok(())
    }

    /// Writes the queue's uid into the Job, before anything is done on the queue's account.
    async fn latch(&self, observed: &mut Observed, plan: &Plan) -> Result<(), SyncError> {
        for action in &plan.queue_actions {
            if let QueueAction::Latch(uid) = action {
                let job = self.cluster.latch(&observed.job, uid).await;
                observed.job = job.map_err(kubernetes("write the queue's uid"))?;
            }
        }
        Ok(())
    }

    /// Asks the queue service for what the plan wants. Tells whether the queue has changed.
    async fn ask_queue(
        &self,
        job: &Arc<Job>,
        spec: &QueueSpec,
        plan: &Plan,
    ) -> Result<bool, SyncError> {
        let name = &spec.queue;
        let mut changed = false;
        for action in &plan.queue_actions {
            match action {
                QueueAction::Latch(_) => continue,
                QueueAction::Revoke { worker, counted } => {
                    // The session's deadline is the net.
                    if let Err(error) = self.service.revoke(name, worker, *counted).await {
                        tracing::warn!(%error, worker.name = %worker, "a session was not revoked");
                    }
                    continue;
                }
                QueueAction::Create => self.service.create(name).await.map_err(queue("create"))?,
                QueueAction::Fill(source) => self.fill(job, spec, source).await?,
                QueueAction::Pause => self.service.pause(name).await.map_err(queue("pause"))?,
                QueueAction::Stop { outcome, reason } => {
                    let stopped = self.service.stop(name, *outcome, reason).await;
                    stopped.map_err(queue("stop"))?;
                }
            }
            changed = true;
        }
        Ok(changed)
    }

    async fn fill(
        &self,
        job: &Arc<Job>,
        spec: &QueueSpec,
        source: &ItemsSource,
    ) -> Result<(), SyncError> {
        let items = view::items(&self.cluster.client, job.namespace(), source).await;
        let result = match items {
            Ok(items) => {
                let filled = self.service.fill(&spec.queue, items, job.uid()).await;
                filled.map_err(queue("fill"))
            }
            Err(error) => Err(SyncError::from(error)),
        };
        if let Err(error) = &result {
            let event = Event::warning("QueueNotFilled", error.chain());
            self.recorder.say(job, &event, Timestamp::now());
        }
        result
    }

    /// Deletes and makes Pods; says which of that came to be, and what did not.
    async fn change_pods(
        &self,
        job: &Arc<Job>,
        plan: &Plan,
        memory: &mut Memory,
    ) -> (Outcome, Option<Complaint>) {
        let mut outcome = Outcome::default();
        let mut failure = None;
        // By position: a closure over references would tie the future to one lifetime.
        let deletions = (0..plan.delete.len()).map(|position| async move {
            let deletion = &plan.delete[position];
            let pod = &deletion.pod;
            if deletion.finalizer == FinalizerFirst::Remove {
                let untracked = self.cluster.untrack(pod).await;
                untracked.map_err(|error| Complaint::from(&error))?;
            }
            let deleted = self.cluster.delete(pod).await;
            let deleted = deleted.map_err(|error| Complaint::from(&error));
            self.say_deleted(job, pod, deleted.as_ref().err());
            deleted.map(|()| pod.uid().to_owned())
        });
        let mut deletions = stream::iter(deletions).buffer_unordered(CALLS_AT_A_TIME);
        while let Some(deleted) = deletions.next().await {
            match deleted {
                Ok(uid) => {
                    outcome.deleted.insert(uid);
                }
                Err(complaint) => failure = Some(complaint),
            }
        }
        for batch in &plan.create {
            let before = outcome.created;
            let creations = (0..batch.len()).map(|position| async move {
                let new = &batch[position];
                let creation = self.cluster.create(job, new).await;
                self.say_created(job, new, &creation);
                (new, creation)
            });
            let mut creations = stream::iter(creations).buffer_unordered(CALLS_AT_A_TIME);
            while let Some((new, creation)) = creations.next().await {
                match creation {
                    Creation::Created | Creation::NamespaceTerminating => outcome.created += 1,
                    Creation::Refused(why) => failure = Some(why),
                    Creation::Unknown(why) => {
                        memory.unresolved.push(new.name.clone());
                        failure = Some(why);
                    }
                }
            }
            if outcome.created - before < batch.len() {
                break;
            }
        }
        (outcome, failure)
    }

    fn say_deleted(&self, job: &Arc<Job>, pod: &Pod, error: Option<&Complaint>) {
        let event = match error {
            None => Event::normal("SuccessfulDelete", format!("Deleted pod: {}", pod.name())),
            Some(error) => Event::warning("FailedDelete", format!("Error deleting: {error}")),
        };
        self.recorder.say(job, &event, Timestamp::now());
    }

    fn say_created(&self, job: &Arc<Job>, new: &NewPod, creation: &Creation) {
        let event = match creation {
            Creation::Created => {
                Event::normal("SuccessfulCreate", format!("Created pod: {}", new.name))
            }
            Creation::NamespaceTerminating => return,
            Creation::Refused(why) | Creation::Unknown(why) => {
                Event::warning("FailedCreate", format!("Error creating: {why}"))
            }
        };
        self.recorder.say(job, &event, Timestamp::now());
    }

    async fn write_down(
        &self,
        observed: &Observed,
        plan: &Plan,
        outcome: &Outcome,
        memory: &mut Memory,
    ) -> Result<Arc<Job>, SyncError> {
        let mut job = Arc::clone(&observed.job);
        let Some(accounting) = account(observed, plan, outcome, Timestamp::now()) else {
            return Ok(job);
        };
        if let Some(status) = &accounting.first {
            let written = self.cluster.write_status(&job, status).await;
            job = written.map_err(kubernetes("write the status"))?;
        }
        memory.backoff = accounting.backoff.unwrap_or(memory.backoff);
        self.say(&job, &accounting.events);
        let (removed, failure) = self.remove_finalizers(&accounting).await;
        let conclusion = accounting.conclude(&removed);
        if let Some(status) = &conclusion.second {
            let written = self.cluster.write_status(&job, status).await;
            job = written.map_err(kubernetes("write the status again"))?;
        }
        self.say(&job, &conclusion.events);
        match failure {
            Some(error) => Err(kubernetes("remove a Pod's finalizer")(error)),
            None => Ok(job),
        }
    }

    fn say(&self, job: &Arc<Job>, events: &[Event]) {
        for event in events {
            self.recorder.say(job, event, Timestamp::now());
        }
    }

    async fn remove_finalizers(
        &self,
        accounting: &Accounting,
    ) -> (HashSet<Uid>, Option<kube::Error>) {
        let pods = &accounting.remove_finalizers;
        let removals = (0..pods.len()).map(|position| async move {
            let pod = &pods[position];
            let removed = self.cluster.untrack(pod).await;
            removed.map(|()| pod.uid().to_owned())
        });
        let mut removals = stream::iter(removals).buffer_unordered(CALLS_AT_A_TIME);
        let (mut removed, mut failure) = (HashSet::new(), None);
        while let Some(result) = removals.next().await {
            match result {
                Ok(uid) => {
                    removed.insert(uid);
                }
                Err(error) => failure = Some(error),
            }
        }
        (removed, failure)
    }

    /// Takes what a watch says of a Pod; returns whether it is news.
    pub(crate) fn learn_pod(&self, pod: Arc<Pod>) -> bool {
        lock(&self.cluster.pods).apply(pod, Source::Watch)
    }
}
