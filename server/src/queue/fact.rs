//! The durable facts: all that a log needs to hold so that replaying it rebuilds the state.
//!
//! The stored form is postcard. It is read again by later versions, so variants and fields are
//! only ever added at the end, under a new [`FACTS_VERSION`].

use std::sync::Arc;

use gangline_protocol::{EndCause, EndPhase, Json, QueueSettings, StopOutcome};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use super::command::StreamState;
use super::snapshot::Part;

/// Version of the stored form.
///
/// 2 has [`Fact::ConfiguredMore`] beside what 1 has; 3 has the times of pushes in snapshots,
/// 4 the histories of items.
pub const FACTS_VERSION: u32 = 4;

/// One entry of the log: a fact about one queue, or about pushes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A queue was made; it goes by this number from now on.
    Created(Created),
    /// Something became true of a queue.
    Queue {
        /// Number of the queue.
        number: u32,
        /// What became true.
        fact: Fact,
    },
    /// A queue is gone; its certificate is still shown to late workers.
    Removed {
        /// Number of the queue.
        number: u32,
    },
    /// A push under an `Idempotency-Key` was taken.
    Batch(BatchRecord),
    /// A part of a snapshot; only at the begin of what is replayed.
    Restore(Part),
}

/// A queue was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// Number of the queue in this log.
    pub number: u32,
    /// Its full name.
    pub name: Box<str>,
    /// Its identity.
    pub uid: u128,
    /// When, in milliseconds.
    pub at_ms: u64,
    /// Its settings.
    pub settings: Settings,
}

/// Settings in their stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    max_attempts: u16,
    session_ms: u64,
    heartbeat_ms: u64,
    retry_base_ms: u64,
    retry_cap_ms: u64,
    max_leased: Option<u64>,
    retention_ms: u64,
}

impl From<&QueueSettings> for Settings {
    fn from(settings: &QueueSettings) -> Self {
        let QueueSettings {
            max_attempts,
            session_ms,
            heartbeat_ms,
            retry_base_ms,
            retry_cap_ms,
            max_leased,
            retention_ms,
            // In `MoreSettings`.
            seal_when_idle_ms: _,
            time_limit_ms: _,
            results_bytes_max: _,
        } = *settings;
        Self {
            max_attempts,
            session_ms,
            heartbeat_ms,
            retry_base_ms,
            retry_cap_ms,
            max_leased,
            retention_ms,
        }
    }
}

impl From<Settings> for QueueSettings {
    fn from(settings: Settings) -> Self {
        let Settings {
            max_attempts,
            session_ms,
            heartbeat_ms,
            retry_base_ms,
            retry_cap_ms,
            max_leased,
            retention_ms,
        } = settings;
        Self {
            max_attempts,
            session_ms,
            heartbeat_ms,
            retry_base_ms,
            retry_cap_ms,
            max_leased,
            retention_ms,
            ..Self::default()
        }
    }
}

/// Settings that came later, in their stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MoreSettings {
    seal_when_idle_ms: Option<u64>,
    time_limit_ms: Option<u64>,
    results_bytes_max: Option<u64>,
}

impl From<&QueueSettings> for MoreSettings {
    fn from(settings: &QueueSettings) -> Self {
        Self {
            seal_when_idle_ms: settings.seal_when_idle_ms,
            time_limit_ms: settings.time_limit_ms,
            results_bytes_max: settings.results_bytes_max,
        }
    }
}

impl MoreSettings {
    /// Sets these among all settings.
    pub(super) fn set(self, settings: &mut QueueSettings) {
        let Self {
            seal_when_idle_ms,
            time_limit_ms,
            results_bytes_max,
        } = self;
        settings.seal_when_idle_ms = seal_when_idle_ms;
        settings.time_limit_ms = time_limit_ms;
        settings.results_bytes_max = results_bytes_max;
    }
}

/// A push under an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Full name of the queue.
    pub queue: Box<str>,
    /// The key.
    pub key: Box<str>,
    /// When it was last written, in milliseconds.
    pub at_ms: u64,
    /// What was taken.
    pub taken: Taken,
}

/// What a push under an `Idempotency-Key` took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Taken {
    /// A whole body, with the answer to it.
    Whole {
        /// SHA-256 of the body.
        hash: [u8; 32],
        /// Identity of the queue that took it.
        uid: u128,
        /// Id and whether it was a duplicate, an entry an item.
        items: Vec<(u64, bool)>,
        /// Whether the queue was sealed with it.
        sealed: bool,
    },
    /// A stream so far.
    Stream(StreamRecord),
}

