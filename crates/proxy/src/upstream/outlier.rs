//! Outlier detection: hosts that fail more than others are left out for a while.
//!
//! Owns what is counted for each host, on the path of requests, and the failures in a row; `ejection` takes hosts out
//! and brings them back, `sweep` compares them at every interval, on the main thread. The decisions themselves are in
//! `compile::outlier`. Source: `envoy.config.cluster.v3.OutlierDetection` and Envoy's `outlier_detection_impl`.

mod ejection;
mod event;
mod sweep;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use meltemi_compile::program::{Ejection, OutlierDetection, SuccessRate};

use self::ejection::Ejections;
pub(crate) use self::ejection::{Subject, uneject};
pub use self::event::EventLog;
pub(crate) use self::event::timestamp;
pub(crate) use self::sweep::sweep;

use super::totals::totals;
use super::{Cluster, Host};

/// What came of a request, as far as it says something about its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is a connection; more will be told by the answer.
    Connected,
    /// There is a connection, and that is all that will ever be known (`tcp_proxy`).
    ConnectedFinally,
    /// The host answered with this status (or one that a gRPC status stands for).
    Status(u16),
    /// No connection, or it broke.
    ConnectFailed,
    /// No answer in time.
    TimedOut,
}

totals! {
    /// `cluster.<name>.outlier_detection.*`.
    OutlierTotals {
        Gauge ejections_active "Hosts ejected now.";
        Counter ejections_consecutive_5xx "Detected by server errors in a row; the old name.";
        Counter ejections_detected_consecutive_5xx "Detected by server errors in a row.";
        Counter ejections_detected_consecutive_gateway_failure "Detected by gateway errors in a row.";
        Counter ejections_detected_consecutive_local_origin_failure "Detected by failures to connect in a row.";
        Counter ejections_detected_degradation "Always 0: `detect_degraded_hosts` is refused.";
        Counter ejections_detected_failure_percentage "Detected by the percentage of failures.";
        Counter ejections_detected_local_origin_failure_percentage "Detected by the percentage of failures to connect.";
        Counter ejections_detected_local_origin_success_rate "Detected by the success rate of connecting.";
        Counter ejections_detected_success_rate "Detected by success rate.";
        Counter ejections_enforced_consecutive_5xx "Ejected for server errors in a row.";
        Counter ejections_enforced_consecutive_gateway_failure "Ejected for gateway errors in a row.";
        Counter ejections_enforced_consecutive_local_origin_failure "Ejected for failures to connect in a row.";
        Counter ejections_enforced_failure_percentage "Ejected for the percentage of failures.";
        Counter ejections_enforced_local_origin_failure_percentage "Ejected for the percentage of failures to connect.";
        Counter ejections_enforced_local_origin_success_rate "Ejected for the success rate of connecting.";
        Counter ejections_enforced_success_rate "Ejected for success rate.";
        Counter ejections_enforced_total "Ejected.";
        Counter ejections_overflow "Not ejected because of `max_ejection_percent`.";
        Counter ejections_success_rate "Detected by success rate of either kind; the old name.";
        Counter ejections_total "Detected by 5xx in a row or by success rate, enforced or not; the old name.";
    }
}

/// Which requests a success rate is about; the value is an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Answers, and without `split_external_local_origin_errors` everything.
    External = 0,
    /// Connecting.
    Local = 1,
}

/// Outlier detection of a cluster, over all workers.
#[derive(Debug, Default)]
pub struct Detector {
    /// What is counted.
    pub totals: OutlierTotals,
    /// Hosts of the cluster, of all priorities.
    pub(super) hosts: AtomicU32,
    /// Success rates of the last interval, where enough hosts had requests.
    rates: Mutex<[Option<SuccessRate>; 2]>,
    /// Only one host is ejected or brought back at a time.
    turn: Mutex<()>,
}

