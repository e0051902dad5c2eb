//! Circuit breakers: how much of each resource a cluster may use at once.
//!
//! Source: `envoy.config.cluster.v3.CircuitBreakers`. Of several entries for a priority the first counts.

use meltemi_envoy::config::cluster::v3::CircuitBreakers;
use meltemi_envoy::config::cluster::v3::circuit_breakers::Thresholds;
use meltemi_envoy::config::cluster::v3::circuit_breakers::thresholds;
use meltemi_envoy::config::core::v3::RoutingPriority;

use crate::ledger::{At, refuse};
use crate::program::{CircuitBreaker, RetryBudget};

/// The compiled `circuit_breakers`, by priority (default, high).
#[derive(Default)]
pub(super) struct Breakers {
    pub(super) thresholds: [CircuitBreaker; 2],
    pub(super) max_host_connections: [u32; 2],
}

/// Compiles circuit breakers; without any the defaults hold.
pub(super) fn compile(at: &At<'_>, message: Option<&CircuitBreakers>) -> Breakers {
    let mut breakers = Breakers { max_host_connections: [u32::MAX; 2], ..Breakers::default() };
    let Some(CircuitBreakers { thresholds, per_host_thresholds }) = message else { return breakers };
    let at = &at.field("circuit_breakers");
    for (priority, breaker) in by_priority(at, "thresholds", thresholds, breaker) {
        breakers.thresholds[priority] = breaker;
    }
    for (priority, maximum) in by_priority(at, "per_host_thresholds", per_host_thresholds, host_maximum) {
        breakers.max_host_connections[priority] = maximum;
    }
    breakers
}

/// The entries that count, with their priorities.
fn by_priority<T>(
    at: &At<'_>,
    field: &'static str,
    entries: &[Thresholds],
    compile: impl Fn(&At<'_>, &Thresholds) -> T,
) -> Vec<(usize, T)> {
    let mut found: Vec<(usize, T)> = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let at = at.item(field, i);
        let Some(priority) = at.choice::<RoutingPriority>("priority", entry.priority) else { continue };
        let priority = usize::from(priority == RoutingPriority::High);
        let compiled = compile(&at, entry);
        if found.iter().all(|(known, _)| *known != priority) {
            found.push((priority, compiled));
        }
    }
    found
}

fn breaker(at: &At<'_>, message: &Thresholds) -> CircuitBreaker {
    let Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = message;
    // A pool here belongs to a host and lives as long as it does, so there is nothing to make room for.
    refuse!(at; max_connection_pools);
    let defaults = CircuitBreaker::default();
    CircuitBreaker {
        max_connections: max_connections.unwrap_or(defaults.max_connections),
        max_pending_requests: max_pending_requests.unwrap_or(defaults.max_pending_requests),
        max_requests: max_requests.unwrap_or(defaults.max_requests),
        max_retries: max_retries.unwrap_or(defaults.max_retries),
        retry_budget: retry_budget.as_ref().map(|budget| self::budget(&at.field("retry_budget"), budget)),
        track_remaining: *track_remaining,
    }
}

fn budget(at: &At<'_>, message: &thresholds::RetryBudget) -> RetryBudget {
    let thresholds::RetryBudget { budget_percent, budget_interval, min_retry_concurrency } = message;
    refuse!(at; budget_interval);
    let percent = budget_percent.as_ref().map_or(20.0, |percent| percent.value);
    if !(0.0..=100.0).contains(&percent) {
        at.field("budget_percent").field("value").reject("must be between 0 and 100");
    }
    RetryBudget { percent, min_concurrency: min_retry_concurrency.unwrap_or(3) }
}

/// Of a threshold per host only the connections may be limited, as in Envoy.
fn host_maximum(at: &At<'_>, message: &Thresholds) -> u32 {
    let Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = message;
    refuse!(at; max_pending_requests, max_requests, max_retries, retry_budget, max_connection_pools);
    refuse!(at; track_remaining);
    max_connections.unwrap_or(u32::MAX)
}
