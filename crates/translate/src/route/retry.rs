//! Retry policies.
//!
//! Source: Istio `pilot/pkg/networking/core/route/retry`: without a policy two retries of what surely or probably
//! reached nobody, on another host than those tried.

use meltemi_envoy::Any;
use meltemi_envoy::config::route::v3::RetryPolicy;
use meltemi_envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use meltemi_envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use meltemi_envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use meltemi_snapshot::route::Retries;

use crate::message::{duration, packed};

const DEFAULT_ATTEMPTS: u32 = 2;
const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const BY_STATUS_CODE: &str = "retriable-status-codes";
/// How often another host is looked for before the same one is taken again.
const HOST_SELECTION_ATTEMPTS: i64 = 5;
/// After how many retries the priorities that were tried are left out of the choice.
const PRIORITY_UPDATE_FREQUENCY: i32 = 2;

/// The policy of an outbound route, where nothing is said the default; `None` when it forbids retries. A request that
/// `is_hashed` belongs to its host, so a retry may go to it again.
pub(super) fn policy(retries: Option<&Retries>, is_hashed: bool) -> Option<RetryPolicy> {
    let default = default(!is_hashed);
    let Some(retries) = retries else { return Some(default) };
    if retries.attempts == 0 {
        return None;
    }
    let mut policy = RetryPolicy {
        num_retries: Some(retries.attempts),
        per_try_timeout: retries.per_try_timeout.filter(|t| !t.is_zero()).map(duration),
        retry_priority: retries.reaches_remote_localities.then(previous_priorities),
        retry_back_off: retries
            .backoff
            .map(|base| RetryBackOff { base_interval: Some(duration(base)), ..Default::default() }),
        ..default
    };
    if !retries.on.trim().is_empty() {
        (policy.retry_on, policy.retriable_status_codes) = conditions(&retries.on);
    }
    if let Some(ignores) = retries.ignores_previous_hosts {
        policy.retry_host_predicate = if ignores { vec![previous_hosts()] } else { Vec::new() };
    }
    Some(policy)
}

fn default(ignores_previous_hosts: bool) -> RetryPolicy {
    RetryPolicy {
        retry_on: DEFAULT_RETRY_ON.to_owned(),
        num_retries: Some(DEFAULT_ATTEMPTS),
        retry_host_predicate: if ignores_previous_hosts { vec![previous_hosts()] } else { Vec::new() },
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        ..Default::default()
    }
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(packed::<PreviousHostsPredicate>())),
    }
}

fn previous_priorities() -> RetryPriority {
    let config = PreviousPrioritiesConfig { update_frequency: PRIORITY_UPDATE_FREQUENCY };
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(Any::pack(&config))),
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
        assert_eq!(policy(Some(&Retries::default()), false), None);
        assert_eq!(policy(None, false).and_then(|p| p.num_retries), Some(DEFAULT_ATTEMPTS));
    }

    #[test]
    fn a_hashed_request_may_go_to_its_host_again() {
        let avoids = |is_hashed, ignores_previous_hosts| {
            let retries = Retries { attempts: 1, ignores_previous_hosts, ..Default::default() };
            !policy(Some(&retries), is_hashed).expect("a policy").retry_host_predicate.is_empty()
        };
        assert!(avoids(false, None) && !avoids(true, None));
        assert!(avoids(true, Some(true)) && !avoids(false, Some(false)));
    }
}
