//! What workers say: sessions, and the order of an exchange's parts.

use gangline_protocol::limits::REVOKED_MS;
use gangline_protocol::{
    Certificate, EndCause, EndPhase, ExchangeReply, ExchangeRequest, LeaseReply, QueueName,
    SessionEnd, SessionId, SettleStatus, Settled, Wait, WaitReason, WorkerName,
};

use super::command::{Refusal, Reply, Signal};
use super::fact::{Fact, SessionEndRecord};
use super::queues::{Queues, Step};

/// How long a worker waits before it asks again for a queue that does not exist, or for which it
/// is revoked, at the latest.
const RETRY_MS: u64 = 1_000;

impl Queues {
    pub(crate) fn exchange_without_queue(
        &self,
        name: &QueueName,
        request: &ExchangeRequest,
    ) -> Reply {
        if let Some(uid) = request.uid {
            return Self::over(self.tombstone(name, uid), request);
        }
        let settled = request.settles.iter().map(|settle| Settled {
            id: settle.id,
            lease: settle.lease,
            status: SettleStatus::UnknownItem,
        });
        let wait = Wait {
            reason: WaitReason::NoSuchQueue,
            retry_ms: RETRY_MS,
            due_at: None,
        };
        Reply::Exchange(Box::new(ExchangeReply {
            settled: settled.collect(),
            session_end: request.session.map(|_| SessionEnd::Unknown),
            lease: request.lease.map(|_| LeaseReply::Wait(wait)),
            ..ExchangeReply::default()
        }))
    }

    /// Answers an exchange that names the uid of a queue that is gone.
    pub(crate) fn over(certificate: Certificate, request: &ExchangeRequest) -> Reply {
        let settled = request.settles.iter().map(|settle| Settled {
            id: settle.id,
            lease: settle.lease,
            status: SettleStatus::Over,
        });
        Reply::Exchange(Box::new(ExchangeReply {
            uid: Some(certificate.uid),
            settled: settled.collect(),
            over: Some(certificate),
            ..ExchangeReply::default()
        }))
    }
}

