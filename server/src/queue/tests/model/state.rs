//! What the model knows: items in a vector, each with a state, and sessions in another.

use std::collections::BTreeMap;

use gangline_protocol::item::{Attempt, Ending, Progress, ResultView};
use gangline_protocol::limits::{EXPLAIN_LEASES_MAX, PRIORITY_DEFAULT};
use gangline_protocol::{
    Certificate, Counts, Durability, EndCause, EndPhase, HeldItem, ItemId, ItemState, ItemView,
    LeaseNumber, NewItem, Phase, QueueName, QueueSettings, QueueStatus, QueueUid, SessionEnd,
    SessionId, SettleOutcome, StopOutcome, Timestamp, WorkerName, WorkerRecord, WorkerView,
};
use sha2::{Digest as _, Sha256};

use crate::queue::command::DeadItem;
use crate::queue::{Grounds, Took};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Delayed { due_ms: u64 },
    Leased(Held),
    Done,
    Dead { since_ms: u64 },
    Cancelled,
    Abandoned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) session: SessionId,
    /// When it was started, in queue time, with the session length and the time limit of then.
    pub(super) started: Option<(u64, u64, Option<u64>)>,
}

/// What became of an item's newest lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Held,
    Lost,
    Settled,
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) new: NewItem,
    pub(super) state: State,
    /// Was leased, delayed or dead before: goes before fresh ones of its priority.
    pub(super) came_back: bool,
    /// Its last attempt must run alone; decided when it became ready.
    pub(super) alone: bool,
    pub(super) attempts: u16,
    pub(super) lost_attempts: u16,
    pub(super) error: Option<Box<str>>,
    pub(super) lease: u64,
    pub(super) fate: Fate,
    pub(super) attempt: u16,
    pub(super) leased_ms: u64,
    /// What became of its attempts.
    pub(super) history: Vec<Attempt>,
    /// What its worker said last, and under which lease.
    pub(super) progress: Option<(u64, Progress)>,
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) worker: WorkerName,
    pub(super) nonce: Option<u64>,
    pub(super) deadline: u64,
    pub(super) waits_until: u64,
    pub(super) last_request: u64,
    pub(super) last_lease: u64,
    pub(super) answers: Vec<(ItemId, u64, SettleOutcome)>,
    pub(super) lost: Vec<ItemId>,
    /// All that it ever lost: what of it is told again after a restart is the service's choice.
    pub(super) ever_lost: Vec<ItemId>,
    pub(super) restarted: bool,
    pub(super) done: u64,
    pub(super) opened_ms: u64,
    pub(super) idle_since_ms: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) worker: WorkerName,
    pub(super) nonce: Option<u64>,
    pub(super) end: SessionEnd,
}

#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) name: QueueName,
    pub(super) uid: QueueUid,
    pub(super) settings: QueueSettings,
    pub(super) created_ms: u64,
    pub(super) sealed: bool,
    pub(super) paused: bool,
    pub(super) certificate: Option<Certificate>,
    pub(super) items: Vec<Item>,
    pub(super) results: Vec<ResultView>,
    pub(super) sessions: Vec<Session>,
    pub(super) ended: BTreeMap<SessionId, Ended>,
    pub(super) revoked: BTreeMap<WorkerName, u64>,
    pub(super) retried: u64,
    pub(super) first_lease_ms: Option<u64>,
    pub(super) last_done_ms: Option<u64>,
    pub(super) queue_time: u64,
    pub(super) clock_ms: u64,
    /// Since when there is nothing to do, in queue time, in a queue that had items.
    pub(super) idle_since: Option<u64>,
}

impl Item {
    pub(super) fn new(new: NewItem, now_ms: u64) -> Self {
        let delay_ms = new.delay_ms.unwrap_or(0);
        let due_ms = now_ms + delay_ms;
        let state = if delay_ms > 0 {
            State::Delayed { due_ms }
        } else {
            State::Ready
        };
        Self {
            new,
            state,
            came_back: false,
            alone: false,
            attempts: 0,
            lost_attempts: 0,
            error: None,
            lease: 0,
            fate: Fate::Settled,
            attempt: 0,
            leased_ms: 0,
            history: Vec::new(),
            progress: None,
        }
    }

    pub(super) fn max_attempts(&self, settings: &QueueSettings) -> u16 {
        self.new.max_attempts.unwrap_or(settings.max_attempts)
    }

    pub(super) fn priority(&self) -> u8 {
        self.new.priority.unwrap_or(PRIORITY_DEFAULT)
    }

