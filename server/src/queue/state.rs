//! One queue: its state, and how each fact changes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gangline_protocol::item::{Ending, Progress};
use gangline_protocol::limits::REVOKED_MS;
use gangline_protocol::{
    Counts, ItemId, ItemKey, Phase, QueueName, QueueSettings, QueueUid, SessionEnd, SessionId,
    SettleOutcome, WorkerName,
};
use sha2::{Digest as _, Sha256};

use super::attempts::{Attempts, ending_of, ending_with_session};
use super::explain::Took;
use super::fact::{
    AttemptEnd, Created, Ended, Fact, ItemRecord, JsonText, MoreSettings, SessionEndRecord,
};
use super::items::{Extra, Holder, Item, Items, Place, Slot};
use super::lanes::{Lanes, Standing};
use super::marks::Marks;
use super::results::ResultRecord;
use super::sessions::{Session, Sessions};
use gangline_protocol::digest::Digest;

/// One batch of items with its settings, phase and uid.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(super) number: u32,
    pub(super) name: QueueName,
    pub(super) uid: QueueUid,
    pub(super) settings: QueueSettings,
    pub(super) created_ms: u64,
    pub(super) sealed: bool,
    pub(super) paused: bool,
    pub(super) ended: Option<Ended>,
    pub(super) items: Items,
    pub(super) lanes: Lanes,
    /// When items were pushed.
    pub(super) marks: Marks,
    pub(super) delayed: BTreeSet<(u64, ItemId)>,
    pub(super) dead: BTreeSet<ItemId>,
    /// What became of attempts that did not just succeed.
    pub(super) attempts: Attempts,
    /// How far workers say that they are with what they hold; not lasting.
    pub(super) progress: HashMap<ItemId, Progress>,
    pub(super) keys: HashMap<KeyHash, ItemId>,
    pub(super) sessions: Sessions,
    /// Worker names that get no session, and until when.
    pub(super) revoked: BTreeMap<WorkerName, u64>,
    /// Ends of single leases, in queue time; items with a time limit only.
    pub(super) lease_deadlines: BTreeSet<(u64, ItemId)>,
    pub(super) results: Vec<ResultRecord>,
    pub(super) digest: Digest,
    pub(super) counts: Counts,
    pub(super) retried: u64,
    pub(super) first_lease_ms: Option<u64>,
    pub(super) last_done_ms: Option<u64>,
    /// How long the items took that are done.
    pub(super) took: Took,
    /// Bytes of all results.
    pub(super) results_bytes: u64,
    /// Since when there has been nothing to do, in queue time, in a queue that may seal itself.
    pub(super) idle_since: Option<u64>,
    /// Advances by at most one heartbeat interval a step, so that no outage ends a session.
    pub(super) queue_time: u64,
    pub(super) stepped_ms: u64,
}

/// The first 16 bytes of a key's SHA-256: enough to tell keys apart, in a fixed small size.
pub(crate) type KeyHash = [u8; 16];

pub(crate) fn key_hash(key: &ItemKey) -> KeyHash {
    let hash: [u8; 32] = Sha256::digest(key.as_str().as_bytes()).into();
    let mut short = KeyHash::default();
    short.copy_from_slice(&hash[..16]);
    short
}

impl Queue {
    pub(super) fn new(created: &Created) -> Self {
        Self {
            number: created.number,
            name: created
                .name
                .parse()
                .expect("a recorded queue name was checked"),
            uid: QueueUid(created.uid),
            settings: created.settings.into(),
            created_ms: created.at_ms,
            sealed: false,
            paused: false,
            ended: None,
            items: Items::default(),
            lanes: Lanes::default(),
            marks: Marks::default(),
            delayed: BTreeSet::new(),
            dead: BTreeSet::new(),
            attempts: Attempts::default(),
            progress: HashMap::new(),
            keys: HashMap::new(),
            sessions: Sessions::default(),
            revoked: BTreeMap::new(),
            lease_deadlines: BTreeSet::new(),
            results: Vec::new(),
            digest: Digest::default(),
            counts: Counts::default(),
            retried: 0,
            first_lease_ms: None,
            last_done_ms: None,
            took: Took::default(),
            results_bytes: 0,
            idle_since: None,
            queue_time: 0,
            stepped_ms: created.at_ms,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match (&self.ended, self.sealed) {
            (Some(ended), _) => match ended.phase {
                gangline_protocol::EndPhase::Drained => Phase::Drained,
                gangline_protocol::EndPhase::Stopped => Phase::Stopped,
            },
            (None, true) => Phase::Sealed,
            (None, false) => Phase::Open,
        }
    }

    /// Lets queue time pass, by at most one heartbeat interval.
    pub(super) fn advance(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.stepped_ms);
        self.queue_time += passed.min(self.settings.heartbeat_ms);
        self.stepped_ms = self.stepped_ms.max(now_ms);
    }

