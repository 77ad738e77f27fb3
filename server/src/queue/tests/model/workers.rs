//! What workers say: sessions and settles.

use gangline_protocol::item::{Ending, Progress};
use gangline_protocol::{
    EndCause, EndPhase, ExchangeReply, ExchangeRequest, ItemId, ItemState, LeaseNumber, LeaseReply,
    LeaseRequest, QueueName, SessionEnd, SessionId, Settle, SettleOutcome, SettleStatus, Settled,
    Timestamp, Wait, WaitReason, WorkerName,
};

use super::rules::{Model, Now};
use super::state::{Fate, Held, Queue, Session, State};
use crate::queue::{Query, Refusal, Reply};

impl Model {
    pub(super) fn exchange(
        &mut self,
        now: &Now<'_>,
        name: &QueueName,
        request: ExchangeRequest,
    ) -> Result<Reply, Refusal> {
        let uid = self.queues.get(name).map(|queue| queue.uid);
        let without = |status, reply: ExchangeReply| {
            let settles = request.settles.iter();
            let settled = settles.map(|&Settle { id, lease, .. }| Settled { id, lease, status });
            Ok(Reply::Exchange(Box::new(ExchangeReply {
                settled: settled.collect(),
                ..reply
            })))
        };
        match request.uid.filter(|old| uid != Some(*old)) {
            Some(old) => {
                let over = Some(self.certificate(name, old));
                let reply = ExchangeReply {
                    uid: Some(old),
                    over,
                    ..ExchangeReply::default()
                };
                return without(SettleStatus::Over, reply);
            }
            None if uid.is_none() => {
                let wait = wait(WaitReason::NoSuchQueue, 1_000, None);
                let reply = ExchangeReply {
                    session_end: request.session.map(|_| SessionEnd::Unknown),
                    lease: request.lease.map(|_| wait),
                    ..ExchangeReply::default()
                };
                return without(SettleStatus::UnknownItem, reply);
            }
            None => {}
        }
        let (mut last_lease, mut session_ids) =
            (self.last_lease, std::mem::take(&mut self.session_ids));
        let reply = self.step(now, name, |queue| {
            let reply = queue.exchange(now, request, &mut last_lease, |id| {
                assert!(session_ids.insert(id.0), "session {id} comes twice");
            })?;
            Ok(Reply::Exchange(Box::new(reply)))
        });
        (self.last_lease, self.session_ids) = (last_lease, session_ids);
        reply
    }
}

pub(super) fn wait(reason: WaitReason, retry_ms: u64, due_at: Option<Timestamp>) -> LeaseReply {
    LeaseReply::Wait(Wait {
        reason,
        retry_ms,
        due_at,
    })
}

