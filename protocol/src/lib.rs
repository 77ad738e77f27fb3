//! The wire contract of the Gangline queue service: what its HTTP API takes and gives.
//!
//! One noun a module. Nothing here does IO, reads a clock or draws a random number; a value that
//! has been parsed has been checked. Field names on the wire are camelCase, durations are whole
//! milliseconds and say so in their name (`delayMs`), points in time are RFC 3339 in UTC.
//! Requests with unknown fields are refused; clients ignore unknown fields of replies.
//!
//! Payloads and results are any JSON value, carried as [`Json`] and never re-encoded: what was
//! pushed comes back byte for byte.

pub mod certificate;
pub mod dead;
pub mod digest;
pub mod error;
pub mod exchange;
pub mod explain;
pub mod ids;
pub mod item;
pub mod job;
pub mod limits;
pub mod queue;
pub mod time;
pub mod token;

pub use certificate::{Certificate, EndCause, EndPhase, StopOutcome};
pub use dead::{DeadGroup, DeadItems, RedriveRequest, Redriven};
pub use error::{ErrorCode, Problem};
pub use exchange::{
    ExchangeReply, ExchangeRequest, HeartbeatRequest, ItemProgress, LeaseReply, LeaseRequest,
    LeasedItem, SessionEnd, Settle, SettleOutcome, SettleStatus, Settled, Wait, WaitReason,
};
pub use explain::{Explanation, HeldBack, HeldItem, Term, TermKind};
pub use ids::{
    InvalidId, ItemId, ItemKey, LeaseNumber, Namespace, QueueName, QueueUid, SessionId, TokenHash,
    TokenId, WorkerName,
};
pub use item::{
    Attempt, Ending, ItemState, ItemView, NewItem, Progress, PushReply, PushRequest, Pushed,
};
pub use job::{ConditionReport, JobReport, PodReport};
pub use queue::{
    Counts, Durability, Phase, QueueSettings, QueueStatus, SettingsPatch, WorkerRecord, WorkerView,
};
pub use time::Timestamp;
pub use token::{CreatedToken, Role, Scope, TokenRequest, TokenView};

/// A JSON value as it was sent, byte for byte. Cloning it is cheap.
pub type Json = std::sync::Arc<serde_json::value::RawValue>;

/// The port on which a queue service listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 4264;