    /// Makes a fact true. This is the only way in which lasting state changes, live and in a
    /// replay; facts are made by code that has checked that they may become true.
    pub(super) fn evolve(&mut self, fact: Fact) {
        match fact {
            Fact::Configured(settings) => {
                let more = MoreSettings::from(&self.settings);
                self.settings = settings.into();
                more.set(&mut self.settings);
            }
            Fact::ConfiguredMore(more) => more.set(&mut self.settings),
            Fact::Pushed { at_ms, items } => {
                for item in items {
                    self.add(item, at_ms);
                }
            }
            Fact::SessionOpened {
                session,
                worker,
                nonce,
                at_ms,
            } => {
                let worker = worker.parse().expect("a recorded worker name was checked");
                let deadline = self.queue_time + self.settings.session_ms;
                let session_id = SessionId(session);
                self.sessions
                    .insert(session_id, Session::new(worker, nonce, at_ms, deadline));
            }
            Fact::SessionEnded {
                session,
                end,
                counted,
                at_ms,
            } => {
                self.end_session(SessionId(session), end.into(), counted, at_ms);
            }
            Fact::Revoked { worker, until_ms } => {
                let worker = worker.parse().expect("a recorded worker name was checked");
                let now_ms = until_ms.saturating_sub(REVOKED_MS);
                self.revoked.retain(|_, until_ms| *until_ms > now_ms);
                self.revoked.insert(worker, until_ms);
            }
            Fact::Leased {
                session,
                lease,
                request,
                at_ms,
                starting,
                items,
            } => {
                self.lease_items(SessionId(session), lease, request, at_ms, starting, &items);
            }
            Fact::Started { items } => {
                for id in items.into_iter().map(ItemId) {
                    self.start_item(id);
                }
            }
            Fact::Settled {
                id,
                lease,
                session,
                at_ms,
                end,
            } => {
                self.settle_item(ItemId(id), lease, session.map(SessionId), at_ms, end);
            }
            Fact::TimedOut { id, at_ms } => self.time_out(ItemId(id), at_ms),
            Fact::Cancelled { id } => {
                let id = ItemId(id);
                self.withdraw(id);
                self.items.settle(id, Slot::Cancelled);
                self.attempts.settle(id);
                self.counts.cancelled += 1;
            }
            Fact::Redriven { items } => {
                for id in items.into_iter().map(ItemId) {
                    self.withdraw(id);
                    let item = self.items.live_mut(id).expect("a dead item is there");
                    item.attempts = 0;
                    item.extra().lost_attempts = 0;
                    self.make_ready(id, Standing::CameBack);
                }
            }
            Fact::Sealed => self.sealed = true,
            Fact::Paused(paused) => self.paused = paused,
            Fact::Ended(ended) => self.end(ended),
        }
    }

    fn add(&mut self, record: ItemRecord, at_ms: u64) {
        let ItemRecord {
            payload: JsonText(payload),
            key,
            priority,
            due_ms,
            time_limit_ms,
            max_attempts,
            traceparent,
        } = record;
        let due_ms = due_ms.filter(|due| *due > at_ms);
        let special = due_ms.is_some()
            || time_limit_ms.is_some()
            || max_attempts.is_some()
            || traceparent.is_some();
        let extra = special.then(|| {
            let rest = Extra::default();
            Box::new(Extra {
                due_ms,
                time_limit_ms,
                max_attempts,
                traceparent,
                ..rest
            })
        });
        let item = Item {
            payload,
            extra,
            place: Place::Delayed,
            priority,
            attempts: 0,
        };
        let key: Option<ItemKey> =
            key.map(|key| key.parse().expect("a recorded item key was checked"));
        let hash = key.as_ref().map(key_hash);
        let id = self.items.push(item, key);
        self.marks.note(id, at_ms);
        if let Some(hash) = hash {
            self.keys.insert(hash, id);
        }
        match due_ms {
            Some(due_ms) => {
                self.delayed.insert((due_ms, id));
                self.counts.delayed += 1;
            }
            None => self.make_ready(id, Standing::Fresh),
        }
    }

    /// Puts an item that is nowhere among the ready ones.
    fn make_ready(&mut self, id: ItemId, standing: Standing) {
        let max_attempts = self.settings.max_attempts;
        let item = self
            .items
            .live_mut(id)
            .expect("an item that gets ready is not settled");
        item.place = Place::Ready;
        let alone = item.must_run_alone(max_attempts);
        let standing = if alone { Standing::Alone } else { standing };
        self.lanes.insert(id, item.priority, standing);
        self.counts.ready += 1;
    }

