//! The queue service without HTTP: carries out commands, and holds calls until there is news.
//!
//! It knows no rule of the queue; it asks the store again whenever the hub says that this is
//! worth it. Both stores are served alike.

use std::sync::Arc;
use std::time::Duration;

use gangline_protocol::limits::HOLD_MS_MAX;
use gangline_protocol::{
    Durability, ExchangeReply, ExchangeRequest, LeaseReply, QueueName, QueueStatus, WaitReason,
};
use tokio::time::{Instant, timeout_at};

use crate::hub::{Hub, Wanted};
use crate::queue::{Command, Query, Reply};
use crate::store::{Store, StoreError};

/// How often a call is looked at that waits until its own session holds nothing.
const ALONE_STEP: Duration = Duration::from_millis(100);

/// A store, and those who wait for it.
#[derive(Clone)]
pub struct Service {
    store: Arc<dyn Store>,
    hub: Hub,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// For how long an answer may be held, and what ends the hold.
struct Hold {
    wanted: Wanted,
    until: Instant,
    /// When to ask again although nobody woke the call.
    ask_again: Option<Duration>,
}

impl Service {
    /// Makes a service of a store and the hub that the store tells its signals.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, hub: Hub) -> Self {
        Self { store, hub }
    }

    /// Carries out a command.
    ///
    /// # Errors
    ///
    /// What the store answers.
    pub async fn execute(&self, command: Command) -> Result<Reply, StoreError> {
        self.store.execute(command).await
    }

    /// Answers a query.
    ///
    /// # Errors
    ///
    /// What the store answers.
    pub async fn query(&self, query: Query) -> Result<Reply, StoreError> {
        self.store.query(query).await
    }

