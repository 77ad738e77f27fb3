//! How far handlers are with their items, on its way to the service.
//!
//! It goes with the next heartbeat, the newest of each item only: saying it often costs nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gangline_protocol::limits::{PROGRESS_TEXT_BYTES_MAX, SESSION_LEASES_MAX};
use gangline_protocol::{ItemId, ItemProgress, LeaseNumber};

/// How far a handler is with its item: a share of it, a text, or both.
///
/// ```
/// use gangline_worker::Progress;
///
/// let half = Progress::from(0.5);
/// let said = Progress::from("reading page 3 of 7");
/// let both = Progress::from((0.4, format!("page {}", 3)));
/// assert!(half != said && said != both);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// How much of it is done, from 0 to 1; what is beyond is cut, and no number is none.
    pub fraction: Option<f64>,
    /// What is being done, for people. Only the first
    /// [`PROGRESS_TEXT_BYTES_MAX`] bytes are shown.
    pub text: Option<String>,
}

impl From<f64> for Progress {
    fn from(fraction: f64) -> Self {
        Self {
            fraction: Some(fraction),
            text: None,
        }
    }
}

impl From<&str> for Progress {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Progress {
    fn from(text: String) -> Self {
        Self {
            fraction: None,
            text: Some(text),
        }
    }
}

impl<T: Into<String>> From<(f64, T)> for Progress {
    fn from((fraction, text): (f64, T)) -> Self {
        Self {
            fraction: Some(fraction),
            text: Some(text.into()),
        }
    }
}

impl Progress {
    /// Returns it as it is sent, within its bounds.
    fn of_item(self, id: ItemId, lease: LeaseNumber) -> ItemProgress {
        let fraction = self.fraction.filter(|fraction| !fraction.is_nan());
        let text = self.text.map(|mut text| {
            text.truncate(text.floor_char_boundary(PROGRESS_TEXT_BYTES_MAX));
            text.into()
        });
        ItemProgress {
            id,
            lease,
            fraction: fraction.map(|fraction| fraction.clamp(0.0, 1.0)),
            text,
        }
    }
}

/// What the handlers of a worker have said and no heartbeat has taken along yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board(Arc<Mutex<HashMap<ItemId, ItemProgress>>>);

impl Board {
    pub(crate) fn put(&self, id: ItemId, lease: LeaseNumber, progress: Progress) {
        self.lock().insert(id, progress.of_item(id, lease));
    }

    /// Takes what a call may carry; the rest goes with the next one.
    pub(crate) fn take(&self) -> Vec<ItemProgress> {
        let mut waiting = self.lock();
        let ids: Vec<ItemId> = waiting.keys().copied().take(SESSION_LEASES_MAX).collect();
        ids.iter().filter_map(|id| waiting.remove(id)).collect()
    }

    /// Puts back what was not delivered, unless something newer was said of an item.
    pub(crate) fn put_back(&self, undelivered: Vec<ItemProgress>) {
        let mut waiting = self.lock();
        for one in undelivered {
            waiting.entry(one.id).or_insert(one);
        }
    }

    /// Forgets an item that has ended.
    pub(crate) fn forget(&self, id: ItemId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ItemId, ItemProgress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_brought_within_its_bounds() {
        for (said, sent) in [
            (0.5, Some(0.5)),
            (-1.0, Some(0.0)),
            (7.0, Some(1.0)),
            (f64::NAN, None),
        ] {
            let progress = Progress::from(said).of_item(ItemId(1), LeaseNumber(2));
            assert_eq!(progress.fraction, sent, "{said}");
        }
        let long = Progress::from("ä".repeat(PROGRESS_TEXT_BYTES_MAX));
        let text = long.of_item(ItemId(1), LeaseNumber(2)).text.unwrap();
        assert_eq!(text.len(), PROGRESS_TEXT_BYTES_MAX);
    }

    #[test]
    fn only_the_newest_of_each_item_goes_and_what_was_not_delivered_goes_again() {
        let board = Board::default();
        let (one, two, lease) = (ItemId(1), ItemId(2), LeaseNumber(9));
        board.put(one, lease, 0.1.into());
        board.put(one, lease, 0.2.into());
        board.put(two, lease, 0.3.into());
        let taken = board.take();
        assert_eq!((taken.len(), board.take().len()), (2, 0));
        board.put(one, lease, 0.4.into());
        board.put_back(taken);
        board.forget(two);
        let again = board.take();
        assert_eq!((again.len(), again[0].fraction), (1, Some(0.4)));
    }
}
