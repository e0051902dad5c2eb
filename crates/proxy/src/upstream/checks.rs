//! What active health checks share with workers, besides the flags of hosts.
//!
//! The checks themselves run on the main thread (`health`).

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::totals::totals;

totals! {
    /// `cluster.<name>.health_check.*`.
    CheckTotals {
        Counter attempt "Checks begun.";
        Counter success "Checks that passed.";
        Counter failure "Checks that failed, and hosts that failed otherwise.";
        Counter passive_failure "Hosts that asked to be left out, by an answer to a request.";
        Counter network_failure "Checks that failed for want of an answer.";
        Counter verify_cluster "Checks that looked at the name of the service.";
        Gauge healthy "Hosts that pass.";
        Gauge degraded "Hosts that say that they are degraded.";
    }
}

/// The checks of a host.
#[derive(Debug, Default)]
pub struct CheckState {
    first_done: AtomicBool,
    passive: Notify,
}

impl CheckState {
    /// Whether the host was checked at least once.
    pub(crate) fn is_first_done(&self) -> bool {
        self.first_done.load(Ordering::Acquire)
    }

    /// The host was checked.
    pub(crate) fn finish_first(&self) {
        self.first_done.store(true, Ordering::Release);
    }

    /// An answer asked to leave the host out.
    pub(super) fn fail_passively(&self) {
        self.passive.notify_one();
    }

    /// Waits for such an answer. Cancel safe.
    pub(crate) async fn failed_passively(&self) {
        self.passive.notified().await;
    }
}