    /// Rule 9: all attempts ended with a lost session, and this is the last one.
    pub(super) fn runs_alone(&self, settings: &QueueSettings) -> bool {
        self.attempts > 0
            && self.lost_attempts == self.attempts
            && self.attempts + 1 >= self.max_attempts(settings)
    }

    pub(super) fn progress_under(&self, lease: u64) -> Option<Progress> {
        let said = self.progress.as_ref().filter(|(under, _)| *under == lease);
        said.map(|(_, progress)| progress.clone())
    }

    /// Notes how its attempt ended; one that is done at the first is not worth it.
    pub(super) fn note(
        &mut self,
        now_ms: u64,
        end: Ending,
        error: Option<Box<str>>,
        holder: Option<&WorkerName>,
    ) {
        let settled = matches!(end, Ending::Done | Ending::Retry | Ending::Dead);
        let ahead = matches!(self.state, State::Leased(Held { started: None, .. }));
        if ahead && !settled || end == Ending::Done && self.history.is_empty() {
            return;
        }
        let (attempt, leased_at) = (self.attempt, Timestamp(self.leased_ms));
        let mut worker = holder.cloned();
        if !matches!(self.state, State::Leased(_)) {
            // A late settle: the loss that was noted is not how this attempt ended.
            let lost = self.history.last().filter(|last| {
                let settled = matches!(last.outcome, Ending::Done | Ending::Retry | Ending::Dead);
                let lost = !settled && last.outcome != Ending::Release;
                lost && (last.attempt, last.leased_at) == (attempt, leased_at)
            });
            if let Some(lost) = lost.cloned() {
                worker = lost.worker;
                self.history.pop();
            }
        }
        let cut = |error: Box<str>| {
            let mut chars = error.chars();
            while chars.as_str().len() > 512 {
                chars.next();
            }
            chars.as_str().into()
        };
        self.history.push(Attempt {
            attempt,
            worker,
            leased_at,
            ended_at: Timestamp(now_ms),
            outcome: end,
            error: error.map(cut),
        });
        if self.history.len() > 10 {
            self.history.remove(0);
        }
    }

    pub(super) fn held_by(&self, session: SessionId) -> Option<Held> {
        match self.state {
            State::Leased(held) if held.session == session => Some(held),
            _ => None,
        }
    }
}

impl Queue {
    pub(super) fn new(name: QueueName, uid: QueueUid, now_ms: u64) -> Self {
        Self {
            name,
            uid,
            settings: QueueSettings::default(),
            created_ms: now_ms,
            sealed: false,
            paused: false,
            certificate: None,
            items: Vec::new(),
            results: Vec::new(),
            sessions: Vec::new(),
            ended: BTreeMap::new(),
            revoked: BTreeMap::new(),
            retried: 0,
            first_lease_ms: None,
            last_done_ms: None,
            queue_time: 0,
            clock_ms: now_ms,
            idle_since: None,
        }
    }

    pub(super) fn item(&mut self, id: ItemId) -> &mut Item {
        &mut self.items[id.0 as usize - 1]
    }

    pub(super) fn find(&self, id: ItemId) -> Option<&Item> {
        self.items.get((id.0 as usize).checked_sub(1)?)
    }

    pub(super) fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    pub(super) fn numbered(&self) -> impl Iterator<Item = (ItemId, &Item)> {
        (1..).map(ItemId).zip(&self.items)
    }

    pub(super) fn held(&self, session: SessionId) -> Vec<ItemId> {
        self.numbered()
            .filter(|(_, item)| item.held_by(session).is_some())
            .map(|(id, _)| id)
            .collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for item in &self.items {
            *match item.state {
                State::Ready => &mut counts.ready,
                State::Delayed { .. } => &mut counts.delayed,
                State::Leased(_) => &mut counts.leased,
                State::Done => &mut counts.done,
                State::Dead { .. } => &mut counts.dead,
                State::Cancelled => &mut counts.cancelled,
                State::Abandoned => &mut counts.abandoned,
            } += 1;
        }
        counts
    }

    pub(super) fn time_limit_ms(&self, id: ItemId) -> Option<u64> {
        let own = self.find(id)?.new.time_limit_ms;
        own.or(self.settings.time_limit_ms)
    }

    pub(super) fn results_bytes(&self) -> u64 {
        let results = self.results.iter();
        results.map(|result| result.result.get().len() as u64).sum()
    }

