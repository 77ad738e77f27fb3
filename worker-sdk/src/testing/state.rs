//! The rules of a queue, for one process and small numbers. No IO, and no clock but its own.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use gangline_protocol::digest::Digest;
use gangline_protocol::limits::PRIORITY_DEFAULT;
use gangline_protocol::{
    Certificate, Counts, Durability, EndCause, EndPhase, ErrorCode, ExchangeReply, ExchangeRequest,
    ItemId, ItemKey, ItemState, Json, LeaseNumber, LeaseReply, LeaseRequest, LeasedItem, NewItem,
    Problem, Progress, PushReply, Pushed, QueueName, QueueSettings, QueueUid, SessionEnd,
    SessionId, Settle, SettleOutcome, SettleStatus, Settled, StopOutcome, Timestamp, Wait,
    WaitReason, WorkerName,
};

use super::{Attempt, Fault};
use crate::error::ClientError;
use crate::retry::random;

/// When a call for items that got none is to come again, in milliseconds.
pub(super) const RETRY_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) item: NewItem,
    pub(super) state: ItemState,
    pub(super) attempts: u16,
    pub(super) lease: u64,
    pub(super) session: Option<SessionId>,
    /// Its lease ended with its session, so that a late end of it still counts.
    lease_lost: bool,
    pub(super) due_ms: u64,
    pub(super) result: Option<Json>,
    pub(super) error: Option<Box<str>>,
    /// What was said of it last, and under which lease.
    pub(super) progress: Option<(u64, Progress)>,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) worker: WorkerName,
    nonce: Option<u64>,
    /// The number of its last request that got items, and the lease under which it did.
    last: (u64, u64),
    lost: BTreeSet<ItemId>,
}

#[derive(Debug)]
pub(super) struct State {
    name: QueueName,
    uid: QueueUid,
    settings: QueueSettings,
    pub(super) now_ms: u64,
    sealed: bool,
    entries: Vec<Entry>,
    keys: HashMap<ItemKey, ItemId>,
    pushes: HashMap<String, PushReply>,
    pub(super) sessions: HashMap<SessionId, Session>,
    next_session: u64,
    last_lease: u64,
    counted: HashSet<(ItemId, LeaseNumber)>,
    pub(super) over: Option<Certificate>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) exchanges: u64,
    pub(super) push_sizes: Vec<usize>,
    pub(super) faults: VecDeque<Fault>,
}

impl State {
    pub(super) fn new(name: QueueName, settings: QueueSettings) -> Self {
        Self {
            name,
            uid: QueueUid(u128::from(random()) << 64 | u128::from(random())),
            settings,
            now_ms: 0,
            sealed: false,
            entries: Vec::new(),
            keys: HashMap::new(),
            pushes: HashMap::new(),
            sessions: HashMap::new(),
            next_session: 1,
            last_lease: 0,
            counted: HashSet::new(),
            over: None,
            attempts: Vec::new(),
            exchanges: 0,
            push_sizes: Vec::new(),
            faults: VecDeque::new(),
        }
    }

