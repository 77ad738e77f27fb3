//! Who waits for what: held lease requests, held heartbeats, and those who wait for the end.
//!
//! A waiter asks the store again after it was woken; the hub itself decides nothing. Waking too
//! many is only slow, waking too few would be a hang, so whoever was woken and cannot take what
//! there is, since it goes away or for reasons of its own, wakes the next one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gangline_protocol::{QueueName, SessionId};
use tokio::sync::oneshot;

use crate::queue::Signal;

/// All waiters of a service.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    queues: Arc<Mutex<HashMap<QueueName, Waiters>>>,
}

#[derive(Debug, Default)]
struct Waiters {
    /// First come, first woken.
    leases: VecDeque<oneshot::Sender<()>>,
    sessions: HashMap<SessionId, Vec<oneshot::Sender<()>>>,
    over: Vec<oneshot::Sender<()>>,
}

impl Waiters {
    /// Tells whether anybody is left.
    fn forget_those_who_left(&mut self) -> bool {
        self.leases.retain(|sender| !sender.is_closed());
        self.sessions.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        self.over.retain(|sender| !sender.is_closed());
        !(self.leases.is_empty() && self.sessions.is_empty() && self.over.is_empty())
    }

    fn wake(self) {
        let Self {
            leases,
            sessions,
            over,
        } = self;
        wake_all(leases);
        wake_all(sessions.into_values().flatten());
        wake_all(over);
    }
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Items to lease, or the end.
    Items,
    /// News for a session, or the end.
    News(SessionId),
    /// The end.
    Over,
}

/// A place in the line. Dropping it leaves the line.
#[derive(Debug)]
pub struct Waiter {
    hub: Hub,
    queue: QueueName,
    wanted: Wanted,
    woken: oneshot::Receiver<()>,
    heard: bool,
    served: bool,
}

impl Waiter {
    /// Waits until it is worth asking again.
    pub async fn woken(&mut self) {
        // A hub that is gone has nothing to say any more; then asking again is right, too.
        let _ = (&mut self.woken).await;
        self.heard = true;
    }

    /// Notes that the next in line need not be woken on this one's account: it has what there was,
    /// or there was nothing any more.
    pub fn serve(&mut self) {
        self.served = true;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.wanted == Wanted::Items
            && !self.served
            && (self.heard || self.woken.try_recv().is_ok())
        {
            self.hub.wake_leases(&self.queue, 1);
        }
    }
}

impl Hub {
    fn queues(&self) -> MutexGuard<'_, HashMap<QueueName, Waiters>> {
        // Nothing in here panics halfway, so a poisoned map is still whole.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the line. Ask the store once more after this and before waiting.
    #[must_use]
    pub fn join(&self, queue: &QueueName, wanted: Wanted) -> Waiter {
        let (sender, woken) = oneshot::channel();
        let mut queues = self.queues();
        let waiters = queues.entry(queue.clone()).or_default();
        match wanted {
            Wanted::Items => {
                // Those who left the line unwoken still stand in it; forget them now and then.
                if waiters.leases.len().is_power_of_two() {
                    waiters.leases.retain(|sender| !sender.is_closed());
                }
                waiters.leases.push_back(sender);
            }
            Wanted::News(session) => {
                let senders = waiters.sessions.entry(session).or_default();
                senders.retain(|sender| !sender.is_closed());
                senders.push(sender);
            }
            Wanted::Over => {
                if waiters.over.len().is_power_of_two() {
                    waiters.over.retain(|sender| !sender.is_closed());
                }
                waiters.over.push(sender);
            }
        }
        drop(queues);
        Waiter {
            hub: self.clone(),
            queue: queue.clone(),
            wanted,
            woken,
            heard: false,
            served: false,
        }
    }

