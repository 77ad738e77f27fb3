//! The items of a queue, by id, in pages that shrink when all of their items are settled.

use std::collections::VecDeque;

use gangline_protocol::{ItemId, ItemKey, Json, SessionId};

/// Items in a page.
const PAGE: u64 = 256;

/// One unit of work that is not settled for good. Kept small: a million of them wait in memory.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) payload: Json,
    /// What most waiting items do not have.
    pub(super) extra: Option<Box<Extra>>,
    pub(super) place: Place,
    pub(super) priority: u8,
    /// Attempts that were counted.
    pub(super) attempts: u16,
}

/// Where an unsettled item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Place {
    Ready,
    Delayed,
    Leased,
    Dead,
}

/// What an item has once it was leased, or if its producer asked for something special.
#[derive(Debug, Clone, Default)]
pub(super) struct Extra {
    pub(super) due_ms: Option<u64>,
    pub(super) time_limit_ms: Option<u64>,
    pub(super) max_attempts: Option<u16>,
    pub(super) traceparent: Option<Box<str>>,
    pub(super) error: Option<Box<str>>,
    /// The newest lease; 0 before the first.
    pub(super) lease: u64,
    /// Which attempt the newest lease is, from 1.
    pub(super) attempt: u16,
    /// Who holds it, while it is leased.
    pub(super) holder: Option<Holder>,
    /// The newest lease ended without a settle, so that a late one still counts.
    pub(super) lease_lost: bool,
    /// When the newest lease began, in milliseconds.
    pub(super) leased_ms: u64,
    /// Attempts that ended with a lost session.
    pub(super) lost_attempts: u16,
    /// When it became dead.
    pub(super) dead_ms: u64,
}

/// Who holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) session: SessionId,
    /// Leased ahead items are not started yet.
    pub(super) started: bool,
    /// When the single lease ends, in queue time; set for items with a time limit.
    pub(super) deadline: Option<u64>,
}

impl Item {
    pub(super) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(super) fn lease(&self) -> u64 {
        self.extra.as_ref().map_or(0, |extra| extra.lease)
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        self.extra.as_ref().and_then(|extra| extra.holder)
    }

    pub(super) fn max_attempts(&self, default: u16) -> u16 {
        self.extra
            .as_ref()
            .and_then(|extra| extra.max_attempts)
            .unwrap_or(default)
    }

    /// Every attempt so far took its session along, and only one is left: it must run alone,
    /// so that a poison item takes no neighbours with it.
    pub(super) fn must_run_alone(&self, max_attempts: u16) -> bool {
        let lost = self.extra.as_ref().map_or(0, |extra| extra.lost_attempts);
        self.attempts > 0
            && lost == self.attempts
            && self.attempts + 1 >= self.max_attempts(max_attempts)
    }
}

/// What is known of an item.
#[derive(Debug, Clone)]
pub(super) enum Slot {
    /// Not settled for good.
    Live(Item),
    /// Done: where its result stands in the results.
    Done(u32),
    /// Taken back.
    Cancelled,
}

#[derive(Debug, Clone)]
struct LivePage {
    slots: Vec<Slot>,
    /// Empty while no item of the page has a key.
    keys: Vec<Option<ItemKey>>,
    unsettled: u16,
}

#[derive(Debug, Clone)]
enum Page {
    Live(Box<LivePage>),
    /// All settled: place of the result, or [`CANCELLED`].
    Settled(Box<[u32]>),
}

const CANCELLED: u32 = u32::MAX;

/// All items of a queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Items {
    pages: VecDeque<Page>,
    len: u64,
}

/// A look at an item.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Live(&'a Item),
    Done(u32),
    Cancelled,
}

impl Items {
    /// Returns the id that the next item gets.
    pub(super) fn next_id(&self) -> ItemId {
        ItemId(self.len + 1)
    }

    /// Puts back the next item as a snapshot has it.
    pub(super) fn restore(&mut self, slot: Slot, key: Option<ItemKey>) {
        let settled = match slot {
            Slot::Live(item) => {
                self.push(item, key);
                return;
            }
            Slot::Done(_) | Slot::Cancelled => slot,
        };
        let placeholder = Item {
            payload: std::sync::Arc::from(serde_json::value::RawValue::NULL.to_owned()),
            extra: None,
            place: Place::Ready,
            priority: 0,
            attempts: 0,
        };
        let id = self.push(placeholder, None);
        self.settle(id, settled);
    }

