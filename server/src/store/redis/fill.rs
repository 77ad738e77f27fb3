//! How far the last page of a queue is filled, as far as this replica knows.
//!
//! Items are sent in groups that fit into the queue's pages: a script takes those as they are. A
//! group that does not fit, since others pushed meanwhile, is taken apart there.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use gangline_protocol::{PushReply, QueueName};

use super::encode::PAGE;

/// What was assumed when a push was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assumed {
    /// How many items the last page has.
    pub(super) used: usize,
    items: usize,
    correction: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Last {
    used: usize,
    /// Corrections so far: pushes that were sent before the last one say nothing new.
    correction: u64,
}

/// The last pages of queues.
#[derive(Debug, Default)]
pub(super) struct Fill(Mutex<HashMap<QueueName, Last>>);

impl Fill {
    /// Notes that so many items are on their way.
    pub(super) fn send(&self, queue: &QueueName, items: usize) -> Assumed {
        let mut all = self.lock();
        let last = all.entry(queue.clone()).or_default();
        let assumed = Assumed {
            used: last.used,
            items,
            correction: last.correction,
        };
        last.used = (last.used + items) % PAGE;
        assumed
    }

    /// Notes where they came to lie.
    pub(super) fn learn(&self, queue: &QueueName, assumed: Assumed, reply: &PushReply) {
        let mut new = reply.items.iter().filter(|item| !item.duplicate);
        let Some(first) = new.next() else {
            return;
        };
        let used = (first.id.0.saturating_sub(1) % PAGE as u64) as usize;
        let mut all = self.lock();
        let Some(last) = all.get_mut(queue) else {
            return;
        };
        let missing = assumed.items - (new.count() + 1).min(assumed.items);
        if last.correction == assumed.correction && (used, missing) != (assumed.used, 0) {
            last.used = (last.used + 2 * PAGE + used - assumed.used - missing % PAGE) % PAGE;
            last.correction += 1;
        }
    }

    pub(super) fn forget(&self, queue: &QueueName) {
        self.lock().remove(queue);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<QueueName, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use gangline_protocol::{ItemId, Pushed, QueueUid};

    use super::*;

    fn reply(ids: impl Iterator<Item = u64>) -> PushReply {
        PushReply {
            uid: QueueUid(1),
            items: ids
                .map(|id| Pushed {
                    id: ItemId(id),
                    duplicate: false,
                })
                .collect(),
            added: 0,
            duplicates: 0,
            sealed: false,
        }
    }

    #[test]
    fn a_wrong_guess_is_put_right_once_whatever_is_on_its_way() {
        let (fill, queue) = (Fill::default(), "q".parse().unwrap());
        let first = fill.send(&queue, 10);
        let second = fill.send(&queue, 30);
        assert_eq!((first.used, second.used), (0, 10));
        // There were 5 before.
        fill.learn(&queue, first, &reply(6..16));
        fill.learn(&queue, second, &reply(16..46));
        assert_eq!(fill.send(&queue, 1).used, 45 % PAGE);
        assert_eq!(fill.send(&queue, 1).used, 46 % PAGE);
    }

    #[test]
    fn duplicates_take_no_room() {
        let (fill, queue) = (Fill::default(), "q".parse().unwrap());
        let assumed = fill.send(&queue, 4);
        let mut taken = reply(1..5);
        taken.items[0].duplicate = true;
        taken.items[1..].iter_mut().for_each(|item| item.id.0 -= 1);
        fill.learn(&queue, assumed, &taken);
        assert_eq!(fill.send(&queue, 1).used, 3);
    }
}
