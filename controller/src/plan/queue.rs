//! What the queue of a Job means for the Job.
//!
//! What ends such a Job is its queue being over, not its Pods' exits. A queue that cannot be seen
//! is not gone: nothing is made, deleted or ended on its account.

pub mod annotations;
pub mod failures;
pub mod pods;
pub mod verdict;
pub mod workers;

use std::collections::HashSet;
use std::sync::Arc;

use gangline_protocol::{
    Counts, Phase, QueueName, QueueStatus, QueueUid, StopOutcome, WorkerName, WorkerView,
};
use jiff::Timestamp;

pub use annotations::{AnnotationError, FirstSuccess, ItemsSource, QueueSpec};
pub use failures::Forgiven;
pub use pods::{TokenSecret, WorkerSettings, Wrapper};

use super::backoff::finish_time;
use super::tally::Tally;
use super::{Event, conditions, earliest};
use crate::api::names::{BUILT_IN_CONTROLLER, GANGLINE_CONTROLLER, QUEUE, QUEUE_UID};
use crate::api::{Job, Pod, PodPhase, Uid};

/// What is seen of a Job's queue, later than the Pods of the same observation.
#[derive(Debug, Clone, Default)]
pub enum QueueView {
    /// The Job names no queue, or none that can be read.
    #[default]
    Unread,
    /// The service does not answer, and why.
    Unavailable(String),
    /// There is no such queue.
    Missing,
    /// It is there.
    Seen(Box<QueueSnapshot>),
}

/// A queue and its sessions.
#[derive(Debug, Clone)]
pub struct QueueSnapshot {
    /// Phase, counts and certificate.
    pub status: QueueStatus,
    /// Open sessions.
    pub workers: Vec<WorkerView>,
    /// Pods that are known never to have had a session.
    pub never_worked: HashSet<Uid>,
    /// Whether a Job that worked on this very queue is gone.
    pub outlived_a_job: bool,
}

/// A Pod of the Job whose object is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GonePod {
    /// Its uid.
    pub uid: Uid,
    /// Whether its end counts an attempt for what it had started.
    pub counted: bool,
}

/// What to ask of the queue service, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueAction {
    /// Write the queue's uid into the Job. Nothing else is done before that is durable.
    Latch(QueueUid),
    /// Make the queue.
    Create,
    /// Push these items, and seal. Repeating it changes nothing.
    Fill(ItemsSource),
    /// Give no more leases, so that workers settle what they hold.
    Pause,
    /// End the queue.
    Stop {
        /// Whether that is a success.
        outcome: StopOutcome,
        /// Why.
        reason: String,
    },
    /// End the session of a worker that is dead.
    Revoke {
        /// The worker.
        worker: WorkerName,
        /// Whether the loss counts an attempt.
        counted: bool,
    },
}

/// What the queue means for the number of Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// No Pod is made; parallelism still bounds those that there are.
    NoNewPods,
    /// At most so many Pods are worth having.
    UpTo(i64),
}

/// What the queue asks for while the Job goes on.
#[derive(Debug, Clone)]
pub(crate) struct Direction {
    pub(crate) demand: Demand,
    pub(crate) actions: Vec<QueueAction>,
    pub(crate) events: Vec<Event>,
    pub(crate) look_again: Option<std::time::Duration>,
}

/// Returns the uid of the queue that the Job began with.
#[must_use]
pub fn latched_uid(job: &Job) -> Option<QueueUid> {
    job.annotation(QUEUE_UID)?.parse().ok()
}

/// Returns how far a queue has come, as in `730/1000 done, 2 dead`.
#[must_use]
pub fn progress(counts: &Counts) -> String {
    let mut text = format!("{}/{} done", counts.done, counts.total());
    for (items, how) in [
        (counts.dead, "dead"),
        (counts.cancelled, "cancelled"),
        (counts.abandoned, "abandoned"),
    ] {
        if items > 0 {
            text.push_str(&format!(", {items} {how}"));
        }
    }
    text
}

/// Returns what to say about a Job that names a queue and that nobody here runs.
#[must_use]
pub fn not_managed(job: &Job) -> Option<Event> {
    let by_cluster = matches!(
        job.spec.managed_by.as_deref(),
        None | Some(BUILT_IN_CONTROLLER)
    );
    (by_cluster && job.annotation(QUEUE).is_some()).then(|| {
        Event::waiting(
            "NotManaged",
            format!(
                "annotation {QUEUE} has no effect without spec.managedBy: {GANGLINE_CONTROLLER}; \
                 the field is immutable, so the Job has to be created again"
            ),
        )
    })
}

/// Takes Pods that succeeded without ever having had a session for what they are: failures.
///
/// Once the queue is over, a Pod that comes late leaves well after its first call. While the
/// service is away nobody knows what they are: they are left out, and count when it is back.
#[must_use]
pub fn without_false_successes(
    job: &Job,
    pods: Vec<Arc<Pod>>,
    view: &QueueView,
) -> (Vec<Arc<Pod>>, Vec<Event>) {
    let listed = job.status.uncounted_terminated_pods.as_ref();
    let is_in = |list: &[Uid], pod: &Pod| list.iter().any(|uid| uid == pod.uid());
    let is_listed = |pod: &Pod| listed.is_some_and(|list| is_in(&list.succeeded, pod));
    let is_failed = |pod: &Pod| listed.is_some_and(|list| is_in(&list.failed, pod));
    let seen = match view {
        QueueView::Seen(seen) if !seen.status.phase.is_over() => seen,
        QueueView::Unavailable(_) if conditions::announced(job).is_none() => {
            // One that is listed stays what it was called first, or it would count twice.
            let is_known = |pod: &Pod| {
                !pod.has_succeeded() || !pod.is_tracked() || is_listed(pod) || is_failed(pod)
            };
            let known = pods.into_iter().filter(|pod| is_known(pod)).collect();
            return (known, Vec::new());
        }
        QueueView::Seen(_) | QueueView::Unavailable(_) | QueueView::Unread | QueueView::Missing => {
            return (pods, Vec::new());
        }
    };
    let mut events = Vec::new();
    let pods = pods
        .into_iter()
        .map(|pod| {
            let is_false =
                pod.has_succeeded() && !is_listed(&pod) && seen.never_worked.contains(pod.uid());
            if !is_false {
                return pod;
            }
            if pod.is_tracked() {
                events.push(Event::warning(
                    "SuccessWithoutWorker",
                    format!(
                        "Pod {} exited 0 without its worker ever having had a session: that is \
                         counted as a failure",
                        pod.name()
                    ),
                ));
            }
            let mut pod = Arc::unwrap_or_clone(pod);
            pod.status.phase = Some(PodPhase::Failed);
            Arc::new(pod)
        })
        .collect();
    (pods, events)
}

