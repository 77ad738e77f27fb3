//! How many requests a second a namespace may send, and how they are spread over the second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gangline_protocol::limits::{NAMESPACE_BURST_MS, REFUSAL_DELAY_MS};
use tokio::time::Instant;

/// A pace for each namespace. What comes too early waits for its turn, so that a flood within its
/// rate takes an even part of the machine, and never all of it for a while.
///
/// Namespaces come from tokens, so there are no more paces than tokens were made.
#[derive(Debug)]
pub struct RateLimit {
    per_second: u32,
    /// When the next request of a namespace would be due if none came early.
    due: Mutex<HashMap<Box<str>, Instant>>,
}

/// What a request of a namespace has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Its turn comes after so long: mostly at once.
    After(Duration),
    /// Too many are before it.
    Never,
}

impl RateLimit {
    /// Makes a limit of so many requests a second.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            due: Mutex::default(),
        }
    }

    /// Returns how many requests a second are allowed.
    #[must_use]
    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes the next turn of a namespace, unless it is more than [`REFUSAL_DELAY_MS`] away.
    pub fn turn(&self, namespace: &str, now: Instant) -> Turn {
        let Some(step) = Duration::from_secs(1).checked_div(self.per_second) else {
            return Turn::Never;
        };
        // At least one may come at any time.
        let early = Duration::from_millis(NAMESPACE_BURST_MS).saturating_sub(step);
        let mut dues = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match dues.get_mut(namespace) {
            Some(due) => due,
            None => dues.entry(namespace.into()).or_insert(now),
        };
        let wait = (*due).saturating_duration_since(now + early);
        if wait > Duration::from_millis(REFUSAL_DELAY_MS) {
            return Turn::Never;
        }
        *due = (*due).max(now) + step;
        Turn::After(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 1_000;

    /// Returns the waits, in milliseconds, of so many requests that come at once.
    fn waits(limit: &RateLimit, namespace: &str, now: Instant, count: usize) -> Vec<u128> {
        let turns = (0..count).map_while(|_| match limit.turn(namespace, now) {
            Turn::After(wait) => Some(wait.as_millis()),
            Turn::Never => None,
        });
        turns.collect()
    }

    #[test]
    fn a_namespace_gets_its_rate_and_takes_nothing_from_others() {
        let limit = RateLimit::new(LIMIT);
        let start = Instant::now();
        for namespace in ["a", "b"] {
            // A burst at once, then one a step, and what would wait for too long not at all.
            let waits = waits(&limit, namespace, start, 1_000);
            let (burst, wait) = (NAMESPACE_BURST_MS, REFUSAL_DELAY_MS);
            assert_eq!(waits.len() as u64, burst + wait);
            for (nth, waited) in waits.into_iter().enumerate() {
                assert_eq!(waited, (nth as u128 + 1).saturating_sub(burst.into()));
            }
        }
        let later = start + Duration::from_millis(100);
        assert_eq!(waits(&limit, "a", later, 1_000).len(), 100);
        let much_later = start + Duration::from_secs(60);
        let waits = waits(&limit, "a", much_later, 1_000);
        assert_eq!(
            waits.iter().filter(|wait| **wait == 0).count() as u64,
            NAMESPACE_BURST_MS
        );
    }

    #[test]
    fn one_request_at_a_time_passes_at_any_rate_but_none() {
        let start = Instant::now();
        for per_second in [1, 7, 100, 5_000, u32::MAX] {
            let limit = RateLimit::new(per_second);
            let step = Duration::from_secs(1) / per_second;
            for nth in 0..3 {
                let turn = limit.turn("a", start + step * nth);
                assert_eq!(turn, Turn::After(Duration::ZERO), "{per_second}, {nth}");
            }
        }
        assert_eq!(RateLimit::new(0).turn("a", start), Turn::Never);
    }
}
