//! What a trace sees of its items: a span when one is leased, and one when it is settled.
//!
//! A call may be about many items, each of a trace of its own; so these spans are not parts of the
//! call's, but follow what the item brought: they have its `traceparent` as a field, and whoever
//! exports spans goes by that. Nothing is done unless somebody subscribes to them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use gangline_protocol::{
    ExchangeReply, ExchangeRequest, ItemId, LeaseNumber, LeaseReply, QueueName, SettleOutcome,
    WorkerName,
};
use tracing::Level;

/// Leased items whose traces are known at their settle; the oldest are forgotten first.
const LEASES_MAX: usize = 16_384;

/// The traces of leased items, as far as this service has leased them itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Traces(Arc<Mutex<Leased>>);

#[derive(Debug, Default)]
struct Leased {
    parents: HashMap<Key, Box<str>>,
    /// The same, oldest first; what was settled is among them until its turn comes.
    order: VecDeque<Key>,
}

type Key = (QueueName, ItemId, LeaseNumber);

/// What is to be remembered of a request until it is answered.
pub(super) struct Asked {
    worker: WorkerName,
    outcomes: Vec<SettleOutcome>,
}

impl Traces {
    /// Looks at a request, if anybody wants to know of it.
    pub(super) fn asked(request: &ExchangeRequest) -> Option<Asked> {
        tracing::enabled!(Level::DEBUG).then(|| Asked {
            worker: request.worker.clone(),
            outcomes: request.settles.iter().map(|one| one.outcome).collect(),
        })
    }

    /// Tells what an exchange has done to items that are parts of traces.
    pub(super) fn answered(&self, queue: &QueueName, asked: &Asked, reply: &ExchangeReply) {
        let Asked { worker, outcomes } = asked;
        let mut leased = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (settled, outcome) in reply.settled.iter().zip(outcomes) {
            let key = (queue.clone(), settled.id, settled.lease);
            if let Some(traceparent) = leased.parents.remove(&key) {
                tracing::debug_span!(
                    "settle",
                    traceparent = &*traceparent,
                    queue.name = %queue,
                    item.id = settled.id.0,
                    worker.name = worker.as_str(),
                    outcome = ?outcome,
                    status = ?settled.status,
                );
            }
        }
        let Some(LeaseReply::Items(items)) = &reply.lease else {
            return;
        };
        for item in items {
            let Some(traceparent) = &item.traceparent else {
                continue;
            };
            tracing::debug_span!(
                "lease",
                traceparent = &**traceparent,
                queue.name = %queue,
                item.id = item.id.0,
                worker.name = worker.as_str(),
                attempt = item.attempt,
            );
            leased.remember((queue.clone(), item.id, item.lease), traceparent);
        }
    }
}

impl Leased {
    fn remember(&mut self, key: Key, traceparent: &str) {
        if self
            .parents
            .insert(key.clone(), traceparent.into())
            .is_some()
        {
            // A repeat of the lease request.
            return;
        }
        self.order.push_back(key);
        while self.order.len() > LEASES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.parents.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_leases_are_remembered_than_the_bound() {
        let queue: QueueName = "q".parse().unwrap();
        let mut leased = Leased::default();
        let count = 2 * LEASES_MAX as u64;
        for number in 0..count {
            let key = (queue.clone(), ItemId(number), LeaseNumber(number));
            leased.remember(key.clone(), "t");
            leased.remember(key, "t");
        }
        assert_eq!(leased.parents.len(), LEASES_MAX);
        assert_eq!(leased.order.len(), LEASES_MAX);
        let newest = (queue, ItemId(count - 1), LeaseNumber(count - 1));
        assert!(leased.parents.contains_key(&newest));
    }
}
