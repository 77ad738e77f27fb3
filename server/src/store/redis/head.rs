//! The head of a queue: its status and its certificate.

use gangline_protocol::{
    Certificate, Counts, Durability, EndCause, EndPhase, Phase, QueueName, QueueSettings,
    QueueStatus, QueueUid, StopOutcome, Timestamp,
};

use super::durability::promise_of_rank;
use super::fields::{Decoded, Fields, Malformed};

/// The head of a queue (`view` in `head.lua`).
#[derive(Debug)]
pub(super) struct Head {
    uid: QueueUid,
    created_ms: u64,
    sealed: bool,
    paused: bool,
    counts: Counts,
    retried: u64,
    sessions: u64,
    first_lease_ms: Option<u64>,
    last_done_ms: Option<u64>,
    pub(super) settings: QueueSettings,
    digest: String,
    history_uncertain: bool,
    ended: Option<Ended>,
    durability: Option<Durability>,
}

#[derive(Debug)]
struct Ended {
    phase: EndPhase,
    cause: EndCause,
    outcome: StopOutcome,
    reason: Option<Box<str>>,
    by: Option<Box<str>>,
    at_ms: u64,
}

impl Head {
    pub(super) fn of(fields: &mut Fields) -> Decoded<Self> {
        Self::optional(fields)?.ok_or(Malformed("no head"))
    }

    pub(super) fn optional(fields: &mut Fields) -> Decoded<Option<Self>> {
        let Some(mut head) = fields.optional_list()? else {
            return Ok(None);
        };
        Ok(Some(Self {
            uid: head.parsed()?,
            created_ms: head.number()?,
            sealed: head.flag()?,
            paused: head.flag()?,
            counts: counts(&mut head.list()?)?,
            retried: head.number()?,
            sessions: head.number()?,
            first_lease_ms: head.optional_number()?,
            last_done_ms: head.optional_number()?,
            settings: settings(&mut head.list()?)?,
            digest: head.text()?,
            history_uncertain: head.flag()?,
            ended: head.optional_list()?.map(Ended::of).transpose()?,
            durability: head.optional_number()?.map(durability).transpose()?,
        }))
    }

    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    fn phase(&self) -> Phase {
        match (&self.ended, self.sealed) {
            (Some(ended), _) => match ended.phase {
                EndPhase::Drained => Phase::Drained,
                EndPhase::Stopped => Phase::Stopped,
            },
            (None, true) => Phase::Sealed,
            (None, false) => Phase::Open,
        }
    }

    pub(super) fn status(&self, queue: &QueueName) -> QueueStatus {
        QueueStatus {
            queue: queue.clone(),
            uid: self.uid,
            phase: self.phase(),
            paused: self.paused,
            counts: self.counts,
            retried: self.retried,
            sessions: self.sessions,
            created_at: Timestamp(self.created_ms),
            first_lease_at: self.first_lease_ms.map(Timestamp),
            last_done_at: self.last_done_ms.map(Timestamp),
            rate: None,
            eta_ms: None,
            durability: None,
            settings: self.settings.clone(),
            certificate: self.certificate(queue),
        }
    }

    /// Returns the proof that the queue is over, if it is.
    pub(super) fn certificate(&self, queue: &QueueName) -> Option<Certificate> {
        let ended = self.ended.as_ref()?;
        Some(Certificate {
            queue: queue.clone(),
            uid: self.uid,
            phase: ended.phase,
            cause: ended.cause,
            outcome: ended.outcome,
            reason: ended.reason.clone(),
            ended_by: ended.by.clone(),
            created_at: Timestamp(self.created_ms),
            ended_at: Timestamp(ended.at_ms),
            counts: self.counts,
            digest: self.digest.as_str().into(),
            history_uncertain: self.history_uncertain,
            durability: self.durability,
        })
    }
}

impl Ended {
    fn of(mut fields: Fields) -> Decoded<Self> {
        let phase = match fields.text()?.as_str() {
            "drained" => EndPhase::Drained,
            "stopped" => EndPhase::Stopped,
            _ => return Err(Malformed("no such phase")),
        };
        let cause = match fields.text()?.as_str() {
            "drained" => EndCause::Drained,
            "worker" => EndCause::Worker,
            "stop" => EndCause::Stop,
            "deleted" => EndCause::Deleted,
            _ => return Err(Malformed("no such cause")),
        };
        let outcome = match fields.text()?.as_str() {
            "success" => StopOutcome::Success,
            "failure" => StopOutcome::Failure,
            _ => return Err(Malformed("no such outcome")),
        };
        Ok(Self {
            phase,
            cause,
            outcome,
            reason: fields.optional_text()?.map(Into::into),
            by: fields.optional_text()?.map(Into::into),
            at_ms: fields.number()?,
        })
    }
}

fn durability(rank: u64) -> Decoded<Durability> {
    promise_of_rank(rank).ok_or(Malformed("no such durability"))
}

fn counts(fields: &mut Fields) -> Decoded<Counts> {
    Ok(Counts {
        ready: fields.number()?,
        delayed: fields.number()?,
        leased: fields.number()?,
        done: fields.number()?,
        dead: fields.number()?,
        cancelled: fields.number()?,
        abandoned: fields.number()?,
    })
}

fn settings(fields: &mut Fields) -> Decoded<QueueSettings> {
    Ok(QueueSettings {
        max_attempts: fields.parsed()?,
        session_ms: fields.number()?,
        heartbeat_ms: fields.number()?,
        retry_base_ms: fields.number()?,
        retry_cap_ms: fields.number()?,
        max_leased: optional(fields)?,
        retention_ms: fields.number()?,
        seal_when_idle_ms: optional(fields)?,
        time_limit_ms: optional(fields)?,
        results_bytes_max: optional(fields)?,
    })
}

/// A setting that may be absent.
fn optional(fields: &mut Fields) -> Decoded<Option<u64>> {
    match fields.text()?.as_str() {
        "" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| Malformed("no number")),
    }
}
