//! How long a Job waits before it makes another Pod after failures.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::{ContainerStatus, Pod};
use crate::plan::per_index;

/// How long a Job waits before it replaces Pods that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryDelay {
    /// After the first failure; doubles with each further one.
    pub base: Duration,
    /// The longest.
    pub cap: Duration,
}

impl Default for RetryDelay {
    /// What Kubernetes' own Job controller waits.
    fn default() -> Self {
        Self {
            base: Duration::from_secs(10),
            cap: Duration::from_secs(600),
        }
    }
}

impl RetryDelay {
    /// Returns what is left at `now` of the delay after `failures` failures.
    #[must_use]
    pub fn left(self, failures: u64, last_failure: Option<Timestamp>, now: Timestamp) -> Duration {
        let (Some(last_failure), 1..) = (last_failure, failures) else {
            return Duration::ZERO;
        };
        let doublings = u32::try_from(failures - 1).unwrap_or(u32::MAX);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let delay = self.base.saturating_mul(factor).min(self.cap);
        let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
        let left = delay.saturating_sub(now.duration_since(last_failure));
        Duration::try_from(left).unwrap_or(Duration::ZERO)
    }

    /// Returns what is left at `now` of the delay of an index whose last Pod was `last_failed`.
    #[must_use]
    pub fn left_of_index(self, last_failed: Option<&Pod>, now: Timestamp) -> Duration {
        last_failed.map_or(Duration::ZERO, |pod| {
            let failures = per_index::total_failures(pod) + 1;
            self.left(failures, Some(finish_time(pod)), now)
        })
    }
}

/// The failures of a Job since its last success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackoffRecord {
    /// How many.
    pub failures_after_last_success: u32,
    /// When the latest of them ended.
    pub last_failure: Option<Timestamp>,
}

impl BackoffRecord {
    /// Returns the record after Pods that finished at these times.
    #[must_use]
    pub fn after(self, succeeded: &[Timestamp], failed: &[Timestamp]) -> Self {
        let latest_success = succeeded.iter().copied().max();
        let (earlier, counted) = match latest_success {
            None => (self, failed.to_vec()),
            Some(success) => (
                Self::default(),
                failed
                    .iter()
                    .copied()
                    .filter(|end| *end > success)
                    .collect(),
            ),
        };
        Self {
            failures_after_last_success: earlier
                .failures_after_last_success
                .saturating_add(u32::try_from(counted.len()).unwrap_or(u32::MAX)),
            last_failure: counted.into_iter().max().or(earlier.last_failure),
        }
    }

    /// Returns how long no Pod may be made yet.
    #[must_use]
    pub fn remaining(self, delay: RetryDelay, now: Timestamp) -> Duration {
        delay.left(
            u64::from(self.failures_after_last_success),
            self.last_failure,
            now,
        )
    }
}

/// Returns when a finished Pod ended, by the best source that it has.
#[must_use]
pub fn finish_time(pod: &Pod) -> Timestamp {
    let not_ready = || {
        let ready = pod.condition("Ready")?;
        let ended = ready.status == crate::api::ConditionStatus::False;
        ended.then_some(ready.last_transition_time.as_ref()?.0)
    };
    let told_to_go = || {
        let deletion = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        deletion.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    containers_ended(pod)
        .or_else(not_ready)
        .or_else(told_to_go)
        .or_else(|| Some(pod.metadata.creation_timestamp.as_ref()?.0))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns when the last container of the Pod's life ended, if every one of them has.
fn containers_ended(pod: &Pod) -> Option<Timestamp> {
    let sidecars: Vec<&str> = pod.sidecars().collect();
    let is_sidecar = |status: &&ContainerStatus| sidecars.contains(&status.name.as_str());
    let mut latest = None;
    for status in pod
        .status
        .container_statuses
        .iter()
        .chain(pod.status.init_container_statuses.iter().filter(is_sidecar))
    {
        let ended = status.state.terminated.as_ref()?.finished_at.as_ref()?.0;
        latest = latest.max(Some(ended));
    }
    latest
}
