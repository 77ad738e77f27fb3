//! Items: what producers push and everyone may look at.

use serde::{Deserialize, Serialize};

use crate::ids::{ItemId, ItemKey, LeaseNumber, QueueUid, SessionId, WorkerName};
use crate::limits::{
    ATTEMPTS_MAX, DELAY_MS_MAX, PAYLOAD_BYTES_MAX, PRIORITY_MAX, TIME_LIMIT_MS_MAX,
    TRACEPARENT_BYTES_MAX,
};
use crate::{Json, Timestamp};

/// One item to push or to spawn.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewItem {
    /// The work: any JSON value of at most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Json,
    /// What the producer calls the item. A second item of the same key is not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ItemKey>,
    /// 0 to 9, higher first; 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// How long from now on the item is not handed out, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// How long one attempt may take, in milliseconds; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// After how many counted attempts the item is dead; the queue's setting when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u16>,
    /// W3C trace context, handed to the worker with the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Box<str>>,
}

impl NewItem {
    /// Makes an item of a payload, everything else at its default.
    #[must_use]
    pub fn new(payload: Json) -> Self {
        Self {
            payload,
            key: None,
            priority: None,
            delay_ms: None,
            time_limit_ms: None,
            max_attempts: None,
            traceparent: None,
        }
    }

    /// Returns what is out of bounds, if anything is.
    #[must_use]
    pub fn out_of_bounds(&self) -> Option<OutOfBounds> {
        let bounds = [
            (
                "payload",
                self.payload.get().len() as u64,
                0,
                PAYLOAD_BYTES_MAX as u64,
                "bytes",
            ),
            (
                "priority",
                self.priority.unwrap_or(0).into(),
                0,
                PRIORITY_MAX.into(),
                "",
            ),
            ("delayMs", self.delay_ms.unwrap_or(0), 0, DELAY_MS_MAX, "ms"),
            (
                "timeLimitMs",
                self.time_limit_ms.unwrap_or(1),
                1,
                TIME_LIMIT_MS_MAX,
                "ms",
            ),
            (
                "maxAttempts",
                self.max_attempts.unwrap_or(1).into(),
                1,
                ATTEMPTS_MAX.into(),
                "",
            ),
            (
                "traceparent",
                self.traceparent
                    .as_ref()
                    .map_or(0, |text| text.len() as u64),
                0,
                TRACEPARENT_BYTES_MAX as u64,
                "bytes",
            ),
        ];
        bounds
            .into_iter()
            .find(|(_, value, min, max, _)| !(min..=max).contains(&value))
            .map(|(field, value, min, max, unit)| OutOfBounds {
                field,
                value,
                min,
                max,
                unit,
            })
    }
}

/// A field whose value is outside its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {min} to {max}{}{unit}, got {value}", if unit.is_empty() { "" } else { " " })]
pub struct OutOfBounds {
    /// Name of the field on the wire.
    pub field: &'static str,
    /// What it was.
    pub value: u64,
    /// The least it may be.
    pub min: u64,
    /// The most it may be.
    pub max: u64,
    /// The unit, or nothing for a plain number.
    pub unit: &'static str,
}

/// Body of a push of several items.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushRequest {
    /// At most [`PUSH_ITEMS_MAX`](crate::limits::PUSH_ITEMS_MAX) items.
    pub items: Vec<NewItem>,
}

/// What became of one pushed item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pushed {
    /// The item's id; of the first item of this key when `duplicate`.
    pub id: ItemId,
    /// True when an item of the same key was there before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// Answer to a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushReply {
    /// The queue's identity.
    pub uid: QueueUid,
    /// One entry an item, in the order of the request; empty for streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Pushed>,
    /// How many items were added.
    pub added: u64,
    /// How many were there before, by their key.
    pub duplicates: u64,
    /// Whether the queue is sealed now.
    pub sealed: bool,
}

/// Where an item is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ItemState {
    /// Waits for a worker.
    Ready,
    /// Waits for its time.
    Delayed,
    /// A session works on it.
    Leased,
    /// Finished with a result.
    Done,
    /// Given up, with its last error.
    Dead,
    /// Taken back by somebody.
    Cancelled,
    /// Left behind by a queue that was stopped.
    Abandoned,
}

/// One item, as a look at it shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemView {
    /// Its number.
    pub id: ItemId,
    /// Where it is in its life.
    pub state: ItemState,
    /// What the producer calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ItemKey>,
    /// Its work; absent once it is done or cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Json>,
    /// Its result, when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    /// How long the attempt took that gave the result, from its lease to its settle, in
    /// milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// How many attempts were counted.
    pub attempts: u16,
    /// The error of its last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
    /// When it may be handed out, if it is delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// The lease that it is under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseNumber>,
    /// The session that holds the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The worker that holds the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// Since when it has been leased, or when it was settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How far its worker is with it, if it has said so under this lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What became of its attempts, unless it was done at the first: the last
    /// [`ATTEMPTS_KEPT_MAX`](crate::limits::ATTEMPTS_KEPT_MAX) that have ended, the newest last.
    /// Once it is done or cancelled only for as long as it is one of the last
    /// [`ATTEMPTS_SETTLED_MAX`](crate::limits::ATTEMPTS_SETTLED_MAX) such items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Attempt>,
}

/// How far a worker is with an item that it has, as it said last. It goes with the lease, and with
/// a restart of a service that keeps its queues itself: the worker says it anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// How much of it is done, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// What is being done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Box<str>>,
    /// When this was heard.
    pub at: Timestamp,
}

/// An attempt at an item that has ended. What was leased ahead and never started is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Which one it was, from 1; those that did not count have the number of the next one.
    pub attempt: u16,
    /// Whose it was, unless that is not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// When its lease began.
    pub leased_at: Timestamp,
    /// When its lease ended, or a settle came late that still counted.
    pub ended_at: Timestamp,
    /// How it ended.
    pub outcome: Ending,
    /// What the worker gave as the error: the last
    /// [`ATTEMPT_ERROR_BYTES_MAX`](crate::limits::ATTEMPT_ERROR_BYTES_MAX) bytes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
}

/// How an attempt ended: as the worker settled it, or else with its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ending {
    /// Settled with a result.
    Done,
    /// Settled as failed, to be tried again, if there was another attempt left.
    Retry,
    /// Settled as failed for good.
    Dead,
    /// Settled as given back; not counted.
    Release,
    /// It took longer than its time limit.
    TimeLimit,
    /// The worker was not heard of for a session length.
    Expired,
    /// A new session of the worker's name took the place of the one before.
    Replaced,
    /// Somebody who knows said that the worker is gone.
    Revoked,
    /// The same, through no fault of the work; not counted.
    Disrupted,
    /// The worker left without a settle; not counted.
    Left,
}

/// One recorded result.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultView {
    /// The item.
    pub id: ItemId,
    /// What the producer calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ItemKey>,
    /// What the worker gave.
    pub result: Json,
    /// At which attempt, from 1.
    pub attempt: u16,
    /// How long the attempt took, from its lease to its settle, in milliseconds.
    pub took_ms: u64,
}
