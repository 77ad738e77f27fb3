//! Queues in memory, to test handlers, workers and producers without a service.
//!
//! ```
//! use gangline_worker::protocol::SettleOutcome;
//! use gangline_worker::{HandlerError, Item, testing};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let queue = testing::run([6, 0], |item: Item<u32>| async move {
//!     match 42_u32.checked_div(item.payload) {
//!         Some(quotient) => Ok(quotient),
//!         None => Err(HandlerError::permanent("division by zero")),
//!     }
//! })
//! .await;
//! let attempts = queue.attempts();
//! assert_eq!(attempts[0].settle.outcome, SettleOutcome::Done);
//! assert_eq!(attempts[0].result::<u32>().unwrap(), 7);
//! assert_eq!(attempts[1].settle.outcome, SettleOutcome::Dead);
//! assert_eq!(attempts[1].settle.error.as_deref(), Some("division by zero"));
//! # }
//! ```
//!
//! What is spawned is worked on, too; a stop ends the queue; a retry comes again, up to
//! `maxAttempts`. **Time is virtual**: the queue's clock stands still while anything is ready or
//! worked on, and jumps to the next delayed item when nothing else is left, so that no back-off and
//! no delay is waited for. Handlers and time limits are on the runtime's clock, which tokio's
//! `start_paused` makes virtual as well.
//!
//! [`MemoryQueue`] is the same for what is set up otherwise: several workers, producers, a queue
//! that is not sealed, a [`Fault`] of the connection, an item that is cancelled in the middle.
//! It keeps to the rules of the real service as far as one process can see them; bounds on
//! sizes are not checked.

mod looks;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gangline_protocol::{
    Certificate, ExchangeReply, ExchangeRequest, ItemId, ItemView, Json, LeaseReply, NewItem,
    PushReply, QueueName, QueueSettings, Settle, StopOutcome,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{ClientError, Outage};
use crate::item::{HandlerError, Item, json};
use crate::transport::{Answer, Transport, hold_of};
use crate::worker::Worker;
use state::State;

/// Runs a handler for each payload, one at a time and in their order, until nothing is left;
/// returns the queue, which knows what came of it.
///
/// # Panics
///
/// When a payload cannot be written as JSON.
pub async fn run<P, T, R, E, F, H>(payloads: impl IntoIterator<Item = P>, handler: H) -> MemoryQueue
where
    P: Serialize,
    T: DeserializeOwned + Send + 'static,
    R: Serialize,
    E: Into<HandlerError>,
    F: Future<Output = Result<R, E>> + Send + 'static,
    H: Fn(Item<T>) -> F + Send + Sync + 'static,
{
    let queue = MemoryQueue::of(payloads);
    queue.worker().run_until_over(handler).await;
    queue
}

/// A queue in memory. Clones of it are the same queue.
#[derive(Debug, Clone)]
pub struct MemoryQueue {
    name: QueueName,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts what may be news to those who wait.
    changes: watch::Sender<u64>,
}

/// One attempt at an item, as it was settled.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The item's work.
    pub payload: Json,
    /// Which try this was, from 1.
    pub attempt: u16,
    /// How it ended: outcome, result or error, what it spawned, whether it stops the queue.
    pub settle: Settle,
    /// When it ended, on the queue's clock, which begins at 0.
    pub at: Duration,
}

impl Attempt {
    /// Returns the result, decoded.
    ///
    /// # Errors
    ///
    /// When there is none, or one of another form.
    pub fn result<R: DeserializeOwned>(&self) -> serde_json::Result<R> {
        let result = self.settle.result.as_ref();
        serde_json::from_str(result.map_or("", |result| result.get()))
    }
}

