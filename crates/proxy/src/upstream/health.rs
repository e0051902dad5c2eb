//! How fit a host is for requests, as balancers see it.
//!
//! Owns the flags that active checks and outlier detection set and what follows from them; leaves out who sets them
//! (`outlier`, active health checks) and what discovery says. Source: Envoy's `Host::HealthFlag` and
//! `Host::coarseHealth`.

use std::sync::atomic::{AtomicU32, Ordering};

use meltemi_envoy::config::core::v3::HealthStatus;

/// How fit a host is. Ordered: worse is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Gets requests only in panic.
    Unhealthy,
    /// Gets requests when there are too few healthy hosts.
    Degraded,
    /// Gets requests.
    Healthy,
}

/// What discovery says (`health_status`).
impl From<HealthStatus> for Health {
    fn from(status: HealthStatus) -> Health {
        match status {
            HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Degraded => Health::Degraded,
            HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => Health::Unhealthy,
        }
    }
}

/// Why a host is not simply healthy; the values are bits of [`HealthFlags`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum HealthFlag {
    /// The active health check fails, or has not passed yet.
    FailedActiveHc = 1,
    /// Ejected by outlier detection.
    FailedOutlierCheck = 1 << 1,
    /// The active health check says that it is degraded.
    DegradedActiveHc = 1 << 2,
    /// Discovery dropped it; it stays until its active health check fails.
    PendingDynamicRemoval = 1 << 3,
    /// The first active health check is not done.
    PendingActiveHc = 1 << 4,
    /// Asked to be left out (`x-envoy-immediate-health-check-fail`).
    ExcludedViaImmediateHcFail = 1 << 5,
    /// The active health check fails because it takes too long.
    ActiveHcTimeout = 1 << 6,
    /// Outlier detection saw it say that it is degraded.
    DegradedOutlierDetection = 1 << 7,
}

/// A set of [`HealthFlag`]s that all threads share.
#[derive(Debug, Default)]
pub struct HealthFlags(AtomicU32);

impl HealthFlags {
    const UNHEALTHY: u32 = HealthFlag::FailedActiveHc as u32 | HealthFlag::FailedOutlierCheck as u32;
    const DEGRADED: u32 = HealthFlag::DegradedActiveHc as u32 | HealthFlag::DegradedOutlierDetection as u32;
    const EXCLUDED: u32 = HealthFlag::PendingActiveHc as u32 | HealthFlag::ExcludedViaImmediateHcFail as u32;

    /// Whether a flag is set.
    pub fn has(&self, flag: HealthFlag) -> bool {
        self.0.load(Ordering::Relaxed) & flag as u32 != 0
    }

    /// Sets or clears a flag. Says whether that changed anything.
    pub(crate) fn put(&self, flag: HealthFlag, on: bool) -> bool {
        let bit = flag as u32;
        let before = match on {
            true => self.0.fetch_or(bit, Ordering::Relaxed),
            false => self.0.fetch_and(!bit, Ordering::Relaxed),
        };
        (before & bit != 0) != on
    }

    /// What the flags amount to.
    pub fn health(&self) -> Health {
        match self.0.load(Ordering::Relaxed) {
            flags if flags & Self::UNHEALTHY != 0 => Health::Unhealthy,
            flags if flags & Self::DEGRADED != 0 => Health::Degraded,
            _ => Health::Healthy,
        }
    }

    /// Whether balancers leave the host out of account.
    pub fn is_excluded(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::EXCLUDED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_flag_counts() {
        let flags = HealthFlags::default();
        assert_eq!(flags.health(), Health::Healthy);
        assert!(flags.put(HealthFlag::DegradedActiveHc, true));
        assert_eq!(flags.health(), Health::Degraded);
        assert!(flags.put(HealthFlag::FailedOutlierCheck, true));
        assert_eq!(flags.health(), Health::Unhealthy);
        assert!(!flags.put(HealthFlag::FailedOutlierCheck, true), "it was set");
        assert!(flags.put(HealthFlag::FailedOutlierCheck, false));
        assert_eq!(flags.health(), Health::Degraded);
    }

    #[test]
    fn only_the_two_pending_flags_exclude() {
        let flags = HealthFlags::default();
        flags.put(HealthFlag::FailedActiveHc, true);
        assert!(!flags.is_excluded());
        flags.put(HealthFlag::PendingActiveHc, true);
        assert!(flags.is_excluded());
    }
}
