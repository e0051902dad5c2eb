//! Outlier detection as configured. The decisions it leads to are in `crate::outlier`.
//!
//! Source: `envoy.config.cluster.v3.OutlierDetection`; defaults and bounds are Envoy's.

use std::time::Duration;

use meltemi_envoy::config::cluster::v3 as proto;

use crate::ledger::{At, refuse};
use crate::outlier::{Ejection, OutlierDetection, RateDetection};

const CONSECUTIVE: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);
const MAX_EJECTION_PERCENT: u32 = 10;
const MINIMUM_HOSTS: u32 = 5;
const SUCCESS_RATE_REQUEST_VOLUME: u32 = 100;
const SUCCESS_RATE_STDEV_FACTOR: u32 = 1900;
const FAILURE_PERCENTAGE_THRESHOLD: u32 = 85;
const FAILURE_PERCENTAGE_REQUEST_VOLUME: u32 = 50;
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
    refuse!(at; monitors);
    at.refuse_true("detect_degraded_hosts", *detect_degraded_hosts);
    let percent = |field, value, default| at.bounded(field, value, default, PERCENT);
    let base_ejection_time =
        at.positive("base_ejection_time", base_ejection_time).unwrap_or(BASE_EJECTION_TIME);
    let max_ejection_time = at
        .positive("max_ejection_time", max_ejection_time)
        .unwrap_or(MAX_EJECTION_TIME.max(base_ejection_time));
    if max_ejection_time < base_ejection_time {
        at.field("max_ejection_time").reject("cannot be smaller than base_ejection_time");
    }
    let enforcing = |ejection| match ejection {
        Ejection::Consecutive5xx => percent("enforcing_consecutive_5xx", *enforcing_consecutive_5xx, 100),
        Ejection::ConsecutiveGatewayFailure => {
            percent("enforcing_consecutive_gateway_failure", *enforcing_consecutive_gateway_failure, 0)
        }
        Ejection::SuccessRate => percent("enforcing_success_rate", *enforcing_success_rate, 100),
        Ejection::ConsecutiveLocalOriginFailure => percent(
            "enforcing_consecutive_local_origin_failure",
            *enforcing_consecutive_local_origin_failure,
            100,
        ),
        Ejection::SuccessRateLocalOrigin => {
            percent("enforcing_local_origin_success_rate", *enforcing_local_origin_success_rate, 100)
        }
        Ejection::FailurePercentage => {
            percent("enforcing_failure_percentage", *enforcing_failure_percentage, 0)
        }
        Ejection::FailurePercentageLocalOrigin => percent(
            "enforcing_failure_percentage_local_origin",
            *enforcing_failure_percentage_local_origin,
            0,
        ),
    };
    OutlierDetection {
        consecutive_5xx: consecutive_5xx.unwrap_or(CONSECUTIVE),
        consecutive_gateway_failure: consecutive_gateway_failure.unwrap_or(CONSECUTIVE),
        consecutive_local_origin_failure: consecutive_local_origin_failure.unwrap_or(CONSECUTIVE),
        split_external_local_origin_errors: *split_external_local_origin_errors,
        enforcing_percent: Ejection::ALL.map(enforcing),
        success_rate: RateDetection {
            minimum_hosts: success_rate_minimum_hosts.unwrap_or(MINIMUM_HOSTS),
            request_volume: success_rate_request_volume.unwrap_or(SUCCESS_RATE_REQUEST_VOLUME),
            bound: success_rate_stdev_factor.unwrap_or(SUCCESS_RATE_STDEV_FACTOR),
        },
        failure_percentage: RateDetection {
            minimum_hosts: failure_percentage_minimum_hosts.unwrap_or(MINIMUM_HOSTS),
            request_volume: failure_percentage_request_volume.unwrap_or(FAILURE_PERCENTAGE_REQUEST_VOLUME),
            bound: percent(
                "failure_percentage_threshold",
                *failure_percentage_threshold,
                FAILURE_PERCENTAGE_THRESHOLD,
            ),
        },
        interval: at.positive("interval", interval).unwrap_or(INTERVAL),
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter: at
            .duration("max_ejection_time_jitter", max_ejection_time_jitter)
            .unwrap_or_default(),
        max_ejection_percent: percent("max_ejection_percent", *max_ejection_percent, MAX_EJECTION_PERCENT),
        always_eject_one_host: always_eject_one_host.unwrap_or(false),
        successful_active_health_check_uneject_host: successful_active_health_check_uneject_host
            .unwrap_or(true),
    }
}
