//! How many Pods to make or to delete.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::{BackoffRecord, RetryDelay};
use super::deletion_order;
use super::indexes::Indexes;
use super::per_index::{self, FailureCounts};
use super::tally::{Tally, completions};
use crate::api::{Job, Pod};

/// Most Pods that one sync makes or deletes.
pub const CHANGES_MAX: usize = 500;
/// A creation that has to wait is looked at again after this long at the earliest.
pub const RETRY_MIN: Duration = Duration::from_secs(1);

/// What to do about the number of Pods. Never both at once.
#[derive(Debug, Clone, Default)]
pub struct Sizing {
    /// Active Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Pods to make.
    pub create: Vec<Slot>,
    /// When to look again, for a creation that has to wait.
    pub retry_after: Option<Duration>,
}

/// What a new Pod is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// Its completion index, in an Indexed Job.
    pub index: Option<u32>,
    /// The failures of its index, when they are counted.
    pub failures: Option<FailureCounts>,
}

/// Returns how many Pods should be active.
#[must_use]
pub fn wanted(job: &Job, tally: &Tally) -> i64 {
    let active = signed(tally.active.len());
    match job.spec.completions {
        None if tally.succeeded > 0 => active,
        None => job.parallelism(),
        Some(completions) => {
            let left = i64::from(completions).saturating_sub_unsigned(tally.succeeded);
            left.min(job.parallelism()).max(0)
        }
    }
}

/// Sizes a Job that is not suspended towards `wanted` active Pods.
///
/// Those that hold least work go first.
#[must_use]
pub fn size(
    job: &Job,
    tally: &Tally,
    wanted: i64,
    backoff: BackoffRecord,
    retry_delay: RetryDelay,
    now: Timestamp,
    holds: impl Fn(&Pod) -> u64,
) -> Sizing {
    let active = signed(tally.active.len());
    let surplus = usize::try_from(active - wanted).unwrap_or(0);
    let mut delete = surplus_pods(job, tally, surplus, holds);
    if !delete.is_empty() {
        delete.truncate(CHANGES_MAX);
        return Sizing {
            delete,
            ..Sizing::default()
        };
    }
    let terminating = if job.replaces_only_failed() {
        signed(tally.terminating)
    } else {
        0
    };
    let missing = usize::try_from(wanted - active - terminating).unwrap_or(0);
    create(
        job,
        tally,
        missing.min(CHANGES_MAX),
        backoff,
        retry_delay,
        now,
    )
}

fn create(
    job: &Job,
    tally: &Tally,
    count: usize,
    backoff: BackoffRecord,
    retry_delay: RetryDelay,
    now: Timestamp,
) -> Sizing {
    let wait = |delay: Duration| Sizing {
        retry_after: Some(delay.max(RETRY_MIN)),
        ..Sizing::default()
    };
    if count == 0 {
        return Sizing::default();
    }
    if !job.has_backoff_limit_per_index() {
        let delay = backoff.remaining(retry_delay, now);
        if !delay.is_zero() {
            return wait(delay);
        }
    }
    if !job.is_indexed() {
        return Sizing {
            create: vec![Slot::default(); count],
            ..Sizing::default()
        };
    }
    let mut indexes = pending_indexes(job, tally, count);
    if job.has_backoff_limit_per_index() {
        let (due, delay) = per_index::past_their_delay(&indexes, &tally.kept, retry_delay, now);
        if let Some(delay) = delay {
            return wait(delay);
        }
        indexes = due;
    }
    let slot = |index: u32| Slot {
        index: Some(index),
        failures: job
            .has_backoff_limit_per_index()
            .then(|| FailureCounts::of_replacement(job, tally.kept.get(&index).map(Arc::as_ref))),
    };
    Sizing {
        create: indexes.into_iter().map(slot).collect(),
        ..Sizing::default()
    }
}

/// Returns the lowest `count` indexes that need a Pod.
#[must_use]
pub fn pending_indexes(job: &Job, tally: &Tally, count: usize) -> Vec<u32> {
    let index_of = |pod: &Arc<Pod>| pod.completion_index();
    let mut taken = tally
        .completed
        .with(tally.active.iter().filter_map(index_of));
    if job.replaces_only_failed() {
        let terminating = tally.pods.iter().filter(|pod| pod.is_terminating());
        taken = taken.with(terminating.filter_map(index_of));
    }
    if let Some(failed) = &tally.failed_indexes {
        taken = taken.union(failed);
    }
    lowest_pending(&taken, count, completions(job))
}

/// Returns the lowest `count` indexes below `completions` that are not `taken`.
#[must_use]
pub fn lowest_pending(taken: &Indexes, count: usize, completions: u32) -> Vec<u32> {
    taken.lowest_missing(count, completions)
}

/// Returns at least `surplus` active Pods to delete, and every one whose index is not its own.
fn surplus_pods(
    job: &Job,
    tally: &Tally,
    surplus: usize,
    holds: impl Fn(&Pod) -> u64,
) -> Vec<Arc<Pod>> {
    let (mut delete, mut left) = if job.is_indexed() {
        without_right_to_index(&tally.active, completions(job))
    } else {
        (Vec::new(), tally.active.clone())
    };
    if delete.len() < surplus {
        deletion_order::sort(&mut left);
        // Stable: among Pods that hold equally much, the order above stays.
        left.sort_by_key(|pod| holds(pod));
        left.truncate(surplus - delete.len());
        delete.extend(left);
    }
    delete
}

/// Splits active Pods into those whose index is missing, too high or taken, and the rest.
#[must_use]
pub fn without_right_to_index(
    active: &[Arc<Pod>],
    completions: u32,
) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut by_worth = active.to_vec();
    deletion_order::sort(&mut by_worth);
    let mut taken = HashSet::new();
    // Backwards: of several Pods with one index the best stays.
    let (mut keep, mut remove): (Vec<_>, Vec<_>) = by_worth.into_iter().rev().partition(|pod| {
        pod.completion_index()
            .is_some_and(|index| index < completions && taken.insert(index))
    });
    keep.reverse();
    remove.reverse();
    (remove, keep)
}

/// Splits creations into batches of 1, 2, 4, 8 …: where one fails, others would too.
#[must_use]
pub fn slow_start<T>(mut items: Vec<T>) -> Vec<Vec<T>> {
    let mut batches = Vec::new();
    let mut size = 1;
    while !items.is_empty() {
        let rest = items.split_off(size.min(items.len()));
        batches.push(std::mem::replace(&mut items, rest));
        size *= 2;
    }
    batches
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
