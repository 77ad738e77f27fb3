//! What to do about a Job, and what to write down about it.
//!
//! Pure: no clock, no IO, no random number. Everything that a decision depends on is in
//! [`Observed`], so that a plan can be tested, repeated and explained.

pub mod account;
pub mod backoff;
pub mod claim;
pub mod conditions;
pub mod create;
pub mod deletion_order;
pub mod end;
pub mod event;
pub mod failure_policy;
pub mod indexes;
pub mod orphan;
pub mod per_index;
pub mod queue;
pub mod size;
pub mod success_policy;
pub mod tally;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use account::{Accounting, Conclusion, Outcome, account};
pub use backoff::{BackoffRecord, RetryDelay};
pub use create::NewPod;
pub use end::End;
pub use event::{Event, EventKind};
pub use queue::{GonePod, QueueAction, QueueSnapshot, QueueView};

use crate::api::{CompletionMode, Job, Pod, Uid};
use claim::Claim;
use create::Template;
use end::Failures;
use queue::{AnnotationError, Demand, Direction, Forgiven, QueueSpec, WorkerSettings};
use size::{Sizing, Slot};
use tally::Tally;

/// Everything that a plan depends on.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The Job.
    pub job: Arc<Job>,
    /// The Pods that it controls, and those without a controller in its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// Which Jobs are this controller's.
    pub scope: Scope,
    /// Whether the Job is still there, and not on its way out, by the API's own word.
    pub may_adopt: bool,
    /// Whether the controller has seen all that it did earlier.
    pub expectations_met: bool,
    /// Pods whose finalizer was removed, though the removal has not been seen yet.
    pub removals_in_flight: HashSet<Uid>,
    /// The failures since the last success, from earlier syncs.
    pub backoff: BackoffRecord,
    /// How long failures keep new Pods back.
    pub retry_delay: RetryDelay,
    /// What is seen of the Job's queue; read after the Pods.
    pub queue: QueueView,
    /// Pods of the Job whose objects are gone, as long as they may have sessions.
    pub gone: Vec<GonePod>,
    /// Restarts in place that were made good by progress.
    pub forgiven: Forgiven,
    /// How workers reach the queue service.
    pub workers: WorkerSettings,
    /// Where the random parts of names come from; another one for each plan.
    pub seed: u64,
}

/// Which Jobs are this controller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The value of `spec.managedBy` that names it.
    pub managed_by: &'static str,
    /// Whether it takes Jobs that name nobody.
    pub unmanaged: bool,
}

impl Scope {
    /// Tells whether `job` is this controller's.
    #[must_use]
    pub fn contains(self, job: &Job) -> bool {
        job.spec
            .managed_by
            .as_deref()
            .map_or(self.unmanaged, |manager| manager == self.managed_by)
    }
}

/// Why nothing is done about a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Another controller runs it.
    ManagedElsewhere,
    /// It is Complete or Failed.
    Finished,
    /// It has a completion mode that nobody here knows.
    UnknownCompletionMode,
}

/// What to do about a Job.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Nothing, and why.
    pub skip: Option<Skip>,
    /// Pods that become the Job's own; first of all, and only after the Job was read again.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods that cease to be the Job's own.
    pub release: Vec<Arc<Pod>>,
    /// Pods to delete.
    pub delete: Vec<Deletion>,
    /// Pods to make, batch by batch: after a batch with a failure the rest is left out.
    pub create: Vec<Vec<NewPod>>,
    /// How the Job ends, if it does.
    pub end: Option<End>,
    /// What to ask of the queue service, before Pods are made or deleted.
    pub queue_actions: Vec<QueueAction>,
    /// What to say, beside what the actions themselves have to say.
    pub events: Vec<Event>,
    /// When to look again, if nothing happens before.
    pub requeue_after: Option<Duration>,
    /// How far the queue has come, for people.
    pub progress: Option<String>,
    /// Why nothing could be made, though something should be: the sync is to be repeated.
    pub error: Option<String>,
    /// What the accounting goes on from.
    pub basis: Basis,
}