    pub(super) fn entry(&mut self, id: ItemId) -> Option<&mut Entry> {
        let place = usize::try_from(id.0.checked_sub(1)?).ok()?;
        self.entries.get_mut(place)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = (ItemId, &Entry)> {
        (1..).map(ItemId).zip(&self.entries)
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in &self.entries {
            *match entry.state {
                ItemState::Ready => &mut counts.ready,
                ItemState::Delayed => &mut counts.delayed,
                ItemState::Leased => &mut counts.leased,
                ItemState::Done => &mut counts.done,
                ItemState::Dead => &mut counts.dead,
                ItemState::Cancelled => &mut counts.cancelled,
                ItemState::Abandoned => &mut counts.abandoned,
            } += 1;
        }
        counts
    }

    fn digest(&self) -> Box<str> {
        let mut digest = Digest::default();
        for (id, entry) in self.ids() {
            if entry.state == ItemState::Done {
                digest.add(id, entry.result.as_ref().map_or("null", |json| json.get()));
            }
        }
        digest.to_hex()
    }

    // What producers do, and people.

    pub(super) fn add(&mut self, item: NewItem) -> Pushed {
        if let Some(id) = item.key.as_ref().and_then(|key| self.keys.get(key)) {
            return Pushed {
                id: *id,
                duplicate: true,
            };
        }
        let id = ItemId(self.entries.len() as u64 + 1);
        if let Some(key) = &item.key {
            self.keys.insert(key.clone(), id);
        }
        let delay_ms = item.delay_ms.unwrap_or(0);
        let delayed = delay_ms > 0;
        self.entries.push(Entry {
            item,
            state: if delayed {
                ItemState::Delayed
            } else {
                ItemState::Ready
            },
            attempts: 0,
            lease: 0,
            session: None,
            lease_lost: false,
            due_ms: self.now_ms.saturating_add(delay_ms),
            result: None,
            error: None,
            progress: None,
        });
        Pushed {
            id,
            duplicate: false,
        }
    }

    pub(super) fn push(
        &mut self,
        items: &[NewItem],
        idempotency_key: Option<&str>,
    ) -> Result<PushReply, ClientError> {
        if let Some(reply) = idempotency_key.and_then(|key| self.pushes.get(key)) {
            return Ok(reply.clone());
        }
        let known = |item: &NewItem| {
            let key = item.key.as_ref();
            key.is_some_and(|key| self.keys.contains_key(key))
        };
        if !items.iter().all(known) {
            if self.over.is_some() {
                return Err(self.refusal(ErrorCode::QueueOver, "is over"));
            }
            if self.sealed {
                return Err(self.refusal(ErrorCode::QueueSealed, "is sealed"));
            }
        }
        let pushed: Vec<Pushed> = items.iter().map(|item| self.add(item.clone())).collect();
        self.push_sizes.push(pushed.len());
        let duplicates = pushed.iter().filter(|one| one.duplicate).count() as u64;
        let reply = PushReply {
            uid: self.uid,
            added: pushed.len() as u64 - duplicates,
            duplicates,
            items: pushed,
            sealed: self.sealed,
        };
        if let Some(key) = idempotency_key {
            self.pushes.insert(key.into(), reply.clone());
        }
        Ok(reply)
    }

    fn refusal(&self, code: ErrorCode, what: &str) -> ClientError {
        ClientError::Refused(Box::new(Problem {
            status: 409,
            code,
            detail: format!("queue {} {what}", self.name),
            field: None,
            certificate: self.over.clone().map(Box::new),
        }))
    }

    pub(super) fn seal(&mut self) {
        self.sealed = true;
        self.end_if_drained();
    }

    pub(super) fn cancel(&mut self, id: ItemId) {
        let Some(entry) = self.entry(id) else { return };
        let session = match entry.state {
            ItemState::Ready | ItemState::Delayed => None,
            ItemState::Leased => entry.session.take(),
            ItemState::Done | ItemState::Dead | ItemState::Cancelled | ItemState::Abandoned => {
                return;
            }
        };
        entry.state = ItemState::Cancelled;
        if let Some(session) = session.and_then(|id| self.sessions.get_mut(&id)) {
            session.lost.insert(id);
        }
        self.end_if_drained();
    }

    pub(super) fn stop(&mut self, outcome: StopOutcome, by: Option<&WorkerName>) {
        let cause = if by.is_some() {
            EndCause::Worker
        } else {
            EndCause::Stop
        };
        self.end(EndPhase::Stopped, cause, outcome, by);
    }

    fn end_if_drained(&mut self) {
        if self.sealed && self.counts().left() == 0 {
            let success = StopOutcome::Success;
            self.end(EndPhase::Drained, EndCause::Drained, success, None);
        }
    }

    fn end(
        &mut self,
        phase: EndPhase,
        cause: EndCause,
        outcome: StopOutcome,
        by: Option<&WorkerName>,
    ) {
        if self.over.is_some() {
            return;
        }
        for entry in &mut self.entries {
            if let ItemState::Ready | ItemState::Delayed | ItemState::Leased = entry.state {
                entry.state = ItemState::Abandoned;
            }
        }
        self.over = Some(Certificate {
            queue: self.name.clone(),
            uid: self.uid,
            phase,
            cause,
            outcome,
            reason: None,
            ended_by: by.map(|name| name.as_str().into()),
            created_at: Timestamp(0),
            ended_at: Timestamp(self.now_ms),
            counts: self.counts(),
            digest: self.digest(),
            history_uncertain: false,
            durability: Some(Durability::Memory),
        });
    }

    // What workers do.

    pub(super) fn exchange(&mut self, request: &ExchangeRequest) -> ExchangeReply {
        let mut reply = ExchangeReply {
            uid: Some(self.uid),
            heartbeat_ms: Some(self.settings.heartbeat_ms),
            ..ExchangeReply::default()
        };
        let open = match request.session {
            Some(id) if !self.sessions.contains_key(&id) => {
                reply.session_end = Some(SessionEnd::Expired);
                None
            }
            Some(id) => Some(id),
            None => self.session_of(request),
        };
        if let Some(session) = open {
            self.note_progress(session, &request.progress);
        }
        let mut stop = None;
        for settle in &request.settles {
            let status = self.settle(open, settle);
            if status == SettleStatus::Ok {
                stop = stop.or(settle.stop);
            }
            reply.settled.push(Settled {
                id: settle.id,
                lease: settle.lease,
                status,
            });
        }
        if let Some(outcome) = stop {
            self.stop(outcome, Some(&request.worker));
        }
        self.end_if_drained();
        if let Some(certificate) = &self.over {
            reply.over = Some(certificate.clone());
            return reply;
        }
        let opens = request.lease.is_some() && !request.leave && reply.session_end.is_none();
        reply.session = open.or_else(|| opens.then(|| self.open(request)));
        if let Some(id) = reply.session {
            if let Some(lease) = request.lease.filter(|_| !request.leave) {
                reply.lease = Some(self.lease(id, lease));
            }
            reply.lost = self.sessions[&id].lost.iter().copied().collect();
        }
        if let Some(id) = reply.session.filter(|_| request.leave) {
            self.give_back(id, 0);
            self.sessions.remove(&id);
            reply.session = None;
            reply.session_end = Some(SessionEnd::Left);
        }
        reply
    }

    /// Finds the session that an earlier try of this first call has opened.
    fn session_of(&self, request: &ExchangeRequest) -> Option<SessionId> {
        let same = |session: &Session| {
            session.worker == request.worker
                && session.nonce.is_some()
                && session.nonce == request.nonce
        };
        let found = self.sessions.iter().find(|(_, session)| same(session));
        found.map(|(id, _)| *id)
    }

    /// Opens a session; an older one of the same name ends in the same step.
    fn open(&mut self, request: &ExchangeRequest) -> SessionId {
        let older: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.worker == request.worker)
            .map(|(id, _)| *id)
            .collect();
        for id in older {
            self.give_back(id, 1);
            self.sessions.remove(&id);
        }
        let id = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(
            id,
            Session {
                worker: request.worker.clone(),
                nonce: request.nonce,
                last: (0, 0),
                lost: BTreeSet::new(),
            },
        );
        id
    }

