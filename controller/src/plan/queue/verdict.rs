//! How a Job ends when its queue is over.

use std::time::Duration;

use gangline_protocol::{Certificate, EndCause, EndPhase, QueueUid, StopOutcome};
use jiff::{SignedDuration, Timestamp};

use super::annotations::QueueSpec;
use super::{QueueSnapshot, QueueView, latched_uid};
use crate::api::{Job, JobCondition};
use crate::plan::conditions::Verdict;

const DRAINED: &str = "QueueDrained";
const STOPPED: &str = "QueueStopped";
const DEAD_ITEMS: &str = "DeadItems";
const REPLACED: &str = "QueueReplaced";
const DELETED: &str = "QueueDeleted";
const ALREADY_OVER: &str = "QueueAlreadyOver";

/// Tells whether a Job that ends for `reason` ends because of its queue.
///
/// Its Pods then leave by themselves, and none of their exits is a failure of the Job.
#[must_use]
pub fn is_by_queue(reason: &str) -> bool {
    [
        DRAINED,
        STOPPED,
        DEAD_ITEMS,
        REPLACED,
        DELETED,
        ALREADY_OVER,
    ]
    .contains(&reason)
}

/// Returns how the Job ends by what is seen of its queue, if it does.
#[must_use]
pub fn verdict(job: &Job, spec: &QueueSpec, view: &QueueView) -> Option<Verdict> {
    let latched = latched_uid(job);
    let queue = &spec.queue;
    match view {
        QueueView::Unread | QueueView::Unavailable(_) => None,
        QueueView::Missing => latched.map(|uid| {
            Verdict::failure(
                DELETED,
                format!("queue {queue} ({uid}) was deleted before it was over"),
            )
        }),
        QueueView::Seen(seen) => {
            let status = &seen.status;
            if let Some(uid) = latched.filter(|uid| *uid != status.uid) {
                return Some(replaced(spec, uid, status.uid));
            }
            let certificate = status.certificate.as_ref()?;
            if latched.is_none() && was_over_before(job, seen, certificate) {
                return Some(already_over(spec, certificate));
            }
            Some(over(spec, certificate))
        }
    }
}

fn replaced(spec: &QueueSpec, began_with: QueueUid, is_now: QueueUid) -> Verdict {
    let queue = &spec.queue;
    Verdict::failure(
        REPLACED,
        format!("queue {queue} is another one ({is_now}) than this Job began with ({began_with})"),
    )
}

/// Creation times of Jobs are whole seconds, so what ended within that second came before.
///
/// A queue that was made in that second or later was made for this Job, unless one that worked on
/// it is gone already: then this one has its name from that one.
fn was_over_before(job: &Job, seen: &QueueSnapshot, certificate: &Certificate) -> bool {
    let Some(created) = &job.metadata.creation_timestamp else {
        return false;
    };
    let created_ms = u64::try_from(created.0.as_second())
        .unwrap_or(0)
        .saturating_mul(1_000);
    let is_older = seen.status.created_at.0 < created_ms || seen.outlived_a_job;
    certificate.ended_at.0 < created_ms + 1_000 && is_older
}

fn already_over(spec: &QueueSpec, certificate: &Certificate) -> Verdict {
    let queue = &spec.queue;
    Verdict::failure(
        ALREADY_OVER,
        format!(
            "{}, before this Job was created; delete it with `gangline delete {queue}`, or \
             name another queue",
            summary(certificate),
        ),
    )
}

fn over(spec: &QueueSpec, certificate: &Certificate) -> Verdict {
    let summary = summary(certificate);
    let dead = certificate.counts.dead;
    let max = spec.max_dead_items;
    match (certificate.cause, certificate.phase, certificate.outcome) {
        (EndCause::Deleted, _, _) => Verdict::failure(DELETED, summary),
        _ if dead > max => Verdict::failure(
            DEAD_ITEMS,
            format!("{dead} items are dead, and {max} are borne; {summary}"),
        ),
        (_, EndPhase::Drained, _) => Verdict::success(DRAINED, summary),
        (_, EndPhase::Stopped, StopOutcome::Success) => Verdict::success(STOPPED, summary),
        (_, EndPhase::Stopped, StopOutcome::Failure) => Verdict::failure(STOPPED, summary),
    }
}

/// Returns what the certificate says, for people.
#[must_use]
pub fn summary(certificate: &Certificate) -> String {
    let Certificate {
        queue,
        uid,
        phase,
        reason,
        ended_by,
        ended_at,
        counts,
        digest,
        history_uncertain,
        ..
    } = certificate;
    let how = match phase {
        EndPhase::Drained => "drained",
        EndPhase::Stopped => "stopped",
    };
    let mut text = format!("queue {queue} ({uid}) was {how} at {ended_at}");
    if let Some(by) = ended_by {
        text.push_str(&format!(" by {by}"));
    }
    if let Some(reason) = reason {
        text.push_str(&format!(" ({reason})"));
    }
    text.push_str(&format!(
        ": {} done, {} dead, {} cancelled, {} abandoned; digest {digest}",
        counts.done, counts.dead, counts.cancelled, counts.abandoned
    ));
    if *history_uncertain {
        text.push_str("; its history is uncertain");
    }
    text
}

/// Returns what is left of the time that Pods have to leave since `announced`.
#[must_use]
pub fn drain_left(
    spec_drain: Duration,
    announced: Option<&JobCondition>,
    now: Timestamp,
) -> Option<Duration> {
    let since = announced
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map_or(now, |time| time.0);
    time_left(spec_drain, since, now)
}

/// Returns what is left of `span` since `since`, nothing when it is over.
#[must_use]
pub fn time_left(span: Duration, since: Timestamp, now: Timestamp) -> Option<Duration> {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    let left = span.saturating_sub(now.duration_since(since));
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}
