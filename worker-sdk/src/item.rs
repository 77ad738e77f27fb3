//! What a handler gets and gives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gangline_protocol::{ItemId, ItemKey, Json, LeaseNumber, LeasedItem, NewItem, StopOutcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::progress::{Board, Progress};

/// Writes a value as JSON, as payloads and results are.
///
/// ```
/// use gangline_worker::item::json;
/// use gangline_worker::protocol::NewItem;
///
/// let item = NewItem::new(json(&["a", "b"])?);
/// assert_eq!(item.payload.get(), r#"["a","b"]"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Errors
///
/// When it has no form in JSON, as a map with keys that are no texts.
pub fn json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Json> {
    serde_json::value::to_raw_value(value).map(Json::from)
}

/// One item, leased to this worker, with its payload parsed.
#[derive(Debug)]
pub struct Item<T> {
    /// The work.
    pub payload: T,
    /// The item's number in its queue.
    pub id: ItemId,
    /// Which try this is, from 1.
    pub attempt: u16,
    /// What the producer calls it.
    pub key: Option<ItemKey>,
    /// W3C trace context of the producer.
    pub traceparent: Option<Box<str>>,
    pub(crate) lease: LeaseNumber,
    pub(crate) context: Context,
}

/// What a handler may say beside its result, and what it may hear.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    pub(crate) cancelled: CancellationToken,
    pub(crate) said: Arc<Mutex<Said>>,
    pub(crate) board: Board,
}

/// What a handler has said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) stop: Option<StopOutcome>,
    pub(crate) spawn: Vec<NewItem>,
    /// The item's newest lease, once it has another than the one that it came under.
    pub(crate) lease: Option<LeaseNumber>,
}

impl Context {
    pub(crate) fn take(&self) -> Said {
        std::mem::take(&mut *self.said())
    }

    pub(crate) fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Item<T> {
    /// Stops the whole queue in the step that records this item's result: what was looked for is
    /// found, or the job cannot succeed any more. Nothing happens unless the handler succeeds.
    pub fn stop(&self, outcome: StopOutcome) {
        self.said().stop = Some(outcome);
    }

    /// Adds an item in the step that records this item's result. Nothing happens unless the
    /// handler succeeds.
    pub fn spawn(&self, item: NewItem) {
        self.said().spawn.push(item);
    }

    /// Says how far the handler is: a fraction from 0 to 1, a short text, or both, as in
    /// `item.progress((0.4, "page 3"))`. People see it with the item and where it is asked what
    /// keeps a queue open. It goes with the next heartbeat, the newest only, so that it may be said
    /// as often as is convenient.
    pub fn progress(&self, progress: impl Into<Progress>) {
        let lease = self.said().lease.unwrap_or(self.lease);
        self.context.board.put(self.id, lease, progress.into());
    }

    /// Resolves when the result is wanted no more: the queue is over, the item was cancelled or
    /// is past its time limit, or this worker has to leave.
    pub async fn cancelled(&self) {
        self.context.cancelled.cancelled().await;
    }

    /// Tells whether the result is wanted no more, for handlers that look from time to time.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.context.cancelled.is_cancelled()
    }

    /// Returns a token that is cancelled when the result is wanted no more.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.context.cancelled.clone()
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.context.said()
    }
}

impl Item<Json> {
    pub(crate) fn of(item: LeasedItem, context: Context) -> Self {
        let LeasedItem {
            id,
            lease,
            attempt,
            key,
            time_limit_ms: _,
            traceparent,
            payload,
        } = item;
        Self {
            payload,
            id,
            lease,
            attempt,
            key,
            traceparent,
            context,
        }
    }

    /// Parses the payload; what does not parse will not parse at the next attempt either.
    pub(crate) fn parse<T: DeserializeOwned>(self) -> Result<Item<T>, HandlerError> {
        let payload = serde_json::from_str(self.payload.get())
            .map_err(|error| HandlerError::permanent(format!("the payload: {error}")))?;
        Ok(Item {
            payload,
            id: self.id,
            lease: self.lease,
            attempt: self.attempt,
            key: self.key,
            traceparent: self.traceparent,
            context: self.context,
        })
    }
}

/// Why a handler has failed. Anything that can be shown becomes one that is tried again.
#[derive(Debug, Clone)]
pub struct HandlerError {
    pub(crate) text: String,
    pub(crate) permanent: bool,
    pub(crate) delay: Option<Duration>,
    pub(crate) stops: bool,
    pub(crate) released: bool,
}

impl HandlerError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self {
            text: error.to_string(),
            permanent: false,
            delay: None,
            stops: false,
            released: false,
        }
    }

    /// The item is dead: no other attempt would end otherwise.
    pub fn permanent(error: impl std::fmt::Display) -> Self {
        Self {
            permanent: true,
            ..Self::new(error)
        }
    }

    /// The item is dead, and no other item would end otherwise: the queue is stopped as failed.
    pub fn fatal(error: impl std::fmt::Display) -> Self {
        Self {
            stops: true,
            ..Self::permanent(error)
        }
    }

    /// Try again after `delay` instead of the queue's back-off.
    pub fn retry_after(error: impl std::fmt::Display, delay: Duration) -> Self {
        Self {
            delay: Some(delay),
            ..Self::new(error)
        }
    }

    /// The item is given back unworked: no attempt is counted, and it is ready at once, for this
    /// worker as well as for others.
    #[must_use]
    pub fn released() -> Self {
        Self {
            released: true,
            ..Self::new("given back unworked")
        }
    }

    /// Returns what went wrong.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Tells whether the item is dead by it.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

impl<E: std::fmt::Display> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}