    /// Wakes those whom a signal concerns.
    pub fn tell(&self, signal: &Signal) {
        match signal {
            Signal::Ready { queue, items } => self.wake_leases(queue, *items),
            Signal::Session { queue, session } => {
                let mut queues = self.queues();
                let waiters = queues.get_mut(queue);
                let senders = waiters.and_then(|waiters| waiters.sessions.remove(session));
                drop(queues);
                wake_all(senders.into_iter().flatten());
            }
            Signal::Over { queue } => {
                let waiters = self.queues().remove(queue);
                if let Some(waiters) = waiters {
                    waiters.wake();
                }
            }
        }
    }

    /// Returns the queues that somebody waits for.
    #[must_use]
    pub fn awaited(&self) -> Vec<QueueName> {
        let mut queues = self.queues();
        queues.retain(|_, waiters| waiters.forget_those_who_left());
        queues.keys().cloned().collect()
    }

    /// Wakes everybody: anything may have happened.
    pub fn wake_all(&self) {
        let queues = std::mem::take(&mut *self.queues());
        for (_, waiters) in queues {
            waiters.wake();
        }
    }

    fn wake_leases(&self, queue: &QueueName, items: u64) {
        let mut queues = self.queues();
        let Some(waiters) = queues.get_mut(queue) else {
            return;
        };
        let mut woken = 0;
        while woken < items
            && let Some(sender) = waiters.leases.pop_front()
        {
            woken += u64::from(sender.send(()).is_ok());
        }
    }
}

fn wake_all(senders: impl IntoIterator<Item = oneshot::Sender<()>>) {
    for sender in senders {
        // Somebody who has gone needs no waking.
        let _ = sender.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> QueueName {
        "q".parse().unwrap()
    }

    fn is_woken(waiter: &mut Waiter) -> bool {
        waiter.woken.try_recv().is_ok()
    }

    #[test]
    fn a_push_wakes_as_many_as_it_has_items_first_come_first() {
        let hub = Hub::default();
        let mut waiters: Vec<Waiter> = (0..3).map(|_| hub.join(&queue(), Wanted::Items)).collect();
        hub.tell(&Signal::Ready {
            queue: queue(),
            items: 2,
        });
        let woken: Vec<bool> = waiters.iter_mut().map(is_woken).collect();
        assert_eq!(woken, [true, true, false]);
    }

    #[test]
    fn a_waiter_that_was_woken_and_went_away_wakes_the_next() {
        let hub = Hub::default();
        let first = hub.join(&queue(), Wanted::Items);
        let mut second = hub.join(&queue(), Wanted::Items);
        hub.tell(&Signal::Ready {
            queue: queue(),
            items: 1,
        });
        drop(first);
        assert!(is_woken(&mut second));
    }

    #[tokio::test]
    async fn a_waiter_that_was_woken_and_could_take_nothing_wakes_the_next() {
        let hub = Hub::default();
        let mut waiters: Vec<Waiter> = (0..3).map(|_| hub.join(&queue(), Wanted::Items)).collect();
        hub.tell(&Signal::Ready {
            queue: queue(),
            items: 1,
        });
        let mut first = waiters.remove(0);
        first.woken().await;
        drop(first);
        let mut second = waiters.remove(0);
        second.woken().await;
        second.serve();
        drop(second);
        assert!(!is_woken(&mut waiters[0]));
    }

    #[test]
    fn a_waiter_that_left_is_not_counted() {
        let hub = Hub::default();
        drop(hub.join(&queue(), Wanted::Items));
        let mut second = hub.join(&queue(), Wanted::Items);
        hub.tell(&Signal::Ready {
            queue: queue(),
            items: 1,
        });
        assert!(is_woken(&mut second));
    }

    #[test]
    fn the_end_wakes_everybody() {
        let hub = Hub::default();
        let session = SessionId(1);
        let mut waiters =
            [Wanted::Items, Wanted::News(session), Wanted::Over].map(|w| hub.join(&queue(), w));
        hub.tell(&Signal::Session {
            queue: queue(),
            session: SessionId(2),
        });
        assert!(!is_woken(&mut waiters[1]));
        hub.tell(&Signal::Over { queue: queue() });
        assert!(waiters.iter_mut().all(is_woken));
    }
}
