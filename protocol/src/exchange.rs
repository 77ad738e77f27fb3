//! What workers say and hear: settles, heartbeat and lease in one exchange.
//!
//! An exchange does, in this order and all optional: settles, heartbeat, lease. The calls
//! `settle`, `lease`, `heartbeat` and `leave` are exchanges with the other parts left out.

use serde::{Deserialize, Serialize};

use crate::certificate::{Certificate, StopOutcome};
use crate::ids::{ItemId, ItemKey, LeaseNumber, QueueUid, SessionId, WorkerName};
use crate::item::NewItem;
use crate::{Json, Timestamp};

/// Body of `POST /v1/queues/{queue}/exchange`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExchangeRequest {
    /// The worker's name. A new session of a name ends the older one.
    pub worker: WorkerName,
    /// The session; absent at the first call, which opens one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What makes the first call repeatable: drawn at random by the client, once a session. A
    /// first call with the nonce of the worker's open session continues that session; with the
    /// nonce of one that has ended it is answered with `sessionEnd`, and opens none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u64>,
    /// The queue's identity; absent at the first call. Another uid than the queue's: `over`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<QueueUid>,
    /// At most [`SETTLES_MAX`](crate::limits::SETTLES_MAX) settles, applied in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settles: Vec<Settle>,
    /// Items leased ahead that have been started since the last call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub started: Vec<ItemId>,
    /// How far the session is with items that it holds: at most
    /// [`SESSION_LEASES_MAX`](crate::limits::SESSION_LEASES_MAX) entries. What is said under
    /// another lease than the item's is ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub progress: Vec<ItemProgress>,
    /// Extends the session, and may be held until there is news for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<HeartbeatRequest>,
    /// Asks for items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseRequest>,
    /// Ends the session after everything else; what it still holds is given back, uncounted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leave: bool,
}

impl ExchangeRequest {
    /// Makes an exchange of a worker that asks for nothing yet.
    #[must_use]
    pub fn new(worker: WorkerName) -> Self {
        Self {
            worker,
            session: None,
            nonce: None,
            uid: None,
            settles: Vec::new(),
            started: Vec::new(),
            progress: Vec::new(),
            heartbeat: None,
            lease: None,
            leave: false,
        }
    }
}

/// How far a worker is with an item; takes the place of what it said of the item before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ItemProgress {
    /// The item.
    pub id: ItemId,
    /// The lease under which it was handed out.
    pub lease: LeaseNumber,
    /// How much of it is done, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// What is being done, for people: at most
    /// [`PROGRESS_TEXT_BYTES_MAX`](crate::limits::PROGRESS_TEXT_BYTES_MAX) bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Box<str>>,
}

/// The heartbeat part of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeartbeatRequest {
    /// How long the answer may be held while there is no news, in milliseconds. An exchange that
    /// settles or leases is never held for its heartbeat.
    #[serde(default)]
    pub hold_ms: u64,
}

/// The lease part of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaseRequest {
    /// Number of this request in its session: 1, 2, … A repeat of the last number gets the same
    /// items; the next number says that the last answer has arrived.
    pub number: u64,
    /// Most items to hand out; the service may give fewer.
    pub max: u32,
    /// How many of the items are started at once; the others are leased ahead and count an
    /// attempt only when told in `started`. All of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting: Option<u32>,
    /// How long the answer may be held while nothing is ready, in milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}

/// How a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SettleOutcome {
    /// Finished, with a result.
    Done,
    /// Failed, to be tried again after a back-off.
    Retry,
    /// Failed for good.
    Dead,
    /// Given back unworked; no attempt is counted.
    Release,
}

/// The end of one lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settle {
    /// The item.
    pub id: ItemId,
    /// The lease under which it was handed out.
    pub lease: LeaseNumber,
    /// How it ended.
    pub outcome: SettleOutcome,
    /// The result; with `done` only, `null` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    /// What went wrong; with `retry` and `dead` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
    /// When to try again, in milliseconds from now, instead of the back-off; with `retry` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Items to add in the same step; with `done` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spawn: Vec<NewItem>,
    /// Stops the queue, if this settle counts; applied after all settles of the exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopOutcome>,
}

/// Answer to an exchange.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeReply {
    /// The session; absent while there is none (no such queue yet, ended, or over).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The queue's identity; absent while the queue does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<QueueUid>,
    /// How often to send a heartbeat while holding leases, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    /// One entry a settle, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Settled>,
    /// Items whose leases ended without the session's doing: cancelled, or past their time limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<ItemId>,
    /// The session of the request has ended; what it held is somebody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_end: Option<SessionEnd>,
    /// The answer to the lease part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseReply>,
    /// The queue is over: nothing more is handed out, and nothing more is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Certificate>,
}

/// What became of one settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// The item.
    pub id: ItemId,
    /// The lease that the settle named.
    pub lease: LeaseNumber,
    /// Whether it counted.
    pub status: SettleStatus,
}

/// Whether a settle counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleStatus {
    /// It counted, now or when it was first sent.
    Ok,
    /// The item has an outcome already; nothing changed.
    AlreadySettled,
    /// The lease is not the item's newest, or ended before; nothing changed.
    StaleLease,
    /// The item was cancelled meanwhile; nothing changed.
    Cancelled,
    /// There is no such item.
    UnknownItem,
    /// The queue is over; nothing changed.
    Over,
}

/// Answer to a lease request: items, or how long to wait and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaseReply {
    /// Items to work on; at least one.
    Items(Vec<LeasedItem>),
    /// Nothing to hand out now.
    Wait(Wait),
}

/// One item, handed out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeasedItem {
    /// The item.
    pub id: ItemId,
    /// The lease; names this attempt in the settle.
    pub lease: LeaseNumber,
    /// Which try this is, from 1.
    pub attempt: u16,
    /// What the producer calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ItemKey>,
    /// How long this attempt may take, in milliseconds from the handler's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// W3C trace context of the producer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Box<str>>,
    /// The work.
    pub payload: Json,
}

/// Nothing to hand out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// Why.
    pub reason: WaitReason,
    /// When it is worth asking again at the latest, in milliseconds from now.
    pub retry_ms: u64,
    /// When the next delayed item is due, if that is what is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
}

/// Why a lease request got no items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// Nobody has made the queue yet.
    NoSuchQueue,
    /// Everything is leased, or nothing was pushed yet.
    NothingReady,
    /// The queue is paused.
    Paused,
    /// Only delayed items are left to hand out.
    Delayed,
    /// The queue's `maxLeased`, or the session's bound, is reached.
    LimitReached,
    /// Only items are left whose last attempt must run alone, and this session holds others.
    LastAttemptAlone,
    /// The worker's name was revoked a moment ago.
    Revoked,
    /// The queue holds as many bytes of results as its `resultsBytesMax` allows.
    ResultsFull,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// It was not heard of for a session length.
    Expired,
    /// A new session of the same worker name took its place.
    Replaced,
    /// Somebody who knows said that the worker is gone.
    Revoked,
    /// It left.
    Left,
    /// The service does not know it (any more).
    Unknown,
}
