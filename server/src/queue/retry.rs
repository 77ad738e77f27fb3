//! When to try again, and the random numbers of a step.

use gangline_protocol::QueueSettings;

/// Random numbers drawn from the one that came in with a step (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to `max`, both included.
    pub(super) fn up_to(&mut self, max: u64) -> u64 {
        match max.checked_add(1) {
            Some(count) => self.next() % count,
            None => self.next(),
        }
    }
}

/// Returns the back-off after the `failures`-th counted failure, in milliseconds.
///
/// Full jitter: anything from 0 to the base doubled with each failure, up to the cap.
pub(super) fn backoff_ms(settings: &QueueSettings, failures: u16, draw: &mut Draw) -> u64 {
    let doublings = u32::from(failures.saturating_sub(1)).min(32);
    let ceiling = settings
        .retry_base_ms
        .saturating_mul(1 << doublings)
        .min(settings.retry_cap_ms);
    draw.up_to(ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_the_cap_with_full_jitter() {
        let settings = QueueSettings::default();
        for (failures, ceiling) in [
            (1, 1_000),
            (2, 2_000),
            (5, 16_000),
            (9, 256_000),
            (10, 300_000),
            (60, 300_000),
        ] {
            let mut draw = Draw::new(u64::from(failures));
            let waits: Vec<u64> = (0..500)
                .map(|_| backoff_ms(&settings, failures, &mut draw))
                .collect();
            assert!(
                waits.iter().all(|wait| *wait <= ceiling),
                "{failures}: {waits:?}"
            );
            assert!(waits.iter().any(|wait| *wait > ceiling * 8 / 10));
            assert!(waits.iter().any(|wait| *wait < ceiling * 2 / 10));
        }
    }
}
