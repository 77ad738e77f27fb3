//! Why a queue is not over yet, and what went wrong in it.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::certificate::Certificate;
use crate::ids::{ItemId, ItemKey, LeaseNumber, QueueName, QueueUid, SessionId, WorkerName};
use crate::item::Progress;

/// What `GET …/explain` shows: every term that keeps the queue from being over. None when it is
/// over: then there is the certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The queue.
    pub queue: QueueName,
    /// Its identity.
    pub uid: QueueUid,
    /// When this was so.
    pub at: Timestamp,
    /// What keeps it open, the most telling first.
    pub terms: Vec<Term>,
    /// The proof that it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// One reason for which a queue is not over, with what stands behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Term {
    /// Which one.
    pub term: TermKind,
    /// A sentence for people.
    pub text: Box<str>,
    /// Somebody has to do something: the queue does not get over it by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trouble: bool,
    /// How many items it is about.
    pub items: u64,
    /// What keeps ready items from being leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<HeldBack>,
    /// The command line that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<str>>,
    /// The call that helps: method and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Box<str>>,
    /// When the first delayed item is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due_at: Option<Timestamp>,
    /// How long items usually take, in milliseconds: half of those done took less. Known to a
    /// factor of two, upwards; absent before the first one is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typical_ms: Option<u64>,
    /// Items that have been leased for longest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub oldest: Vec<HeldItem>,
    /// How many more are leased than are shown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    /// Not all leased items were looked at for the oldest, but so many
    /// ([`EXPLAIN_LEASES_LOOKED_MAX`](crate::limits::EXPLAIN_LEASES_LOOKED_MAX)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<u64>,
}

/// What keeps a queue open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TermKind {
    /// No leases are given.
    Paused,
    /// Items wait for a worker.
    Ready,
    /// Items are worked on.
    Leased,
    /// Items wait for their time.
    Delayed,
    /// More items may come from outside.
    NotSealed,
}

/// What keeps ready items from being leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBack {
    /// The queue is paused.
    Paused,
    /// No session is open.
    NoWorker,
    /// As many items are leased as `maxLeased` allows.
    LimitReached,
    /// Each of them is for a last attempt alone, and waits for a session that holds nothing.
    LastAttemptAlone,
    /// There are as many bytes of results as `resultsBytesMax` allows.
    ResultsFull,
}

/// A leased item, and for how long it has been held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldItem {
    /// The item.
    pub id: ItemId,
    /// What the producer calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ItemKey>,
    /// The lease.
    pub lease: LeaseNumber,
    /// Which attempt it is, from 1.
    pub attempt: u16,
    /// Who holds it.
    pub session: SessionId,
    /// The worker of that session.
    pub worker: WorkerName,
    /// Since when.
    pub since: Timestamp,
    /// For how long, in milliseconds.
    pub held_ms: u64,
    /// How far its worker is with it, if it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// It has been held for more than ten times the usual, and for more than two seconds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slow: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
