//! When to look after which queue: every replica keeps the times that its own steps were told.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gangline_protocol::QueueName;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Times at which time alone may change a queue.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    times: Mutex<Times>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Times {
    of_queue: HashMap<QueueName, Instant>,
    in_order: BTreeSet<(Instant, QueueName)>,
}

impl Times {
    fn set(&mut self, queue: &QueueName, due: Option<Instant>) {
        if let Some(old) = self.of_queue.remove(queue) {
            self.in_order.remove(&(old, queue.clone()));
        }
        if let Some(due) = due {
            self.of_queue.insert(queue.clone(), due);
            self.in_order.insert((due, queue.clone()));
        }
    }
}

impl Schedule {
    /// Notes when a queue wants to be looked after; never, if there is no time.
    pub(super) fn set(&self, queue: &QueueName, due_in_ms: Option<u64>) {
        /// Longer waits are left to the registry: any replica notices them.
        const LONGEST_MS: u64 = 60_000;
        let due_in_ms = due_in_ms.filter(|ms| *ms <= LONGEST_MS);
        let due = due_in_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let first = times.in_order.first().map(|(due, _)| *due);
        times.set(queue, due);
        if due.is_some_and(|due| first.is_none_or(|first| due < first)) {
            self.earlier.notify_one();
        }
    }

    /// Returns the queues whose time has come, at most `max` of them, and forgets their times.
    pub(super) fn take_due(&self, max: usize) -> Vec<QueueName> {
        let now = Instant::now();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let due = times.in_order.iter().take_while(|(due, _)| *due <= now);
        let due: Vec<QueueName> = due.take(max).map(|(_, queue)| queue.clone()).collect();
        for queue in &due {
            times.set(queue, None);
        }
        due
    }

    /// Waits until a queue's time has come, or until `latest`.
    pub(super) async fn wait(&self, latest: Instant) {
        loop {
            let first = {
                let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
                times.in_order.first().map(|(due, _)| *due)
            };
            let until = first.map_or(latest, |first| first.min(latest));
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.earlier.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_queue_is_due_once_and_at_its_last_time() {
        let schedule = Schedule::default();
        schedule.set(&queue("a"), Some(3_000));
        schedule.set(&queue("b"), Some(0));
        schedule.set(&queue("a"), Some(0));
        schedule.set(&queue("c"), Some(0));
        schedule.set(&queue("c"), None);
        schedule
            .wait(Instant::now() + Duration::from_secs(60))
            .await;
        let due: BTreeSet<QueueName> = schedule.take_due(8).into_iter().collect();
        assert_eq!(due, BTreeSet::from([queue("a"), queue("b")]));
        assert!(schedule.take_due(8).is_empty());
    }
}