    pub(super) fn lose_sessions(&mut self) {
        let ids: Vec<SessionId> = self.sessions.drain().map(|(id, _)| id).collect();
        for id in ids {
            self.give_back(id, 1);
        }
        self.end_if_drained();
    }

    /// What a session holds is ready again, after so many more attempts that count.
    fn give_back(&mut self, session: SessionId, attempts: u16) {
        for entry in &mut self.entries {
            if entry.state != ItemState::Leased || entry.session != Some(session) {
                continue;
            }
            entry.session = None;
            entry.lease_lost = true;
            entry.attempts += attempts;
            let most = entry
                .item
                .max_attempts
                .unwrap_or(self.settings.max_attempts);
            let dead = entry.attempts >= most;
            entry.state = if dead {
                ItemState::Dead
            } else {
                ItemState::Ready
            };
        }
    }

    fn lease(&mut self, session: SessionId, request: LeaseRequest) -> LeaseReply {
        let (number, lease) = self.sessions[&session].last;
        if number == request.number {
            // A repeat gets what is left of the same items.
            return self.handed_out(lease);
        }
        let mut ready = self.ready(request.max);
        if ready.is_empty() && self.counts().leased == 0 {
            self.pass_time();
            ready = self.ready(request.max);
        }
        self.last_lease += 1;
        let lease = self.last_lease;
        for id in &ready {
            if let Some(entry) = self.entry(*id) {
                entry.state = ItemState::Leased;
                entry.lease = lease;
                entry.lease_lost = false;
                entry.session = Some(session);
            }
        }
        if let Some(session) = self.sessions.get_mut(&session)
            && !ready.is_empty()
        {
            session.last = (request.number, lease);
            // What it has again is not lost to it any more.
            session.lost.retain(|id| !ready.contains(id));
        }
        self.handed_out(lease)
    }

    /// Returns the first so many items in line.
    fn ready(&self, max: u32) -> Vec<ItemId> {
        let ready = |(_, entry): &(ItemId, &Entry)| entry.state == ItemState::Ready;
        let mut line: Vec<_> = self.ids().filter(ready).collect();
        line.sort_by_key(|(id, entry)| {
            let priority = entry.item.priority.unwrap_or(PRIORITY_DEFAULT);
            // What was given back goes first.
            (Reverse(priority), !entry.lease_lost, *id)
        });
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        line.into_iter().take(max).map(|(id, _)| id).collect()
    }