/// Says what the queue asks for while neither it nor the Job is over.
pub(crate) fn direct(
    spec: &QueueSpec,
    view: &QueueView,
    job: &Job,
    tally: &Tally,
    now: Timestamp,
) -> Direction {
    let mut direction = Direction {
        demand: Demand::NoNewPods,
        actions: Vec::new(),
        events: Vec::new(),
        look_again: None,
    };
    match view {
        QueueView::Unread => {}
        QueueView::Unavailable(why) => direction.events.push(Event::waiting(
            "QueueUnavailable",
            format!("nothing is known of queue {}: {why}", spec.queue),
        )),
        QueueView::Missing => {
            direction.actions.push(QueueAction::Create);
            direction.look_again = Some(super::size::RETRY_MIN);
        }
        QueueView::Seen(seen) => direct_seen(&mut direction, spec, &seen.status, job, tally, now),
    }
    direction
}

fn direct_seen(
    direction: &mut Direction,
    spec: &QueueSpec,
    status: &QueueStatus,
    job: &Job,
    tally: &Tally,
    now: Timestamp,
) {
    if latched_uid(job).is_none() {
        direction.actions.push(QueueAction::Latch(status.uid));
    }
    if status.phase == Phase::Open
        && let Some(items) = &spec.items
    {
        direction.actions.push(QueueAction::Fill(items.clone()));
    }
    if let Some(limit) = spec.stop_at_dead_items
        && status.counts.dead >= limit
    {
        direction.actions.push(QueueAction::Stop {
            outcome: StopOutcome::Failure,
            reason: format!("{} items are dead", status.counts.dead),
        });
        return;
    }
    if tally.succeeded > 0 {
        match spec.first_success {
            FirstSuccess::Stop => {
                stop_at_success(direction, spec, status, tally, now);
                return;
            }
            FirstSuccess::Continue => direction.events.extend(left_too_early(spec, tally)),
        }
    }
    direction.events.extend(waits_for(spec, status));
    let parallelism = job.parallelism();
    let left = i64::try_from(status.counts.left()).unwrap_or(i64::MAX);
    direction.demand = Demand::UpTo(if spec.scale_to_items {
        parallelism.min(left)
    } else {
        parallelism
    });
}

/// Has the others settle what they hold, and then stops the queue.
fn stop_at_success(
    direction: &mut Direction,
    spec: &QueueSpec,
    status: &QueueStatus,
    tally: &Tally,
    now: Timestamp,
) {
    let first = tally
        .pods
        .iter()
        .filter(|pod| pod.has_succeeded())
        .min_by_key(|pod| finish_time(pod));
    // Without a Pod to be seen the success is old: nobody is waited for.
    let time_left = first.and_then(|pod| verdict::time_left(spec.drain, finish_time(pod), now));
    if !status.paused {
        direction.actions.push(QueueAction::Pause);
    }
    if status.counts.leased == 0 || time_left.is_none() {
        let who = first.map_or("a Pod", |pod| pod.name());
        direction.actions.push(QueueAction::Stop {
            outcome: StopOutcome::Success,
            reason: format!("{who} exited 0 before the queue was over"),
        });
    }
    direction.look_again = earliest(direction.look_again, time_left);
}

fn left_too_early(spec: &QueueSpec, tally: &Tally) -> Vec<Event> {
    tally
        .new_succeeded
        .iter()
        .map(|pod| {
            let (pod, queue) = (pod.name(), &spec.queue);
            Event::warning(
                "LeftTooEarly",
                format!("Pod {pod} exited 0 before queue {queue} was over; it is replaced while items remain"),
            )
        })
        .collect()
}

/// Says what a queue waits for that gives no work, or gets no more.
fn waits_for(spec: &QueueSpec, status: &QueueStatus) -> Option<Event> {
    let queue: &QueueName = &spec.queue;
    let is_idle = status.counts.left() == 0;
    if status.paused && !is_idle {
        return Some(Event::waiting(
            "QueuePaused",
            format!("queue {queue} is paused; have it go on with `gangline resume {queue}`"),
        ));
    }
    if status.phase != Phase::Open || !is_idle || spec.items.is_some() {
        return None;
    }
    Some(if status.counts.total() == 0 {
        Event::waiting(
            "QueueEmpty",
            format!("queue {queue} has no items yet; push some with `gangline push {queue}`"),
        )
    } else {
        Event::waiting(
            "QueueNotSealed",
            format!(
                "every item of queue {queue} has ended, and more may come; if none does, say so \
                 with `gangline seal {queue}`"
            ),
        )
    })
}

#[cfg(test)]
mod tests;
