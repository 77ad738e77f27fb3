//! The open sessions of a queue: who works on it, until when, and what was answered.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use gangline_protocol::item::Progress;
use gangline_protocol::limits::{SETTLE_ANSWERS_MAX, WORKERS_REMEMBERED_MAX};
use gangline_protocol::{
    ItemId, ItemProgress, SessionEnd, SessionId, SettleOutcome, Timestamp, WorkerName,
};

use super::state::Queue;

/// Ended sessions whose end is still told apart from "unknown", and whose first call from a new one.
const ENDED_MAX: usize = 1_024;

/// One running worker process.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) worker: WorkerName,
    pub(super) nonce: Option<u64>,
    /// When it ends without a sign of life, in queue time.
    pub(super) deadline: u64,
    /// Until when its lease request may be held, in queue time.
    pub(super) waits_until: u64,
    /// What it holds, with the order in which it was leased.
    pub(super) holds: BTreeSet<ItemId>,
    /// Number and lease of the last lease request that was answered with items.
    pub(super) last_request: u64,
    pub(super) last_lease: u64,
    /// Settles of this session that counted, oldest first.
    answers: VecDeque<(ItemId, u64, SettleOutcome)>,
    /// Items that it lost without its doing, until it settles or drops them.
    pub(super) lost: BTreeSet<ItemId>,
    pub(super) done: u64,
    pub(super) opened_ms: u64,
    pub(super) idle_since_ms: u64,
}

impl Queue {
    /// Takes in how far a session says that it is with items; what it does not hold under the
    /// lease that it names is not its affair any more.
    pub(super) fn note_progress(&mut self, id: SessionId, said: Vec<ItemProgress>, at_ms: u64) {
        for one in said {
            let ItemProgress {
                id: item,
                lease,
                fraction,
                text,
            } = one;
            let extra = self.items.live(item).and_then(|item| item.extra.as_ref());
            let held = extra
                .filter(|extra| extra.lease == lease.0)
                .and_then(|e| e.holder);
            if self.ended.is_none() && held.is_some_and(|holder| holder.session == id) {
                let progress = Progress {
                    fraction,
                    text,
                    at: Timestamp(at_ms),
                };
                self.progress.insert(item, progress);
            }
        }
    }
}

impl Session {
    pub(super) fn new(worker: WorkerName, nonce: Option<u64>, at_ms: u64, deadline: u64) -> Self {
        Self {
            worker,
            nonce,
            deadline,
            waits_until: 0,
            holds: BTreeSet::new(),
            last_request: 0,
            last_lease: 0,
            answers: VecDeque::new(),
            lost: BTreeSet::new(),
            done: 0,
            opened_ms: at_ms,
            idle_since_ms: at_ms,
        }
    }

    pub(super) fn remember(&mut self, id: ItemId, lease: u64, outcome: SettleOutcome) {
        if self.answers.len() == SETTLE_ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back((id, lease, outcome));
    }

    /// Returns the settles that counted, oldest first.
    pub(super) fn answers(&self) -> impl Iterator<Item = (ItemId, u64, SettleOutcome)> {
        self.answers.iter().copied()
    }

    /// Tells whether this very settle of this session counted before.
    pub(super) fn remembers(&self, id: ItemId, lease: u64, outcome: SettleOutcome) -> bool {
        self.answers
            .iter()
            .rev()
            .any(|answer| *answer == (id, lease, outcome))
    }
}

/// A session that has ended.
#[derive(Debug, Clone)]
pub(super) struct EndedSession {
    pub(super) id: SessionId,
    pub(super) end: SessionEnd,
    /// Worker and nonce of its first call: a late repeat of it must not open another session.
    pub(super) first_call: Option<(WorkerName, u64)>,
}

/// All open sessions of a queue, and the last that have ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions {
    by_id: HashMap<SessionId, Session>,
    by_worker: BTreeMap<WorkerName, SessionId>,
    by_deadline: BTreeSet<(u64, SessionId)>,
    ended: VecDeque<EndedSession>,
    remembered: Remembered,
}

