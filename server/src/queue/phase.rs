//! Phases: seal, pause, stop, the end by itself, and the certificate.

use std::collections::BTreeSet;

use gangline_protocol::limits::{REASON_BYTES_MAX, REDRIVE_STEP_MAX};
use gangline_protocol::{
    Certificate, Durability, EndCause, EndPhase, ItemId, QueueSettings, StopOutcome, Timestamp,
};

use super::command::{Refusal, Reply, Selection, Signal};
use super::fact::{Ended, Fact, MoreSettings, Settings};
use super::items::{Found, Place};
use super::queues::Step;
use super::state::Queue;

impl Queue {
    /// Returns the proof that the queue is over, if it is.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        let ended = self.ended.as_ref()?;
        Some(Certificate {
            queue: self.name.clone(),
            uid: self.uid,
            phase: ended.phase,
            cause: ended.cause,
            outcome: ended.outcome,
            reason: ended.reason.clone(),
            ended_by: ended.by.clone(),
            created_at: Timestamp(self.created_ms),
            ended_at: Timestamp(ended.at_ms),
            counts: self.counts,
            digest: self.digest.to_hex(),
            history_uncertain: false,
            durability: Some(Durability::Synced),
        })
    }

    /// Notes since when there has been nothing to do, though items have come.
    pub(super) fn note_idle(&mut self) {
        let may_seal = !self.sealed && self.ended.is_none();
        let is_idle = may_seal && self.counts.left() == 0 && self.counts.total() > 0;
        let now = self.queue_time;
        self.idle_since = is_idle.then(|| self.idle_since.unwrap_or(now));
    }

    /// Returns when the queue seals itself if nothing comes, in queue time.
    pub(super) fn seals_at(&self) -> Option<u64> {
        Some(
            self.idle_since?
                .saturating_add(self.settings.seal_when_idle_ms?),
        )
    }

    pub(super) fn refuse_if_over(&self) -> Result<(), Refusal> {
        match self.certificate() {
            Some(certificate) => Err(Refusal::Over(Box::new(certificate))),
            None => Ok(()),
        }
    }

    pub(super) fn is_past_retention(&self, now_ms: u64) -> bool {
        let ended_ms = self.ended.as_ref().map(|ended| ended.at_ms);
        ended_ms.is_some_and(|ended_ms| now_ms >= self.retained_until(ended_ms))
    }

    fn retained_until(&self, ended_ms: u64) -> u64 {
        ended_ms.saturating_add(self.settings.retention_ms)
    }

    /// Returns when time alone may change the queue, in milliseconds since the Unix epoch.
    ///
    /// While sessions exist that is at most a heartbeat interval away, since queue time passes
    /// by no more than that in one step.
    pub(super) fn next_tick_ms(&self) -> Option<u64> {
        let deadlines = [
            self.sessions.first_deadline().map(|(deadline, _)| deadline),
            self.lease_deadlines.first().map(|(deadline, _)| *deadline),
            self.seals_at(),
        ];
        let session = deadlines.into_iter().flatten().min().map(|deadline| {
            let left = deadline.saturating_sub(self.queue_time);
            self.stepped_ms + left.min(self.settings.heartbeat_ms)
        });
        let due = self.delayed.first().map(|(due_ms, _)| *due_ms);
        let retention = self
            .ended
            .as_ref()
            .map(|ended| self.retained_until(ended.at_ms));
        [session, due, retention].into_iter().flatten().min()
    }
}

