//! Which items are ready, in the order in which they are handed out.
//!
//! Higher priority first. Within a priority, items that came back (returned, retried, redriven,
//! or delayed until now) go before fresh ones, and each kind goes by id, which is the order of
//! pushing; one whose last attempt must run alone goes before all others of its priority, to a
//! session that holds nothing. Order depends on the set alone, never on the history of calls, so that a replay
//! finds the same one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gangline_protocol::ItemId;
use gangline_protocol::limits::PRIORITY_MAX;

const LANES: usize = PRIORITY_MAX as usize + 1;

/// All ready items of a queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Lanes {
    lanes: [Lane; LANES],
    /// Items whose last attempt must run alone, those of the highest priority first.
    alone: BTreeSet<(Reverse<u8>, ItemId)>,
}

#[derive(Debug, Clone, Default)]
struct Lane {
    came_back: BTreeSet<ItemId>,
    /// Runs of consecutive ids: first to one past the last. A million fresh items are one run.
    fresh: BTreeMap<u64, u64>,
}

/// In which part of the lanes a ready item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Standing {
    Fresh,
    CameBack,
    Alone,
}

impl Lanes {
    pub(super) fn insert(&mut self, id: ItemId, priority: u8, standing: Standing) {
        let lane = &mut self.lanes[usize::from(priority)];
        match standing {
            Standing::Fresh => lane.insert_fresh(id.0),
            Standing::CameBack => {
                lane.came_back.insert(id);
            }
            Standing::Alone => {
                self.alone.insert((Reverse(priority), id));
            }
        }
    }

    pub(super) fn remove(&mut self, id: ItemId, priority: u8) {
        let lane = &mut self.lanes[usize::from(priority)];
        if !self.alone.remove(&(Reverse(priority), id)) && !lane.came_back.remove(&id) {
            lane.remove_fresh(id.0);
        }
    }

    /// Returns where a ready item stands.
    pub(super) fn standing(&self, id: ItemId, priority: u8) -> Standing {
        if self.alone.contains(&(Reverse(priority), id)) {
            Standing::Alone
        } else if self.lanes[usize::from(priority)].came_back.contains(&id) {
            Standing::CameBack
        } else {
            Standing::Fresh
        }
    }

    /// Tells whether an item is ready whose last attempt must run alone.
    pub(super) fn has_alone(&self) -> bool {
        !self.alone.is_empty()
    }

    /// Tells whether all that is ready must run alone.
    pub(super) fn has_only_alone(&self) -> bool {
        self.has_alone() && self.lanes.iter().all(Lane::is_empty)
    }

    /// Returns the item that must run alone, if it is the next of all.
    pub(super) fn next_alone(&self) -> Option<ItemId> {
        let &(Reverse(priority), id) = self.alone.first()?;
        let higher = &self.lanes[usize::from(priority) + 1..];
        higher.iter().all(Lane::is_empty).then_some(id)
    }

    /// Returns the first `max` items that may run beside others.
    pub(super) fn first(&self, max: usize) -> Vec<ItemId> {
        let ids = self.lanes.iter().rev().flat_map(|lane| {
            let fresh = lane
                .fresh
                .iter()
                .flat_map(|(first, end)| (*first..*end).map(ItemId));
            lane.came_back.iter().copied().chain(fresh)
        });
        ids.take(max).collect()
    }

    /// Returns the lowest id of all; its cost does not depend on how many there are.
    pub(super) fn oldest(&self) -> Option<ItemId> {
        let lanes = self.lanes.iter().filter_map(|lane| {
            let fresh = lane
                .fresh
                .first_key_value()
                .map(|(first, _)| ItemId(*first));
            fresh
                .into_iter()
                .chain(lane.came_back.first().copied())
                .min()
        });
        let alone = (0..=PRIORITY_MAX).filter_map(|priority| {
            let from = (Reverse(priority), ItemId(0));
            let first = self.alone.range(from..).next();
            first
                .filter(|(Reverse(found), _)| *found == priority)
                .map(|(_, id)| *id)
        });
        lanes.chain(alone).min()
    }

