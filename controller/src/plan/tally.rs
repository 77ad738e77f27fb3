//! The Pods of a Job by class, and the counts that every test is made on.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::indexes::Indexes;
use super::per_index;
use crate::api::{Job, Pod, PodPhase, Uid};

/// The Pods of a Job by class, before anything is done.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// All claimed Pods; of an Indexed Job in the order of their indexes.
    pub pods: Vec<Arc<Pod>>,
    /// Pods that run or wait to run.
    pub active: Vec<Arc<Pod>>,
    /// How many of them are ready.
    pub ready: usize,
    /// Pods on their way out whose containers may still run.
    pub terminating: usize,
    /// Pods that succeeded and are in no counter and no list yet.
    pub new_succeeded: Vec<Arc<Pod>>,
    /// Pods that failed and are in no counter and no list yet.
    pub new_failed: Vec<Arc<Pod>>,
    /// Successes: Pods, or distinct indexes.
    pub succeeded: u64,
    /// Failures that count.
    pub failed: u64,
    /// Indexes that the status calls completed.
    pub completed_before: Indexes,
    /// Those and the indexes of Pods that succeeded since.
    pub completed: Indexes,
    /// Failed indexes, when failures are counted index by index.
    pub failed_indexes: Option<Indexes>,
    /// Failed Pods that keep their finalizer until they are replaced, by index.
    pub kept: BTreeMap<u32, Arc<Pod>>,
}

impl Tally {
    /// Counts the claimed Pods of `job`.
    #[must_use]
    pub fn new(job: &Job, mut pods: Vec<Arc<Pod>>, in_flight: &HashSet<Uid>) -> Self {
        if job.is_indexed() {
            // Completed indexes are written down in order, however many fit into one sync.
            pods.sort_by_key(|pod| pod.completion_index());
        }
        let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| pod.is_active()).cloned().collect();
        let ready = active.iter().filter(|pod| pod.is_ready()).count();
        let terminating = pods.iter().filter(|pod| pod.is_terminating()).count();
        let (new_succeeded, new_failed) = newly_finished(job, &pods, in_flight);
        let (succeeded, failed) = effective_counts(job, &new_succeeded, &new_failed);
        let mut tally = Self {
            ready,
            terminating,
            succeeded,
            failed,
            active,
            new_succeeded,
            new_failed,
            ..Self::default()
        };
        if job.is_indexed() {
            (tally.completed_before, tally.completed) = completed_indexes(job, &pods);
            tally.succeeded = tally.completed.len();
            if job.has_backoff_limit_per_index() {
                let failed_indexes = per_index::failed_indexes(job, &pods);
                let settled = tally.completed.union(&failed_indexes);
                tally.kept = per_index::kept_for_replacement(job, &pods, in_flight, &settled);
                tally.failed_indexes = Some(failed_indexes);
            }
        }
        tally.pods = pods;
        tally
    }
}

/// Returns how many completions an Indexed Job has; 0 when absent.
#[must_use]
pub fn completions(job: &Job) -> u32 {
    job.spec
        .completions
        .and_then(|completions| u32::try_from(completions).ok())
        .unwrap_or(0)
}

/// Tells whether `pod` is a failure by the Job's replacement policy.
#[must_use]
pub fn counts_as_failed(job: &Job, pod: &Pod) -> bool {
    let has_failed = pod.status.phase == Some(PodPhase::Failed);
    if job.replaces_only_failed() {
        has_failed
    } else {
        has_failed || pod.is_terminating()
    }
}

/// Tells whether `pod` may still have to be counted.
#[must_use]
pub fn is_new(pod: &Pod, in_flight: &HashSet<Uid>) -> bool {
    pod.is_tracked() && !in_flight.contains(pod.uid())
}

/// Tells whether the index of `pod`, where it needs one, is one of the Job's.
#[must_use]
pub fn has_valid_index(job: &Job, pod: &Pod) -> bool {
    !job.is_indexed()
        || pod
            .completion_index()
            .is_some_and(|index| index < completions(job))
}

/// Returns the Pods that succeeded and those that failed since the status was written.
#[must_use]
pub fn newly_finished(
    job: &Job,
    pods: &[Arc<Pod>],
    in_flight: &HashSet<Uid>,
) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    let listed = job.status.uncounted_terminated_pods.as_ref();
    let listed_succeeded: HashSet<&str> = listed
        .iter()
        .flat_map(|listed| listed.succeeded.iter().map(String::as_str))
        .collect();
    let listed_failed: HashSet<&str> = listed
        .iter()
        .flat_map(|listed| listed.failed.iter().map(String::as_str))
        .collect();
    for pod in pods {
        // A Pod on its way out that was listed as failed may exit 0 after all: it stays what it
        // was called first.
        let is_listed = listed_succeeded.contains(pod.uid()) || listed_failed.contains(pod.uid());
        if is_listed || !is_new(pod, in_flight) || !has_valid_index(job, pod) {
            continue;
        }
        if pod.has_succeeded() {
            succeeded.push(Arc::clone(pod));
        } else if counts_as_failed(job, pod) {
            failed.push(Arc::clone(pod));
        }
    }
    (succeeded, failed)
}

/// Returns successes and failures that count: written down, listed, and new.
#[must_use]
pub fn effective_counts(
    job: &Job,
    new_succeeded: &[Arc<Pod>],
    new_failed: &[Arc<Pod>],
) -> (u64, u64) {
    let listed = job.status.uncounted_terminated_pods.as_ref();
    let policy = job.spec.pod_failure_policy.as_ref();
    let counted = |counter: Option<i32>| counter.map_or(0, |n| u64::try_from(n).unwrap_or(0));
    let failed = new_failed
        .iter()
        .filter(|pod| super::failure_policy::matched(policy, pod).counts())
        .count();
    (
        counted(job.status.succeeded)
            + listed.map_or(0, |listed| listed.succeeded.len() as u64)
            + new_succeeded.len() as u64,
        counted(job.status.failed)
            + listed.map_or(0, |listed| listed.failed.len() as u64)
            + failed as u64,
    )
}

/// Returns the completed indexes as written down, and with those of new Pods.
#[must_use]
pub fn completed_indexes(job: &Job, pods: &[Arc<Pod>]) -> (Indexes, Indexes) {
    let completions = completions(job);
    let text = job.status.completed_indexes.as_deref().unwrap_or_default();
    let before = Indexes::parse(text, completions);
    let completed = before.with(
        pods.iter()
            .filter(|pod| pod.has_succeeded() && pod.is_tracked())
            .filter_map(|pod| pod.completion_index())
            .filter(|index| *index < completions),
    );
    (before, completed)
}