/// A Pod to delete.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// The Pod.
    pub pod: Arc<Pod>,
    /// What becomes of its finalizer.
    pub finalizer: FinalizerFirst,
}

/// What becomes of a Pod's finalizer when the controller deletes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalizerFirst {
    /// Removed before the deletion: the Pod is counted nowhere. Without it, no deletion.
    Remove,
    /// Stays, so that the Pod is counted when it has ended.
    Keep,
}

/// What the accounting goes on from.
#[derive(Debug, Clone, Default)]
pub struct Basis {
    /// The Job's Pods by class.
    pub tally: Tally,
    /// The failures since the last success, with the new ones.
    pub backoff: BackoffRecord,
    /// The number of Pods was judged: suspension may be written down.
    pub sized: bool,
    /// The Job ends with its queue, not with its Pods.
    pub has_queue: bool,
    /// Restarts in place that are forgiven from now on.
    pub forgiven: Forgiven,
}

/// Decides what to do about a Job at `now`.
#[must_use]
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    if let Some(plan) = skipped(observed) {
        return plan;
    }
    let job = &*observed.job;
    let Claim {
        pods,
        adopt,
        release,
    } = claim::claim(job, &observed.pods, observed.may_adopt);
    let (pods, events) = queue::without_false_successes(job, pods, &observed.queue);
    let mut planner = Planner {
        observed,
        tally: Tally::new(job, pods, &observed.removals_in_flight),
        now,
        plan: Plan {
            adopt,
            release,
            events,
            ..Plan::default()
        },
    };
    match QueueSpec::of(job) {
        Ok(None) => planner.plan_plain(),
        Ok(Some(spec)) => planner.plan_with_queue(&spec),
        Err(error) => planner.plan_without_sense(&error),
    }
    planner.plan.basis.tally = planner.tally;
    planner.plan
}

/// A plan in the making.
struct Planner<'a> {
    observed: &'a Observed,
    tally: Tally,
    now: Timestamp,
    plan: Plan,
}