impl Step<'_> {
    /// Does the parts of an exchange in their order: settles, heartbeat, lease, leave.
    pub(super) fn exchange(&mut self, request: ExchangeRequest) -> Result<Reply, Refusal> {
        let ExchangeRequest {
            worker,
            session,
            nonce,
            uid: _,
            settles,
            started,
            progress,
            heartbeat: _,
            lease,
            leave,
        } = request;
        let mut reply = ExchangeReply {
            uid: Some(self.queue.uid),
            heartbeat_ms: Some(self.queue.settings.heartbeat_ms),
            ..ExchangeReply::default()
        };
        let open = match session {
            Some(id) => {
                let found = self.queue.sessions.get(id);
                let open = found.is_some_and(|session| session.worker == worker);
                if !open {
                    reply.session_end = Some(self.queue.sessions.end_of(id));
                }
                open.then_some(id)
            }
            None => self.queue.sessions.of_worker(&worker).filter(|id| {
                let session = self.queue.sessions.get(*id);
                nonce.is_some() && session.is_some_and(|session| session.nonce == nonce)
            }),
        };
        if open.is_none()
            && session.is_none()
            && let Some(nonce) = nonce
        {
            reply.session_end = self.queue.sessions.end_of_first_call(&worker, nonce);
        }
        if let Some(lease) = &lease {
            self.check_lease_number(open, lease.number)?;
        }
        reply.settled = self.settle_all(open, &worker, settles);
        if let Some(id) = open {
            self.start(id, started);
            self.queue.note_progress(id, progress, self.now_ms);
        }
        let ended = reply.session_end.is_some();
        let opening = open.is_none() && session.is_none() && !ended && lease.is_some() && !leave;
        let session_id = match open {
            Some(id) => Some(id),
            None if opening && self.queue.ended.is_none() => {
                match self.open_session(&worker, nonce) {
                    Ok(id) => Some(id),
                    Err(wait) => {
                        reply.lease = Some(LeaseReply::Wait(wait));
                        None
                    }
                }
            }
            None => None,
        };
        if let Some(id) = session_id {
            reply.session = Some(id);
            if let Some(lease) = lease.filter(|_| self.queue.ended.is_none() && !leave) {
                reply.lease = Some(self.lease(id, lease));
            }
            let wait_ms = match reply.lease {
                Some(LeaseReply::Wait(_)) => lease.map(|lease| lease.wait_ms),
                Some(LeaseReply::Items(_)) => Some(0),
                None => None,
            };
            self.keep_alive(id, wait_ms);
            let session = self.queue.sessions.get(id);
            reply.lost =
                session.map_or(Vec::new(), |session| session.lost.iter().copied().collect());
            if leave {
                self.end_session(id, SessionEndRecord::Left, false);
                reply.session = None;
                reply.session_end = Some(SessionEnd::Left);
            }
        }
        Ok(Reply::Exchange(Box::new(reply)))
    }

    /// Opens a session; an older one of the same name ends in the same step.
    fn open_session(&mut self, worker: &WorkerName, nonce: Option<u64>) -> Result<SessionId, Wait> {
        if let Some(until_ms) = self.queue.revoked.get(worker).copied()
            && until_ms > self.now_ms
        {
            let retry_ms = (until_ms - self.now_ms).min(RETRY_MS);
            return Err(Wait {
                reason: WaitReason::Revoked,
                retry_ms,
                due_at: None,
            });
        }
        if let Some(older) = self.queue.sessions.of_worker(worker) {
            self.end_session(older, SessionEndRecord::Replaced, true);
        }
        let session = self.draw.next();
        let (worker, at_ms) = (worker.as_str().into(), self.now_ms);
        self.happen(Fact::SessionOpened {
            session,
            worker,
            nonce,
            at_ms,
        });
        Ok(SessionId(session))
    }

    /// Extends a session. One that holds nothing may wait as long as its call is held.
    fn keep_alive(&mut self, id: SessionId, wait_ms: Option<u64>) {
        let now = self.queue.queue_time;
        let Some(session) = self.queue.sessions.get_mut(id) else {
            return;
        };
        if let Some(wait_ms) = wait_ms {
            session.waits_until = now + wait_ms;
        }
        // A settle beside a held lease request must not shorten what the request was promised.
        let alive_until = if session.holds.is_empty() {
            now.max(session.waits_until)
        } else {
            now
        };
        let deadline = alive_until + self.queue.settings.session_ms;
        self.queue.sessions.extend(id, deadline);
    }

    pub(super) fn end_session(&mut self, id: SessionId, end: SessionEndRecord, counted: bool) {
        self.happen(Fact::SessionEnded {
            session: id.0,
            end,
            counted,
            at_ms: self.now_ms,
        });
        let queue = self.queue.name.clone();
        self.effects
            .signals
            .push(Signal::Session { queue, session: id });
    }

    pub(super) fn revoke(&mut self, worker: WorkerName, counted: bool) -> Result<Reply, Refusal> {
        let session = self.queue.sessions.of_worker(&worker);
        if let Some(id) = session {
            self.end_session(id, SessionEndRecord::Revoked, counted);
        }
        let revoked = self.queue.revoked.get(&worker);
        if session.is_none() && revoked.is_some_and(|until_ms| *until_ms > self.now_ms) {
            return Ok(Reply::Revoked(None));
        }
        let until_ms = self.now_ms + REVOKED_MS;
        self.happen(Fact::Revoked {
            worker: worker.as_str().into(),
            until_ms,
        });
        Ok(Reply::Revoked(session))
    }

    pub(super) fn stop_by_worker(
        &mut self,
        outcome: gangline_protocol::StopOutcome,
        worker: &WorkerName,
    ) {
        let by = Some(worker.as_str().into());
        self.end(EndPhase::Stopped, EndCause::Worker, outcome, None, by);
    }
}