    /// Moves the clock to the time of the next delayed item.
    fn pass_time(&mut self) {
        let delayed = |entry: &&mut Entry| entry.state == ItemState::Delayed;
        let due = self.entries.iter_mut().filter(delayed);
        let Some(due_ms) = due.map(|entry| entry.due_ms).min() else {
            return;
        };
        self.now_ms = self.now_ms.max(due_ms);
        for entry in self.entries.iter_mut().filter(delayed) {
            if entry.due_ms <= self.now_ms {
                entry.state = ItemState::Ready;
            }
        }
    }

    fn handed_out(&self, lease: u64) -> LeaseReply {
        let items: Vec<LeasedItem> = self
            .ids()
            .filter(|(_, entry)| entry.state == ItemState::Leased && entry.lease == lease)
            .map(|(id, entry)| LeasedItem {
                id,
                lease: LeaseNumber(lease),
                attempt: entry.attempts + 1,
                key: entry.item.key.clone(),
                time_limit_ms: entry.item.time_limit_ms,
                traceparent: entry.item.traceparent.clone(),
                payload: entry.item.payload.clone(),
            })
            .collect();
        if items.is_empty() {
            return LeaseReply::Wait(Wait {
                reason: WaitReason::NothingReady,
                retry_ms: RETRY_MS,
                due_at: None,
            });
        }
        LeaseReply::Items(items)
    }

    fn settle(&mut self, session: Option<SessionId>, settle: &Settle) -> SettleStatus {
        if self.counted.contains(&(settle.id, settle.lease)) {
            return SettleStatus::Ok;
        }
        if self.over.is_some() {
            return SettleStatus::Over;
        }
        let status = self.judge(settle);
        if status == SettleStatus::Ok {
            self.count(settle);
        } else if let Some(session) = session.and_then(|id| self.sessions.get_mut(&id)) {
            // It knows by now that the item is lost to it.
            session.lost.remove(&settle.id);
        }
        status
    }

    /// Decides whether a settle that was not seen before may count.
    fn judge(&mut self, settle: &Settle) -> SettleStatus {
        let Some(entry) = self.entry(settle.id) else {
            return SettleStatus::UnknownItem;
        };
        let finished = matches!(settle.outcome, SettleOutcome::Done | SettleOutcome::Dead);
        match entry.state {
            ItemState::Done => SettleStatus::AlreadySettled,
            ItemState::Cancelled => SettleStatus::Cancelled,
            ItemState::Abandoned => SettleStatus::Over,
            _ if entry.lease != settle.lease.0 => SettleStatus::StaleLease,
            ItemState::Leased => SettleStatus::Ok,
            ItemState::Ready | ItemState::Delayed | ItemState::Dead => {
                match (entry.lease_lost, finished) {
                    (true, true) => SettleStatus::Ok,
                    (true, false) => SettleStatus::StaleLease,
                    (false, _) => SettleStatus::AlreadySettled,
                }
            }
        }
    }

    fn count(&mut self, settle: &Settle) {
        let QueueSettings {
            max_attempts,
            retry_base_ms,
            retry_cap_ms,
            ..
        } = self.settings;
        let now_ms = self.now_ms;
        let Some(entry) = self.entry(settle.id) else {
            return;
        };
        let attempt = entry.attempts + 1;
        entry.session = None;
        entry.error.clone_from(&settle.error);
        // Only what was given back stands before others of its priority.
        entry.lease_lost = settle.outcome == SettleOutcome::Release;
        match settle.outcome {
            SettleOutcome::Done => {
                entry.attempts = attempt;
                entry.state = ItemState::Done;
                entry.result.clone_from(&settle.result);
            }
            SettleOutcome::Dead => {
                entry.attempts = attempt;
                entry.state = ItemState::Dead;
            }
            SettleOutcome::Release => entry.state = ItemState::Ready,
            SettleOutcome::Retry => {
                entry.attempts = attempt;
                let doublings = u32::from(attempt - 1).min(32);
                let backoff_ms = retry_base_ms
                    .saturating_mul(1 << doublings)
                    .min(retry_cap_ms);
                entry.due_ms = now_ms.saturating_add(settle.delay_ms.unwrap_or(backoff_ms));
                let last = attempt >= entry.item.max_attempts.unwrap_or(max_attempts);
                entry.state = if last {
                    ItemState::Dead
                } else {
                    ItemState::Delayed
                };
            }
        }
        let payload = entry.item.payload.clone();
        if settle.outcome == SettleOutcome::Done {
            for item in &settle.spawn {
                self.add(item.clone());
            }
        }
        self.counted.insert((settle.id, settle.lease));
        self.attempts.push(Attempt {
            payload,
            attempt,
            settle: settle.clone(),
            at: Duration::from_millis(now_ms),
        });
    }
}