    pub(super) fn push(&mut self, item: Item, key: Option<ItemKey>) -> ItemId {
        if self.len.is_multiple_of(PAGE) {
            let slots = Vec::with_capacity(PAGE as usize);
            let page = LivePage {
                slots,
                keys: Vec::new(),
                unsettled: 0,
            };
            self.pages.push_back(Page::Live(Box::new(page)));
        }
        self.len += 1;
        let Some(Page::Live(page)) = self.pages.back_mut() else {
            unreachable!("a page collapses only when it is full")
        };
        page.slots.push(Slot::Live(item));
        page.unsettled += 1;
        if key.is_some() || !page.keys.is_empty() {
            page.keys.resize(page.slots.len() - 1, None);
            page.keys.push(key);
        }
        ItemId(self.len)
    }

    pub(super) fn find(&self, id: ItemId) -> Option<Found<'_>> {
        let (page, slot) = self.position(id)?;
        Some(match &self.pages[page] {
            Page::Live(page) => match &page.slots[slot] {
                Slot::Live(item) => Found::Live(item),
                Slot::Done(place) => Found::Done(*place),
                Slot::Cancelled => Found::Cancelled,
            },
            Page::Settled(places) => match places[slot] {
                CANCELLED => Found::Cancelled,
                place => Found::Done(place),
            },
        })
    }

    pub(super) fn live(&self, id: ItemId) -> Option<&Item> {
        match self.find(id)? {
            Found::Live(item) => Some(item),
            Found::Done(_) | Found::Cancelled => None,
        }
    }

    pub(super) fn live_mut(&mut self, id: ItemId) -> Option<&mut Item> {
        let (page, slot) = self.position(id)?;
        match &mut self.pages[page] {
            Page::Live(page) => match &mut page.slots[slot] {
                Slot::Live(item) => Some(item),
                Slot::Done(_) | Slot::Cancelled => None,
            },
            Page::Settled(_) => None,
        }
    }

    /// Returns the key of an item that is not settled for good.
    pub(super) fn key(&self, id: ItemId) -> Option<&ItemKey> {
        let (page, slot) = self.position(id)?;
        match &self.pages[page] {
            Page::Live(page) => page.keys.get(slot)?.as_ref(),
            Page::Settled(_) => None,
        }
    }

    /// Settles an item for good and returns it with its key.
    ///
    /// # Panics
    ///
    /// When the item is unknown or settled: the caller has looked.
    pub(super) fn settle(&mut self, id: ItemId, end: Slot) -> (Item, Option<ItemKey>) {
        let (index, slot) = self.position(id).expect("a settled item exists");
        let Page::Live(page) = &mut self.pages[index] else {
            panic!("item {id} is settled already")
        };
        let Slot::Live(item) = std::mem::replace(&mut page.slots[slot], end) else {
            panic!("item {id} is settled already")
        };
        let key = page.keys.get_mut(slot).and_then(Option::take);
        page.unsettled -= 1;
        if page.unsettled == 0 && page.slots.len() as u64 == PAGE {
            let places = page.slots.iter().map(|slot| match slot {
                Slot::Done(place) => *place,
                Slot::Cancelled => CANCELLED,
                Slot::Live(_) => unreachable!("no item of the page is unsettled"),
            });
            self.pages[index] = Page::Settled(places.collect());
        }
        (item, key)
    }

    fn position(&self, id: ItemId) -> Option<(usize, usize)> {
        let index = id.0.checked_sub(1)?;
        (index < self.len).then_some(((index / PAGE) as usize, (index % PAGE) as usize))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn item() -> Item {
        let payload = serde_json::value::RawValue::from_string("1".into()).unwrap();
        Item {
            payload: Arc::from(payload),
            extra: None,
            place: Place::Ready,
            priority: 5,
            attempts: 0,
        }
    }

    #[test]
    fn a_waiting_item_takes_32_bytes_beside_its_payload() {
        assert_eq!(size_of::<Slot>(), 32);
    }

    #[test]
    fn settled_items_are_still_known_after_their_page_has_shrunk() {
        let mut items = Items::default();
        for n in 1..=600_u64 {
            let key = n
                .is_multiple_of(2)
                .then(|| format!("k{n}").parse().unwrap());
            assert_eq!(items.push(item(), key), ItemId(n));
        }
        for n in 1..=512_u32 {
            let end = if n == 7 {
                Slot::Cancelled
            } else {
                Slot::Done(n)
            };
            let (_, key) = items.settle(ItemId(n.into()), end);
            assert_eq!(key.is_some(), n % 2 == 0);
        }
        assert!(matches!(items.pages[0], Page::Settled(_)));
        assert!(matches!(items.find(ItemId(7)), Some(Found::Cancelled)));
        assert!(matches!(items.find(ItemId(512)), Some(Found::Done(512))));
        assert!(matches!(items.find(ItemId(513)), Some(Found::Live(_))));
        assert_eq!(items.key(ItemId(514)).unwrap().as_str(), "k514");
        assert!(items.find(ItemId(0)).is_none() && items.find(ItemId(601)).is_none());
    }
}