    /// Tells why the service is not ready, if it is not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    /// Tells what acknowledgements promise just now.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.store.durability()
    }

    /// Returns the status of a queue.
    ///
    /// # Errors
    ///
    /// What the store answers.
    pub async fn status(&self, queue: &QueueName) -> Result<QueueStatus, StoreError> {
        let queue = queue.clone();
        match self.query(Query::Status { queue }).await? {
            Reply::Status(status) => Ok(*status),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Carries out an exchange; holds the answer while there is nothing to say, as long as the
    /// request allows.
    ///
    /// # Errors
    ///
    /// What the store answers.
    pub async fn exchange(
        &self,
        queue: QueueName,
        mut request: ExchangeRequest,
    ) -> Result<ExchangeReply, StoreError> {
        let started = Instant::now();
        if let Some(lease) = &mut request.lease {
            lease.wait_ms = lease.wait_ms.min(HOLD_MS_MAX);
        }
        // An exchange that settles never waits: what follows from the settles is not held back.
        let may_wait = request.settles.is_empty()
            && !request.leave
            && (request.lease.is_some_and(|lease| lease.wait_ms > 0)
                || request.heartbeat.is_some_and(|beat| beat.hold_ms > 0));
        if !may_wait {
            return self.exchange_once(queue, request).await;
        }
        let full_wait_ms = request.lease.map_or(0, |lease| lease.wait_ms);
        let mut reply = self.exchange_once(queue.clone(), request.clone()).await?;
        let mut woken = false;
        while let Some(hold) = hold_of(&request, &reply, started, full_wait_ms) {
            if hold.until <= Instant::now() {
                break;
            }
            if woken {
                // Woken for nothing: others were faster. Do not ask in a tight circle.
                tokio::task::yield_now().await;
            }
            let mut waiter = self.hub.join(&queue, hold.wanted);
            request.session = reply.session.or(request.session);
            request.uid = reply.uid.or(request.uid);
            request.started.clear();
            // Another call may have said something newer meanwhile.
            request.progress.clear();
            if let Some(lease) = &mut request.lease {
                let left = hold.until.saturating_duration_since(Instant::now());
                lease.wait_ms = u64::try_from(left.as_millis()).unwrap_or(HOLD_MS_MAX);
            }
            // What happened between the last answer and joining the line would wake nobody.
            reply = self.exchange_once(queue.clone(), request.clone()).await?;
            let Some(hold) = hold_of(&request, &reply, started, full_wait_ms) else {
                break;
            };
            let ask_again = hold.ask_again.map(|wait| Instant::now() + wait);
            let until = ask_again.map_or(hold.until, |again| again.min(hold.until));
            woken = timeout_at(until, waiter.woken()).await.is_ok();
            if woken || until < hold.until {
                reply = self.exchange_once(queue.clone(), request.clone()).await?;
                if holds_for_all(&reply) {
                    waiter.serve();
                }
            }
        }
        Ok(reply)
    }

    async fn exchange_once(
        &self,
        queue: QueueName,
        request: ExchangeRequest,
    ) -> Result<ExchangeReply, StoreError> {
        let request = Box::new(request);
        match self.execute(Command::Exchange { queue, request }).await? {
            Reply::Exchange(reply) => Ok(*reply),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Returns the status as soon as the queue is over, or as it is after `hold`.
    ///
    /// # Errors
    ///
    /// What the store answers; a queue that is deleted meanwhile is not found.
    pub async fn wait_over(
        &self,
        queue: &QueueName,
        hold: Duration,
    ) -> Result<QueueStatus, StoreError> {
        let until = Instant::now() + hold.min(Duration::from_millis(HOLD_MS_MAX));
        loop {
            let mut waiter = self.hub.join(queue, Wanted::Over);
            let status = self.status(queue).await?;
            if status.phase.is_over() || timeout_at(until, waiter.woken()).await.is_err() {
                return Ok(status);
            }
        }
    }
}

/// Tells whether another session that asked now would get no more: this one has what there was, or
/// has to wait for a reason that is not its own.
fn holds_for_all(reply: &ExchangeReply) -> bool {
    match &reply.lease {
        Some(LeaseReply::Items(_)) => true,
        Some(LeaseReply::Wait(wait)) => !is_its_own(wait.reason),
        None => reply.over.is_some(),
    }
}

/// Tells whether a session waits although another one might get something.
fn is_its_own(reason: WaitReason) -> bool {
    matches!(reason, WaitReason::LastAttemptAlone | WaitReason::Revoked)
}

/// Tells how an answer is to be held, if it says nothing that its receiver waits for.
fn hold_of(
    request: &ExchangeRequest,
    reply: &ExchangeReply,
    started: Instant,
    full_wait_ms: u64,
) -> Option<Hold> {
    if reply.over.is_some() || reply.session_end.is_some() || !reply.lost.is_empty() {
        return None;
    }
    match (&request.lease, &reply.lease) {
        (Some(_), Some(LeaseReply::Wait(wait))) => Some(Hold {
            // Who cannot take what comes does not stand in the line for it: two of them would wake
            // each other for ever.
            wanted: if is_its_own(wait.reason) {
                Wanted::Over
            } else {
                Wanted::Items
            },
            until: started + Duration::from_millis(full_wait_ms),
            ask_again: Some(match wait.reason {
                // What ends this wait is a settle of the session itself, which wakes nobody.
                WaitReason::LastAttemptAlone => ALONE_STEP,
                _ => Duration::from_millis(wait.retry_ms.max(50)),
            }),
        }),
        (Some(_), _) => None,
        (None, _) => {
            let session = reply.session?;
            let hold_ms = request.heartbeat?.hold_ms.min(HOLD_MS_MAX);
            Some(Hold {
                wanted: Wanted::News(session),
                until: started + Duration::from_millis(hold_ms),
                ask_again: None,
            })
        }
    }
}

/// A reply of another kind than the command's would be a bug of the store.
pub(crate) fn unexpected(reply: &Reply) -> StoreError {
    tracing::error!(?reply, "the store gave a reply of the wrong kind");
    StoreError::Unavailable("it gave a reply of the wrong kind".into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use gangline_protocol::{SessionId, Wait};
    use serde_json::json;

    use super::*;
    use crate::queue::Signal;
    use crate::store::Answer;

    /// Says to everybody that what there is has to run alone.
    #[derive(Debug, Default)]
    struct Alone(AtomicUsize);

    /// More than anybody asks who waits between two questions.
    const ASKED_MAX: usize = 1_000;

    /// Lets the others have so many turns.
    async fn turns(count: usize) {
        for _ in 0..count {
            tokio::task::yield_now().await;
        }
    }

    impl Store for Alone {
        fn execute(&self, _: Command) -> Answer<'_> {
            let asked = self.0.fetch_add(1, Ordering::Relaxed);
            // At first there is nothing at all, so that they join the line.
            let reason = match asked {
                0..4 => WaitReason::NothingReady,
                _ => WaitReason::LastAttemptAlone,
            };
            let wait = Wait {
                reason,
                retry_ms: 5_000,
                due_at: None,
            };
            let reply = ExchangeReply {
                session: Some(SessionId(1)),
                lease: (asked < ASKED_MAX).then_some(LeaseReply::Wait(wait)),
                ..ExchangeReply::default()
            };
            Box::pin(async {
                turns(3).await;
                Ok(Reply::Exchange(Box::new(reply)))
            })
        }

        fn query(&self, _: Query) -> Answer<'_> {
            unreachable!("nobody looks")
        }

        fn trouble(&self) -> Option<String> {
            None
        }

        fn durability(&self) -> Durability {
            Durability::Memory
        }
    }

    #[tokio::test]
    async fn those_who_can_take_nothing_do_not_wake_each_other_for_ever() {
        let (store, hub) = (Arc::new(Alone::default()), Hub::default());
        let service = Service::new(store.clone(), hub.clone());
        let queue: QueueName = "q".parse().unwrap();
        let ask = || {
            let lease = json!({"number": 1, "max": 1, "waitMs": 500});
            let request = json!({"worker": "w", "session": SessionId(1), "lease": lease});
            service.exchange(queue.clone(), serde_json::from_value(request).unwrap())
        };
        let push = async {
            // Until both stand in line.
            turns(20).await;
            let queue = queue.clone();
            hub.tell(&Signal::Ready { queue, items: 1 });
        };
        let (one, other, ()) = tokio::join!(ask(), ask(), push);
        for reply in [one, other] {
            assert!(matches!(reply.unwrap().lease, Some(LeaseReply::Wait(_))));
        }
        assert!(store.0.load(Ordering::Relaxed) < ASKED_MAX / 10);
    }
}