    /// Moves an item whose time has come.
    pub(super) fn make_due(&mut self, id: ItemId) {
        self.withdraw(id);
        self.make_ready(id, Standing::CameBack);
    }

    /// Takes an unsettled item out of wherever it is, and out of the counts.
    fn withdraw(&mut self, id: ItemId) {
        let item = self
            .items
            .live_mut(id)
            .expect("an item that is withdrawn is not settled");
        match item.place {
            Place::Ready => {
                let priority = item.priority;
                self.lanes.remove(id, priority);
                self.counts.ready -= 1;
            }
            Place::Delayed => {
                let due_ms = item
                    .extra()
                    .due_ms
                    .take()
                    .expect("a delayed item has a time");
                self.delayed.remove(&(due_ms, id));
                self.counts.delayed -= 1;
            }
            Place::Leased => {
                let holder = item
                    .extra()
                    .holder
                    .take()
                    .expect("a leased item has a holder");
                if let Some(deadline) = holder.deadline {
                    self.lease_deadlines.remove(&(deadline, id));
                }
                if let Some(session) = self.sessions.get_mut(holder.session) {
                    session.holds.remove(&id);
                    if session.holds.is_empty() {
                        session.idle_since_ms = self.stepped_ms;
                    }
                }
                if !self.progress.is_empty() {
                    self.progress.remove(&id);
                }
                self.counts.leased -= 1;
            }
            Place::Dead => {
                self.dead.remove(&id);
                self.counts.dead -= 1;
            }
        }
    }

    fn lease_items(
        &mut self,
        session_id: SessionId,
        lease: u64,
        request: u64,
        at_ms: u64,
        starting: u32,
        items: &[u64],
    ) {
        for (index, id) in items.iter().copied().map(ItemId).enumerate() {
            self.withdraw(id);
            let item = self
                .items
                .live_mut(id)
                .expect("a leased item is not settled");
            item.place = Place::Leased;
            let attempt = item.attempts + 1;
            let extra = item.extra();
            extra.holder = Some(Holder {
                session: session_id,
                started: false,
                deadline: None,
            });
            extra.lease = lease;
            extra.attempt = attempt;
            extra.lease_lost = false;
            extra.leased_ms = at_ms;
            self.counts.leased += 1;
            if index < starting as usize {
                self.start_item(id);
            }
        }
        self.first_lease_ms.get_or_insert(at_ms);
        let session = self
            .sessions
            .get_mut(session_id)
            .expect("a leasing session is open");
        for id in items.iter().copied().map(ItemId) {
            session.holds.insert(id);
            // What it has again is not lost to it any more.
            session.lost.remove(&id);
        }
        session.last_request = request;
        session.last_lease = lease;
    }

    /// Notes that a leased item runs; its time limit begins now.
    fn start_item(&mut self, id: ItemId) {
        let (queue_time, session_ms) = (self.queue_time, self.settings.session_ms);
        let default_limit = self.settings.time_limit_ms;
        let Some(extra) = self.items.live_mut(id).map(Item::extra) else {
            return;
        };
        let limit = extra.time_limit_ms.or(default_limit);
        if let Some(holder) = extra.holder.as_mut().filter(|holder| !holder.started) {
            holder.started = true;
            holder.deadline = limit.map(|limit| queue_time + limit + session_ms);
            let deadline = holder.deadline.map(|deadline| (deadline, id));
            self.lease_deadlines.extend(deadline);
        }
    }

    fn settle_item(
        &mut self,
        id: ItemId,
        lease: u64,
        session_id: Option<SessionId>,
        at_ms: u64,
        end: AttemptEnd,
    ) {
        if !matches!(end, AttemptEnd::Done(_)) || self.attempts.has(id) {
            let worker = self.holder_of(id).map(|session| session.worker.clone());
            let (ending, error) = ending_of(&end);
            self.note_attempt(id, ending, error, worker, at_ms);
        }
        self.withdraw(id);
        let outcome = match end {
            AttemptEnd::Done(JsonText(result)) => {
                self.record_result(id, result, at_ms);
                SettleOutcome::Done
            }
            AttemptEnd::Retry { due_ms, error } => {
                let item = self
                    .items
                    .live_mut(id)
                    .expect("a retried item is not settled");
                item.attempts += 1;
                item.extra().error = error;
                self.retried += 1;
                if due_ms > at_ms {
                    item.place = Place::Delayed;
                    item.extra().due_ms = Some(due_ms);
                    self.delayed.insert((due_ms, id));
                    self.counts.delayed += 1;
                } else {
                    self.make_ready(id, Standing::CameBack);
                }
                SettleOutcome::Retry
            }
            AttemptEnd::Dead { error } => {
                self.give_up(id, error, at_ms);
                SettleOutcome::Dead
            }
            AttemptEnd::Exhausted { error } => {
                self.give_up(id, error, at_ms);
                SettleOutcome::Retry
            }
            AttemptEnd::Release => {
                self.make_ready(id, Standing::CameBack);
                SettleOutcome::Release
            }
        };
        if let Some(session) = session_id.and_then(|id| self.sessions.get_mut(id)) {
            session.remember(id, lease, outcome);
            session.lost.remove(&id);
            session.done += u64::from(outcome == SettleOutcome::Done);
        }
    }