impl Detector {
    /// Success rates of the last interval, where enough hosts had requests.
    pub fn rates(&self) -> [Option<SuccessRate>; 2] {
        *self.rates.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What outlier detection knows of a host.
#[derive(Debug)]
pub struct Monitor {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    answers: Tally,
    connects: Tally,
    /// Success rates of the last interval as bits of `f64`, by [`Origin`]; -1 when there were too few requests.
    rates: [AtomicU64; 2],
    ejections: Mutex<Ejections>,
}

impl Default for Monitor {
    fn default() -> Monitor {
        let none = || AtomicU64::new((-1.0_f64).to_bits());
        Monitor {
            consecutive_5xx: AtomicU32::default(),
            consecutive_gateway: AtomicU32::default(),
            consecutive_local: AtomicU32::default(),
            answers: Tally::default(),
            connects: Tally::default(),
            rates: [none(), none()],
            ejections: Mutex::default(),
        }
    }
}

impl Monitor {
    /// Success rate of the last interval in percent; -1 when there were too few requests.
    pub fn success_rate(&self, origin: Origin) -> f64 {
        f64::from_bits(self.rates[origin as usize].load(Ordering::Relaxed))
    }

    /// Takes in the status of an answer; gives the failures in a row that have reached their number.
    fn status(&self, status: u16, detection: &OutlierDetection) -> [Option<Ejection>; 2] {
        let is_failure = (500..600).contains(&status);
        self.answers.add(!is_failure);
        if !is_failure {
            reset(&self.consecutive_5xx);
            reset(&self.consecutive_gateway);
            return [None, None];
        }
        let gateway = if (502..=504).contains(&status) {
            reached(&self.consecutive_gateway, detection.consecutive_gateway_failure)
        } else {
            reset(&self.consecutive_gateway);
            false
        };
        let any = reached(&self.consecutive_5xx, detection.consecutive_5xx);
        [gateway.then_some(Ejection::ConsecutiveGatewayFailure), any.then_some(Ejection::Consecutive5xx)]
    }

    fn local_failure(&self, detection: &OutlierDetection) -> Option<Ejection> {
        self.connects.add(false);
        reached(&self.consecutive_local, detection.consecutive_local_origin_failure)
            .then_some(Ejection::ConsecutiveLocalOriginFailure)
    }

    fn local_success(&self) {
        self.connects.add(true);
        reset(&self.consecutive_local);
    }

    /// What `outcome` means; gives what it leads to.
    fn take(&self, outcome: Outcome, detection: &OutlierDetection) -> [Option<Ejection>; 2] {
        let none = [None, None];
        if detection.split_external_local_origin_errors {
            return match outcome {
                Outcome::Status(status) => self.status(status, detection),
                Outcome::ConnectFailed | Outcome::TimedOut => [self.local_failure(detection), None],
                Outcome::Connected | Outcome::ConnectedFinally => {
                    self.local_success();
                    none
                }
            };
        }
        match outcome {
            Outcome::Status(status) => self.status(status, detection),
            Outcome::ConnectFailed => self.status(503, detection),
            Outcome::TimedOut => self.status(504, detection),
            Outcome::ConnectedFinally => self.status(200, detection),
            Outcome::Connected => none,
        }
    }
}

/// Requests of the current interval: all in the high half, the successful ones in the low half, so that one addition
/// counts both.
#[derive(Debug, Default)]
struct Tally(AtomicU64);

impl Tally {
    fn add(&self, success: bool) {
        self.0.fetch_add(1 << 32 | u64::from(success), Ordering::Relaxed);
    }

    /// Ends the interval: the number of requests, and how many succeeded.
    fn take(&self) -> (u32, u32) {
        let both = self.0.swap(0, Ordering::Relaxed);
        ((both >> 32) as u32, both as u32)
    }
}

/// A store only when there is something to reset: the line is shared by all workers.
fn reset(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

fn reached(counter: &AtomicU32, number: u32) -> bool {
    counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1) == number
}

/// Takes in what came of a request.
pub(crate) fn observe(cluster: &Cluster, host: &Host, outcome: Outcome) {
    let Some(detection) = &cluster.config.outlier else { return };
    for ejection in host.state.outlier.take(outcome, detection).into_iter().flatten() {
        let subject = Subject { cluster: &cluster.shared, address: host.address, state: &host.state };
        ejection::in_a_row(&subject, detection, ejection);
    }
}

#[cfg(test)]
mod tests;