impl Planner<'_> {
    /// A Job as Kubernetes knows it.
    fn plan_plain(&mut self) {
        let job = &*self.observed.job;
        self.plan.basis.backoff = updated_backoff(self.observed.backoff, &self.tally);
        let failures = Failures::Known {
            pods: self.tally.failed,
            restarts: end::restarts(&self.tally),
        };
        let wanted = size::wanted(job, &self.tally);
        self.end_or_size(failures, wanted, None);
    }

    /// A Job that ends with its queue.
    fn plan_with_queue(&mut self, spec: &QueueSpec) {
        let job = &*self.observed.job;
        self.plan.basis.has_queue = true;
        self.plan.basis.forgiven = self.observed.forgiven;
        if let QueueView::Seen(seen) = &self.observed.queue {
            let workers = &seen.workers;
            let revocations =
                queue::workers::revocations(&self.tally, &self.observed.gone, workers);
            self.plan.queue_actions.extend(revocations);
            self.plan.progress = Some(queue::progress(&seen.status.counts));
        }
        let announced = conditions::announced(job);
        let verdict = match &announced {
            Some((verdict, _)) if queue::verdict::is_by_queue(&verdict.reason) => {
                Some(verdict.clone())
            }
            Some(_) => None,
            None => queue::verdict::verdict(job, spec, &self.observed.queue),
        };
        if let Some(verdict) = verdict {
            let condition = announced.map(|(_, condition)| condition);
            let left = queue::verdict::drain_left(spec.drain, condition, self.now);
            self.drain(verdict, condition.is_none(), left);
            return;
        }
        let failures = self.failures_of_work();
        let Direction {
            demand,
            actions,
            events,
            look_again,
        } = queue::direct(spec, &self.observed.queue, job, &self.tally, self.now);
        let active = signed(self.tally.active.len());
        let kept = active.min(job.parallelism());
        let wanted = match demand {
            Demand::NoNewPods => kept,
            Demand::UpTo(useful) => useful.max(kept),
        };
        self.end_or_size(failures, wanted, Some(spec));
        if self.plan.end.is_none() && !job.is_deleting() {
            self.plan.queue_actions.extend(actions);
            self.plan.events.extend(events);
            self.plan.requeue_after = earliest(self.plan.requeue_after, look_again);
            if let Demand::UpTo(useful) = demand {
                self.delete_idle(spec, active - useful);
            }
        }
    }

    /// A Job whose annotations mean nothing: it is left as it is until they do.
    fn plan_without_sense(&mut self, error: &AnnotationError) {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            message.push_str(&format!(": {source}"));
        }
        self.plan.basis.has_queue = true;
        self.plan
            .events
            .push(Event::waiting("InvalidQueueAnnotation", message));
        let active = signed(self.tally.active.len());
        self.end_or_size(Failures::Unknown, active, None);
    }

    /// Counts failures since an item was last done, if that can be seen.
    fn failures_of_work(&mut self) -> Failures {
        let QueueView::Seen(seen) = &self.observed.queue else {
            return Failures::Unknown;
        };
        let last_done = queue::failures::last_done(&seen.status);
        let record = queue::failures::since_last_done(&self.observed.job, &self.tally, last_done);
        let restarts = end::restarts(&self.tally);
        let forgiven = self.observed.forgiven.after(last_done, restarts);
        self.plan.basis.backoff = record;
        self.plan.basis.forgiven = forgiven;
        Failures::Known {
            pods: record.failures_after_last_success.into(),
            restarts: restarts - forgiven.restarts,
        }
    }

    /// Lets Pods leave by themselves, and deletes those that do not.
    fn drain(&mut self, verdict: conditions::Verdict, is_new: bool, left: Option<Duration>) {
        let mut end = if is_new {
            let abandoned = self.abandoned();
            if abandoned > 0 {
                self.plan.events.push(Event::warning(
                    "AbandonedItems",
                    format!("{abandoned} items were abandoned: {}", verdict.message),
                ));
            }
            End::new(verdict, self.now)
        } else {
            End::announced(verdict)
        };
        end.draining = !self.tally.active.is_empty();
        self.plan.end = Some(end);
        match left {
            Some(left) if !self.tally.active.is_empty() => self.plan.requeue_after = Some(left),
            Some(_) => {}
            None => self.plan.delete = deletions(&self.tally.active, FinalizerFirst::Remove),
        }
    }

    fn abandoned(&self) -> u64 {
        match &self.observed.queue {
            QueueView::Seen(seen) => seen.status.counts.abandoned,
            QueueView::Unread | QueueView::Unavailable(_) | QueueView::Missing => 0,
        }
    }

    fn end_or_size(&mut self, failures: Failures, wanted: i64, spec: Option<&QueueSpec>) {
        let job = &*self.observed.job;
        let end = match conditions::announced(job) {
            Some((verdict, _)) => Some(End::announced(verdict)),
            None => end::reached(job, &self.tally, failures, self.now)
                .map(|verdict| End::new(verdict, self.now)),
        };
        if end.is_some() {
            self.plan.end = end;
            self.plan.delete = deletions(&self.tally.active, FinalizerFirst::Keep);
            return;
        }
        self.plan.requeue_after = end::until_deadline(job, self.now);
        if self.observed.expectations_met && !job.is_deleting() {
            self.plan.basis.sized = true;
            self.size(wanted, spec);
        }
    }

    fn size(&mut self, wanted: i64, spec: Option<&QueueSpec>) {
        let job = &*self.observed.job;
        if job.is_suspended() {
            self.plan.delete = deletions(&self.tally.active, FinalizerFirst::Remove);
            return;
        }
        let holdings = match &self.observed.queue {
            QueueView::Seen(seen) => queue::workers::holdings(&seen.workers),
            QueueView::Unread | QueueView::Unavailable(_) | QueueView::Missing => HashMap::new(),
        };
        let Sizing {
            delete,
            create,
            retry_after,
        } = size::size(
            job,
            &self.tally,
            wanted,
            self.plan.basis.backoff,
            self.observed.retry_delay,
            self.now,
            |pod| holdings.get(pod.uid()).copied().unwrap_or(0),
        );
        self.plan.delete = deletions(&delete, FinalizerFirst::Remove);
        self.plan.requeue_after = earliest(self.plan.requeue_after, retry_after);
        if !create.is_empty() {
            self.create(create, spec);
        }
    }

    fn create(&mut self, slots: Vec<Slot>, spec: Option<&QueueSpec>) {
        match Template::new(&self.observed.job) {
            Ok(mut template) => {
                if let Some(spec) = spec {
                    queue::pods::equip(&mut template, spec, &self.observed.workers);
                }
                self.plan.create = batches(&template, slots, self.observed.seed);
            }
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.plan
                    .events
                    .push(Event::warning("FailedCreate", message));
                self.plan.error = Some(error.to_string());
            }
        }
    }

    /// Deletes Pods that nobody needs and that have held nothing for long.
    fn delete_idle(&mut self, spec: &QueueSpec, spare: i64) {
        let QueueView::Seen(seen) = &self.observed.queue else {
            return;
        };
        let spare = usize::try_from(spare).unwrap_or(0);
        let is_settled = self.plan.basis.sized && self.plan.delete.is_empty();
        if is_settled && !self.observed.job.is_suspended() && spare > 0 {
            let idle = queue::workers::idle(&self.tally, spec, &seen.workers, spare, self.now);
            self.plan.delete = deletions(&idle, FinalizerFirst::Remove);
        }
    }
}