/// How far a stream was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Identity of the queue that took it.
    pub uid: u128,
    /// Lines taken.
    pub lines: u64,
    /// Running hash over them.
    pub hash: [u8; 32],
    /// Items added.
    pub added: u64,
    /// Items that were there before.
    pub duplicates: u64,
    /// Whether it has ended properly.
    pub complete: bool,
    /// Whether the queue was sealed with it.
    pub sealed: bool,
}

impl From<&StreamRecord> for StreamState {
    fn from(record: &StreamRecord) -> Self {
        Self {
            uid: gangline_protocol::QueueUid(record.uid),
            lines: record.lines,
            hash: record.hash,
            added: record.added,
            duplicates: record.duplicates,
            complete: record.complete,
        }
    }
}

/// Something became true of a queue. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// The settings are these.
    Configured(Settings),
    /// Items were added; their ids follow the last one.
    Pushed {
        /// When.
        at_ms: u64,
        /// The items.
        items: Vec<ItemRecord>,
    },
    /// A session was opened.
    SessionOpened {
        /// Its id.
        session: u64,
        /// Name of its worker.
        worker: Box<str>,
        /// What its client drew.
        nonce: Option<u64>,
        /// When.
        at_ms: u64,
    },
    /// A session has ended; what it held went back, or is dead.
    SessionEnded {
        /// Its id.
        session: u64,
        /// Why.
        end: SessionEndRecord,
        /// Whether that counts an attempt for what was started.
        counted: bool,
        /// When.
        at_ms: u64,
    },
    /// A worker's name gets no session until then.
    Revoked {
        /// The name.
        worker: Box<str>,
        /// Until when.
        until_ms: u64,
    },
    /// Items were handed out.
    Leased {
        /// To this session.
        session: u64,
        /// Under this lease number.
        lease: u64,
        /// As the answer to this request.
        request: u64,
        /// When.
        at_ms: u64,
        /// How many of them, from the first, are started at once.
        starting: u32,
        /// Their ids.
        items: Vec<u64>,
    },
    /// Items leased ahead were started.
    Started {
        /// Their ids.
        items: Vec<u64>,
    },
    /// A settle counted.
    Settled {
        /// The item.
        id: u64,
        /// The lease that it named.
        lease: u64,
        /// The session that sent it, if it was open.
        session: Option<u64>,
        /// When.
        at_ms: u64,
        /// How the attempt ended.
        end: AttemptEnd,
    },
    /// A single lease ended by its time limit.
    TimedOut {
        /// The item.
        id: u64,
        /// When.
        at_ms: u64,
    },
    /// An item was taken back.
    Cancelled {
        /// The item.
        id: u64,
    },
    /// Dead items are ready again.
    Redriven {
        /// Their ids.
        items: Vec<u64>,
    },
    /// No more items come from outside.
    Sealed,
    /// Leases are kept back, or given again.
    Paused(bool),
    /// The queue is over.
    Ended(Ended),
    /// The settings that came later are these.
    ConfiguredMore(MoreSettings),
}

/// Why a session ended, in its stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEndRecord {
    /// Not heard of.
    Expired,
    /// A new session of the same name.
    Replaced,
    /// Known to be gone.
    Revoked,
    /// It left.
    Left,
}

/// An item in its stored form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// The work.
    pub payload: JsonText,
    /// What the producer calls it.
    pub key: Option<Box<str>>,
    /// 0 to 9.
    pub priority: u8,
    /// When it may be handed out.
    pub due_ms: Option<u64>,
    /// How long an attempt may take, in milliseconds.
    pub time_limit_ms: Option<u64>,
    /// After how many attempts it is dead.
    pub max_attempts: Option<u16>,
    /// Trace context.
    pub traceparent: Option<Box<str>>,
}

/// How an attempt ended by its settle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AttemptEnd {
    /// With a result.
    Done(JsonText),
    /// To be tried again.
    Retry {
        /// When.
        due_ms: u64,
        /// What went wrong.
        error: Option<Box<str>>,
    },
    /// For good.
    Dead {
        /// What went wrong.
        error: Option<Box<str>>,
    },
    /// Unworked.
    Release,
    /// To be tried again, when no attempt was left.
    Exhausted {
        /// What went wrong.
        error: Option<Box<str>>,
    },
}

/// How a queue ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Drained or stopped.
    pub phase: EndPhase,
    /// What ended it.
    pub cause: EndCause,
    /// Whether that is a success.
    pub outcome: StopOutcome,
    /// Why.
    pub reason: Option<Box<str>>,
    /// Who ended it.
    pub by: Option<Box<str>>,
    /// When.
    pub at_ms: u64,
}

/// A JSON value, stored as its text.
#[derive(Debug, Clone)]
pub struct JsonText(pub Json);

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.get())
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = RawValue::from_string(text).map_err(de::Error::custom)?;
        Ok(Self(Arc::from(value)))
    }
}
