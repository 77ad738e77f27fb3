//! How many requests a second a namespace may send.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A bucket for each namespace: a second's requests at most, filled evenly.
///
/// Namespaces come from tokens, so there are no more buckets than tokens were made.
#[derive(Debug)]
pub struct RateLimit {
    per_second: u32,
    buckets: Mutex<HashMap<Box<str>, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    filled_at: Instant,
}

impl RateLimit {
    /// Makes a limit of so many requests a second.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            buckets: Mutex::default(),
        }
    }

    /// Returns how many requests a second are allowed.
    #[must_use]
    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes one request of a namespace, if there is one left.
    pub fn allows(&self, namespace: &str, now: Instant) -> bool {
        let full = f64::from(self.per_second);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = buckets.get_mut(namespace) else {
            let bucket = Bucket {
                left: full - 1.0,
                filled_at: now,
            };
            buckets.insert(namespace.into(), bucket);
            return self.per_second > 0;
        };
        let seconds = now.duration_since(bucket.filled_at).as_secs_f64();
        bucket.left = (bucket.left + seconds * full).min(full);
        bucket.filled_at = now;
        let allowed = bucket.left >= 1.0;
        if allowed {
            bucket.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_namespace_gets_its_rate_and_takes_nothing_from_others() {
        let limit = RateLimit::new(10);
        let start = Instant::now();
        let taken = |namespace: &str, ms: u64| {
            let now = start + Duration::from_millis(ms);
            (0..100).filter(|_| limit.allows(namespace, now)).count()
        };
        assert_eq!(taken("a", 0), 10);
        assert_eq!(taken("b", 0), 10);
        assert_eq!(taken("a", 500), 5);
        assert_eq!(taken("a", 60_000), 10);
    }
}
