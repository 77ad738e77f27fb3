//! Looks at a queue that change nothing.

use std::collections::BTreeSet;

use gangline_protocol::item::ResultView;
use gangline_protocol::limits::{COPY_STEP_MAX, PAGE_ROWS_MAX};
use gangline_protocol::{
    ItemId, ItemState, ItemView, LeaseNumber, NewItem, QueueStatus, SessionId, Timestamp,
    WorkerName, WorkerRecord, WorkerView,
};

use super::command::DeadItem;
use super::items::{Found, Item, Place};
use super::sessions::Session;
use super::state::Queue;

impl Queue {
    pub(super) fn status(&self) -> QueueStatus {
        QueueStatus {
            queue: self.name.clone(),
            uid: self.uid,
            phase: self.phase(),
            paused: self.paused,
            counts: self.counts,
            retried: self.retried,
            sessions: self.sessions.len() as u64,
            created_at: Timestamp(self.created_ms),
            first_lease_at: self.first_lease_ms.map(Timestamp),
            last_done_at: self.last_done_ms.map(Timestamp),
            rate: None,
            eta_ms: None,
            durability: None,
            settings: self.settings.clone(),
            certificate: self.certificate(),
        }
    }

    /// Returns when the oldest of the ready items was pushed, to the second or so.
    pub(super) fn oldest_ready(&self) -> Option<Timestamp> {
        // What is still in the lanes at the end is abandoned.
        let oldest = self.lanes.oldest().filter(|_| self.ended.is_none())?;
        self.marks.pushed_ms(oldest).map(Timestamp)
    }

    pub(super) fn item_view(&self, id: ItemId) -> Option<ItemView> {
        let mut view = match self.items.find(id)? {
            Found::Live(item) => self.live_view(id, item),
            Found::Done(place) => {
                let record = &self.results[place as usize];
                ItemView {
                    key: record.key.clone(),
                    result: Some(record.result.clone()),
                    took_ms: Some(record.took_ms),
                    attempts: record.attempt,
                    ..blank(id, ItemState::Done)
                }
            }
            Found::Cancelled => blank(id, ItemState::Cancelled),
        };
        view.history = self.attempts.of(id).to_vec();
        Some(view)
    }

    fn live_view(&self, id: ItemId, item: &Item) -> ItemView {
        let state = match item.place {
            Place::Dead => ItemState::Dead,
            Place::Ready | Place::Delayed | Place::Leased if self.ended.is_some() => {
                ItemState::Abandoned
            }
            Place::Ready => ItemState::Ready,
            Place::Delayed => ItemState::Delayed,
            Place::Leased => ItemState::Leased,
        };
        let mut view = ItemView {
            key: self.items.key(id).cloned(),
            payload: Some(item.payload.clone()),
            attempts: item.attempts,
            ..blank(id, state)
        };
        let Some(extra) = &item.extra else {
            return view;
        };
        view.error.clone_from(&extra.error);
        match state {
            ItemState::Delayed => view.due_at = extra.due_ms.map(Timestamp),
            ItemState::Dead => view.since = Some(Timestamp(extra.dead_ms)),
            ItemState::Leased => {
                let session = extra.holder.map(|holder| holder.session);
                view.lease = Some(LeaseNumber(extra.lease));
                view.session = session;
                view.worker = session
                    .and_then(|id| self.sessions.get(id))
                    .map(|session| session.worker.clone());
                view.since = Some(Timestamp(extra.leased_ms));
                view.progress = self.progress.get(&id).cloned();
            }
            ItemState::Ready | ItemState::Done | ItemState::Cancelled | ItemState::Abandoned => {}
        }
        view
    }