    /// Returns every ready item; for checks.
    pub(super) fn all(&self) -> Vec<ItemId> {
        let mut all = self.first(usize::MAX);
        all.extend(self.alone.iter().map(|(_, id)| *id));
        all
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.came_back.is_empty() && self.fresh.is_empty()
    }

    fn insert_fresh(&mut self, id: u64) {
        match self.fresh.range_mut(..=id).next_back() {
            Some((_, end)) if *end == id => *end += 1,
            _ => {
                self.fresh.insert(id, id + 1);
            }
        }
    }

    fn remove_fresh(&mut self, id: u64) {
        let Some((&first, &end)) = self.fresh.range(..=id).next_back() else {
            return;
        };
        if id >= end {
            return;
        }
        if first == id {
            self.fresh.remove(&first);
        } else {
            self.fresh.insert(first, id);
        }
        if id + 1 < end {
            self.fresh.insert(id + 1, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(lanes: &Lanes, max: usize) -> Vec<u64> {
        lanes.first(max).into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn items_go_by_priority_then_came_back_then_id() {
        let mut lanes = Lanes::default();
        for id in 1..=3 {
            lanes.insert(ItemId(id), 5, Standing::Fresh);
        }
        lanes.insert(ItemId(9), 5, Standing::CameBack);
        lanes.insert(ItemId(4), 9, Standing::Fresh);
        assert_eq!(ids(&lanes, 10), [4, 9, 1, 2, 3]);
        assert_eq!(ids(&lanes, 2), [4, 9]);
    }

    #[test]
    fn a_fresh_item_is_taken_out_of_the_middle_of_its_run() {
        let mut lanes = Lanes::default();
        for id in 1..=5 {
            lanes.insert(ItemId(id), 0, Standing::Fresh);
        }
        for id in [3, 1, 5] {
            lanes.remove(ItemId(id), 0);
        }
        assert_eq!(ids(&lanes, 10), [2, 4]);
        lanes.remove(ItemId(3), 0);
        assert_eq!(ids(&lanes, 10), [2, 4]);
    }

    #[test]
    fn the_oldest_is_found_wherever_it_stands() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.oldest(), None);
        for (id, priority, standing) in [
            (9, 5, Standing::Fresh),
            (8, 0, Standing::Fresh),
            (7, 9, Standing::CameBack),
            (6, 3, Standing::Alone),
            (5, 4, Standing::Alone),
            (4, 4, Standing::CameBack),
        ] {
            lanes.insert(ItemId(id), priority, standing);
            assert_eq!(lanes.oldest(), Some(ItemId(id)));
        }
        lanes.insert(ItemId(3), 2, Standing::Alone);
        lanes.remove(ItemId(4), 4);
        assert_eq!(lanes.oldest(), Some(ItemId(3)));
    }

    #[test]
    fn an_item_for_a_last_attempt_alone_is_not_among_the_others() {
        let mut lanes = Lanes::default();
        lanes.insert(ItemId(1), 5, Standing::Alone);
        assert_eq!(ids(&lanes, 10), [0; 0]);
        assert_eq!(lanes.next_alone(), Some(ItemId(1)));
        lanes.remove(ItemId(1), 5);
        assert_eq!((lanes.next_alone(), lanes.has_alone()), (None, false));
    }

    #[test]
    fn an_item_that_must_run_alone_waits_for_those_of_a_higher_priority() {
        let mut lanes = Lanes::default();
        lanes.insert(ItemId(1), 2, Standing::Alone);
        lanes.insert(ItemId(2), 3, Standing::Alone);
        lanes.insert(ItemId(3), 3, Standing::Fresh);
        assert_eq!(lanes.next_alone(), Some(ItemId(2)));
        lanes.remove(ItemId(2), 3);
        assert_eq!((lanes.next_alone(), lanes.has_alone()), (None, true));
        lanes.remove(ItemId(3), 3);
        assert_eq!(lanes.next_alone(), Some(ItemId(1)));
    }
}