impl Queue {
    fn exchange(
        &mut self,
        now: &Now<'_>,
        request: ExchangeRequest,
        last_lease: &mut u64,
        minted: impl FnOnce(SessionId),
    ) -> Result<ExchangeReply, Refusal> {
        let mut reply = ExchangeReply {
            uid: Some(self.uid),
            heartbeat_ms: Some(self.settings.heartbeat_ms),
            ..ExchangeReply::default()
        };
        let same = |worker: &WorkerName, nonce: Option<u64>| {
            *worker == request.worker && nonce == request.nonce
        };
        let open = self.sessions.iter().find(|session| match request.session {
            Some(id) => session.id == id && session.worker == request.worker,
            None => request.nonce.is_some() && same(&session.worker, session.nonce),
        });
        let open = open.map(|session| session.id);
        let mut first_call = request.session.is_none();
        if open.is_none() {
            if let Some(id) = request.session {
                let end = self.ended.get(&id).map(|ended| ended.end);
                reply.session_end = Some(end.unwrap_or(SessionEnd::Unknown));
            } else if request.nonce.is_some()
                && let Some(ended) = self.ended.values().find(|old| same(&old.worker, old.nonce))
            {
                // Rule 10: a first call that comes again after its session has ended.
                reply.session_end = Some(ended.end);
                first_call = false;
            }
        }
        if let Some(LeaseRequest { number, .. }) = request.lease {
            let last = open
                .and_then(|id| self.session(id))
                .map_or(0, |open| open.last_request);
            if number == 0 || number < last {
                return Err(Refusal::LeaseNumberOutOfOrder { number, last });
            }
        }
        let mut stop = None;
        for settle in request.settles {
            let (id, lease, wanted) = (settle.id, settle.lease, settle.stop);
            let (status, changed) = self.settle(now, open, settle);
            stop = stop.or(wanted.filter(|_| changed));
            reply.settled.push(Settled { id, lease, status });
        }
        if let Some(outcome) = stop
            && !self.is_over()
        {
            let by = Some(request.worker.as_str().into());
            self.end(
                now.ms(),
                EndPhase::Stopped,
                EndCause::Worker,
                outcome,
                None,
                by,
            );
        }
        let (queue_time, length) = (self.queue_time, self.settings.session_ms);
        for id in request.started {
            if let Some(session) = open
                && let Some(Held { started: None, .. }) =
                    self.find(id).and_then(|item| item.held_by(session))
            {
                let started = Some((queue_time, length, self.time_limit_ms(id)));
                self.item(id).state = State::Leased(Held { session, started });
            }
        }
        for said in request.progress {
            let is_over = self.is_over();
            let item = self.items.get_mut((said.id.0 as usize).wrapping_sub(1));
            if let Some(session) = open
                && let Some(item) = item.filter(|item| item.lease == said.lease.0 && !is_over)
                && item.held_by(session).is_some()
            {
                let (fraction, text, at) = (said.fraction, said.text, Timestamp(now.ms()));
                item.progress = Some((said.lease.0, Progress { fraction, text, at }));
            }
        }
        let mut session = open;
        if let Some(lease) = request.lease
            && open.is_none()
            && first_call
            && !request.leave
            && !self.is_over()
        {
            let until_ms = self.revoked.get(&request.worker).copied().unwrap_or(0);
            if until_ms > now.ms() {
                let retry_ms = (until_ms - now.ms()).min(1_000);
                reply.lease = Some(wait(WaitReason::Revoked, retry_ms, None));
            } else {
                let Ok(Reply::Exchange(seen)) = now.seen else {
                    panic!("lease request {lease:?} got {:?}", now.seen)
                };
                let id = seen.session.expect("a first call opens a session");
                minted(id);
                let older = self
                    .sessions
                    .iter()
                    .find(|old| old.worker == request.worker);
                if let Some(older) = older.map(|old| old.id) {
                    self.end_session(now.ms(), older, SessionEnd::Replaced, true);
                }
                self.sessions.push(Session {
                    id,
                    worker: request.worker.clone(),
                    nonce: request.nonce,
                    deadline: queue_time + length,
                    waits_until: 0,
                    last_request: 0,
                    last_lease: 0,
                    answers: Vec::new(),
                    lost: Vec::new(),
                    ever_lost: Vec::new(),
                    restarted: false,
                    done: 0,
                    opened_ms: now.ms(),
                    idle_since_ms: now.ms(),
                });
                session = Some(id);
            }
        }
        let Some(id) = session else { return Ok(reply) };
        reply.session = Some(id);
        if let Some(lease) = request.lease
            && !self.is_over()
            && !request.leave
        {
            let answer = self.lease(now, id, lease, last_lease);
            let wait_ms = if let LeaseReply::Wait(_) = answer {
                lease.wait_ms
            } else {
                0
            };
            self.session(id).unwrap().waits_until = queue_time + wait_ms;
            reply.lease = Some(answer);
        }
        let holds = self.held(id).len();
        let session = self.session(id).unwrap();
        let waits_until = if holds == 0 { session.waits_until } else { 0 };
        session.deadline = queue_time.max(waits_until) + length;
        reply.lost.clone_from(&session.lost);
        if session.restarted
            && let Ok(Reply::Exchange(seen)) = now.seen
        {
            assert!(seen.lost.iter().all(|id| session.ever_lost.contains(id)));
            reply.lost.clone_from(&seen.lost);
        }
        if request.leave {
            self.end_session(now.ms(), id, SessionEnd::Left, false);
            (reply.session, reply.session_end) = (None, Some(SessionEnd::Left));
        }
        Ok(reply)
    }

