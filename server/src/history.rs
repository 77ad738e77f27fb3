//! How queues looked at some points of time, for a line on a page.
//!
//! It is kept in memory by each server for itself: after a restart the line begins anew. It takes
//! a point whenever somebody looks at a queue, and else now and then by itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gangline_protocol::limits::HISTORY_POINTS_MAX;
use gangline_protocol::{QueueStatus, QueueUid};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::queue::{Query, Reply};
use crate::service::Service;

/// Least time between two points of a new queue, in milliseconds; it doubles as the line grows.
const STEP_MS: u64 = 250;

/// How often the queues are looked at by themselves.
const LOOK: Duration = Duration::from_secs(1);

/// The time between two looks is at least so many times what a look takes: many queues, or a slow
/// Redis, are looked at less often.
const LOOK_SHARE: u32 = 100;

/// Queues with a line; the lines of others begin when one of these is gone.
const QUEUES_MAX: usize = 1_024;

/// Milliseconds since the queue was made, items left, done, dead.
pub type Point = [u64; 4];

#[derive(Debug, Default)]
struct Line {
    step_ms: u64,
    points: Vec<Point>,
    over: bool,
}

/// The lines of the queues.
#[derive(Clone)]
pub struct History {
    clock: Arc<dyn Clock>,
    lines: Arc<Mutex<HashMap<QueueUid, Line>>>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

impl Line {
    fn add(&mut self, point: Point, over: bool) {
        let [at, ..] = point;
        let last = self.points.last().copied();
        if self.over || last.is_some_and(|[last, ..]| !over && at < last + self.step_ms) {
            return;
        }
        self.over = over;
        self.points.push(point);
        if self.points.len() >= HISTORY_POINTS_MAX {
            let mut nth = 0;
            self.points.retain(|_| {
                nth += 1;
                nth % 2 == 1 || (over && nth == HISTORY_POINTS_MAX)
            });
            self.step_ms *= 2;
        }
    }
}

impl History {
    /// Makes one without lines.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            lines: Arc::default(),
        }
    }

    /// Returns the time, in milliseconds.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now_us() / 1_000
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<QueueUid, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what is seen of a queue to its line.
    pub(crate) fn note(&self, status: &QueueStatus, now_ms: u64) {
        let mut lines = self.lines();
        if lines.len() >= QUEUES_MAX && !lines.contains_key(&status.uid) {
            return;
        }
        let line = lines.entry(status.uid).or_insert_with(|| Line {
            step_ms: STEP_MS,
            ..Line::default()
        });
        let over = status.certificate.as_ref();
        let at = over.map_or(now_ms, |certificate| certificate.ended_at.0);
        let counts = &status.counts;
        let left = if over.is_some() {
            counts.abandoned
        } else {
            counts.left()
        };
        let at = at.saturating_sub(status.created_at.0);
        line.add([at, left, counts.done, counts.dead], over.is_some());
    }

    /// Returns the line of a queue.
    pub(crate) fn points(&self, uid: QueueUid) -> Vec<Point> {
        let lines = self.lines();
        lines
            .get(&uid)
            .map_or(Vec::new(), |line| line.points.clone())
    }

    fn look(&self, queues: &[QueueStatus]) {
        let there: HashSet<QueueUid> = queues.iter().map(|status| status.uid).collect();
        self.lines().retain(|uid, _| there.contains(uid));
        let now = self.now();
        for status in queues {
            self.note(status, now);
        }
    }
}

/// Looks at all queues now and then, for ever.
pub(crate) async fn keep(service: &Service, history: &History) {
    loop {
        let started = Instant::now();
        // While the store is away there is nothing to see.
        if let Ok(Reply::Queues(queues)) = service.query(Query::List).await {
            history.look(&queues);
        }
        tokio::time::sleep(LOOK.max(started.elapsed() * LOOK_SHARE)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            step_ms: STEP_MS,
            ..Line::default()
        }
    }

    #[test]
    fn a_line_grows_coarser_and_never_too_long() {
        let mut line = line();
        for at in 0..1_000_000 {
            line.add([at * 10, 1, 0, 0], false);
        }
        assert!(line.points.len() < HISTORY_POINTS_MAX);
        assert!(line.points.len() > HISTORY_POINTS_MAX / 3);
        assert_eq!(line.points[0][0], 0);
        assert!(line.points.is_sorted());
    }

    #[test]
    fn the_end_is_the_last_point_whenever_it_comes() {
        let mut line = line();
        line.add([0, 2, 0, 0], false);
        line.add([10, 1, 1, 0], false);
        line.add([20, 0, 2, 0], true);
        line.add([9_000, 0, 2, 0], true);
        assert_eq!(line.points, [[0, 2, 0, 0], [20, 0, 2, 0]]);
    }
}
