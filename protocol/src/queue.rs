//! Queues: settings, phase, counts, and the sessions that work on them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::certificate::{Certificate, StopOutcome};
use crate::ids::{QueueName, QueueUid, SessionId, WorkerName};
use crate::item::OutOfBounds;
use crate::limits::{
    ATTEMPTS_MAX, DELAY_MS_MAX, SESSION_MS_MAX, SESSION_MS_MIN, TIME_LIMIT_MS_MAX,
};

/// Settings of a queue, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueSettings {
    /// After how many counted attempts an item is dead.
    pub max_attempts: u16,
    /// How long a session lives without a sign of life, in milliseconds of queue time.
    pub session_ms: u64,
    /// How often a session with leases sends a heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
    /// First back-off of a retry, in milliseconds; doubles with each attempt, full jitter.
    pub retry_base_ms: u64,
    /// Longest back-off of a retry, in milliseconds.
    pub retry_cap_ms: u64,
    /// Most items leased at a time over all sessions; no bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_leased: Option<u64>,
    /// How long a queue that is over is kept with its results, in milliseconds.
    pub retention_ms: u64,
    /// The queue seals itself when nothing was ready, delayed or leased for so long, in
    /// milliseconds of queue time, after at least one item came; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_when_idle_ms: Option<u64>,
    /// Time limit of items that name none, in milliseconds, from the start of the attempt; none
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// Bytes of results from which on nothing more is leased; no bound when absent. Results of
    /// what is leased already are still taken: none is ever dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results_bytes_max: Option<u64>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            session_ms: 15_000,
            heartbeat_ms: 5_000,
            retry_base_ms: 1_000,
            retry_cap_ms: 5 * 60 * 1_000,
            max_leased: None,
            retention_ms: 7 * 24 * 60 * 60 * 1_000,
            seal_when_idle_ms: None,
            time_limit_ms: None,
            results_bytes_max: None,
        }
    }
}

/// Body of `PUT /v1/queues/{queue}`: what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SettingsPatch {
    /// See [`QueueSettings::max_attempts`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u16>,
    /// See [`QueueSettings::session_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_ms: Option<u64>,
    /// See [`QueueSettings::heartbeat_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    /// See [`QueueSettings::retry_base_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_base_ms: Option<u64>,
    /// See [`QueueSettings::retry_cap_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_cap_ms: Option<u64>,
    /// See [`QueueSettings::max_leased`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_leased: Option<u64>,
    /// See [`QueueSettings::retention_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
    /// See [`QueueSettings::seal_when_idle_ms`]; 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_when_idle_ms: Option<u64>,
    /// See [`QueueSettings::time_limit_ms`]; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// See [`QueueSettings::results_bytes_max`]; 0 for no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results_bytes_max: Option<u64>,
}

impl SettingsPatch {
    /// Returns `settings` with this patch applied.
    ///
    /// # Errors
    ///
    /// The first field that is out of bounds; a heartbeat must fit twice into a session.
    pub fn apply(&self, settings: &QueueSettings) -> Result<QueueSettings, OutOfBounds> {
        let Self {
            max_attempts,
            session_ms,
            heartbeat_ms,
            retry_base_ms,
            retry_cap_ms,
            max_leased,
            retention_ms,
            seal_when_idle_ms,
            time_limit_ms,
            results_bytes_max,
        } = self;
        let session_ms = session_ms.unwrap_or(settings.session_ms);
        // A session that is made shorter takes its heartbeat along, unless one is given.
        let heartbeat_ms =
            heartbeat_ms.unwrap_or_else(|| settings.heartbeat_ms.min(session_ms / 3));
        let patched = QueueSettings {
            max_attempts: max_attempts.unwrap_or(settings.max_attempts),
            session_ms,
            heartbeat_ms,
            retry_base_ms: retry_base_ms.unwrap_or(settings.retry_base_ms),
            retry_cap_ms: retry_cap_ms.unwrap_or(settings.retry_cap_ms),
            max_leased: max_leased.or(settings.max_leased),
            retention_ms: retention_ms.unwrap_or(settings.retention_ms),
            seal_when_idle_ms: or_none(*seal_when_idle_ms, settings.seal_when_idle_ms),
            time_limit_ms: or_none(*time_limit_ms, settings.time_limit_ms),
            results_bytes_max: or_none(*results_bytes_max, settings.results_bytes_max),
        };
        let bounds = [
            (
                "maxAttempts",
                patched.max_attempts.into(),
                1,
                ATTEMPTS_MAX.into(),
                "",
            ),
            (
                "sessionMs",
                patched.session_ms,
                SESSION_MS_MIN,
                SESSION_MS_MAX,
                "ms",
            ),
            (
                "heartbeatMs",
                patched.heartbeat_ms,
                100,
                patched.session_ms / 2,
                "ms",
            ),
            ("retryBaseMs", patched.retry_base_ms, 0, DELAY_MS_MAX, "ms"),
            ("retryCapMs", patched.retry_cap_ms, 0, DELAY_MS_MAX, "ms"),
            (
                "maxLeased",
                patched.max_leased.unwrap_or(1),
                1,
                u64::MAX,
                "",
            ),
            (
                "sealWhenIdleMs",
                patched.seal_when_idle_ms.unwrap_or(0),
                0,
                DELAY_MS_MAX,
                "ms",
            ),
            (
                "timeLimitMs",
                patched.time_limit_ms.unwrap_or(0),
                0,
                TIME_LIMIT_MS_MAX,
                "ms",
            ),
        ];
        match bounds
            .into_iter()
            .find(|(_, value, min, max, _)| !(min..=max).contains(&value))
        {
            Some((field, value, min, max, unit)) => Err(OutOfBounds {
                field,
                value,
                min,
                max,
                unit,
            }),
            None => Ok(patched),
        }
    }
}

