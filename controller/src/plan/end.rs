//! How a Job ends, by its own fields and its Pods.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::conditions::Verdict;
use super::tally::{self, Tally};
use super::{failure_policy, success_policy};
use crate::api::{Job, JobCondition, PodPhase};

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

    /// Returns an end that stands already.
    #[must_use]
    pub fn announced(verdict: Verdict) -> Self {
        Self {
            verdict,
            interim: None,
            draining: false,
        }
    }
}

/// How the failures of a Job compare with its back-off limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failures {
    /// So many Pods failed, and containers were restarted in place so often.
    Known {
        /// Pods that failed.
        pods: u64,
        /// Restarts in place.
        restarts: i64,
    },
    /// Nobody can tell now which failures count.
    Unknown,
}

/// Finds the end that the Job has reached before its size is judged.
#[must_use]
pub fn reached(job: &Job, tally: &Tally, failures: Failures, now: Timestamp) -> Option<Verdict> {
    failed_by_policy(job, tally)
        .or_else(|| past_backoff_limit(job, failures))
        .or_else(|| past_deadline(job, now))
        .or_else(|| past_index_limits(job, tally))
        .or_else(|| succeeded_by_policy(job, tally))
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

fn past_backoff_limit(job: &Job, failures: Failures) -> Option<Verdict> {
    let limit = job.backoff_limit();
    let Failures::Known { pods, restarts } = failures else {
        return None;
    };
    let failed = i64::try_from(pods).unwrap_or(i64::MAX);
    let is_past = failed > limit || (restarts_in_place(job) && past_limit(restarts, limit));
    is_past.then(|| {
        Verdict::failure(
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        )
    })
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

/// Returns how often the containers of Pods that still run were restarted in place.
#[must_use]
pub fn restarts(tally: &Tally) -> i64 {
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

/// Returns when the Job's deadline will be past, if one runs.
#[must_use]
pub fn until_deadline(job: &Job, now: Timestamp) -> Option<Duration> {
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
