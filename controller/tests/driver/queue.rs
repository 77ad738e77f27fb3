//! A queue service in memory.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use gangline_controller::api::Job;
use gangline_controller::driver::{Fill, QueueService, ServiceError};
use gangline_protocol::{
    Certificate, Counts, EndCause, EndPhase, Phase, QueueName, QueueSettings, QueueStatus,
    QueueUid, StopOutcome, Timestamp, WorkerName, WorkerView,
};

/// A queue service with room for one queue.
#[derive(Clone, Default)]
pub(crate) struct FakeQueue {
    pub(crate) state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) status: Option<QueueStatus>,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) filled: usize,
    pub(crate) revoked: Vec<(String, bool)>,
    pub(crate) is_away: bool,
    /// Workers whose session has ended.
    pub(crate) had_sessions: HashSet<String>,
    /// How often it was asked about one worker.
    pub(crate) asked_of_workers: usize,
    /// Whether workers need tokens.
    pub(crate) asks_for_tokens: bool,
    /// The Jobs whose workers have one.
    pub(crate) tokens: BTreeSet<String>,
    /// How often its status was asked for.
    pub(crate) polls: usize,
}

type Answer<T> = Result<T, ServiceError>;

impl FakeQueue {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn asked(&self) -> Answer<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.is_away {
            return Err(ServiceError::Unavailable("away".into()));
        }
        Ok(state)
    }

    /// Ends the queue.
    pub(crate) fn end(&self, phase: EndPhase, outcome: StopOutcome) {
        let mut state = self.lock();
        let status = state.status.as_mut().unwrap();
        let left = status.counts.left();
        let counts = Counts {
            done: status.counts.done + if phase == EndPhase::Drained { left } else { 0 },
            abandoned: if phase == EndPhase::Stopped { left } else { 0 },
            ..Counts::default()
        };
        status.counts = counts;
        (status.phase, status.certificate) = (
            match phase {
                EndPhase::Drained => Phase::Drained,
                EndPhase::Stopped => Phase::Stopped,
            },
            Some(Certificate {
                queue: status.queue.clone(),
                uid: status.uid,
                phase,
                cause: EndCause::Stop,
                outcome,
                reason: None,
                ended_by: None,
                created_at: status.created_at,
                ended_at: now(),
                counts,
                digest: "d".into(),
                history_uncertain: false,
                durability: None,
            }),
        );
    }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond() as u64)
}

impl QueueService for FakeQueue {
    async fn status(&self, _: &QueueName) -> Answer<Option<QueueStatus>> {
        let mut state = self.asked()?;
        state.polls += 1;
        Ok(state.status.clone())
    }

    async fn workers(&self, _: &QueueName) -> Answer<Vec<WorkerView>> {
        Ok(self.asked()?.workers.clone())
    }

    async fn create(&self, queue: &QueueName) -> Answer<()> {
        self.asked()?.status.get_or_insert_with(|| QueueStatus {
            queue: queue.clone(),
            uid: QueueUid(1),
            phase: Phase::Open,
            paused: false,
            counts: Counts::default(),
            retried: 0,
            sessions: 0,
            created_at: now(),
            first_lease_at: None,
            last_done_at: None,
            rate: None,
            eta_ms: None,
            durability: None,
            settings: QueueSettings::default(),
            certificate: None,
        });
        Ok(())
    }

    async fn fill(&self, _: &QueueName, items: Fill, _: &str) -> Answer<()> {
        let mut state = self.asked()?;
        state.filled += 1;
        let status = state.status.as_mut().unwrap();
        status.phase = Phase::Sealed;
        status.counts.ready = match items {
            Fill::Range { first, last } => last - first + 1,
            Fill::Payloads(payloads) => payloads.len() as u64,
        };
        Ok(())
    }

    async fn pause(&self, _: &QueueName) -> Answer<()> {
        self.asked()?.status.as_mut().unwrap().paused = true;
        Ok(())
    }

    async fn stop(&self, _: &QueueName, outcome: StopOutcome, _: &str) -> Answer<()> {
        drop(self.asked()?);
        self.end(EndPhase::Stopped, outcome);
        Ok(())
    }

    async fn revoke(&self, _: &QueueName, worker: &WorkerName, counted: bool) -> Answer<()> {
        let mut state = self.asked()?;
        state.workers.retain(|view| view.worker != *worker);
        state.had_sessions.insert(worker.to_string());
        state.revoked.push((worker.to_string(), counted));
        Ok(())
    }

    async fn had_session(&self, _: &QueueName, worker: &WorkerName) -> Answer<Option<bool>> {
        let mut state = self.asked()?;
        state.asked_of_workers += 1;
        let is_open = state.workers.iter().any(|view| view.worker == *worker);
        Ok(Some(
            is_open || state.had_sessions.contains(worker.as_str()),
        ))
    }

    async fn register_token(&self, _: &QueueName, job: &Job) -> Answer<Option<String>> {
        let mut state = self.asked()?;
        if !state.asks_for_tokens {
            return Ok(None);
        }
        state.tokens.insert(job.uid().to_owned());
        Ok(Some(format!("token of {}", job.uid())))
    }

    async fn revoke_token(&self, _: &QueueName, job_uid: &str) -> Answer<()> {
        self.asked()?.tokens.remove(job_uid);
        Ok(())
    }
}
