//! What is true of every queue after every step.

use std::collections::BTreeSet;

use gangline_protocol::limits::ATTEMPTS_MAX;
use gangline_protocol::{Counts, ItemId};

use super::items::{Found, Place};
use super::state::Queue;
use gangline_protocol::digest::Digest;

impl Queue {
    /// Recounts everything and compares.
    ///
    /// Costs time in proportion to the queue; for tests.
    ///
    /// # Panics
    ///
    /// When an invariant is broken; the message names it.
    pub fn check(&self) {
        let mut counts = Counts::default();
        let mut ready = BTreeSet::new();
        let mut results = BTreeSet::new();
        for id in (1..self.items.next_id().0).map(ItemId) {
            match self
                .items
                .find(id)
                .expect("every id below the next one is known")
            {
                Found::Done(place) => {
                    counts.done += 1;
                    assert!(results.insert(place), "two items share a result");
                    assert_eq!(
                        self.results[place as usize].id, id,
                        "a result of another item"
                    );
                }
                Found::Cancelled => counts.cancelled += 1,
                Found::Live(item) => {
                    let over = self.ended.is_some();
                    match item.place {
                        Place::Dead => counts.dead += 1,
                        Place::Ready | Place::Delayed | Place::Leased if over => {
                            counts.abandoned += 1;
                        }
                        Place::Ready => {
                            counts.ready += 1;
                            ready.insert(id);
                        }
                        Place::Delayed => {
                            counts.delayed += 1;
                            let due = item.extra.as_ref().and_then(|extra| extra.due_ms);
                            let due = due.expect("a delayed item has a time");
                            assert!(self.delayed.contains(&(due, id)), "{id} is not due ever");
                        }
                        Place::Leased => {
                            counts.leased += 1;
                            let holder = item.holder().expect("a leased item has a holder");
                            let session = self.sessions.get(holder.session);
                            let session = session.expect("the holder of a lease is open");
                            assert!(session.holds.contains(&id), "{id} is held by nobody");
                        }
                    }
                    // A lower `maxAttempts` lets those that are beyond it have one more attempt.
                    assert!(
                        item.attempts <= ATTEMPTS_MAX,
                        "{id} has had {} attempts",
                        item.attempts
                    );
                }
            }
        }
        assert_eq!(counts, self.counts, "the counts differ from a recount");
        let lanes = self.lanes.all();
        assert_eq!(
            lanes.len(),
            ready.len(),
            "an item stands twice in the lanes, or not at all"
        );
        assert_eq!(lanes.into_iter().collect::<BTreeSet<_>>(), ready);
        assert_eq!(self.delayed.len() as u64, counts.delayed);
        assert_eq!(self.dead.len() as u64, counts.dead);
        assert_eq!(
            results.len(),
            self.results.len(),
            "a result without an item"
        );
        let held: usize = self
            .sessions
            .by_worker()
            .map(|(_, session)| session.holds.len())
            .sum();
        assert_eq!(
            held as u64, counts.leased,
            "a session holds what is not leased"
        );
        let mut digest = Digest::default();
        let mut bytes = 0;
        for record in &self.results {
            digest.add(record.id, record.result.get());
            bytes += record.result.get().len() as u64;
        }
        assert_eq!(bytes, self.results_bytes, "the bytes of results differ");
        assert_eq!(digest, self.digest, "the digest differs from its results");
        let drained = self.sealed && self.counts.left() == 0;
        assert!(!drained || self.ended.is_some(), "drained, and not over");
    }
}
