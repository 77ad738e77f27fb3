//! Settles: the first one counts, and only with the item's newest lease.

use gangline_protocol::limits::ERROR_BYTES_MAX;
use gangline_protocol::{
    ItemId, Json, SessionId, Settle, SettleOutcome, SettleStatus, Settled, WorkerName,
};

use super::fact::{AttemptEnd, Fact, JsonText};
use super::items::{Found, Item, Place};
use super::phase::cut_front;
use super::queues::Step;
use super::retry::backoff_ms;

impl Step<'_> {
    pub(super) fn settle_all(
        &mut self,
        session: Option<SessionId>,
        worker: &WorkerName,
        settles: Vec<Settle>,
    ) -> Vec<Settled> {
        let mut stop = None;
        let mut settled = Vec::with_capacity(settles.len());
        for settle in settles {
            let (id, lease, wanted) = (settle.id, settle.lease, settle.stop);
            let (status, counted_now) = self.settle(session, settle);
            if counted_now {
                stop = stop.or(wanted);
            }
            settled.push(Settled { id, lease, status });
        }
        if let Some(outcome) = stop
            && self.queue.ended.is_none()
        {
            self.stop_by_worker(outcome, worker);
        }
        settled
    }

    /// Settles one lease; returns what became of it, and whether it changed anything.
    fn settle(&mut self, session: Option<SessionId>, settle: Settle) -> (SettleStatus, bool) {
        let lease = settle.lease.0;
        let status = self.judge(settle.id, lease, settle.outcome);
        if status != SettleStatus::Ok {
            // Looked up only now, since it takes a while: a settle that counted never may again.
            let counted_before = session
                .and_then(|id| self.queue.sessions.get(id))
                .is_some_and(|session| session.remembers(settle.id, lease, settle.outcome));
            if counted_before {
                return (SettleStatus::Ok, false);
            }
            self.drop_lost(session, settle.id);
            return (status, false);
        }
        if self.queue.ended.is_some() {
            return (SettleStatus::Over, false);
        }
        let end = self.attempt_end(&settle);
        let done = settle.outcome == SettleOutcome::Done;
        self.happen(Fact::Settled {
            id: settle.id.0,
            lease,
            session: session.map(|id| id.0),
            at_ms: self.now_ms,
            end,
        });
        if done {
            self.spawn(settle.spawn);
        }
        (SettleStatus::Ok, true)
    }

    /// Decides whether a settle that was not seen before may count.
    fn judge(&self, id: ItemId, lease: u64, outcome: SettleOutcome) -> SettleStatus {
        let item = match self.queue.items.find(id) {
            None => return SettleStatus::UnknownItem,
            Some(Found::Done(_)) => return SettleStatus::AlreadySettled,
            Some(Found::Cancelled) => return SettleStatus::Cancelled,
            Some(Found::Live(item)) => item,
        };
        if item.lease() != lease || lease == 0 {
            return SettleStatus::StaleLease;
        }
        if item.place == Place::Leased {
            return SettleStatus::Ok;
        }
        // The lease has ended, and nobody has the item now.
        let lost = item.extra.as_ref().is_some_and(|extra| extra.lease_lost);
        match (lost, outcome) {
            (true, SettleOutcome::Done | SettleOutcome::Dead) => SettleStatus::Ok,
            (true, SettleOutcome::Retry | SettleOutcome::Release) => SettleStatus::StaleLease,
            (false, _) => SettleStatus::AlreadySettled,
        }
    }

    fn attempt_end(&mut self, settle: &Settle) -> AttemptEnd {
        let error = settle
            .error
            .clone()
            .map(|error| cut_front(error, ERROR_BYTES_MAX));
        match settle.outcome {
            SettleOutcome::Done => {
                AttemptEnd::Done(JsonText(settle.result.clone().unwrap_or_else(null)))
            }
            SettleOutcome::Dead => AttemptEnd::Dead { error },
            SettleOutcome::Release => AttemptEnd::Release,
            SettleOutcome::Retry => self.retry_end(settle, error),
        }
    }

    fn retry_end(&mut self, settle: &Settle, error: Option<Box<str>>) -> AttemptEnd {
        let settings = &self.queue.settings;
        let item = self.queue.items.live(settle.id);
        let failures = item.map_or(0, |item| item.attempts) + 1;
        if failures >= item.map_or(1, |item| Item::max_attempts(item, settings.max_attempts)) {
            return AttemptEnd::Exhausted { error };
        }
        let delay_ms = settle
            .delay_ms
            .unwrap_or_else(|| backoff_ms(settings, failures, &mut self.draw));
        AttemptEnd::Retry {
            due_ms: self.now_ms + delay_ms,
            error,
        }
    }

    /// The session knows by now that the item is lost to it.
    fn drop_lost(&mut self, session: Option<SessionId>, id: ItemId) {
        if let Some(session) = session.and_then(|id| self.queue.sessions.get_mut(id)) {
            session.lost.remove(&id);
        }
    }
}

fn null() -> Json {
    std::sync::Arc::from(serde_json::value::RawValue::NULL.to_owned())
}
