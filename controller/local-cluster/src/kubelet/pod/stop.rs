//! How a Pod's containers are told to end.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::kubelet::status::End;

/// Kubernetes' default.
pub(super) const GRACE_SECONDS: i64 = 30;
/// What sidecars get at least when the containers before them have used up the Pod's grace period.
const LATE_GRACE_SECONDS_MIN: i64 = 2;

/// Why and how fast the containers are to end.
#[derive(Debug, Clone)]
pub(in crate::kubelet) struct Stop {
    pub(in crate::kubelet) grace: i64,
    /// Since when the grace period runs.
    at: Instant,
    pub(super) end: End,
}

impl Stop {
    fn new(grace: i64, end: End) -> Self {
        Self {
            grace,
            at: Instant::now(),
            end,
        }
    }

    /// How many seconds are left, for containers that are told later than others.
    pub(super) fn left(&self) -> i64 {
        left(self.grace, self.at.elapsed())
    }
}

fn left(grace: i64, passed: Duration) -> i64 {
    let passed = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
    let least = grace.min(LATE_GRACE_SECONDS_MIN);
    grace.saturating_sub(passed).max(least)
}

/// How many seconds the Pod's containers have to end.
pub(in crate::kubelet) fn grace(pod: &Pod) -> i64 {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.termination_grace_period_seconds)
        .unwrap_or(GRACE_SECONDS)
}

/// Has the containers stopped. A second call can only make it faster, and the first one's reason stays.
pub(super) fn end(stop: &watch::Sender<Option<Stop>>, grace: i64, end: End) {
    stop.send_if_modified(|stop| match stop {
        Some(stop) => {
            let sooner = grace < stop.grace;
            if sooner {
                (stop.grace, stop.at) = (grace, Instant::now());
            }
            sooner
        }
        None => {
            *stop = Some(Stop::new(grace, end));
            true
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_get_what_is_left_of_the_grace_period() {
        for (grace, passed, wanted) in
            [(30, 0, 30), (30, 12, 18), (30, 40, 2), (1, 1, 1), (0, 0, 0)]
        {
            assert_eq!(left(grace, Duration::from_secs(passed)), wanted);
        }
    }
}
