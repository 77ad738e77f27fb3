//! Failures counted index by index (`backoffLimitPerIndex`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::{self, RetryDelay};
use super::failure_policy::{self, Match};
use super::indexes::Indexes;
use super::tally::{completions, counts_as_failed, is_new};
use crate::api::names::{INDEX_FAILURE_COUNT, INDEX_IGNORED_FAILURE_COUNT};
use crate::api::{FailurePolicyAction, Job, Pod, Uid};

/// The two failure counts that a new Pod of an index carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FailureCounts {
    /// Failures that count.
    pub counted: u32,
    /// Failures that the failure policy ignores.
    pub ignored: u32,
}

impl FailureCounts {
    /// Returns the counts of the Pod that replaces `replaced`.
    #[must_use]
    pub fn of_replacement(job: &Job, replaced: Option<&Pod>) -> Self {
        let Some(pod) = replaced else {
            return Self::default();
        };
        let mut counts = Self {
            counted: parse_count(pod.annotation(INDEX_FAILURE_COUNT)),
            ignored: parse_count(pod.annotation(INDEX_IGNORED_FAILURE_COUNT)),
        };
        if failure_policy::matched(job.spec.pod_failure_policy.as_ref(), pod).counts() {
            counts.counted += 1;
        } else {
            counts.ignored += 1;
        }
        counts
    }
}

/// Reads a failure count; what is no count reads as 0.
#[must_use]
pub fn parse_count(annotation: Option<&str>) -> u32 {
    annotation
        .and_then(|text| text.parse::<i32>().ok())
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(0)
}

/// Returns how often the index of `pod` had failed before it, in all.
#[must_use]
pub fn total_failures(pod: &Pod) -> u64 {
    u64::from(parse_count(pod.annotation(INDEX_FAILURE_COUNT)))
        + u64::from(parse_count(pod.annotation(INDEX_IGNORED_FAILURE_COUNT)))
}

/// Returns the failed indexes: those written down and those of Pods not counted yet.
#[must_use]
pub fn failed_indexes(job: &Job, pods: &[Arc<Pod>]) -> Indexes {
    let completions = completions(job);
    let earlier = job.status.failed_indexes.as_deref().unwrap_or_default();
    Indexes::parse(earlier, completions).with(
        pods.iter()
            .filter(|pod| pod.is_tracked() && index_has_failed(job, pod))
            .filter_map(|pod| pod.completion_index())
            .filter(|index| *index < completions),
    )
}

/// Tells whether the failure of `pod` is the last that its index may have.
#[must_use]
pub fn index_has_failed(job: &Job, pod: &Pod) -> bool {
    if !counts_as_failed(job, pod) {
        return false;
    }
    match failure_policy::matched(job.spec.pod_failure_policy.as_ref(), pod) {
        Match::Rule {
            action: FailurePolicyAction::FailIndex,
            ..
        } => true,
        matched => {
            let limit = job.spec.backoff_limit_per_index.unwrap_or(i32::MAX);
            let failures = parse_count(pod.annotation(INDEX_FAILURE_COUNT));
            matched.counts() && i64::from(failures) >= i64::from(limit)
        }
    }
}

/// Returns, by index, the failed Pods that must keep their finalizer until they are replaced.
///
/// The replacement inherits their failure counts, which live nowhere else.
#[must_use]
pub fn kept_for_replacement(
    job: &Job,
    pods: &[Arc<Pod>],
    in_flight: &HashSet<Uid>,
    settled: &Indexes,
) -> BTreeMap<u32, Arc<Pod>> {
    let completions = completions(job);
    let active: HashSet<u32> = pods
        .iter()
        .filter(|pod| pod.is_active())
        .filter_map(|pod| pod.completion_index())
        .collect();
    let mut kept: BTreeMap<u32, Arc<Pod>> = BTreeMap::new();
    for pod in pods {
        let Some(index) = pod.completion_index() else {
            continue;
        };
        let is_candidate = index < completions
            && is_new(pod, in_flight)
            && counts_as_failed(job, pod)
            && !settled.contains(index)
            && !active.contains(&index);
        if !is_candidate {
            continue;
        }
        let is_later = kept.get(&index).is_none_or(|other| {
            total_failures(other) <= total_failures(pod)
                && backoff::finish_time(pod) >= backoff::finish_time(other)
        });
        if is_later {
            kept.insert(index, Arc::clone(pod));
        }
    }
    kept
}

/// Returns those of `candidates` whose delay is over; when there are none, the shortest delay.
#[must_use]
pub fn past_their_delay(
    candidates: &[u32],
    last_failed: &BTreeMap<u32, Arc<Pod>>,
    retry_delay: RetryDelay,
    now: Timestamp,
) -> (Vec<u32>, Option<Duration>) {
    let delay = |index: &u32| {
        let last = last_failed.get(index).map(Arc::as_ref);
        retry_delay.left_of_index(last, now)
    };
    let due: Vec<u32> = candidates
        .iter()
        .copied()
        .filter(|index| delay(index).is_zero())
        .collect();
    let wait = if due.is_empty() {
        candidates.iter().map(delay).min()
    } else {
        None
    };
    (due, wait)
}
