//! What checks mean for their host: thresholds, flags, statistics, events.
//!
//! Source: Envoy's `ActiveHealthCheckSession`.

use meltemi_compile::program::Transition;

use super::session::Session;
use crate::upstream::outlier::uneject;
use crate::upstream::shared::HealthFlag;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed { degraded: bool },
    Failed(Failure),
}

/// Why a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// It only counts towards the threshold.
    pub(super) may_pass_later: bool,
    /// The host asked to be left out.
    pub(super) excluded: bool,
    /// Status of the answer; 0 without one.
    pub(super) status: u16,
}

/// `envoy.data.core.v3.HealthCheckFailureType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The host answered that it is not well.
    Active,
    /// An answer to a request said so.
    Passive,
    /// No answer.
    Network,
    /// No answer in time.
    NetworkTimeout,
}

impl Failure {
    pub(super) const NETWORK: Failure = Failure::of(FailureKind::Network);
    pub(super) const TIMEOUT: Failure = Failure::of(FailureKind::NetworkTimeout);
    pub(super) const PASSIVE: Failure = Failure::of(FailureKind::Passive);
    pub(super) const ACTIVE: Failure = Failure::of(FailureKind::Active);

    const fn of(kind: FailureKind) -> Failure {
        Failure { kind, may_pass_later: false, excluded: false, status: 0 }
    }

    fn is_network(&self) -> bool {
        matches!(self.kind, FailureKind::Network | FailureKind::NetworkTimeout)
    }
}

/// Counts the checks of one host.
pub(super) struct Judge<'s> {
    session: &'s Session,
    first: bool,
    passes: u32,
    failures: u32,
}

impl<'s> Judge<'s> {
    pub(super) fn new(session: &'s Session) -> Judge<'s> {
        Judge { session, first: true, passes: 0, failures: 0 }
    }

    /// A check passed. The first one ever makes the host healthy at once, so that start-up is quick.
    pub(super) fn passed(&mut self, degraded: bool) -> Transition {
        let Session { cluster, check, member, events, .. } = self.session;
        self.failures = 0;
        let mut transition = Transition::Unchanged;
        if member.state.flags.has(HealthFlag::FailedActiveHc) {
            self.passes += 1;
            transition = Transition::Pending;
            if self.first || self.passes == check.healthy_threshold {
                self.recovered();
                transition = Transition::Changed;
                events.add_healthy(self.first);
            }
        }
        if transition != Transition::Changed && check.always_log_success {
            events.success();
        }
        if cluster.put_flag(&member.state, HealthFlag::PendingActiveHc, false) {
            transition = Transition::Changed;
        }
        if cluster.put_flag(&member.state, HealthFlag::DegradedActiveHc, degraded) {
            events.degraded(degraded);
            match degraded {
                true => cluster.checks.degraded.inc(),
                false => cluster.checks.degraded.dec(),
            }
            if transition == Transition::Unchanged {
                transition = Transition::Changed;
            }
        }
        cluster.checks.success.inc();
        let is_well = !member.state.flags.has(HealthFlag::FailedActiveHc);
        if self.session.ends_ejection && is_well {
            uneject(&member.subject(cluster));
        }
        self.done();
        transition
    }

    fn recovered(&self) {
        let Session { cluster, member, .. } = self.session;
        for flag in
            [HealthFlag::ActiveHcTimeout, HealthFlag::ExcludedViaImmediateHcFail, HealthFlag::FailedActiveHc]
        {
            cluster.put_flag(&member.state, flag, false);
        }
        cluster.checks.healthy.inc();
    }

    /// A check failed, or the host said so otherwise. What is not a failure of the network needs no threshold.
    pub(super) fn failed(&mut self, failure: &Failure) -> Transition {
        let Session { cluster, check, member, events, hosts, .. } = self.session;
        let flags = &member.state.flags;
        self.passes = 0;
        if failure.excluded {
            cluster.put_flag(&member.state, HealthFlag::ExcludedViaImmediateHcFail, true);
        }
        let mut transition = Transition::Unchanged;
        if !flags.has(HealthFlag::FailedActiveHc) {
            transition = Transition::Pending;
            let at_once = !failure.is_network() && !failure.may_pass_later;
            self.failures += u32::from(!at_once);
            if at_once || self.failures == check.unhealthy_threshold {
                cluster.put_flag(&member.state, HealthFlag::FailedActiveHc, true);
                cluster.checks.healthy.dec();
                transition = Transition::Changed;
                events.eject_unhealthy(failure);
            }
        }
        let too_late = failure.kind == FailureKind::NetworkTimeout && flags.has(HealthFlag::FailedActiveHc);
        cluster.put_flag(&member.state, HealthFlag::ActiveHcTimeout, too_late);
        if cluster.put_flag(&member.state, HealthFlag::PendingActiveHc, false) {
            transition = Transition::Changed;
        }
        if self.first || check.always_log_failures {
            events.failure(failure, self.first);
        }
        cluster.checks.failure.inc();
        if failure.is_network() {
            cluster.checks.network_failure.inc();
        } else if failure.kind == FailureKind::Passive {
            cluster.checks.passive_failure.inc();
        }
        if flags.has(HealthFlag::PendingDynamicRemoval) {
            hosts.notify();
        }
        self.done();
        transition
    }

    /// Clusters that warm wait for the first check of all hosts.
    fn done(&mut self) {
        if std::mem::take(&mut self.first) {
            self.session.member.state.checks.finish_first();
            self.session.hosts.notify();
        }
    }
}

#[cfg(test)]
mod tests;
