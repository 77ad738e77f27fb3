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
pub mod event;
pub mod failure_policy;
pub mod indexes;
pub mod orphan;
pub mod per_index;
pub mod size;
pub mod success_policy;
pub mod tally;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use account::{Accounting, Conclusion, Outcome, account};
pub use backoff::BackoffRecord;
pub use create::NewPod;
pub use event::{Event, EventKind};

use crate::api::{CompletionMode, Job, JobCondition, Pod, PodPhase, Uid};
use claim::Claim;
use conditions::Verdict;
use create::Template;
use size::Sizing;
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
    /// What to say, beside what the actions themselves have to say.
    pub events: Vec<Event>,
    /// When to look again, if nothing happens before.
    pub requeue_after: Option<Duration>,
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

/// How a Job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What its conditions say.
    pub verdict: Verdict,
    /// The condition that announces it, unless it stands already.
    pub interim: Option<JobCondition>,
    /// Pods may still run for a while: they are counted when they have ended.
    pub draining: bool,
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
    let tally = Tally::new(job, pods, &observed.removals_in_flight);
    let backoff = updated_backoff(observed.backoff, &tally);
    let mut plan = Plan {
        adopt,
        release,
        ..Plan::default()
    };
    plan.end = end(job, &tally, now);
    if plan.end.is_some() {
        plan.delete = deletions(&tally.active, FinalizerFirst::Keep);
    } else {
        plan.requeue_after = until_deadline(job, now);
        if observed.expectations_met && !job.is_deleting() {
            plan.basis.sized = true;
            plan_size(&mut plan, observed, &tally, backoff, now);
        }
    }
    plan.basis.tally = tally;
    plan.basis.backoff = backoff;
    plan
}

fn skipped(observed: &Observed) -> Option<Plan> {
    let job = &observed.job;
    let mut events = Vec::new();
    let skip = if !observed.scope.contains(job) {
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

/// Finds the end that the Job has reached before its size is judged.
fn end(job: &Job, tally: &Tally, now: Timestamp) -> Option<End> {
    if let Some((verdict, _)) = conditions::announced(job) {
        return Some(End {
            verdict,
            interim: None,
            draining: false,
        });
    }
    let verdict = failed_by_policy(job, tally)
        .or_else(|| past_backoff_limit(job, tally))
        .or_else(|| past_deadline(job, now))
        .or_else(|| past_index_limits(job, tally))
        .or_else(|| succeeded_by_policy(job, tally))?;
    Some(End::new(verdict, now))
}

impl End {
    /// Returns an end that is announced now.
    #[must_use]
    pub fn new(verdict: Verdict, now: Timestamp) -> Self {
        Self {
            interim: Some(verdict.interim(now)),
            verdict,
            draining: false,
        }
    }
}

fn failed_by_policy(job: &Job, tally: &Tally) -> Option<Verdict> {
    let policy = job.spec.pod_failure_policy.as_ref()?;
    let message = tally
        .pods
        .iter()
        .filter(|pod| tally::counts_as_failed(job, pod))
        .find_map(|pod| failure_policy::matched(Some(policy), pod).job_failure())?;
    Some(Verdict::failure("PodFailurePolicy", message))
}

fn past_backoff_limit(job: &Job, tally: &Tally) -> Option<Verdict> {
    let limit = job.backoff_limit();
    let failed = i64::try_from(tally.failed).unwrap_or(i64::MAX);
    let is_past = failed > limit || (restarts_in_place(job) && past_limit(restarts(tally), limit));
    is_past.then(backoff_limit_exceeded)
}

/// The verdict on a Job with too many failures.
fn backoff_limit_exceeded() -> Verdict {
    Verdict::failure(
        "BackoffLimitExceeded",
        "Job has reached the specified backoff limit",
    )
}

/// In place, reaching the limit is enough; a limit of 0 bears no restart.
fn past_limit(restarts: i64, limit: i64) -> bool {
    if limit == 0 {
        restarts > 0
    } else {
        restarts >= limit
    }
}

fn restarts_in_place(job: &Job) -> bool {
    job.spec.template["spec"]["restartPolicy"] == "OnFailure"
}

fn restarts(tally: &Tally) -> i64 {
    tally
        .pods
        .iter()
        .map(|pod| &pod.status)
        .filter(|status| matches!(status.phase, Some(PodPhase::Running | PodPhase::Pending)))
        .flat_map(|status| {
            status
                .init_container_statuses
                .iter()
                .chain(&status.container_statuses)
        })
        .map(|container| i64::from(container.restart_count))
        .sum()
}

fn past_deadline(job: &Job, now: Timestamp) -> Option<Verdict> {
    let left = deadline_left(job, now)?;
    left.is_none().then(|| {
        Verdict::failure(
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        )
    })
}

fn until_deadline(job: &Job, now: Timestamp) -> Option<Duration> {
    deadline_left(job, now)?
}

/// Returns what is left of a deadline that runs; nothing is left of one that is past.
fn deadline_left(job: &Job, now: Timestamp) -> Option<Option<Duration>> {
    let seconds = job.spec.active_deadline_seconds?;
    if job.is_suspended() {
        return None;
    }
    // A Job that has not been started yet starts in this sync.
    let start = job.status.start_time.as_ref().map_or(now, |time| time.0);
    let left = SignedDuration::from_secs(seconds).saturating_sub(now.duration_since(start));
    Some(Duration::try_from(left).ok().filter(|left| !left.is_zero()))
}

fn past_index_limits(job: &Job, tally: &Tally) -> Option<Verdict> {
    let failed = tally.failed_indexes.as_ref()?.len();
    let bearable = job
        .spec
        .max_failed_indexes
        .map(|max| u64::try_from(max).unwrap_or(0));
    if bearable.is_some_and(|max| failed > max) {
        return Some(Verdict::failure(
            "MaxFailedIndexesExceeded",
            "Job has exceeded the specified maximal number of failed indexes",
        ));
    }
    let all = u64::from(tally::completions(job));
    (failed > 0 && failed + tally.completed.len() >= all)
        .then(|| Verdict::failure("FailedIndexes", "Job has failed indexes"))
}

fn succeeded_by_policy(job: &Job, tally: &Tally) -> Option<Verdict> {
    if !job.is_indexed() {
        return None;
    }
    let message = success_policy::matched(
        job.spec.success_policy.as_ref(),
        tally::completions(job),
        &tally.completed,
    )?;
    Some(Verdict::success("SuccessPolicy", message))
}

fn plan_size(
    plan: &mut Plan,
    observed: &Observed,
    tally: &Tally,
    backoff: BackoffRecord,
    now: Timestamp,
) {
    let job = &*observed.job;
    if job.is_suspended() {
        plan.delete = deletions(&tally.active, FinalizerFirst::Remove);
        return;
    }
    let Sizing {
        delete,
        create,
        retry_after,
    } = size::size(job, tally, size::wanted(job, tally), backoff, now);
    plan.delete = deletions(&delete, FinalizerFirst::Remove);
    plan.requeue_after = earliest(plan.requeue_after, retry_after);
    if create.is_empty() {
        return;
    }
    match Template::new(job) {
        Ok(template) => plan.create = batches(&template, create, observed.seed),
        Err(error) => {
            plan.events.push(Event::warning(
                "FailedCreate",
                format!("Error creating: {error}"),
            ));
            plan.error = Some(error.to_string());
        }
    }
}

fn batches(template: &Template, slots: Vec<size::Slot>, seed: u64) -> Vec<Vec<NewPod>> {
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