fn skipped(observed: &Observed) -> Option<Plan> {
    let job = &observed.job;
    let mut events = Vec::new();
    let skip = if !observed.scope.contains(job) {
        events.extend(queue::not_managed(job));
        Skip::ManagedElsewhere
    } else if conditions::finished(&job.status.conditions).is_some() {
        Skip::Finished
    } else if let Some(CompletionMode::Unknown(_)) = job.spec.completion_mode {
        events.push(Event::warning(
            "UnknownCompletionMode",
            "Skipped Job sync because completion mode is unknown",
        ));
        Skip::UnknownCompletionMode
    } else {
        return None;
    };
    Some(Plan {
        skip: Some(skip),
        events,
        ..Plan::default()
    })
}

fn updated_backoff(record: BackoffRecord, tally: &Tally) -> BackoffRecord {
    let ends = |pods: &[Arc<Pod>]| -> Vec<Timestamp> {
        pods.iter().map(|pod| backoff::finish_time(pod)).collect()
    };
    record.after(&ends(&tally.new_succeeded), &ends(&tally.new_failed))
}

fn batches(template: &Template, slots: Vec<Slot>, seed: u64) -> Vec<Vec<NewPod>> {
    let mut taken = HashSet::new();
    let mut suffixes = (0..).map(|n| create::suffix(seed, n));
    let pods = slots
        .into_iter()
        .map(|slot| {
            let suffix = suffixes
                .by_ref()
                .find(|suffix| taken.insert(suffix.clone()))
                .unwrap_or_default();
            template.pod(slot, &suffix)
        })
        .collect();
    size::slow_start(pods)
}

fn deletions(pods: &[Arc<Pod>], finalizer: FinalizerFirst) -> Vec<Deletion> {
    pods.iter()
        .map(|pod| Deletion {
            pod: Arc::clone(pod),
            finalizer,
        })
        .collect()
}

/// Returns the earlier of two times to look again.
#[must_use]
pub fn earliest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (either, None) | (None, either) => either,
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
