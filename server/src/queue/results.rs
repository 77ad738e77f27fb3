//! Results: recorded once each, in one order, and counted in bytes.

use gangline_protocol::item::ResultView;
use gangline_protocol::{ItemId, ItemKey, Json};

use super::items::Slot;
use super::state::Queue;

/// A recorded result.
#[derive(Debug, Clone)]
pub(super) struct ResultRecord {
    pub(super) id: ItemId,
    pub(super) key: Option<ItemKey>,
    pub(super) result: Json,
    pub(super) attempt: u16,
    pub(super) took_ms: u64,
}

impl From<&ResultRecord> for ResultView {
    fn from(record: &ResultRecord) -> Self {
        let ResultRecord {
            id,
            key,
            result,
            attempt,
            took_ms,
        } = record.clone();
        Self {
            id,
            key,
            result,
            attempt,
            took_ms,
        }
    }
}

impl Queue {
    /// Takes the result of an item that is settled with it.
    pub(super) fn record_result(&mut self, id: ItemId, result: Json, at_ms: u64) {
        let place = u32::try_from(self.results.len()).expect("fewer than 4 billion results");
        let (item, key) = self.items.settle(id, Slot::Done(place));
        self.attempts.settle(id);
        self.digest.add(id, result.get());
        self.results_bytes += result.get().len() as u64;
        let extra = item.extra.as_ref().expect("a settled item was leased");
        let took_ms = at_ms.saturating_sub(extra.leased_ms);
        let attempt = extra.attempt;
        self.results.push(ResultRecord {
            id,
            key,
            result,
            attempt,
            took_ms,
        });
        self.took.note(took_ms);
        self.counts.done += 1;
        self.last_done_ms = Some(at_ms);
    }

    /// Tells whether no more is leased until somebody allows more bytes of results.
    pub(super) fn has_full_results(&self) -> bool {
        let max = self.settings.results_bytes_max;
        max.is_some_and(|max| self.results_bytes >= max)
    }
}
