//! `RetryPolicy` from its message.

use std::time::Duration;

use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeaderFormat, RetryHostPredicate, RetryPriority, retry_host_predicate,
    retry_priority,
};
use meltemi_envoy::extensions::retry::host::omit_canary_hosts::v3::OmitCanaryHostsPredicate;
use meltemi_envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use meltemi_envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use super::{RetryOn, RetryPolicy};
use crate::extension::{unknown, unpack};
use crate::ledger::{At, refuse};
use crate::matcher::header_matcher;
use crate::retry::{BackOff, RateLimitedBackOff, ResetFormat, ResetHeader};

/// `max_interval` when it is not set, as a multiple of the base.
const BACK_OFF_MAX_FACTOR: u32 = 10;
/// `rate_limited_retry_back_off.max_interval` when it is not set.
const RATE_LIMITED_MAX: Duration = Duration::from_secs(300);

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
    refuse!(at; retry_options_predicates, refresh_cluster_on_retry);
    let (on, unknown) = RetryOn::parse(retry_on);
    if let Some(name) = unknown {
        at.field("retry_on").reject(format_args!("unknown condition {name:?}"));
    }
    let predicates = at.each("retry_host_predicate", retry_host_predicate, host_predicate);
    let priority =
        retry_priority.as_ref().map(|plugin| previous_priorities(&at.field("retry_priority"), plugin));
    let limited = rate_limited_retry_back_off
        .as_ref()
        .map(|back_off| rate_limited(&at.field("rate_limited_retry_back_off"), back_off));
    Some(RetryPolicy {
        on,
        num_retries: num_retries.unwrap_or(1),
        per_try_timeout: at.timeout("per_try_timeout", per_try_timeout, None),
        per_try_idle_timeout: at.timeout("per_try_idle_timeout", per_try_idle_timeout, None),
        retriable_status_codes: status_codes(at, retriable_status_codes),
        retriable_headers: at.each("retriable_headers", retriable_headers, header_matcher),
        retriable_request_headers: at.each(
            "retriable_request_headers",
            retriable_request_headers,
            header_matcher,
        ),
        back_off: match retry_back_off {
            Some(message) => back_off(&at.field("retry_back_off"), message)?,
            None => BackOff::default(),
        },
        rate_limited: limited.flatten(),
        avoid_previous_hosts: predicates.contains(&HostPredicate::PreviousHosts),
        omit_canary_hosts: predicates.contains(&HostPredicate::OmitCanaryHosts),
        host_selection_attempts: attempts(at, *host_selection_retry_max_attempts)?,
        previous_priorities: priority.flatten(),
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

/// The predicates that are supported; others are refused by their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostPredicate {
    PreviousHosts,
    OmitCanaryHosts,
}

fn host_predicate(at: &At<'_>, message: &RetryHostPredicate) -> Option<HostPredicate> {
    let RetryHostPredicate { name, config_type } = message;
    at.required("name", name);
    let Some(retry_host_predicate::ConfigType::TypedConfig(any)) = config_type else {
        return match name.as_str() {
            "envoy.retry_host_predicates.previous_hosts" => Some(HostPredicate::PreviousHosts),
            "envoy.retry_host_predicates.omit_canary_hosts" => Some(HostPredicate::OmitCanaryHosts),
            _ => at.none(format_args!("not supported yet: {name}")),
        };
    };
    let at = at.field("typed_config");
    if any.is::<PreviousHostsPredicate>() {
        return unpack(&at, any).map(|PreviousHostsPredicate {}| HostPredicate::PreviousHosts);
    }
    if any.is::<OmitCanaryHostsPredicate>() {
        return unpack(&at, any).map(|OmitCanaryHostsPredicate {}| HostPredicate::OmitCanaryHosts);
    }
    unknown(&at, name, any)
}

/// The one priority plugin that there is; gives its `update_frequency`.
fn previous_priorities(at: &At<'_>, message: &RetryPriority) -> Option<u32> {
    let RetryPriority { name, config_type } = message;
    at.required("name", name);
    let Some(retry_priority::ConfigType::TypedConfig(any)) = config_type else {
        return at.field("typed_config").none("must be set");
    };
    let at = at.field("typed_config");
    if !any.is::<PreviousPrioritiesConfig>() {
        return unknown(&at, name, any);
    }
    let PreviousPrioritiesConfig { update_frequency } = unpack(&at, any)?;
    match u32::try_from(update_frequency) {
        Ok(0) | Err(_) => at.field("update_frequency").none("must be greater than 0"),
        Ok(frequency) => Some(frequency),
    }
}

fn back_off(at: &At<'_>, message: &proto::retry_policy::RetryBackOff) -> Option<BackOff> {
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
    Some(BackOff { base, max })
}

fn rate_limited(at: &At<'_>, message: &RateLimitedRetryBackOff) -> Option<RateLimitedBackOff> {
    let RateLimitedRetryBackOff { reset_headers, max_interval } = message;
    if reset_headers.is_empty() {
        return at.field("reset_headers").none("must not be empty");
    }
    let headers = at.each("reset_headers", reset_headers, |at, header| {
        let proto::retry_policy::ResetHeader { name, format } = header;
        let format = match at.choice("format", *format)? {
            ResetHeaderFormat::Seconds => ResetFormat::Seconds,
            ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
        };
        Some(ResetHeader { name: at.header_name("name", name)?, format })
    });
    let max_interval = at.positive("max_interval", max_interval).unwrap_or(RATE_LIMITED_MAX);
    Some(RateLimitedBackOff { headers, max_interval })
}