/// Names of workers that had a session, in the order in which their last one ended.
#[derive(Debug, Clone, Default)]
struct Remembered {
    by_name: HashMap<WorkerName, u64>,
    by_order: BTreeMap<u64, WorkerName>,
}

impl Remembered {
    fn add(&mut self, worker: WorkerName) {
        let order = self
            .by_order
            .last_key_value()
            .map_or(0, |(last, _)| last + 1);
        if let Some(before) = self.by_name.insert(worker.clone(), order) {
            self.by_order.remove(&before);
        }
        self.by_order.insert(order, worker);
        if self.by_order.len() > WORKERS_REMEMBERED_MAX
            && let Some((_, forgotten)) = self.by_order.pop_first()
        {
            self.by_name.remove(&forgotten);
        }
    }
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    /// Returns a session to change; its deadline is changed by [`Self::extend`] only.
    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn of_worker(&self, worker: &WorkerName) -> Option<SessionId> {
        self.by_worker.get(worker).copied()
    }

    /// Returns the sessions by worker name.
    pub(super) fn by_worker(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.by_worker.values().map(|id| (*id, &self.by_id[id]))
    }

    pub(super) fn insert(&mut self, id: SessionId, session: Session) {
        self.by_deadline.insert((session.deadline, id));
        self.by_worker.insert(session.worker.clone(), id);
        self.by_id.insert(id, session);
    }

    pub(super) fn remove(&mut self, id: SessionId, end: SessionEnd) -> Option<Session> {
        let session = self.by_id.remove(&id)?;
        self.by_deadline.remove(&(session.deadline, id));
        self.by_worker.remove(&session.worker);
        let first_call = session.nonce.map(|nonce| (session.worker.clone(), nonce));
        self.remembered.add(session.worker.clone());
        self.remember_ended(EndedSession {
            id,
            end,
            first_call,
        });
        Some(session)
    }

    /// Returns the sessions that ended, oldest first.
    pub(super) fn ended(&self) -> impl Iterator<Item = &EndedSession> {
        self.ended.iter()
    }

    pub(super) fn remember_ended(&mut self, ended: EndedSession) {
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(ended);
    }

    /// Tells whether a worker ever had a session, if that is still known.
    pub(super) fn had_session(&self, worker: &WorkerName) -> Option<bool> {
        if self.by_worker.contains_key(worker) || self.remembered.by_name.contains_key(worker) {
            return Some(true);
        }
        (self.remembered.by_order.len() < WORKERS_REMEMBERED_MAX).then_some(false)
    }

    /// Returns the workers whose last session has ended, the longest ago first.
    pub(super) fn remembered(&self) -> impl Iterator<Item = &WorkerName> {
        self.remembered.by_order.values()
    }

    pub(super) fn remember_worker(&mut self, worker: WorkerName) {
        self.remembered.add(worker);
    }

    /// Returns how a session that is not open ended.
    pub(super) fn end_of(&self, id: SessionId) -> SessionEnd {
        let known = self.ended.iter().rev().find(|ended| ended.id == id);
        known.map_or(SessionEnd::Unknown, |ended| ended.end)
    }

    /// Returns how the session ended that this first call had opened, if it had.
    pub(super) fn end_of_first_call(&self, worker: &WorkerName, nonce: u64) -> Option<SessionEnd> {
        let is_this =
            |(known, its_nonce): &(WorkerName, u64)| *its_nonce == nonce && known == worker;
        let known = self
            .ended
            .iter()
            .rev()
            .find(|ended| ended.first_call.as_ref().is_some_and(is_this));
        known.map(|ended| ended.end)
    }

    pub(super) fn extend(&mut self, id: SessionId, deadline: u64) {
        if let Some(session) = self.by_id.get_mut(&id) {
            self.by_deadline.remove(&(session.deadline, id));
            session.deadline = deadline;
            self.by_deadline.insert((deadline, id));
        }
    }

    /// Returns the session that ends first, and when, in queue time.
    pub(super) fn first_deadline(&self) -> Option<(u64, SessionId)> {
        self.by_deadline.first().copied()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.by_worker.values().copied()
    }
}