    /// Returns items after an id, in a bounded number of looks: a page may hold fewer than asked
    /// although more follow, but is empty only at the end.
    pub(super) fn item_views(
        &self,
        state: Option<ItemState>,
        after: ItemId,
        max: usize,
    ) -> Vec<ItemView> {
        let max = max.min(PAGE_ROWS_MAX);
        let next = ItemId(after.0.saturating_add(1));
        if state == Some(ItemState::Dead) {
            return self
                .dead
                .range(next..)
                .take(max)
                .filter_map(|id| self.item_view(*id))
                .collect();
        }
        if state == Some(ItemState::Leased) {
            // What is leased is held by a session; there is no need to look at the rest.
            let held: BTreeSet<ItemId> = self
                .sessions
                .by_worker()
                .flat_map(|(_, session)| session.holds.range(next..))
                .copied()
                .collect();
            return held
                .into_iter()
                .filter_map(|id| self.item_view(id))
                .filter(|view| view.state == ItemState::Leased)
                .take(max)
                .collect();
        }
        (next.0..self.items.next_id().0)
            .map(ItemId)
            .filter_map(|id| self.item_view(id))
            .filter(|view| state.is_none_or(|state| view.state == state))
            .take(max)
            .collect()
    }

    pub(super) fn dead_items(&self, after: ItemId, max: usize) -> Vec<DeadItem> {
        let next = ItemId(after.0.saturating_add(1));
        let dead = self.dead.range(next..).take(max.min(PAGE_ROWS_MAX));
        dead.filter_map(|id| {
            let extra = self.items.live(*id)?.extra.as_ref()?;
            Some(DeadItem {
                id: *id,
                error: extra.error.clone(),
                since: Timestamp(extra.dead_ms),
            })
        })
        .collect()
    }

    pub(super) fn copies(&self, ids: &[ItemId]) -> Vec<(ItemId, NewItem)> {
        let ids = ids.iter().take(COPY_STEP_MAX);
        ids.filter(|id| self.dead.contains(id))
            .filter_map(|id| {
                let item = self.items.live(*id)?;
                let extra = item.extra.as_ref();
                let mut copy = NewItem::new(item.payload.clone());
                copy.priority = Some(item.priority);
                copy.time_limit_ms = extra.and_then(|extra| extra.time_limit_ms);
                copy.max_attempts = extra.and_then(|extra| extra.max_attempts);
                copy.traceparent = extra.and_then(|extra| extra.traceparent.clone());
                Some((*id, copy))
            })
            .collect()
    }

    pub(super) fn result_views(&self, cursor: u64, max: usize) -> Vec<ResultView> {
        let start = usize::try_from(cursor)
            .unwrap_or(usize::MAX)
            .min(self.results.len());
        self.results[start..]
            .iter()
            .take(max.min(PAGE_ROWS_MAX))
            .map(ResultView::from)
            .collect()
    }

    pub(super) fn worker_views(&self) -> Vec<WorkerView> {
        let sessions = self.sessions.by_worker();
        sessions
            .map(|(id, session)| worker_view(id, session))
            .collect()
    }

    pub(super) fn worker_record(&self, name: WorkerName) -> WorkerRecord {
        let id = self.sessions.of_worker(&name);
        let session = id.and_then(|id| Some(worker_view(id, self.sessions.get(id)?)));
        WorkerRecord {
            had_session: self.sessions.had_session(&name),
            session,
            name,
        }
    }
}

fn worker_view(id: SessionId, session: &Session) -> WorkerView {
    let is_idle = session.holds.is_empty();
    WorkerView {
        worker: session.worker.clone(),
        session: id,
        holds: u32::try_from(session.holds.len()).unwrap_or(u32::MAX),
        done: session.done,
        opened_at: Timestamp(session.opened_ms),
        idle_since: is_idle.then_some(Timestamp(session.idle_since_ms)),
    }
}

fn blank(id: ItemId, state: ItemState) -> ItemView {
    ItemView {
        id,
        state,
        key: None,
        payload: None,
        result: None,
        took_ms: None,
        attempts: 0,
        error: None,
        due_at: None,
        lease: None,
        session: None,
        worker: None,
        since: None,
        progress: None,
        history: Vec::new(),
    }
}
