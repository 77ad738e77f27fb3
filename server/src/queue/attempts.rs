//! What became of the attempts at items, for those that were not just done at their first.

use std::collections::{BTreeMap, VecDeque};

use gangline_protocol::item::{Attempt, Ending};
use gangline_protocol::limits::{ATTEMPT_ERROR_BYTES_MAX, ATTEMPTS_KEPT_MAX, ATTEMPTS_SETTLED_MAX};
use gangline_protocol::{InvalidId, ItemId, SessionEnd, Timestamp, WorkerName};
use serde::{Deserialize, Serialize};

use super::fact::AttemptEnd;
use super::phase::cut_front;
use super::sessions::Session;
use super::state::Queue;

/// The histories of a queue's items. An item that is done at its first attempt has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts {
    by_item: BTreeMap<ItemId, Vec<Attempt>>,
    /// Those that are settled for good, in the order of that.
    settled: VecDeque<ItemId>,
}

impl Attempts {
    pub(super) fn has(&self, id: ItemId) -> bool {
        self.by_item.contains_key(&id)
    }

    /// Returns the attempts at an item, the newest last.
    pub(super) fn of(&self, id: ItemId) -> &[Attempt] {
        self.by_item.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Adds an attempt that has ended; the oldest goes when there are too many.
    pub(super) fn add(&mut self, id: ItemId, attempt: Attempt) {
        let attempts = self.by_item.entry(id).or_default();
        if attempts.len() == ATTEMPTS_KEPT_MAX {
            attempts.remove(0);
        }
        // Most have one only.
        attempts.reserve_exact(1);
        attempts.push(attempt);
    }

    /// Adds how an attempt really ended that was thought to be lost.
    pub(super) fn add_late(&mut self, id: ItemId, mut attempt: Attempt) {
        let lost = self.by_item.get_mut(&id).and_then(|attempts| {
            attempts.pop_if(|last| {
                let same = (last.attempt, last.leased_at) == (attempt.attempt, attempt.leased_at);
                same && is_lost(last.outcome)
            })
        });
        attempt.worker = lost.and_then(|lost| lost.worker);
        self.add(id, attempt);
    }

    /// Notes that an item is settled for good: its history is kept for a while.
    pub(super) fn settle(&mut self, id: ItemId) {
        if !self.has(id) {
            return;
        }
        if self.settled.len() == ATTEMPTS_SETTLED_MAX
            && let Some(oldest) = self.settled.pop_front()
        {
            self.by_item.remove(&oldest);
        }
        self.settled.push_back(id);
    }

    /// Returns all histories: of items that are not settled for good by id, of the others by the
    /// order in which they were.
    pub(super) fn all(&self, is_settled: impl Fn(ItemId) -> bool) -> Vec<(ItemId, &[Attempt])> {
        let unsettled = self.by_item.keys().copied().filter(|id| !is_settled(*id));
        let ids = unsettled.chain(self.settled.iter().copied());
        ids.map(|id| (id, self.of(id))).collect()
    }

    /// Puts back a history, in the order of [`Self::all`].
    pub(super) fn restore(&mut self, id: ItemId, attempts: Vec<Attempt>, is_settled: bool) {
        self.by_item.insert(id, attempts);
        if is_settled {
            self.settled.push_back(id);
        }
    }
}

impl Queue {
    /// Returns the session that holds an item.
    pub(super) fn holder_of(&self, id: ItemId) -> Option<&Session> {
        let holder = self.items.live(id)?.holder()?;
        self.sessions.get(holder.session)
    }

    /// Notes how the newest attempt at an item ends, while it still has its holder. Not to be
    /// called for one that is done at the first attempt: that leaves nothing behind.
    pub(super) fn note_attempt(
        &mut self,
        id: ItemId,
        end: Ending,
        error: Option<Box<str>>,
        worker: Option<WorkerName>,
        ended_ms: u64,
    ) {
        let item = self.items.live(id).and_then(|item| item.extra.as_deref());
        let Some(extra) = item else { return };
        let is_settled = matches!(end, Ending::Done | Ending::Retry | Ending::Dead);
        if !is_settled && extra.holder.is_some_and(|holder| !holder.started) {
            return;
        }
        let attempt = Attempt {
            attempt: extra.attempt,
            worker,
            leased_at: Timestamp(extra.leased_ms),
            ended_at: Timestamp(ended_ms),
            outcome: end,
            error: error.map(|error| cut_front(error, ATTEMPT_ERROR_BYTES_MAX)),
        };
        if extra.holder.is_some() {
            self.attempts.add(id, attempt);
        } else {
            self.attempts.add_late(id, attempt);
        }
    }
}

/// An attempt in its stored form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct AttemptPart {
    attempt: u16,
    worker: Option<Box<str>>,
    leased_ms: u64,
    ended_ms: u64,
    /// By its place in the list of them, to which others are only ever added at the end.
    end: Ending,
    error: Option<Box<str>>,
}

impl AttemptPart {
    pub(super) fn of(attempt: &Attempt) -> Self {
        Self {
            attempt: attempt.attempt,
            worker: attempt.worker.as_ref().map(|name| name.as_str().into()),
            leased_ms: attempt.leased_at.0,
            ended_ms: attempt.ended_at.0,
            end: attempt.outcome,
            error: attempt.error.clone(),
        }
    }

    pub(super) fn restored(self) -> Result<Attempt, String> {
        let worker = self.worker.map(|name| name.parse()).transpose();
        Ok(Attempt {
            attempt: self.attempt,
            worker: worker.map_err(|error: InvalidId| error.to_string())?,
            leased_at: Timestamp(self.leased_ms),
            ended_at: Timestamp(self.ended_ms),
            outcome: self.end,
            error: self.error,
        })
    }
}

/// How an attempt ends with this settle, and with what error.
pub(super) fn ending_of(end: &AttemptEnd) -> (Ending, Option<Box<str>>) {
    match end {
        AttemptEnd::Done(_) => (Ending::Done, None),
        AttemptEnd::Retry { error, .. } | AttemptEnd::Exhausted { error } => {
            (Ending::Retry, error.clone())
        }
        AttemptEnd::Dead { error } => (Ending::Dead, error.clone()),
        AttemptEnd::Release => (Ending::Release, None),
    }
}

/// How attempts end with their session, counted or not.
pub(super) fn ending_with_session(end: SessionEnd, counted: bool) -> Ending {
    match end {
        SessionEnd::Replaced => Ending::Replaced,
        SessionEnd::Revoked if counted => Ending::Revoked,
        SessionEnd::Revoked => Ending::Disrupted,
        SessionEnd::Left => Ending::Left,
        SessionEnd::Expired | SessionEnd::Unknown => Ending::Expired,
    }
}

/// Tells whether a late settle may still count after this end.
fn is_lost(end: Ending) -> bool {
    match end {
        Ending::TimeLimit
        | Ending::Expired
        | Ending::Replaced
        | Ending::Revoked
        | Ending::Disrupted
        | Ending::Left => true,
        Ending::Done | Ending::Retry | Ending::Dead | Ending::Release => false,
    }
}
