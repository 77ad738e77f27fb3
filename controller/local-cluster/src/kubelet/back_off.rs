//! How long a container that ends again and again waits before its next run. Pure.

use std::time::Duration;

/// The bounds of the restart back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// The first wait that is one: a container's first restart is immediate. Doubles with each restart.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
    /// A run of this length makes everything before it forgotten.
    pub reset: Duration,
}

impl Default for BackOff {
    /// Kubernetes' own values (kubelet: `MaxContainerBackOff` and `containerBackOffPeriod`).
    fn default() -> Self {
        Self {
            base: Duration::from_secs(10),
            cap: Duration::from_secs(300),
            reset: Duration::from_secs(600),
        }
    }
}

/// The back-off of one container.
pub(super) struct Pace {
    bounds: BackOff,
    wait: Duration,
}

impl Pace {
    /// The pace of a container that has been restarted so many times, perhaps by an earlier server.
    pub(super) fn after(bounds: BackOff, restarts: u32) -> Self {
        let wait = Duration::ZERO;
        let mut pace = Self { bounds, wait };
        // Past the cap nothing changes any more.
        for _ in 0..restarts.min(u128::BITS) {
            pace.next(Duration::ZERO);
        }
        pace
    }

    /// The wait after a run of this length, counted from its end.
    pub(super) fn next(&mut self, ran: Duration) -> Duration {
        if ran >= self.bounds.reset {
            self.wait = Duration::ZERO;
        }
        let doubled = self
            .wait
            .saturating_mul(2)
            .max(self.bounds.base)
            .min(self.bounds.cap);
        std::mem::replace(&mut self.wait, doubled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(pace: &mut Pace, ran: u64) -> u64 {
        pace.next(Duration::from_secs(ran)).as_secs()
    }

    #[test]
    fn waits_double_from_ten_seconds_to_five_minutes() {
        let mut pace = Pace::after(BackOff::default(), 0);
        let waits: Vec<u64> = (0..8).map(|_| seconds(&mut pace, 1)).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_reset_the_wait() {
        let mut pace = Pace::after(BackOff::default(), 5);
        assert_eq!(seconds(&mut pace, 599), 160);
        assert_eq!(seconds(&mut pace, 600), 0);
        assert_eq!(seconds(&mut pace, 1), 10);
    }
}
