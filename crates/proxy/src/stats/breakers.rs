//! The gauges of circuit breakers: what is open, and how much is left.
//!
//! Nothing is counted for them: they are read off the state that all workers share when somebody asks. Source:
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats#circuit-breakers-statistics>.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use meltemi_compile::program::CircuitBreaker;

use crate::upstream::shared::{Breaker, ClusterState};

/// The breakers of a cluster, as the statistics see them.
#[derive(Debug)]
pub struct Breakers {
    /// What is in use. The statistics do not keep it alive.
    pub state: Weak<ClusterState>,
    /// The limits, by priority.
    pub limits: [CircuitBreaker; 2],
}

/// One resource: its names, what is in use, and the limit.
struct Resource {
    open: &'static str,
    remaining: &'static str,
    used: u32,
    limit: u64,
}

impl Breakers {
    /// Shows every gauge with its name below the cluster's, such as `circuit_breakers.default.cx_open`.
    pub fn visit(&self, mut visit: impl FnMut(String, u64)) {
        let Some(state) = self.state.upgrade() else { return };
        for (priority, name) in ["default", "high"].into_iter().enumerate() {
            let limits = &self.limits[priority];
            for resource in resources(&state.breakers[priority], limits) {
                let Resource { open, remaining, used, limit } = resource;
                visit(format!("circuit_breakers.{name}.{open}"), u64::from(u64::from(used) >= limit));
                if limits.track_remaining {
                    let left = limit.saturating_sub(used.into());
                    visit(format!("circuit_breakers.{name}.{remaining}"), left);
                }
            }
        }
    }
}

fn resources(used: &Breaker, limits: &CircuitBreaker) -> [Resource; 5] {
    let pending = used.pending.load(Ordering::Relaxed);
    let requests = used.requests.load(Ordering::Relaxed);
    let retries = match limits.retry_budget {
        Some(budget) => budget.max_retries(pending.saturating_add(requests)),
        None => limits.max_retries,
    };
    let resource = |open, remaining, used, limit| Resource { open, remaining, used, limit };
    [
        resource(
            "cx_open",
            "remaining_cx",
            used.connections.load(Ordering::Relaxed),
            limits.max_connections.into(),
        ),
        resource("cx_pool_open", "remaining_cx_pools", 0, u64::MAX),
        resource("rq_open", "remaining_rq", requests, limits.max_requests.into()),
        resource("rq_pending_open", "remaining_pending", pending, limits.max_pending_requests.into()),
        resource("rq_retry_open", "remaining_retries", used.retries.load(Ordering::Relaxed), retries.into()),
    ]
}
