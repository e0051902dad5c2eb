//! Slow start: a host that became healthy gets less than its share at first, and more with time.
//!
//! Source: Envoy's `EdfLoadBalancerBase::applySlowStartFactor`.

use std::time::{Duration, Instant};

use meltemi_compile::load_balancing::SlowStart;

/// The least time that counts, as in Envoy.
const FIRST: Duration = Duration::from_millis(1);

/// Whether a host that is healthy since then is still starting.
pub(crate) fn is_starting(config: &SlowStart, since: Option<Instant>, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) < config.window)
}

/// What the weight of a host is multiplied by.
pub(crate) fn factor(config: &SlowStart, since: Option<Instant>, now: Instant) -> f64 {
    let Some(since) = since else { return 1.0 };
    let time = now.saturating_duration_since(since);
    if time >= config.window {
        return 1.0;
    }
    let part = time.max(FIRST).as_secs_f64() / config.window.as_secs_f64();
    let part = if config.aggression == 1.0 { part } else { part.powf(1.0 / config.aggression) };
    part.max(config.min_weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_grows_with_time_and_never_falls_below_the_least() {
        let config = SlowStart { window: Duration::from_secs(10), aggression: 1.0, min_weight: 0.1 };
        let start = Instant::now();
        let at = |seconds| factor(&config, Some(start), start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(5), at(10), at(99)], [0.1, 0.5, 1.0, 1.0]);
        let eager = SlowStart { aggression: 2.0, ..config };
        let part = factor(&eager, Some(start), start + Duration::from_millis(2500));
        assert!((part - 0.5).abs() < 1e-9, "the root of a quarter: {part}");
        assert_eq!(factor(&config, None, start), 1.0);
        assert!(is_starting(&config, Some(start), start) && !is_starting(&config, None, start));
    }
}
