//! How fast a queue is being worked off, from what its status was a moment ago.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gangline_protocol::{Phase, QueueStatus, QueueUid};
use tokio::time::Instant;

/// The span over which a rate is taken.
const SPAN: Duration = Duration::from_secs(10);

/// Least time between two samples.
const STEP: Duration = Duration::from_millis(500);

/// Queues watched at a time; who looks at more sees no rate for the ones not looked at lately.
const QUEUES_MAX: usize = 1_024;

/// Samples of one queue, oldest first: when, and how many items were done.
type Samples = VecDeque<(Instant, u64)>;

/// Samples of the queues that somebody looks at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates(Arc<Mutex<HashMap<QueueUid, Samples>>>);

impl Rates {
    /// Fills in the rate and the time left.
    pub(crate) fn complete(&self, status: &mut QueueStatus) {
        let now = Instant::now();
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if status.phase.is_over() {
            queues.remove(&status.uid);
            return;
        }
        if queues.len() >= QUEUES_MAX && !queues.contains_key(&status.uid) {
            queues.retain(|_, samples| samples.back().is_some_and(|(at, _)| now - *at < SPAN));
            if queues.len() >= QUEUES_MAX {
                return;
            }
        }
        let samples = queues.entry(status.uid).or_default();
        let done = status.counts.done;
        while samples.front().is_some_and(|(at, _)| now - *at > SPAN) {
            samples.pop_front();
        }
        let (rate, eta_ms) = estimate(samples.front().copied(), now, status);
        status.rate = rate;
        status.eta_ms = eta_ms;
        if samples.back().is_none_or(|(at, _)| now - *at >= STEP) {
            samples.push_back((now, done));
        }
    }
}

/// Returns items a second, and how long the rest takes if the queue is sealed.
fn estimate(
    oldest: Option<(Instant, u64)>,
    now: Instant,
    status: &QueueStatus,
) -> (Option<f64>, Option<u64>) {
    let Some((at, done_then)) = oldest.filter(|(at, _)| now - *at >= STEP) else {
        return (None, None);
    };
    let seconds = (now - at).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    let (done, left) = (
        status.counts.done.saturating_sub(done_then) as f64,
        status.counts.left() as f64,
    );
    let rate = done / seconds;
    let sealed = status.phase == Phase::Sealed;
    let eta = (sealed && rate > 0.0).then(|| Duration::try_from_secs_f64(left / rate).ok());
    let eta_ms = eta
        .flatten()
        .and_then(|eta| u64::try_from(eta.as_millis()).ok());
    (Some(rate), eta_ms)
}
