//! When items were pushed, to the second or a tenth of their age, in a memory that does not grow
//! with the queue.

use std::collections::VecDeque;

use gangline_protocol::ItemId;

/// Least time between two marks, in milliseconds.
const STEP_MS: u64 = 1_000;

/// Most marks; then the one is left out that is missed least. So many that what is told of an item
/// that was pushed a year ago is right to a tenth of its age.
const MARKS_MAX: usize = 512;

/// Ids with the time from which on items got them, in milliseconds; both grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks(VecDeque<(u64, u64)>);

impl Marks {
    /// Notes that an item was pushed. Ids come in their order.
    pub(super) fn note(&mut self, id: ItemId, at_ms: u64) {
        let last = self.0.back().map(|(_, at_ms)| *at_ms);
        if last.is_some_and(|last| at_ms < last.saturating_add(STEP_MS)) {
            return;
        }
        self.0.push_back((id.0, at_ms));
        if self.0.len() > MARKS_MAX
            && let Some(least) = (1..MARKS_MAX).min_by_key(|nth| self.loss(*nth, at_ms))
        {
            self.0.remove(least);
        }
    }

    /// Returns how wrong it would be at most to be without a mark, in millionths of the age of
    /// what it would be wrong about.
    fn loss(&self, nth: usize, now_ms: u64) -> u64 {
        let (before, after) = (self.0[nth - 1].1, self.0[nth + 1].1);
        let wrong_ms = after - before;
        wrong_ms.saturating_mul(1_000_000) / (now_ms - before)
    }

    /// Returns when an item was pushed, at the latest or a little before; nothing for one that is
    /// older than all that is known.
    pub(super) fn pushed_ms(&self, id: ItemId) -> Option<u64> {
        let after = self.0.partition_point(|(first, _)| *first <= id.0);
        Some(self.0[after.checked_sub(1)?].1)
    }

    pub(super) fn rows(&self) -> Vec<(u64, u64)> {
        self.0.iter().copied().collect()
    }

    pub(super) fn of_rows(rows: Vec<(u64, u64)>) -> Self {
        Self(rows.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_known_by_the_last_mark_before_it() {
        let mut marks = Marks::default();
        assert_eq!(marks.pushed_ms(ItemId(1)), None);
        for (id, at_ms) in [(1, 5_000), (2, 5_999), (3, 6_000), (9, 60_000)] {
            marks.note(ItemId(id), at_ms);
        }
        for (id, at_ms) in [(1, 5_000), (2, 5_000), (3, 6_000), (8, 6_000), (9, 60_000)] {
            assert_eq!(marks.pushed_ms(ItemId(id)), Some(at_ms), "{id}");
        }
        assert_eq!(Marks::of_rows(marks.rows()), marks);
    }

    #[test]
    fn marks_are_bounded_and_stay_close_to_the_truth() {
        let mut marks = Marks::default();
        let end = 100_000;
        for second in 1..=end {
            marks.note(ItemId(second), second * 1_000);
        }
        assert!(marks.0.len() <= MARKS_MAX);
        for second in 1..=end {
            let (told, age) = (marks.pushed_ms(ItemId(second)).unwrap(), end - second);
            let wrong = second * 1_000 - told;
            assert!(
                wrong <= 1_000 + age * 1_000 / 10,
                "{wrong} ms at an age of {age} s"
            );
        }
    }
}