    /// At the end of each step.
    pub(super) fn note_nothing_to_do(&mut self) {
        let idle = !self.items.is_empty() && self.counts().left() == 0;
        self.idle_since = match self.idle_since {
            _ if !idle || self.sealed || self.is_over() => None,
            Some(since) => Some(since),
            None => Some(self.queue_time),
        };
    }

    pub(super) fn seals_at(&self) -> Option<u64> {
        Some(self.idle_since? + self.settings.seal_when_idle_ms?)
    }

    pub(super) fn is_over(&self) -> bool {
        self.certificate.is_some()
    }

    pub(super) fn first_due_ms(&self) -> Option<u64> {
        self.items
            .iter()
            .filter_map(|item| match item.state {
                State::Delayed { due_ms } => Some(due_ms),
                _ => None,
            })
            .min()
    }

    /// When a started item's single lease ends, in queue time.
    pub(super) fn lease_ends(&self) -> Vec<(u64, ItemId)> {
        let mut ends: Vec<_> = self
            .numbered()
            .filter_map(|(id, item)| {
                let State::Leased(Held { started, .. }) = item.state else {
                    return None;
                };
                let (at, session_ms, limit_ms) = started?;
                Some((at + limit_ms? + session_ms, id))
            })
            .collect();
        ends.sort_unstable();
        ends
    }

    pub(super) fn end(
        &mut self,
        now_ms: u64,
        phase: EndPhase,
        cause: EndCause,
        outcome: StopOutcome,
        reason: Option<Box<str>>,
        ended_by: Option<Box<str>>,
    ) {
        for item in &mut self.items {
            if let State::Ready | State::Delayed { .. } | State::Leased(_) = item.state {
                item.state = State::Abandoned;
            }
        }
        for session in &mut self.sessions {
            session.lost.clear();
            session.ever_lost.clear();
            session.idle_since_ms = now_ms;
        }
        self.certificate = Some(Certificate {
            queue: self.name.clone(),
            uid: self.uid,
            phase,
            cause,
            outcome,
            reason,
            ended_by,
            created_at: Timestamp(self.created_ms),
            ended_at: Timestamp(now_ms),
            counts: self.counts(),
            digest: self.digest(),
            history_uncertain: false,
            durability: Some(Durability::Synced),
        });
    }

    fn digest(&self) -> Box<str> {
        let (mut high, mut low) = (0_u128, 0_u128);
        for result in &self.results {
            let mut bytes = result.id.0.to_be_bytes().to_vec();
            bytes.extend(result.result.get().as_bytes());
            let hash = Sha256::digest(bytes);
            let half = |at: usize| u128::from_be_bytes(hash[at..at + 16].try_into().unwrap());
            let (sum, carry) = low.overflowing_add(half(16));
            low = sum;
            high = high.wrapping_add(half(0)).wrapping_add(carry.into());
        }
        format!("{high:032x}{low:032x}").into()
    }

    pub(super) fn status(&self) -> QueueStatus {
        let phase = match &self.certificate {
            Some(certificate) if certificate.phase == EndPhase::Drained => Phase::Drained,
            Some(_) => Phase::Stopped,
            None if self.sealed => Phase::Sealed,
            None => Phase::Open,
        };
        QueueStatus {
            queue: self.name.clone(),
            uid: self.uid,
            phase,
            paused: self.paused,
            counts: self.counts(),
            retried: self.retried,
            sessions: self.sessions.len() as u64,
            created_at: Timestamp(self.created_ms),
            first_lease_at: self.first_lease_ms.map(Timestamp),
            last_done_at: self.last_done_ms.map(Timestamp),
            rate: None,
            eta_ms: None,
            durability: None,
            settings: self.settings.clone(),
            certificate: self.certificate.clone(),
        }
    }