impl Step<'_> {
    pub(super) fn configure(&mut self, settings: &QueueSettings) -> Result<Reply, Refusal> {
        self.queue.refuse_if_over()?;
        let now = &self.queue.settings;
        let (base, more) = (Settings::from(settings), MoreSettings::from(settings));
        let (old_base, old_more) = (Settings::from(now), MoreSettings::from(now));
        if base != old_base {
            self.happen(Fact::Configured(base));
        }
        if more != old_more {
            self.happen(Fact::ConfiguredMore(more));
        }
        self.status()
    }

    pub(super) fn seal(&mut self) -> Result<Reply, Refusal> {
        if self.queue.ended.is_none() && !self.queue.sealed {
            self.happen(Fact::Sealed);
        }
        self.status()
    }

    pub(super) fn pause(&mut self, paused: bool) -> Result<Reply, Refusal> {
        self.queue.refuse_if_over()?;
        if self.queue.paused != paused {
            self.happen(Fact::Paused(paused));
        }
        self.status()
    }

    /// Ends the queue, unless it is over already: then its end stays what it was.
    pub(super) fn stop(
        &mut self,
        outcome: StopOutcome,
        reason: Option<Box<str>>,
        by: Option<Box<str>>,
    ) -> Result<Reply, Refusal> {
        if self.queue.ended.is_none() {
            self.end(EndPhase::Stopped, EndCause::Stop, outcome, reason, by);
        }
        self.status()
    }

    /// Ends the queue because it is about to be removed.
    pub(super) fn end_as_deleted(&mut self) {
        if self.queue.ended.is_none() {
            let (cause, outcome) = (EndCause::Deleted, StopOutcome::Failure);
            self.end(EndPhase::Stopped, cause, outcome, None, None);
        }
    }

    pub(super) fn end(
        &mut self,
        phase: EndPhase,
        cause: EndCause,
        outcome: StopOutcome,
        reason: Option<Box<str>>,
        by: Option<Box<str>>,
    ) {
        let reason = reason.map(|reason| cut_front(reason, REASON_BYTES_MAX));
        let by = by.map(|by| cut_front(by, REASON_BYTES_MAX));
        let at_ms = self.now_ms;
        self.happen(Fact::Ended(Ended {
            phase,
            cause,
            outcome,
            reason,
            by,
            at_ms,
        }));
    }

    /// Ends the queue in the very step that leaves nothing to do.
    pub(super) fn end_if_drained(&mut self) {
        let queue = &*self.queue;
        if queue.sealed && queue.ended.is_none() && queue.counts.left() == 0 {
            let (phase, cause) = (EndPhase::Drained, EndCause::Drained);
            self.end(phase, cause, StopOutcome::Success, None, None);
        }
    }

    pub(super) fn cancel(&mut self, id: ItemId) -> Result<Reply, Refusal> {
        let missing = || Refusal::ItemNotFound(self.queue.name.clone(), id);
        let holder = match self.queue.items.find(id).ok_or_else(missing)? {
            Found::Done(_) | Found::Cancelled => return self.item(id),
            Found::Live(item) => item.holder(),
        };
        self.queue.refuse_if_over()?;
        self.happen(Fact::Cancelled { id: id.0 });
        if let Some(session_id) = holder.map(|holder| holder.session) {
            if let Some(session) = self.queue.sessions.get_mut(session_id) {
                session.lost.insert(id);
            }
            let queue = self.queue.name.clone();
            self.effects.signals.push(Signal::Session {
                queue,
                session: session_id,
            });
        }
        self.item(id)
    }

    pub(super) fn redrive(&mut self, selection: Selection) -> Result<Reply, Refusal> {
        self.queue.refuse_if_over()?;
        let dead = &self.queue.dead;
        let chosen: BTreeSet<ItemId> = match selection {
            Selection::First(max) => dead
                .iter()
                .take(max.min(REDRIVE_STEP_MAX))
                .copied()
                .collect(),
            Selection::Items(ids) => {
                let ids = ids.into_iter().take(REDRIVE_STEP_MAX);
                ids.filter(|id| dead.contains(id)).collect()
            }
        };
        let items: Vec<u64> = chosen.into_iter().map(|id| id.0).collect();
        let count = items.len() as u64;
        if count > 0 {
            self.happen(Fact::Redriven { items });
        }
        Ok(Reply::Redriven(count))
    }

    /// Ends what time has ended: sessions, until they have given back so many items, single leases,
    /// delays. A bounded part of it; the rest is due at once and comes with the next step.
    pub(super) fn sweep(&mut self) {
        const SESSIONS_A_SWEEP: usize = 8;
        const ITEMS_A_SWEEP: usize = 256;
        let mut returned = 0;
        for _ in 0..SESSIONS_A_SWEEP {
            if returned >= ITEMS_A_SWEEP {
                break;
            }
            match self.queue.sessions.first_deadline() {
                Some((deadline, session)) if deadline <= self.queue.queue_time => {
                    let held = self.queue.sessions.get(session);
                    returned += held.map_or(0, |session| session.holds.len());
                    self.end_session(session, super::fact::SessionEndRecord::Expired, true);
                }
                Some(_) | None => break,
            }
        }
        if self.queue.ended.is_some() {
            return;
        }
        self.seal_if_idle();
        for _ in 0..ITEMS_A_SWEEP {
            match self.queue.lease_deadlines.first() {
                Some(&(deadline, id)) if deadline <= self.queue.queue_time => self.time_out(id),
                Some(_) | None => break,
            }
        }
        for _ in 0..ITEMS_A_SWEEP {
            match self.queue.delayed.first() {
                Some(&(due_ms, id)) if due_ms <= self.now_ms => self.queue.make_due(id),
                Some(_) | None => break,
            }
        }
    }

    /// Seals a queue that has had nothing to do for as long as its settings say.
    fn seal_if_idle(&mut self) {
        let queue = &*self.queue;
        if queue.seals_at().is_some_and(|at| at <= queue.queue_time) {
            self.happen(Fact::Sealed);
        }
    }

    fn time_out(&mut self, id: ItemId) {
        let holder = self
            .queue
            .items
            .live(id)
            .and_then(super::items::Item::holder);
        debug_assert_eq!(
            self.queue.items.live(id).map(|item| item.place),
            Some(Place::Leased)
        );
        self.happen(Fact::TimedOut {
            id: id.0,
            at_ms: self.now_ms,
        });
        if let Some(holder) = holder {
            let queue = self.queue.name.clone();
            self.effects.signals.push(Signal::Session {
                queue,
                session: holder.session,
            });
        }
    }

    pub(super) fn status(&self) -> Result<Reply, Refusal> {
        Ok(Reply::Status(Box::new(self.queue.status())))
    }

    fn item(&self, id: ItemId) -> Result<Reply, Refusal> {
        let view = self.queue.item_view(id);
        let view = view.ok_or_else(|| Refusal::ItemNotFound(self.queue.name.clone(), id))?;
        Ok(Reply::Item(Box::new(view)))
    }
}

/// Keeps the end of a text: of an error, the last lines say the most.
pub(crate) fn cut_front(text: Box<str>, bytes_max: usize) -> Box<str> {
    if text.len() <= bytes_max {
        return text;
    }
    let mut start = text.len() - bytes_max;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].into()
}
