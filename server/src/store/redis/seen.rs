//! What a replica has acknowledged, queue by queue: a Redis that knows less has lost something.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gangline_protocol::QueueName;
use gangline_protocol::limits::QUEUES_MAX;

/// When each queue was last changed, in milliseconds of Redis' clock. Within a queue that time
/// never goes back (`stepped` in `head.lua`), so that a step which finds an earlier one runs on a
/// Redis to which an older state was brought back, by a restored log or by a replica that lagged.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<HashMap<QueueName, u64>>);

impl Seen {
    fn times(&self) -> MutexGuard<'_, HashMap<QueueName, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes when a step was carried out that is acknowledged now.
    pub(super) fn note(&self, queue: &QueueName, stepped_ms: u64, is_new: bool) {
        let mut times = self.times();
        match times.get_mut(queue) {
            // Of two that come back out of turn the later one counts.
            Some(time) if !is_new => *time = stepped_ms.max(*time),
            Some(time) => *time = stepped_ms,
            None => {
                if times.len() >= QUEUES_MAX {
                    forget_half(&mut times);
                }
                times.insert(queue.clone(), stepped_ms);
            }
        }
    }

    /// Returns when a queue was last changed; 0 where that is not known.
    pub(super) fn of(&self, queue: &QueueName) -> u64 {
        self.times().get(queue).copied().unwrap_or(0)
    }

    /// Returns all queues that have been changed.
    pub(super) fn all(&self) -> Vec<QueueName> {
        self.times().keys().cloned().collect()
    }

    /// Forgets a queue that is gone.
    pub(super) fn forget(&self, queue: &QueueName) {
        self.times().remove(queue);
    }
}

/// Forgets those that were changed longest ago: other replicas remove queues without a word.
fn forget_half(times: &mut HashMap<QueueName, u64>) {
    let mut all: Vec<u64> = times.values().copied().collect();
    let middle = all.len() / 2;
    let (_, &mut middle, _) = all.select_nth_unstable(middle);
    times.retain(|_, time| *time > middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_time_counts_until_a_queue_is_made_anew() {
        let (seen, queue) = (Seen::default(), "q".parse().expect("a name"));
        assert_eq!(seen.of(&queue), 0);
        for (stepped_ms, is_new, expected) in
            [(5, true, 5), (9, false, 9), (7, false, 9), (3, true, 3)]
        {
            seen.note(&queue, stepped_ms, is_new);
            assert_eq!(seen.of(&queue), expected);
        }
        seen.forget(&queue);
        assert_eq!((seen.of(&queue), seen.all()), (0, Vec::new()));
    }

    #[test]
    fn no_more_queues_are_remembered_than_there_may_be() {
        let seen = Seen::default();
        let name = |n: usize| format!("q{n}").parse().expect("a name");
        for n in 0..=QUEUES_MAX {
            seen.note(&name(n), n as u64, true);
        }
        assert!(seen.all().len() <= QUEUES_MAX);
        assert_eq!(seen.of(&name(0)), 0);
        assert_eq!(seen.of(&name(QUEUES_MAX)), QUEUES_MAX as u64);
    }
}
