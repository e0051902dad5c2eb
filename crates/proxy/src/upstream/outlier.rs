//! Outlier detection: hosts that fail in a row are left out for a while.
//!
//! The consecutive kinds of `envoy.config.cluster.v3.OutlierDetection`. A local failure (no connection, timeout,
//! reset) counts as a gateway failure, as in Envoy without `split_external_local_origin_errors`.

use std::rc::{Rc, Weak};
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use meltemi_compile::program::OutlierDetection;

use super::shared::HealthFlag;
use super::{Cluster, Host};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Takes in the status of an answer (or the one that stands for a local failure).
pub(crate) fn observe(cluster: &Cluster, host: &Host, status: u16) {
    let Some(detection) = &cluster.config.outlier else { return };
    let state = &host.state;
    if status < 500 {
        // A store only when there is something to reset: the line is shared by all workers.
        if state.consecutive_5xx.load(Ordering::Relaxed) != 0 {
            state.consecutive_5xx.store(0, Ordering::Relaxed);
            state.consecutive_gateway.store(0, Ordering::Relaxed);
        }
        return;
    }
    let in_row = state.consecutive_5xx.fetch_add(1, Ordering::Relaxed) + 1;
    if (502..=504).contains(&status) {
        let in_row = state.consecutive_gateway.fetch_add(1, Ordering::Relaxed) + 1;
        if detection.consecutive_gateway_failure == Some(in_row) && eject(cluster, host, detection) {
            cluster.stats.counts.outlier_ejections_consecutive_gateway_failure.inc();
        }
    } else {
        state.consecutive_gateway.store(0, Ordering::Relaxed);
    }
    if detection.consecutive_5xx == Some(in_row) && eject(cluster, host, detection) {
        cluster.stats.counts.outlier_ejections_consecutive_5xx.inc();
    }
}

fn eject(cluster: &Cluster, host: &Host, detection: &OutlierDetection) -> bool {
    let shared = &cluster.shared;
    let ejected = shared.ejected.load(Ordering::Relaxed);
    let percent = f64::from(ejected) * 100.0 / cluster.hosts().len().max(1) as f64;
    if percent >= f64::from(detection.max_ejection_percent) {
        cluster.stats.counts.outlier_ejections_overflow.inc();
        return false;
    }
    if !host.state.flags.put(HealthFlag::FailedOutlierCheck, true) {
        return false;
    }
    host.state.ejected_at_ms.store(now_ms(), Ordering::Relaxed);
    host.state.ejections.fetch_add(1, Ordering::Relaxed);
    shared.ejected.fetch_add(1, Ordering::Relaxed);
    shared.health_epoch.fetch_add(1, Ordering::Relaxed);
    cluster.stats.counts.outlier_ejections_total.inc();
    tracing::info!(cluster = %cluster.config.name, host = %host.address, "ejected host");
    true
}

/// Brings ejected hosts back. One worker does it for all, at every `interval`, while the cluster exists.
pub(crate) async fn watch(cluster: Weak<Cluster>, detection: OutlierDetection) {
    loop {
        tokio::time::sleep(detection.interval).await;
        let Some(cluster) = cluster.upgrade() else { return };
        cluster.hosts().iter().for_each(|host| check(&cluster, host, &detection));
    }
}

fn check(cluster: &Rc<Cluster>, host: &Host, detection: &OutlierDetection) {
    let state = &host.state;
    if !state.flags.has(HealthFlag::FailedOutlierCheck) {
        // A quiet interval takes one step off the factor.
        let _ = state.ejections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        return;
    }
    let factor = state.ejections.load(Ordering::Relaxed).max(1);
    let time = (detection.base_ejection_time * factor).min(detection.max_ejection_time);
    let since = Duration::from_millis(now_ms().saturating_sub(state.ejected_at_ms.load(Ordering::Relaxed)));
    if since < time {
        return;
    }
    state.flags.put(HealthFlag::FailedOutlierCheck, false);
    state.consecutive_5xx.store(0, Ordering::Relaxed);
    state.consecutive_gateway.store(0, Ordering::Relaxed);
    cluster.shared.ejected.fetch_sub(1, Ordering::Relaxed);
    cluster.shared.health_epoch.fetch_add(1, Ordering::Relaxed);
    tracing::info!(cluster = %cluster.config.name, host = %host.address, "host is back");
}

fn now_ms() -> u64 {
    u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX)
}
