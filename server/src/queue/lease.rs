//! Leases: which items a session gets, or why it has to wait.

use gangline_protocol::limits::{LEASE_BYTES_MAX, SESSION_LEASES_MAX};
use gangline_protocol::{
    ItemId, LeaseNumber, LeaseReply, LeaseRequest, LeasedItem, SessionId, Timestamp, Wait,
    WaitReason,
};

use super::command::Refusal;
use super::fact::Fact;
use super::queues::Step;
use super::state::Queue;

/// How long a worker waits before it asks again when no time is known, in milliseconds. A held
/// request is woken long before.
const RETRY_MS: u64 = 5_000;

impl Queue {
    /// Returns how many items could be leased now by sessions that hold nothing.
    pub(super) fn leasable(&self) -> u64 {
        if self.paused || self.ended.is_some() || self.has_full_results() {
            0
        } else {
            self.counts.ready.min(self.room())
        }
    }

    fn room(&self) -> u64 {
        let max_leased = self.settings.max_leased.unwrap_or(u64::MAX);
        max_leased.saturating_sub(self.counts.leased)
    }

    fn leased_item(&self, id: ItemId) -> LeasedItem {
        let item = self.items.live(id).expect("a leased item is not settled");
        let extra = item.extra.as_ref().expect("a leased item has its lease");
        LeasedItem {
            id,
            lease: LeaseNumber(extra.lease),
            attempt: extra.attempt,
            key: self.items.key(id).cloned(),
            time_limit_ms: extra.time_limit_ms.or(self.settings.time_limit_ms),
            traceparent: extra.traceparent.clone(),
            payload: item.payload.clone(),
        }
    }
}

impl Step<'_> {
    pub(super) fn check_lease_number(
        &self,
        open: Option<SessionId>,
        number: u64,
    ) -> Result<(), Refusal> {
        let last = open
            .and_then(|id| self.queue.sessions.get(id))
            .map_or(0, |session| session.last_request);
        if number == 0 || number < last {
            return Err(Refusal::LeaseNumberOutOfOrder { number, last });
        }
        Ok(())
    }

    pub(super) fn lease(&mut self, id: SessionId, request: LeaseRequest) -> LeaseReply {
        let session = self
            .queue
            .sessions
            .get(id)
            .expect("a leasing session is open");
        if request.number == session.last_request {
            return self.repeat(id);
        }
        match self.choose(id, request.max as usize) {
            Ok(items) => {
                let starting = request.starting.unwrap_or(u32::MAX);
                self.hand_out(id, request.number, starting, &items);
                LeaseReply::Items(
                    items
                        .into_iter()
                        .map(|id| self.queue.leased_item(id))
                        .collect(),
                )
            }
            Err(reason) => LeaseReply::Wait(self.wait(reason)),
        }
    }

    /// Returns what is left of the items that the last request got.
    fn repeat(&self, id: SessionId) -> LeaseReply {
        let session = self
            .queue
            .sessions
            .get(id)
            .expect("a leasing session is open");
        let items: Vec<LeasedItem> = session
            .holds
            .iter()
            .map(|id| self.queue.leased_item(*id))
            .filter(|item| item.lease.0 == session.last_lease)
            .collect();
        if items.is_empty() {
            let reason = WaitReason::NothingReady;
            return LeaseReply::Wait(Wait {
                reason,
                retry_ms: 0,
                due_at: None,
            });
        }
        LeaseReply::Items(items)
    }

    /// Chooses at least one item, or says why there is none.
    fn choose(&self, id: SessionId, max: usize) -> Result<Vec<ItemId>, WaitReason> {
        let queue = &*self.queue;
        if queue.paused {
            return Err(WaitReason::Paused);
        }
        if queue.has_full_results() {
            return Err(WaitReason::ResultsFull);
        }
        let session = queue.sessions.get(id).expect("a leasing session is open");
        if session.holds.iter().any(|id| self.runs_alone(*id)) {
            return Err(WaitReason::LastAttemptAlone);
        }
        let room = usize::try_from(queue.room()).unwrap_or(usize::MAX);
        let max = max.min(SESSION_LEASES_MAX - session.holds.len()).min(room);
        if max == 0 {
            return Err(WaitReason::LimitReached);
        }
        if let Some(alone) = queue.lanes.next_alone()
            && session.holds.is_empty()
        {
            return Ok(vec![alone]);
        }
        let mut items = queue.lanes.first(max);
        if !items.is_empty() {
            items.truncate(self.count_that_fits(&items));
            return Ok(items);
        }
        Err(if queue.lanes.has_alone() {
            WaitReason::LastAttemptAlone
        } else if queue.counts.delayed > 0 && queue.counts.leased == 0 {
            WaitReason::Delayed
        } else {
            WaitReason::NothingReady
        })
    }

    /// Returns how many of these, at least one, have as many bytes as one lease gives.
    fn count_that_fits(&self, items: &[ItemId]) -> usize {
        let mut bytes = 0;
        let fits = items.iter().position(|id| {
            let item = self.queue.items.live(*id);
            bytes += item.map_or(0, |item| item.payload.get().len());
            bytes >= LEASE_BYTES_MAX
        });
        fits.map_or(items.len(), |last| last + 1)
    }

    fn runs_alone(&self, id: ItemId) -> bool {
        let item = self.queue.items.live(id);
        item.is_some_and(|item| item.must_run_alone(self.queue.settings.max_attempts))
    }

    fn wait(&self, reason: WaitReason) -> Wait {
        let due_ms = self.queue.delayed.first().map(|(due_ms, _)| *due_ms);
        let until_due = due_ms.map_or(RETRY_MS, |due_ms| due_ms.saturating_sub(self.now_ms));
        Wait {
            reason,
            retry_ms: until_due.min(RETRY_MS),
            due_at: due_ms.map(Timestamp),
        }
    }

    fn hand_out(&mut self, id: SessionId, request: u64, starting: u32, items: &[ItemId]) {
        let lease = self.now_us.max(*self.last_lease + 1);
        *self.last_lease = lease;
        // A first lease may be lost by a crash; the second of an item must not come back with a
        // number that somebody holds, so it is durable before it is shown.
        let again = items
            .iter()
            .any(|id| self.queue.items.live(*id).is_some_and(|i| i.lease() > 0));
        self.effects.must_sync |= again;
        self.happen(Fact::Leased {
            session: id.0,
            lease,
            request,
            at_ms: self.now_ms,
            starting,
            items: items.iter().map(|id| id.0).collect(),
        });
    }

    /// Notes that items which were leased ahead run now.
    pub(super) fn start(&mut self, session: SessionId, started: Vec<ItemId>) {
        let items: Vec<u64> = started
            .into_iter()
            .filter(|id| {
                let holder = self
                    .queue
                    .items
                    .live(*id)
                    .and_then(super::items::Item::holder);
                holder.is_some_and(|holder| holder.session == session && !holder.started)
            })
            .map(|id| id.0)
            .collect();
        if !items.is_empty() && self.queue.ended.is_none() {
            self.happen(Fact::Started { items });
        }
    }
}