/// A setting that may be switched off: 0 in a patch does so.
fn or_none(patch: Option<u64>, now: Option<u64>) -> Option<u64> {
    patch.or(now).filter(|value| *value > 0)
}

/// The phase of a queue: `open → sealed → drained`, and `open|sealed → stopped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Takes items from outside.
    Open,
    /// No more items come from outside.
    Sealed,
    /// Over: nothing is left to do.
    Drained,
    /// Over: ended before it was drained.
    Stopped,
}

impl Phase {
    /// Tells whether the queue has ended.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::Open | Self::Sealed => false,
            Self::Drained | Self::Stopped => true,
        }
    }
}

/// How many items are where. Every item is in exactly one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Waiting for a worker.
    pub ready: u64,
    /// Waiting for their time.
    pub delayed: u64,
    /// Worked on.
    pub leased: u64,
    /// Finished with a result.
    pub done: u64,
    /// Given up.
    pub dead: u64,
    /// Taken back.
    pub cancelled: u64,
    /// Left behind by a stop.
    pub abandoned: u64,
}

impl Counts {
    /// Returns how many items were ever taken.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            ready,
            delayed,
            leased,
            done,
            dead,
            cancelled,
            abandoned,
        } = self;
        ready + delayed + leased + done + dead + cancelled + abandoned
    }

    /// Returns how many items still have to end.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.ready + self.delayed + self.leased
    }
}

/// What an acknowledgement of the service promises, from strong to weak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// A second Redis has it: the loss of the first loses nothing, if that one takes its place.
    Replicated,
    /// It is synced to disk: a crash loses nothing.
    Synced,
    /// It is in a log that is synced a little later: a crash may lose the last writes.
    Logged,
    /// It is in memory: a restart of Redis may lose the queue.
    Memory,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replicated => "replicated",
            Self::Synced => "synced",
            Self::Logged => "logged",
            Self::Memory => "memory",
        })
    }
}

/// What `GET /v1/queues/{queue}` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// The queue.
    pub queue: QueueName,
    /// Its identity.
    pub uid: QueueUid,
    /// Its phase.
    pub phase: Phase,
    /// No leases are given while this is set.
    pub paused: bool,
    /// How many items are where.
    pub counts: Counts,
    /// Failed attempts so far that did not end their item.
    pub retried: u64,
    /// Sessions that are open.
    pub sessions: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its first item was leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_lease_at: Option<Timestamp>,
    /// When an item was last done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_done_at: Option<Timestamp>,
    /// Items done a second, over the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// When nothing will be left at that rate, in milliseconds from now; for a sealed queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
    /// What an acknowledgement promises just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Its settings.
    pub settings: QueueSettings,
    /// The proof that it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// One open session, as `GET …/workers` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerView {
    /// The worker's name.
    pub worker: WorkerName,
    /// Its session.
    pub session: SessionId,
    /// How many items it holds.
    pub holds: u32,
    /// How many items it has done.
    pub done: u64,
    /// Since when the session has been open.
    pub opened_at: Timestamp,
    /// Since when it has held nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
}

/// What is known of a worker, as `GET …/workers/{name}` shows it. A name that was never heard of
/// is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerRecord {
    /// The worker's name.
    pub name: WorkerName,
    /// Whether it ever had a session in this queue. Absent when that is not known any more:
    /// only so many names are remembered ([`WORKERS_REMEMBERED_MAX`]).
    ///
    /// [`WORKERS_REMEMBERED_MAX`]: crate::limits::WORKERS_REMEMBERED_MAX
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub had_session: Option<bool>,
    /// Its open session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<WorkerView>,
}

/// Body of `POST …/stop`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopRequest {
    /// Whether this is a success.
    pub outcome: StopOutcome,
    /// Why, for whoever reads the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// Who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Box<str>>,
}

/// Body of `POST …/workers/{name}/revoke`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevokeRequest {
    /// Whether the loss counts an attempt for what the worker had started; true when absent.
    #[serde(default = "counted")]
    pub counted: bool,
}

impl Default for RevokeRequest {
    fn default() -> Self {
        Self { counted: counted() }
    }
}

fn counted() -> bool {
    true
}
