//! One queue: what time ends, and what producers and people ask of it.

use gangline_protocol::item::Ending;
use gangline_protocol::limits::REVOKED_MS;
use gangline_protocol::{ItemId, NewItem, Pushed, SessionEnd, SessionId, WorkerName};

use super::state::{Ended, Fate, Item, Queue, State};
use crate::queue::{Refusal, Reply, Selection};

impl Queue {
    /// Rule 8: queue time passes by at most one heartbeat interval a step. Then what is due ends.
    pub(super) fn pass(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.clock_ms);
        self.queue_time += passed.min(self.settings.heartbeat_ms);
        self.clock_ms = self.clock_ms.max(now_ms);
        let mut expired: Vec<_> = self
            .sessions
            .iter()
            .filter(|session| session.deadline <= self.queue_time)
            .map(|session| (session.deadline, session.id))
            .collect();
        expired.sort_unstable();
        for (_, id) in expired {
            self.end_session(now_ms, id, SessionEnd::Expired, true);
        }
        if !self.is_over() && self.seals_at().is_some_and(|at| at <= self.queue_time) {
            self.sealed = true;
        }
        for (end, id) in self.lease_ends() {
            if end <= self.queue_time {
                let State::Leased(held) = self.item(id).state else {
                    unreachable!()
                };
                let error = "the attempt took longer than its time limit";
                let holder = self.holder_of(id);
                self.item(id)
                    .note(now_ms, Ending::TimeLimit, None, holder.as_ref());
                self.lose_lease(now_ms, id, true, error.into());
                self.tell_lost(held.session, id);
            }
        }
        for id in (1..=self.items.len() as u64).map(ItemId) {
            if let State::Delayed { due_ms } = self.item(id).state
                && due_ms <= now_ms
            {
                self.make_ready(id);
            }
        }
    }

    pub(super) fn retained_until(&self) -> Option<u64> {
        let ended_ms = self.certificate.as_ref()?.ended_at.0;
        Some(ended_ms.saturating_add(self.settings.retention_ms))
    }

    pub(super) fn refuse_if_over(&self) -> Result<(), Refusal> {
        match self.certificate.clone() {
            Some(certificate) => Err(Refusal::Over(Box::new(certificate))),
            None => Ok(()),
        }
    }

    pub(super) fn make_ready(&mut self, id: ItemId) {
        let alone = self.find(id).unwrap().runs_alone(&self.settings);
        let item = self.item(id);
        item.state = State::Ready;
        item.came_back = true;
        item.alone = alone;
    }

    /// Adds the items whose keys are new.
    pub(super) fn push(
        &mut self,
        now_ms: u64,
        items: Vec<NewItem>,
        from_outside: bool,
    ) -> Result<Vec<Pushed>, Refusal> {
        let mut all = self.items.clone();
        let mut pushed = Vec::new();
        for new in items {
            let same = all
                .iter()
                .position(|item| item.new.key.is_some() && item.new.key == new.key);
            let id = ItemId(same.unwrap_or(all.len()) as u64 + 1);
            pushed.push(Pushed {
                id,
                duplicate: same.is_some(),
            });
            if same.is_none() {
                all.push(Item::new(new, now_ms));
            }
        }
        if from_outside && all.len() > self.items.len() {
            self.refuse_if_over()?;
            if self.sealed {
                return Err(Refusal::Sealed(self.name.clone()));
            }
        }
        self.items = all;
        Ok(pushed)
    }

    pub(super) fn cancel(&mut self, id: ItemId) -> Result<Reply, Refusal> {
        let missing = || Refusal::ItemNotFound(self.name.clone(), id);
        match self.find(id).ok_or_else(missing)?.state {
            State::Done | State::Cancelled => {}
            state => {
                self.refuse_if_over()?;
                self.item(id).state = State::Cancelled;
                if let State::Leased(held) = state {
                    self.note_idle(held.session);
                    self.tell_lost(held.session, id);
                }
            }
        }
        Ok(Reply::Item(Box::new(self.item_view(id).unwrap())))
    }

    pub(super) fn redrive(&mut self, selection: &Selection) -> Result<Reply, Refusal> {
        self.refuse_if_over()?;
        let dead = self
            .numbered()
            .filter(|(_, item)| matches!(item.state, State::Dead { .. }));
        let dead = dead.map(|(id, _)| id);
        let ids: Vec<_> = match selection {
            Selection::First(max) => dead.take(*max).collect(),
            Selection::Items(these) => dead.filter(|id| these.contains(id)).collect(),
        };
        for id in &ids {
            (self.item(*id).attempts, self.item(*id).lost_attempts) = (0, 0);
            self.make_ready(*id);
        }
        Ok(Reply::Redriven(ids.len() as u64))
    }

    pub(super) fn revoke(
        &mut self,
        now_ms: u64,
        worker: WorkerName,
        counted: bool,
    ) -> Option<SessionId> {
        let open = self
            .sessions
            .iter()
            .find(|session| session.worker == worker);
        let open = open.map(|session| session.id);
        if let Some(id) = open {
            self.end_session(now_ms, id, SessionEnd::Revoked, counted);
        }
        let until_ms = self.revoked.entry(worker).or_insert(0);
        if open.is_some() || *until_ms <= now_ms {
            *until_ms = now_ms + REVOKED_MS;
        }
        open
    }

    /// Rule 7: what a session held is ready again at once.
    pub(super) fn end_session(
        &mut self,
        now_ms: u64,
        id: SessionId,
        end: SessionEnd,
        counted: bool,
    ) {
        let at = self
            .sessions
            .iter()
            .position(|session| session.id == id)
            .unwrap();
        for item in self.held(id) {
            let started = self.item(item).held_by(id).unwrap().started.is_some();
            let ending = match (end, counted) {
                (SessionEnd::Replaced, _) => Ending::Replaced,
                (SessionEnd::Revoked, true) => Ending::Revoked,
                (SessionEnd::Revoked, false) => Ending::Disrupted,
                (SessionEnd::Left, _) => Ending::Left,
                _ => Ending::Expired,
            };
            let holder = self.holder_of(item);
            self.item(item).note(now_ms, ending, None, holder.as_ref());
            let counted = counted && started;
            self.item(item).lost_attempts += u16::from(counted);
            let error = format!(
                "the session of worker {} was lost",
                self.sessions[at].worker
            );
            self.lose_lease(now_ms, item, counted, error.into());
        }
        let session = self.sessions.remove(at);
        let (worker, nonce) = (session.worker, session.nonce);
        self.ended.insert(id, Ended { worker, nonce, end });
    }

    /// The name of the worker that has an item.
    pub(super) fn holder_of(&self, id: ItemId) -> Option<WorkerName> {
        let State::Leased(held) = self.find(id)?.state else {
            return None;
        };
        let mut sessions = self.sessions.iter();
        let holder = sessions.find(|session| session.id == held.session);
        holder.map(|session| session.worker.clone())
    }

    fn lose_lease(&mut self, now_ms: u64, id: ItemId, counted: bool, error: Box<str>) {
        let max_attempts = self.find(id).unwrap().max_attempts(&self.settings);
        let item = self.item(id);
        let State::Leased(held) = item.state else {
            panic!("{id} is not leased")
        };
        item.fate = Fate::Lost;
        let mut dead = false;
        if counted {
            item.attempts += 1;
            item.error = Some(error);
            dead = item.attempts >= max_attempts;
        }
        if dead {
            item.state = State::Dead { since_ms: now_ms };
        } else {
            self.make_ready(id);
            self.retried += u64::from(counted);
        }
        self.note_idle(held.session);
    }

    /// A session that holds nothing any more is idle from now on.
    pub(super) fn note_idle(&mut self, id: SessionId) {
        let (holds, clock_ms) = (self.held(id).len(), self.clock_ms);
        if let Some(session) = self.session(id)
            && holds == 0
        {
            session.idle_since_ms = clock_ms;
        }
    }

    fn tell_lost(&mut self, session: SessionId, id: ItemId) {
        if let Some(session) = self.session(session) {
            session.lost.retain(|lost| *lost != id);
            session.lost.push(id);
            session.lost.sort_unstable();
            session.ever_lost.push(id);
        }
    }
}