    /// Ends an item by a settle, without a result.
    fn give_up(&mut self, id: ItemId, error: Option<Box<str>>, at_ms: u64) {
        let item = self
            .items
            .live_mut(id)
            .expect("a dead item is not settled for good");
        // A late settle names an attempt that its loss may have counted already.
        item.attempts = item.attempts.max(item.extra().attempt);
        item.extra().error = error;
        item.extra().lease_lost = false;
        self.bury(id, at_ms);
    }

    fn bury(&mut self, id: ItemId, at_ms: u64) {
        let item = self
            .items
            .live_mut(id)
            .expect("a dead item is not settled for good");
        item.place = Place::Dead;
        item.extra().dead_ms = at_ms;
        self.dead.insert(id);
        self.counts.dead += 1;
    }

    /// Takes a lease from its holder without a settle. A counted one that was the last leaves the
    /// item dead; a late settle still counts either way.
    fn lose_lease(&mut self, id: ItemId, counted: bool, error: &str, at_ms: u64) {
        self.withdraw(id);
        let max_attempts = self.settings.max_attempts;
        let item = self
            .items
            .live_mut(id)
            .expect("a leased item is not settled");
        item.extra().lease_lost = true;
        if counted {
            item.attempts += 1;
            self.retried += 1;
            item.extra().error = Some(error.into());
            if item.attempts >= item.max_attempts(max_attempts) {
                self.retried -= 1;
                self.bury(id, at_ms);
                return;
            }
        }
        self.make_ready(id, Standing::CameBack);
    }

    fn time_out(&mut self, id: ItemId, at_ms: u64) {
        let holder = self.items.live(id).and_then(Item::holder);
        let worker = self.holder_of(id).map(|session| session.worker.clone());
        self.note_attempt(id, Ending::TimeLimit, None, worker, at_ms);
        self.lose_lease(
            id,
            true,
            "the attempt took longer than its time limit",
            at_ms,
        );
        if let Some(session) = holder.and_then(|holder| self.sessions.get_mut(holder.session)) {
            session.lost.insert(id);
        }
    }

    fn end_session(&mut self, id: SessionId, end: SessionEnd, counted: bool, at_ms: u64) {
        let Some(session) = self.sessions.remove(id, end) else {
            return;
        };
        let ending = ending_with_session(end, counted);
        for item_id in session.holds {
            let worker = Some(session.worker.clone());
            self.note_attempt(item_id, ending, None, worker, at_ms);
            let item = self
                .items
                .live_mut(item_id)
                .expect("a held item is not settled");
            let started = item.extra().holder.is_some_and(|holder| holder.started);
            let counted = counted && started;
            if counted {
                item.extra().lost_attempts += 1;
            }
            let error = format!("the session of worker {} was lost", session.worker);
            self.lose_lease(item_id, counted, &error, at_ms);
        }
    }

    fn end(&mut self, ended: Ended) {
        self.lease_deadlines.clear();
        self.progress.clear();
        for id in self.sessions.ids().collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(id) {
                session.holds.clear();
                session.lost.clear();
                session.idle_since_ms = ended.at_ms;
            }
        }
        let left = self.counts.left();
        self.counts.abandoned += left;
        self.counts.ready = 0;
        self.counts.delayed = 0;
        self.counts.leased = 0;
        self.lanes = Lanes::default();
        self.delayed.clear();
        self.ended = Some(ended);
    }

    /// Gives every session a fresh deadline; after a replay.
    pub(super) fn resume_sessions(&mut self, now_ms: u64) {
        self.stepped_ms = now_ms;
        self.note_idle();
        let deadline = self.queue_time + self.settings.session_ms;
        for id in self.sessions.ids().collect::<Vec<_>>() {
            self.sessions.extend(id, deadline);
            if let Some(session) = self.sessions.get_mut(id) {
                // Nobody knows for how long it had been idle; a busy one must not seem so.
                session.idle_since_ms = now_ms;
            }
        }
    }
}

impl From<SessionEndRecord> for SessionEnd {
    fn from(end: SessionEndRecord) -> Self {
        match end {
            SessionEndRecord::Expired => Self::Expired,
            SessionEndRecord::Replaced => Self::Replaced,
            SessionEndRecord::Revoked => Self::Revoked,
            SessionEndRecord::Left => Self::Left,
        }
    }
}
