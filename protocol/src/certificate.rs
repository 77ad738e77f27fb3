//! The proof that a queue is over.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::ids::{QueueName, QueueUid};
use crate::queue::{Counts, Durability};

/// What a queue that is over shows, and what lets a worker exit 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The queue.
    pub queue: QueueName,
    /// Its identity.
    pub uid: QueueUid,
    /// How it ended.
    pub phase: EndPhase,
    /// What ended it.
    pub cause: EndCause,
    /// Whether the job is a success. A drained queue is one, whatever its dead items: those are
    /// judged by whoever asks.
    pub outcome: StopOutcome,
    /// What the one who stopped it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// Who ended it: a worker's name, or what the caller called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<Box<str>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Every item is in exactly one of done, dead, cancelled and abandoned.
    pub counts: Counts,
    /// Sum modulo 2^256 of SHA-256(id as 8 bytes big-endian ‖ result bytes) over the done items,
    /// as 64 hexadecimal digits. Shows that a copy of the results is complete and unaltered.
    pub digest: Box<str>,
    /// The queue lived through a loss of acknowledged writes in its store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub history_uncertain: bool,
    /// The weakest of what the acknowledgements of this queue promised. Absent when that is not
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
}

/// The two ways of being over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndPhase {
    /// Nothing was left to do.
    Drained,
    /// Ended before that; what was left is abandoned.
    Stopped,
}

/// What ended a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// It was sealed, and its last item was settled, cancelled or lost for good.
    Drained,
    /// A worker's settle said stop.
    Worker,
    /// A call of `stop`.
    Stop,
    /// The queue was deleted.
    Deleted,
}

/// Whether a stop is a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopOutcome {
    /// What was wanted has been found or done.
    Success,
    /// The job has failed.
    Failure,
}
