//! Outlier detection: the consecutive kinds.
//!
//! Envoy enforces detection by success rate unless it is told not to; it is refused unless it is off, so that
//! nobody believes to have it.

use std::time::Duration;

use meltemi_envoy::config::cluster::v3 as proto;

use crate::ledger::{At, harmless, refuse};
use crate::program::OutlierDetection;

const CONSECUTIVE: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);
const MAX_EJECTION_PERCENT: u32 = 10;
const PERCENT: (u32, u32) = (0, 100);

/// Compiles the outlier detection of a cluster.
pub(super) fn compile(at: &At<'_>, message: &proto::OutlierDetection) -> OutlierDetection {
    let proto::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = message;
    refuse!(at; split_external_local_origin_errors, monitors, max_ejection_time_jitter);
    at.refuse_true("detect_degraded_hosts", *detect_degraded_hosts);
    at.refuse_true("always_eject_one_host", *always_eject_one_host);
    // Local origin errors are apart only with the split.
    harmless!(OtherDetector; success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor);
    harmless!(OtherDetector; failure_percentage_threshold, failure_percentage_minimum_hosts);
    harmless!(OtherDetector; failure_percentage_request_volume, consecutive_local_origin_failure);
    harmless!(OtherDetector; enforcing_consecutive_local_origin_failure, enforcing_local_origin_success_rate);
    harmless!(OtherDetector; enforcing_failure_percentage_local_origin);
    harmless!(NoHealthChecks; successful_active_health_check_uneject_host);
    if *enforcing_success_rate != Some(0) {
        at.field("enforcing_success_rate").reject("not supported yet: only 0 (Envoy's default is 100)");
    }
    if enforcing_failure_percentage.is_some_and(|percent| percent != 0) {
        at.field("enforcing_failure_percentage").reject("not supported yet: only 0");
    }
    let base_ejection_time =
        at.positive("base_ejection_time", base_ejection_time).unwrap_or(BASE_EJECTION_TIME);
    OutlierDetection {
        consecutive_5xx: enforced(
            enforcement(at, "enforcing_consecutive_5xx", *enforcing_consecutive_5xx, 100),
            *consecutive_5xx,
        ),
        consecutive_gateway_failure: enforced(
            enforcement(
                at,
                "enforcing_consecutive_gateway_failure",
                *enforcing_consecutive_gateway_failure,
                0,
            ),
            *consecutive_gateway_failure,
        ),
        interval: at.positive("interval", interval).unwrap_or(INTERVAL),
        base_ejection_time,
        max_ejection_time: at
            .positive("max_ejection_time", max_ejection_time)
            .unwrap_or(MAX_EJECTION_TIME.max(base_ejection_time)),
        max_ejection_percent: at.bounded(
            "max_ejection_percent",
            *max_ejection_percent,
            MAX_EJECTION_PERCENT,
            PERCENT,
        ),
    }
}

/// Whether a kind is enforced; enforcement by chance is refused.
fn enforcement(at: &At<'_>, field: &'static str, percent: Option<u32>, default: u32) -> bool {
    match percent.unwrap_or(default) {
        0 => false,
        100 => true,
        _ => {
            at.field(field).reject("not supported yet: only 0 or 100");
            true
        }
    }
}

fn enforced(is_enforced: bool, count: Option<u32>) -> Option<u32> {
    is_enforced.then(|| count.unwrap_or(CONSECUTIVE).max(1))
}