    /// Rule 3: the first settle wins, and only with the newest lease.
    fn settle(
        &mut self,
        now: &Now<'_>,
        session: Option<SessionId>,
        settle: Settle,
    ) -> (SettleStatus, bool) {
        let Settle {
            id,
            lease: LeaseNumber(lease),
            outcome,
            ..
        } = settle;
        let finished = matches!(outcome, SettleOutcome::Done | SettleOutcome::Dead);
        let verdict = match self.find(id) {
            None => SettleStatus::UnknownItem,
            Some(item) => match (item.state, item.fate) {
                (State::Done, _) => SettleStatus::AlreadySettled,
                (State::Cancelled, _) => SettleStatus::Cancelled,
                _ if lease == 0 || item.lease != lease => SettleStatus::StaleLease,
                (_, Fate::Settled) => SettleStatus::AlreadySettled,
                (_, Fate::Lost) if !finished => SettleStatus::StaleLease,
                (_, Fate::Held | Fate::Lost) => SettleStatus::Ok,
            },
        };
        if verdict != SettleStatus::Ok {
            let Some(session) = session.and_then(|id| self.session(id)) else {
                return (verdict, false);
            };
            if session.answers.contains(&(id, lease, outcome)) {
                return (SettleStatus::Ok, false);
            }
            session.lost.retain(|lost| *lost != id);
            return (verdict, false);
        }
        if self.is_over() {
            return (SettleStatus::Over, false);
        }
        let settings = self.settings.clone();
        let holder = self.holder_of(id);
        let item = self.item(id);
        let held = item.state;
        let (ending, error) = match outcome {
            SettleOutcome::Done => (Ending::Done, None),
            SettleOutcome::Retry => (Ending::Retry, settle.error.clone()),
            SettleOutcome::Dead => (Ending::Dead, settle.error.clone()),
            SettleOutcome::Release => (Ending::Release, None),
        };
        item.note(now.ms(), ending, error, holder.as_ref());
        item.fate = Fate::Settled;
        let last = item.attempts + 1 >= item.max_attempts(&settings);
        match outcome {
            SettleOutcome::Done => {
                item.state = State::Done;
                let (key, attempt) = (item.new.key.clone(), item.attempt);
                let took_ms = now.ms().saturating_sub(item.leased_ms);
                let result = settle
                    .result
                    .unwrap_or_else(|| super::super::world::json("null"));
                let record = gangline_protocol::item::ResultView {
                    id,
                    key,
                    result,
                    attempt,
                    took_ms,
                };
                self.results.push(record);
                self.last_done_ms = Some(now.ms());
            }
            SettleOutcome::Retry if !last => {
                item.attempts += 1;
                item.error = settle.error;
                let doubled = settings.retry_base_ms << (item.attempts - 1).min(32);
                let ceiling = doubled.min(settings.retry_cap_ms);
                let delay_ms = settle.delay_ms.unwrap_or_else(|| {
                    jitter_ms(now, &self.name, id)
                        .inspect(|ms| assert!(*ms <= ceiling))
                        .unwrap_or(0)
                });
                self.retried += 1;
                if delay_ms > 0 {
                    self.item(id).state = State::Delayed {
                        due_ms: now.ms() + delay_ms,
                    };
                } else {
                    self.make_ready(id);
                }
            }
            SettleOutcome::Retry | SettleOutcome::Dead => {
                item.attempts = item.attempts.max(item.attempt);
                item.error = settle.error;
                item.state = State::Dead { since_ms: now.ms() };
            }
            SettleOutcome::Release => self.make_ready(id),
        }
        if let State::Leased(held) = held {
            self.note_idle(held.session);
        }
        if let Some(session) = session.and_then(|id| self.session(id)) {
            session.answers.push((id, lease, outcome));
            session.lost.retain(|lost| *lost != id);
            session.done += u64::from(outcome == SettleOutcome::Done);
        }
        // Rule 4: in the very step of the settle, and with `done` only.
        if outcome == SettleOutcome::Done {
            let _ = self.push(now.ms(), settle.spawn, false);
        }
        (SettleStatus::Ok, true)
    }
}

/// The back-off that the service has drawn; none if the item is ready, or nobody can see it.
fn jitter_ms(now: &Now<'_>, queue: &QueueName, id: ItemId) -> Option<u64> {
    let query = Query::Item {
        queue: queue.clone(),
        id,
    };
    let Ok(Reply::Item(view)) = now.service.read(now.ms(), query) else {
        panic!("no item {id}")
    };
    let due_at = view.due_at.filter(|_| view.state == ItemState::Delayed)?;
    Some(
        due_at
            .0
            .checked_sub(now.ms())
            .expect("a back-off goes forward"),
    )
}
