//! What can be seen of a queue in memory, and what its workers say of their items.

use gangline_protocol::{
    ItemId, ItemProgress, ItemState, ItemView, LeaseNumber, Progress, SessionId, Timestamp,
};

use super::state::{Entry, State};

impl State {
    pub(super) fn views(&self) -> Vec<ItemView> {
        let view = |(id, entry): (ItemId, &Entry)| {
            let ended = matches!(entry.state, ItemState::Done | ItemState::Cancelled);
            let delayed = entry.state == ItemState::Delayed;
            let leased = entry.state == ItemState::Leased;
            let session = entry.session.filter(|_| leased);
            let worker = session.and_then(|id| self.sessions.get(&id));
            ItemView {
                id,
                state: entry.state,
                key: entry.item.key.clone(),
                payload: (!ended).then(|| entry.item.payload.clone()),
                result: entry.result.clone(),
                attempts: entry.attempts,
                error: entry.error.clone(),
                due_at: delayed.then_some(Timestamp(entry.due_ms)),
                lease: leased.then_some(LeaseNumber(entry.lease)),
                session,
                worker: worker.map(|session| session.worker.clone()),
                since: None,
                took_ms: None,
                progress: entry.progress_now(),
                history: Vec::new(),
            }
        };
        self.ids().map(view).collect()
    }

    /// Takes in how far a session is with what it holds.
    pub(super) fn note_progress(&mut self, session: SessionId, said: &[ItemProgress]) {
        let at = Timestamp(self.now_ms);
        for one in said {
            let holds = |entry: &&mut Entry| {
                let is_held = entry.state == ItemState::Leased && entry.session == Some(session);
                is_held && entry.lease == one.lease.0
            };
            if let Some(entry) = self.entry(one.id).filter(holds) {
                let progress = Progress {
                    fraction: one.fraction,
                    text: one.text.clone(),
                    at,
                };
                entry.progress = Some((entry.lease, progress));
            }
        }
    }
}

impl Entry {
    /// What was said of it under the lease that it has.
    fn progress_now(&self) -> Option<Progress> {
        let (lease, progress) = self.progress.as_ref()?;
        let is_now = self.state == ItemState::Leased && *lease == self.lease;
        is_now.then(|| progress.clone())
    }
}
