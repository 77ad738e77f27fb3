//! Which items a session gets, or why it has to wait.

use std::cmp::Reverse;

use gangline_protocol::limits::{LEASE_BYTES_MAX, SESSION_LEASES_MAX};
use gangline_protocol::{
    ItemId, LeaseNumber, LeaseReply, LeaseRequest, LeasedItem, SessionId, Timestamp, WaitReason,
};

use super::rules::Now;
use super::state::{Fate, Held, Queue, State};
use super::workers::wait;

impl Queue {
    pub(super) fn lease(
        &mut self,
        now: &Now<'_>,
        session: SessionId,
        request: LeaseRequest,
        last_lease: &mut u64,
    ) -> LeaseReply {
        let (last_request, last) = {
            let session = self.session(session).unwrap();
            (session.last_request, session.last_lease)
        };
        if request.number == last_request {
            let held = self.held(session).into_iter();
            let again: Vec<_> = held
                .filter(|id| self.find(*id).unwrap().lease == last)
                .collect();
            return match again[..] {
                [] => wait(WaitReason::NothingReady, 0, None),
                _ => self.leased(&again),
            };
        }
        let ids = match self.choose(session, request.max as usize) {
            Ok(ids) => ids,
            Err(reason) => {
                let due_ms = self.first_due_ms();
                let until = due_ms.map_or(5_000, |due_ms| due_ms.saturating_sub(now.ms()));
                return wait(reason, until.min(5_000), due_ms.map(Timestamp));
            }
        };
        let lease = now.us.max(*last_lease + 1);
        *last_lease = lease;
        let start = (self.queue_time, self.settings.session_ms);
        let limits: Vec<_> = ids.iter().map(|id| self.time_limit_ms(*id)).collect();
        let starting = request.starting.unwrap_or(u32::MAX) as usize;
        for (at, id) in ids.iter().enumerate() {
            let item = self.item(*id);
            let started = (at < starting).then_some((start.0, start.1, limits[at]));
            item.state = State::Leased(Held { session, started });
            item.lease = lease;
            item.fate = Fate::Held;
            item.attempt = item.attempts + 1;
            item.leased_ms = now.ms();
        }
        self.first_lease_ms.get_or_insert(now.ms());
        let session = self.session(session).unwrap();
        session.last_request = request.number;
        session.last_lease = lease;
        // What it has again is not lost any more.
        session.lost.retain(|lost| !ids.contains(lost));
        self.leased(&ids)
    }

    fn choose(&self, session: SessionId, max: usize) -> Result<Vec<ItemId>, WaitReason> {
        if self.paused {
            return Err(WaitReason::Paused);
        }
        let bytes_max = self.settings.results_bytes_max.unwrap_or(u64::MAX);
        if self.results_bytes() >= bytes_max {
            return Err(WaitReason::ResultsFull);
        }
        let held = self.held(session);
        if held
            .iter()
            .any(|id| self.find(*id).unwrap().runs_alone(&self.settings))
        {
            return Err(WaitReason::LastAttemptAlone);
        }
        let counts = self.counts();
        let room = self
            .settings
            .max_leased
            .unwrap_or(u64::MAX)
            .saturating_sub(counts.leased);
        let max = max
            .min(SESSION_LEASES_MAX - held.len())
            .min(usize::try_from(room).unwrap());
        if max == 0 {
            return Err(WaitReason::LimitReached);
        }
        let mut ready: Vec<_> = self
            .numbered()
            .filter(|(_, item)| item.state == State::Ready)
            .collect();
        ready.sort_by_key(|(id, item)| {
            (Reverse(item.priority()), !item.alone, !item.came_back, *id)
        });
        match ready.first() {
            Some((id, item)) if item.alone && held.is_empty() => return Ok(vec![*id]),
            _ => {}
        }
        let beside = ready.iter().filter(|(_, item)| !item.alone);
        let mut bytes = 0;
        let beside = beside.take(max).take_while(|(_, item)| {
            let is_full = bytes >= LEASE_BYTES_MAX;
            bytes += item.new.payload.get().len();
            !is_full
        });
        let ids: Vec<_> = beside.map(|(id, _)| *id).collect();
        match () {
            () if !ids.is_empty() => Ok(ids),
            () if !ready.is_empty() => Err(WaitReason::LastAttemptAlone),
            () if counts.delayed > 0 && counts.leased == 0 => Err(WaitReason::Delayed),
            () => Err(WaitReason::NothingReady),
        }
    }

    fn leased(&self, ids: &[ItemId]) -> LeaseReply {
        let items = ids.iter().map(|id| {
            let item = self.find(*id).unwrap();
            LeasedItem {
                id: *id,
                lease: LeaseNumber(item.lease),
                attempt: item.attempt,
                key: item.new.key.clone(),
                time_limit_ms: self.time_limit_ms(*id),
                traceparent: item.new.traceparent.clone(),
                payload: item.new.payload.clone(),
            }
        });
        LeaseReply::Items(items.collect())
    }
}
