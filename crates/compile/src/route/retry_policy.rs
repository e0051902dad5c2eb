//! `RetryPolicy` from its message.

use std::time::Duration;

use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::retry_policy::RetryHostPredicate;
use meltemi_envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use meltemi_envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use super::{RetryOn, RetryPolicy};
use crate::ledger::{At, refuse};

/// `retry_back_off.base_interval` when it is not set.
const BACK_OFF_BASE: Duration = Duration::from_millis(25);
/// `max_interval` when it is not set, as a multiple of the base.
const BACK_OFF_MAX_FACTOR: u32 = 10;

/// Compiles a retry policy.
pub(super) fn retry_policy(at: &At<'_>, message: &proto::RetryPolicy) -> Option<RetryPolicy> {
    let proto::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = message;
    refuse!(at; retry_priority, retry_options_predicates, rate_limited_retry_back_off);
    refuse!(at; retriable_headers, retriable_request_headers, refresh_cluster_on_retry);
    let (on, unknown) = RetryOn::parse(retry_on);
    if let Some(name) = unknown {
        at.field("retry_on").reject(format_args!("unknown condition {name:?}"));
    }
    let predicates = at.each("retry_host_predicate", retry_host_predicate, host_predicate);
    let (back_off_base, back_off_max) = match retry_back_off {
        Some(back_off) => self::back_off(&at.field("retry_back_off"), back_off)?,
        None => (BACK_OFF_BASE, BACK_OFF_BASE * BACK_OFF_MAX_FACTOR),
    };
    Some(RetryPolicy {
        on,
        num_retries: num_retries.unwrap_or(1),
        per_try_timeout: at.timeout("per_try_timeout", per_try_timeout, None),
        per_try_idle_timeout: at.timeout("per_try_idle_timeout", per_try_idle_timeout, None),
        retriable_status_codes: status_codes(at, retriable_status_codes),
        back_off_base,
        back_off_max,
        avoid_previous_hosts: !predicates.is_empty(),
        host_selection_attempts: attempts(at, *host_selection_retry_max_attempts)?,
    })
}

fn status_codes(at: &At<'_>, codes: &[u32]) -> Vec<u16> {
    let mut codes = at.each("retriable_status_codes", codes, |at, code| match u16::try_from(*code) {
        Ok(code) => Some(code),
        Err(_) => at.none("not a status code"),
    });
    codes.sort_unstable();
    codes.dedup();
    codes
}

fn attempts(at: &At<'_>, attempts: i64) -> Option<u32> {
    match u32::try_from(attempts) {
        Ok(0) => Some(1),
        Ok(attempts) => Some(attempts),
        Err(_) => at.field("host_selection_retry_max_attempts").none("out of range"),
    }
}

/// The one predicate that is supported; other names are refused.
fn host_predicate(at: &At<'_>, message: &RetryHostPredicate) -> Option<()> {
    let RetryHostPredicate { name, config_type } = message;
    at.required("name", name);
    match config_type {
        Some(ConfigType::TypedConfig(any)) => match any.unpack::<PreviousHostsPredicate>() {
            Ok(PreviousHostsPredicate {}) => Some(()),
            Err(error) => at.field("typed_config").none(error),
        },
        None if name == "envoy.retry_host_predicates.previous_hosts" => Some(()),
        None => at.none(format_args!("not supported yet: {name}")),
    }
}

fn back_off(at: &At<'_>, message: &proto::retry_policy::RetryBackOff) -> Option<(Duration, Duration)> {
    let proto::retry_policy::RetryBackOff { base_interval, max_interval } = message;
    let Some(base) = at.positive("base_interval", base_interval) else {
        return at.field("base_interval").none("must be set, longer than 0");
    };
    // Envoy's timers count milliseconds.
    let base = base.max(Duration::from_millis(1));
    let max =
        at.positive("max_interval", max_interval).unwrap_or_else(|| base.saturating_mul(BACK_OFF_MAX_FACTOR));
    if max < base {
        return at.field("max_interval").none("must not be shorter than base_interval");
    }
    Some((base, max))
}
