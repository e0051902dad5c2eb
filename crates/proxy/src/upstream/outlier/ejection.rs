//! Taking a host out, and bringing it back.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use meltemi_compile::program::{Ejection, OutlierDetection};
use tokio::time::Instant;

use super::event::{self, Action};
use super::{Detector, Monitor, Origin, OutlierTotals, reset};
use crate::random;
use crate::upstream::shared::{ClusterState, HealthFlag, HostState};
use crate::upstream::totals::Total;

/// A host of a cluster.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) cluster: &'a ClusterState,
    pub(crate) address: SocketAddr,
    pub(crate) state: &'a HostState,
}

/// The past ejections of a host.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Ejections {
    /// How often it was ejected.
    pub(super) count: u32,
    /// Factor of `base_ejection_time`: grows with ejections, falls with quiet intervals.
    pub(super) multiplier: u32,
    /// Spreads the returns of hosts that were ejected together.
    pub(super) jitter: Duration,
    pub(super) ejected_at: Option<Instant>,
    pub(super) returned_at: Option<Instant>,
}

impl Monitor {
    pub(super) fn ejections(&self) -> MutexGuard<'_, Ejections> {
        self.ejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Errors so far no longer count, so that few new ones do not eject the host again.
    fn forget_errors(&self) {
        reset(&self.consecutive_5xx);
        reset(&self.consecutive_gateway);
        reset(&self.consecutive_local);
    }
}

impl Detector {
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutlierTotals {
    fn detected(&self, ejection: Ejection) -> &Total {
        match ejection {
            Ejection::Consecutive5xx => &self.ejections_detected_consecutive_5xx,
            Ejection::ConsecutiveGatewayFailure => &self.ejections_detected_consecutive_gateway_failure,
            Ejection::SuccessRate => &self.ejections_detected_success_rate,
            Ejection::ConsecutiveLocalOriginFailure => {
                &self.ejections_detected_consecutive_local_origin_failure
            }
            Ejection::SuccessRateLocalOrigin => &self.ejections_detected_local_origin_success_rate,
            Ejection::FailurePercentage => &self.ejections_detected_failure_percentage,
            Ejection::FailurePercentageLocalOrigin => {
                &self.ejections_detected_local_origin_failure_percentage
            }
        }
    }

    fn enforced(&self, ejection: Ejection) -> &Total {
        match ejection {
            Ejection::Consecutive5xx => &self.ejections_enforced_consecutive_5xx,
            Ejection::ConsecutiveGatewayFailure => &self.ejections_enforced_consecutive_gateway_failure,
            Ejection::SuccessRate => &self.ejections_enforced_success_rate,
            Ejection::ConsecutiveLocalOriginFailure => {
                &self.ejections_enforced_consecutive_local_origin_failure
            }
            Ejection::SuccessRateLocalOrigin => &self.ejections_enforced_local_origin_success_rate,
            Ejection::FailurePercentage => &self.ejections_enforced_failure_percentage,
            Ejection::FailurePercentageLocalOrigin => {
                &self.ejections_enforced_local_origin_failure_percentage
            }
        }
    }
}

/// A host failed in a row as often as it may. Whatever comes of it, the row begins anew.
pub(super) fn in_a_row(subject: &Subject<'_>, detection: &OutlierDetection, ejection: Ejection) {
    let monitor = &subject.state.outlier;
    let _turn = subject.cluster.outlier.turn();
    if subject.state.flags.has(HealthFlag::FailedOutlierCheck) {
        return;
    }
    eject(subject, detection, ejection);
    match ejection {
        Ejection::Consecutive5xx => {
            subject.cluster.outlier.totals.ejections_consecutive_5xx.inc();
            reset(&monitor.consecutive_5xx);
        }
        Ejection::ConsecutiveGatewayFailure => reset(&monitor.consecutive_gateway),
        Ejection::ConsecutiveLocalOriginFailure => reset(&monitor.consecutive_local),
        _ => {}
    }
}

/// A comparison of all hosts found this one.
pub(super) fn by_comparison(subject: &Subject<'_>, detection: &OutlierDetection, ejection: Ejection) {
    let _turn = subject.cluster.outlier.turn();
    if matches!(ejection, Ejection::SuccessRate | Ejection::SuccessRateLocalOrigin) {
        subject.cluster.outlier.totals.ejections_success_rate.inc();
    }
    // One comparison may have ejected the host just before the other found it: there is nothing more to eject.
    match subject.state.flags.has(HealthFlag::FailedOutlierCheck) {
        true => subject.cluster.outlier.totals.detected(ejection).inc(),
        false => eject(subject, detection, ejection),
    }
}

/// Ejects a host, unless too many are ejected or chance decides otherwise.
fn eject(subject: &Subject<'_>, detection: &OutlierDetection, ejection: Ejection) {
    let Subject { cluster, address, state } = subject;
    let totals = &cluster.outlier.totals;
    totals.detected(ejection).inc();
    let ejected = u32::try_from(totals.ejections_active.get()).unwrap_or(u32::MAX);
    if !detection.allows_ejection(ejected, cluster.outlier.hosts.load(Ordering::Relaxed)) {
        totals.ejections_overflow.inc();
        return;
    }
    if matches!(ejection, Ejection::Consecutive5xx | Ejection::SuccessRate) {
        totals.ejections_total.inc();
    }
    let enforced = random::below(100) < detection.enforcing_percent(ejection) as usize;
    if enforced {
        totals.ejections_active.inc();
        totals.ejections_enforced_total.inc();
        totals.enforced(ejection).inc();
        let mut past = state.outlier.ejections();
        past.count += 1;
        past.ejected_at = Some(Instant::now());
        past.jitter = jitter(detection.max_ejection_time_jitter);
        past.multiplier = detection.next_multiplier(past.multiplier);
        drop(past);
        cluster.put_flag(state, HealthFlag::FailedOutlierCheck, true);
        tracing::info!(cluster = %cluster.name, host = %address, ?ejection, "ejected host");
    }
    event::log(subject, &Action::Eject { ejection, enforced });
}

/// Up to `max`, in whole milliseconds.
fn jitter(max: Duration) -> Duration {
    let millis = usize::try_from(max.as_millis()).unwrap_or(usize::MAX - 1);
    Duration::from_millis(random::below(millis + 1) as u64)
}

/// Brings a host back. Says whether it was away.
pub(crate) fn uneject(subject: &Subject<'_>) -> bool {
    let Subject { cluster, address, state } = subject;
    let _turn = cluster.outlier.turn();
    if !cluster.put_flag(state, HealthFlag::FailedOutlierCheck, false) {
        return false;
    }
    cluster.outlier.totals.ejections_active.dec();
    state.outlier.forget_errors();
    state.outlier.ejections().returned_at = Some(Instant::now());
    tracing::info!(cluster = %cluster.name, host = %address, "host is back");
    event::log(subject, &Action::Uneject);
    true
}

/// Which success rate an ejection is about.
pub(super) fn origin(ejection: Ejection) -> Origin {
    match ejection {
        Ejection::SuccessRateLocalOrigin
        | Ejection::FailurePercentageLocalOrigin
        | Ejection::ConsecutiveLocalOriginFailure => Origin::Local,
        _ => Origin::External,
    }
}
