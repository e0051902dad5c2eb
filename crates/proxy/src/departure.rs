//! When responses ask their clients to use another connection: `connection: close`, GOAWAY.
//!
//! Owns the decision, once per response. How connections that do not listen end is `listener`'s. Source: Envoy's drain
//! decision, `--drain-strategy`, `--drain-time-s` and `drain_type` of listeners; as in Envoy 1.40, the chance of the
//! gradual strategy grows in whole seconds, and reaches one after half of the drain time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::command_line::DrainStrategy;
use crate::lifecycle::Lifecycle;
use crate::random;

/// How clients leave a listener that goes away.
#[derive(Debug, Clone, Copy)]
pub struct DrainPolicy {
    /// `--drain-time-s`: how long they may take.
    pub time: Duration,
    /// `--drain-strategy`.
    pub strategy: DrainStrategy,
}

impl DrainPolicy {
    /// What responses do from now on.
    pub fn begin(&self) -> Asking {
        match self.strategy {
            DrainStrategy::Immediate => Asking::Always,
            DrainStrategy::Gradual => Asking::Gradually(Ramp::new(Instant::now(), self.time)),
        }
    }
}

/// Which responses ask their client to go.
#[derive(Debug, Clone, Copy, Default)]
pub enum Asking {
    /// None.
    #[default]
    Never,
    /// A growing share.
    Gradually(Ramp),
    /// All.
    Always,
}

/// A share that grows from none to all.
#[derive(Debug, Clone, Copy)]
pub struct Ramp {
    since: Instant,
    seconds: u64,
}

impl Ramp {
    fn new(since: Instant, drain_time: Duration) -> Ramp {
        Ramp { since, seconds: drain_time.as_secs().div_ceil(2) }
    }

    fn asks(&self, now: Instant, random: u64) -> bool {
        let elapsed = now.saturating_duration_since(self.since).as_secs();
        elapsed >= self.seconds || elapsed > random % self.seconds
    }
}

/// What the responses of a filter chain do, shared by those who drain it and those who answer.
#[derive(Debug, Default)]
pub(crate) struct Departure {
    asking: Cell<Asking>,
    /// `drain_type: MODIFY_ONLY`: failed health checks ask nobody to go.
    ignores_health: bool,
}

impl Departure {
    pub(crate) fn new(ignores_health: bool) -> Rc<Departure> {
        Rc::new(Departure { asking: Cell::default(), ignores_health })
    }

    /// Begins a drain. One that is under way goes on as it began, unless now all have to go.
    pub(crate) fn begin(&self, asking: Asking) {
        match (self.asking.get(), asking) {
            (Asking::Never, _) | (_, Asking::Always) => self.asking.set(asking),
            (Asking::Gradually(_) | Asking::Always, _) => {}
        }
    }

    /// Whether the response at hand asks its client to go.
    pub(crate) fn asks(&self, lifecycle: &Lifecycle) -> bool {
        if lifecycle.fails_health_checks() && !self.ignores_health {
            return true;
        }
        match self.asking.get() {
            Asking::Never => false,
            Asking::Always => true,
            Asking::Gradually(ramp) => ramp.asks(Instant::now(), random::next()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a thousand numbers, one after the other, how many ask.
    fn share(ramp: &Ramp, after_millis: u64) -> usize {
        let now = ramp.since + Duration::from_millis(after_millis);
        (0..1000).filter(|random| ramp.asks(now, *random)).count()
    }

    #[test]
    fn the_share_grows_by_the_second_over_half_of_the_time() {
        let ramp = Ramp::new(Instant::now(), Duration::from_secs(10));
        let shares = [0, 999, 1000, 1999, 2000, 4000, 4999, 5000, 10_000].map(|ms| share(&ramp, ms));
        assert_eq!(shares, [0, 0, 200, 200, 400, 800, 800, 1000, 1000]);
        let odd = Ramp::new(Instant::now(), Duration::from_secs(9));
        assert_eq!([share(&odd, 4000), share(&odd, 5000)], [800, 1000]);
        let none = Ramp::new(Instant::now(), Duration::ZERO);
        assert_eq!(share(&none, 0), 1000);
    }

    #[test]
    fn health_counts_unless_the_listener_says_otherwise() {
        let lifecycle = Lifecycle::default();
        let (default, modify_only) = (Departure::new(false), Departure::new(true));
        let asks = |lifecycle: &Lifecycle| [default.asks(lifecycle), modify_only.asks(lifecycle)];
        assert_eq!(asks(&lifecycle), [false, false]);
        lifecycle.set_health_failed(true);
        assert_eq!(asks(&lifecycle), [true, false]);
        modify_only.begin(Asking::Always);
        assert_eq!(asks(&lifecycle), [true, true]);
    }

    #[test]
    fn a_drain_goes_on_as_it_began() {
        let lifecycle = Lifecycle::default();
        let departure = Departure::new(false);
        let slow = DrainPolicy { time: Duration::from_secs(600), strategy: DrainStrategy::Gradual };
        departure.begin(slow.begin());
        departure.begin(DrainPolicy { time: Duration::ZERO, ..slow }.begin());
        assert!(!departure.asks(&lifecycle));
        departure.begin(Asking::Always);
        departure.begin(slow.begin());
        assert!(departure.asks(&lifecycle));
    }
}
