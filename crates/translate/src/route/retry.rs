//! Retry policies.
//!
//! Source: Istio `pilot/pkg/networking/core/route/retry`: without a policy two retries of what surely or probably
//! reached nobody, on another host than those tried.

use meltemi_api::istio::HttpRetry;
use meltemi_envoy::config::route::v3::RetryPolicy;
use meltemi_envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, retry_host_predicate,
};
use meltemi_envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use crate::message::{duration, packed};

const DEFAULT_ATTEMPTS: u32 = 2;
const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const BY_STATUS_CODE: &str = "retriable-status-codes";
/// How often another host is looked for before the same one is taken again.
const HOST_SELECTION_ATTEMPTS: i64 = 5;

/// The policy of an outbound route; `None` when it forbids retries.
pub(super) fn policy(retries: Option<&HttpRetry>) -> Option<RetryPolicy> {
    let Some(retries) = retries else { return Some(mesh_default()) };
    let attempts = u32::try_from(retries.attempts.unwrap_or(0)).unwrap_or(0);
    if attempts == 0 {
        return None;
    }
    let mut policy = RetryPolicy {
        num_retries: Some(attempts),
        per_try_timeout: retries.per_try_timeout.filter(|t| !t.is_zero()).map(duration),
        retry_back_off: retries
            .backoff
            .map(|base| RetryBackOff { base_interval: Some(duration(base)), ..Default::default() }),
        ..mesh_default()
    };
    if let Some(on) = retries.retry_on.as_deref().filter(|on| !on.trim().is_empty()) {
        (policy.retry_on, policy.retriable_status_codes) = conditions(on);
    }
    if retries.retry_ignore_previous_hosts == Some(false) {
        policy.retry_host_predicate.clear();
        policy.host_selection_retry_max_attempts = 0;
    }
    Some(policy)
}

/// The policy where nothing is said.
pub(super) fn mesh_default() -> RetryPolicy {
    let previous_hosts = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(packed::<PreviousHostsPredicate>())),
    };
    RetryPolicy {
        retry_on: DEFAULT_RETRY_ON.to_owned(),
        num_retries: Some(DEFAULT_ATTEMPTS),
        retry_host_predicate: vec![previous_hosts],
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        ..Default::default()
    }
}

/// The policy towards the local application.
pub(super) fn inbound() -> RetryPolicy {
    RetryPolicy {
        retry_on: "reset-before-request".to_owned(),
        num_retries: Some(DEFAULT_ATTEMPTS),
        ..Default::default()
    }
}

/// Numbers in the list are status codes, which take part only under their own condition.
fn conditions(retry_on: &str) -> (String, Vec<u32>) {
    let mut names: Vec<&str> = Vec::new();
    let mut codes = Vec::new();
    for word in retry_on.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        match word.parse() {
            Ok(code) => codes.push(code),
            Err(_) => names.push(word),
        }
    }
    if !codes.is_empty() && !names.contains(&BY_STATUS_CODE) {
        names.push(BY_STATUS_CODE);
    }
    (names.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_bring_their_condition() {
        assert_eq!(conditions("5xx, 503,429"), ("5xx,retriable-status-codes".to_owned(), vec![503, 429]));
        assert_eq!(conditions("retriable-status-codes,503").0, "retriable-status-codes");
        assert_eq!(conditions("reset").0, "reset");
    }

    #[test]
    fn zero_attempts_forbid_retries() {
        let none = HttpRetry { attempts: Some(0), ..Default::default() };
        assert_eq!(policy(Some(&none)), None);
        assert_eq!(policy(None).and_then(|p| p.num_retries), Some(DEFAULT_ATTEMPTS));
    }
}
