//! Exponential back-off with jitter. Randomness is a parameter, so that tests choose it.
//!
//! Source: Envoy's `JitteredExponentialBackOffStrategy`: the n-th pause is drawn evenly from
//! `[0, min(base * 2^n - 1, max)]`. Differs: drawn from the upper half of that range, so that a peer that is
//! down is never hammered by a run of tiny draws.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Pauses between attempts: doubling from `base`, never above `max`, until [`Backoff::reset`].
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// A back-off whose first pause is at most `base` and whose later pauses are at most `max`.
    pub fn new(base: Duration, max: Duration) -> Backoff {
        Backoff { base: base.min(max), max, attempt: 0 }
    }

    /// How many pauses were taken since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// The next pause. `random` is in `0.0..1.0`; what lies outside is clamped.
    pub fn next_pause(&mut self, random: f64) -> Duration {
        let factor = 2u32.saturating_pow(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        let ceiling = self.base.saturating_mul(factor).min(self.max);
        ceiling.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// The attempt succeeded: start again from `base`.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A number in `0.0..1.0`, good enough to spread retries (not for secrets). Seeded by the process's hash keys.
pub fn jitter() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_up_to_the_maximum_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let pauses: Vec<_> = (0..4).map(|_| backoff.next_pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.next_pause(0.0), Duration::from_millis(50));
    }

    proptest! {
        #[test]
        fn stays_between_half_the_ceiling_and_the_ceiling(random in 0.0f64..1.0, attempts in 0usize..80) {
            let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(30));
            for _ in 0..attempts {
                backoff.next_pause(random);
            }
            let pause = backoff.next_pause(random);
            prop_assert!(pause >= Duration::from_millis(5) && pause <= Duration::from_secs(30));
        }
    }

    #[test]
    fn jitter_is_a_fraction_and_moves() {
        let draws: Vec<f64> = (0..16).map(|_| jitter()).collect();
        assert!(draws.iter().all(|d| (0.0..1.0).contains(d)));
        assert!(draws.iter().any(|d| *d != draws[0]));
    }
}