    pub(super) fn item_view(&self, id: ItemId) -> Option<ItemView> {
        let item = self.find(id)?;
        let mut view = ItemView {
            id,
            state: ItemState::Ready,
            key: item.new.key.clone(),
            payload: Some(item.new.payload.clone()),
            result: None,
            took_ms: None,
            attempts: item.attempts,
            error: item.error.clone(),
            due_at: None,
            lease: None,
            session: None,
            worker: None,
            since: None,
            progress: None,
            history: item.history.clone(),
        };
        match item.state {
            State::Ready => {}
            State::Delayed { due_ms } => {
                view.state = ItemState::Delayed;
                view.due_at = Some(Timestamp(due_ms));
            }
            State::Leased(held) => {
                view.state = ItemState::Leased;
                view.lease = Some(LeaseNumber(item.lease));
                view.session = Some(held.session);
                let holder = self
                    .sessions
                    .iter()
                    .find(|session| session.id == held.session);
                view.worker = holder.map(|session| session.worker.clone());
                view.since = Some(Timestamp(item.leased_ms));
                view.progress = item.progress_under(item.lease);
            }
            State::Dead { since_ms } => {
                view.state = ItemState::Dead;
                view.since = Some(Timestamp(since_ms));
            }
            State::Done => {
                view.state = ItemState::Done;
                let record = self.results.iter().find(|result| result.id == id).unwrap();
                view.result = Some(record.result.clone());
                view.took_ms = Some(record.took_ms);
                (view.payload, view.error) = (None, None);
                view.attempts = record.attempt;
            }
            // Little is kept of what was taken back.
            State::Cancelled => {
                view.state = ItemState::Cancelled;
                (view.payload, view.error, view.key) = (None, None, None);
                view.attempts = 0;
            }
            State::Abandoned => view.state = ItemState::Abandoned,
        }
        Some(view)
    }

    /// What the queue waits for, looked up item by item.
    pub(super) fn grounds(&self) -> Grounds {
        let mut oldest: Vec<HeldItem> = self
            .numbered()
            .filter_map(|(id, item)| {
                let State::Leased(held) = item.state else {
                    return None;
                };
                let mut sessions = self.sessions.iter();
                let holder = sessions.find(|session| session.id == held.session)?;
                Some(HeldItem {
                    id,
                    key: item.new.key.clone(),
                    lease: LeaseNumber(item.lease),
                    attempt: item.attempt,
                    session: held.session,
                    worker: holder.worker.clone(),
                    since: Timestamp(item.leased_ms),
                    held_ms: 0,
                    progress: item.progress_under(item.lease),
                    slow: false,
                })
            })
            .collect();
        oldest.sort_by_key(|item| (item.since, item.id));
        oldest.truncate(EXPLAIN_LEASES_MAX);
        let mut took: Vec<u64> = self.results.iter().map(|result| result.took_ms).collect();
        took.sort_unstable();
        let middle = took.get(took.len().saturating_sub(1) / 2);
        let mut ready = self
            .numbered()
            .filter(|(_, item)| item.state == State::Ready)
            .peekable();
        let only_alone = ready.peek().is_some() && ready.all(|(_, item)| item.alone);
        Grounds {
            status: self.status(),
            next_due_ms: self.first_due_ms(),
            // The one in the middle stands for all: no other is looked at.
            took: middle.copied().map_or_else(Took::default, Took::of),
            only_alone,
            results_bytes: self.results_bytes(),
            oldest,
        }
    }

    /// What is dead, of what, and as it was pushed: of these the first 29.
    pub(super) fn dead(&self) -> (Vec<DeadItem>, Vec<(ItemId, NewItem)>) {
        let (mut dead, mut copies) = (Vec::new(), Vec::new());
        for (id, item) in self.numbered() {
            let State::Dead { since_ms } = item.state else {
                continue;
            };
            let (error, since) = (item.error.clone(), Timestamp(since_ms));
            dead.push(DeadItem { id, error, since });
            if id.0 < 30 {
                let mut copy = item.new.clone();
                (copy.key, copy.delay_ms) = (None, None);
                copy.priority = Some(item.priority());
                copies.push((id, copy));
            }
        }
        (dead, copies)
    }

    pub(super) fn worker_record(&self, name: WorkerName) -> WorkerRecord {
        let mut views = self.worker_views().into_iter();
        let session = views.find(|view| view.worker == name);
        let had = session.is_some() || self.ended.values().any(|ended| ended.worker == name);
        WorkerRecord {
            name,
            had_session: Some(had),
            session,
        }
    }

    pub(super) fn worker_views(&self) -> Vec<WorkerView> {
        let mut views: Vec<WorkerView> = self
            .sessions
            .iter()
            .map(|session| {
                let holds = self.held(session.id).len() as u32;
                WorkerView {
                    worker: session.worker.clone(),
                    session: session.id,
                    holds,
                    done: session.done,
                    opened_at: Timestamp(session.opened_ms),
                    idle_since: (holds == 0).then_some(Timestamp(session.idle_since_ms)),
                }
            })
            .collect();
        views.sort_by(|a, b| a.worker.cmp(&b.worker));
        views
    }
}
