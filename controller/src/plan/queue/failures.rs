//! Which failures are the work's.
//!
//! Against the back-off limit and the retry delay of a Job with a queue count only failures since
//! an item was last done: a queue that moves forward is not failing, however long it runs.

use gangline_protocol::QueueStatus;
use jiff::Timestamp;

use crate::api::{ContainerStatus, Job, Pod, PodPhase};
use crate::plan::BackoffRecord;
use crate::plan::backoff::finish_time;
use crate::plan::failure_policy;
use crate::plan::tally::Tally;

/// A worker that was told to go and has given back what it held.
const TOLD_TO_GO: i32 = 143;
/// A worker that lost the service.
const SERVICE_LOST: i32 = 69;

/// Restarts in place that were made good by progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgiven {
    /// When an item was last done, as far as was seen.
    pub last_done: Option<Timestamp>,
    /// How many restarts there had been by then.
    pub restarts: i64,
}

impl Forgiven {
    /// Returns what is forgiven once `last_done` and `restarts` are seen.
    #[must_use]
    pub fn after(self, last_done: Option<Timestamp>, restarts: i64) -> Self {
        if last_done == self.last_done {
            Self {
                restarts: self.restarts.min(restarts),
                ..self
            }
        } else {
            Self {
                last_done,
                restarts,
            }
        }
    }
}

/// Returns when an item of the queue was last done.
#[must_use]
pub fn last_done(status: &QueueStatus) -> Option<Timestamp> {
    let millis = i64::try_from(status.last_done_at?.0).ok()?;
    Timestamp::from_millisecond(millis).ok()
}

/// Returns the failures of Pods since `last_done` that are the work's.
#[must_use]
pub fn since_last_done(job: &Job, tally: &Tally, last_done: Option<Timestamp>) -> BackoffRecord {
    let policy = job.spec.pod_failure_policy.as_ref();
    let ends: Vec<Timestamp> = tally
        .pods
        .iter()
        .filter(|pod| pod.status.phase == Some(PodPhase::Failed))
        .filter(|pod| !pod.is_disrupted() && !has_given_back(pod))
        .filter(|pod| failure_policy::matched(policy, pod).counts())
        .map(|pod| finish_time(pod))
        .filter(|end| last_done.is_none_or(|done| *end > done))
        .collect();
    BackoffRecord::default().after(&[], &ends)
}

/// Tells whether every container that failed did so by the service's doing or by order.
#[must_use]
pub fn has_given_back(pod: &Pod) -> bool {
    let exit_code =
        |container: &ContainerStatus| Some(container.state.terminated.as_ref()?.exit_code);
    let mut failed = pod
        .status
        .container_statuses
        .iter()
        .filter_map(exit_code)
        .filter(|code| *code != 0)
        .peekable();
    failed.peek().is_some() && failed.all(|code| matches!(code, TOLD_TO_GO | SERVICE_LOST))
}