/// What happens to a call of a worker or a producer; heartbeats are spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not arrive.
    Away,
    /// It takes effect, and its answer is lost.
    AnswerLost,
    /// It is refused until some time has passed, as by a service that is short of memory.
    Busy(Duration),
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryQueue {
    /// Makes an empty queue that takes items, with the settings that every queue begins with.
    #[must_use]
    pub fn new() -> Self {
        Self::with_settings(QueueSettings::default())
    }

    /// Makes an empty queue with other settings.
    ///
    /// # Panics
    ///
    /// Never: its name is one.
    #[must_use]
    pub fn with_settings(settings: QueueSettings) -> Self {
        let name: QueueName = "memory".parse().expect("it is a DNS label");
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new(name.clone(), settings)),
                changes: watch::Sender::new(0),
            }),
            name,
        }
    }

    /// Makes a queue of these payloads, and seals it.
    ///
    /// # Panics
    ///
    /// When a payload cannot be written as JSON.
    #[must_use]
    pub fn of<P: Serialize>(payloads: impl IntoIterator<Item = P>) -> Self {
        let queue = Self::new();
        for payload in payloads {
            let payload = json(&payload).expect("a payload can be written as JSON");
            queue.add(NewItem::new(payload));
        }
        queue.seal();
        queue
    }

    /// Returns its name, `default.memory`.
    #[must_use]
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// Returns a worker of the queue, called `worker`.
    ///
    /// # Panics
    ///
    /// Never: the name is one.
    pub fn worker(&self) -> Worker {
        let name = "worker".parse().expect("it is a worker's name");
        Worker::new(self.clone(), self.name.clone()).name(name)
    }

    /// Adds an item as a producer would, and returns its id.
    pub fn add(&self, item: NewItem) -> ItemId {
        self.change(|state| state.add(item).id)
    }

    /// Says that no more items come from outside.
    pub fn seal(&self) {
        self.change(State::seal);
    }

    /// Ends the queue before it is drained.
    pub fn stop(&self, outcome: StopOutcome) {
        self.change(|state| state.stop(outcome, None));
    }

    /// Cancels an item that has not ended.
    pub fn cancel(&self, id: ItemId) {
        self.change(|state| state.cancel(id));
    }

    /// Ends all sessions as if they had not been heard of for too long: what they hold is ready
    /// again, and counts an attempt.
    pub fn lose_sessions(&self) {
        self.change(State::lose_sessions);
    }

    /// Has a fault happen to the next call that has none yet; so may be said several times.
    pub fn fail_next(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    /// Returns all attempts that have counted, in the order in which they ended.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.state().attempts.clone()
    }

    /// Returns all items, as a look at the service shows them.
    #[must_use]
    pub fn items(&self) -> Vec<ItemView> {
        self.state().views()
    }

    /// Returns the proof that the queue is over, if it is.
    #[must_use]
    pub fn certificate(&self) -> Option<Certificate> {
        self.state().over.clone()
    }

    /// Returns how many exchanges of workers have arrived, heartbeats apart.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.state().exchanges
    }

    /// Returns how many items each push has brought that was taken.
    #[must_use]
    pub fn push_sizes(&self) -> Vec<usize> {
        self.state().push_sizes.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes those who wait for it to change.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let answer = change(&mut self.state());
        self.shared.changes.send_modify(|count| *count += 1);
        answer
    }

    /// Makes a call, unless a fault is due.
    async fn call<T>(&self, call: impl Future<Output = T>) -> Result<T, ClientError> {
        let fault = self.state().faults.pop_front();
        let outage = |retry_after, arrived| {
            ClientError::Unavailable(Outage {
                text: "it was told to fail".into(),
                retry_after,
                arrived,
            })
        };
        match fault {
            None => Ok(call.await),
            Some(Fault::Away) => Err(outage(None, false)),
            Some(Fault::Busy(time)) => Err(outage(Some(time), false)),
            Some(Fault::AnswerLost) => {
                call.await;
                Err(outage(None, true))
            }
        }
    }

    /// Answers an exchange, and holds the answer while there is nothing in it.
    async fn answer(&self, mut request: ExchangeRequest) -> ExchangeReply {
        let until = Instant::now() + hold_of(&request);
        let may_hold = request.settles.is_empty() && !request.leave;
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let settles = !request.settles.is_empty() || request.leave;
            let reply = if settles {
                self.change(|state| state.exchange(&request))
            } else {
                self.state().exchange(&request)
            };
            let says_something = reply.over.is_some()
                || reply.session_end.is_some()
                || !reply.lost.is_empty()
                || matches!(reply.lease, Some(LeaseReply::Items(_)));
            if says_something || !may_hold {
                return reply;
            }
            request.session = reply.session.or(request.session);
            if tokio::time::timeout_at(until, changes.changed())
                .await
                .is_err()
            {
                return reply;
            }
        }
    }
}

impl Transport for MemoryQueue {
    fn exchange<'a>(
        &'a self,
        _queue: &'a QueueName,
        request: &'a ExchangeRequest,
    ) -> Answer<'a, ExchangeReply> {
        Box::pin(async move {
            let heartbeat = request.heartbeat.is_some() && request.lease.is_none();
            if heartbeat {
                return Ok(self.answer(request.clone()).await);
            }
            self.state().exchanges += 1;
            self.call(self.answer(request.clone())).await
        })
    }

    fn push<'a>(
        &'a self,
        _queue: &'a QueueName,
        items: &'a [NewItem],
        idempotency_key: Option<&'a str>,
    ) -> Answer<'a, PushReply> {
        let push = async move { self.change(|state| state.push(items, idempotency_key)) };
        Box::pin(async move { self.call(push).await? })
    }

    fn seal<'a>(&'a self, _queue: &'a QueueName) -> Answer<'a, ()> {
        Box::pin(self.call(async { self.seal() }))
    }

    fn separate(&self) -> Result<Arc<dyn Transport>, ClientError> {
        Ok(Arc::new(self.clone()))
    }

    fn peer(&self) -> String {
        "the queue in memory".into()
    }
}

#[cfg(test)]
mod tests;
