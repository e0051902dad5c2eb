//! One host of a cluster, and a request that is under way on it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use meltemi_compile::program;

use super::balancer::Candidate;
use super::pick::PickContext;
use super::pool::Pool;
use super::shared::{HostState, Permit};
use crate::stats::HostStats;

/// A host as discovery describes it, with the pool of its address.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) hostname: Box<str>,
    weight: u32,
    /// The priority that it belongs to.
    pub(crate) priority: u32,
    /// `omit_canary_hosts` rejects it.
    is_canary: bool,
    pub(crate) state: Arc<HostState>,
    /// What is counted for the address; with its workload, for metrics.
    pub(crate) stats: Arc<HostStats>,
    pub(crate) pool: Rc<Pool>,
}

impl Host {
    pub(super) fn new(
        host: &program::Host,
        priority: u32,
        pool: Rc<Pool>,
        state: Arc<HostState>,
        stats: Arc<HostStats>,
    ) -> Host {
        Host {
            address: host.address,
            hostname: host.hostname.clone(),
            weight: host.weight,
            priority,
            is_canary: host.is_canary(),
            state,
            stats,
            pool,
        }
    }
}

impl Host {
    /// Whether a retry would rather have another host.
    pub(super) fn is_rejected_by(&self, context: &PickContext<'_>) -> bool {
        context.avoid.contains(&self.address) || (context.omit_canary && self.is_canary)
    }
}

impl Candidate for Rc<Host> {
    fn weight(&self) -> u32 {
        self.weight
    }

    fn active_requests(&self) -> u32 {
        self.state.active_requests.load(Ordering::Relaxed)
    }

    fn healthy_since(&self) -> Option<Instant> {
        self.state.healthy_since()
    }
}

/// A request on a host, as balancers, breakers and statistics count it; until dropped.
#[derive(Debug)]
pub(crate) struct ActiveRequest {
    host: Rc<Host>,
    _permit: Permit,
}

impl ActiveRequest {
    pub(crate) fn new(host: Rc<Host>, permit: Permit) -> ActiveRequest {
        host.state.active_requests.fetch_add(1, Ordering::Relaxed);
        let counts = &host.pool.stats.counts;
        counts.upstream_rq_total.inc();
        counts.upstream_rq_active.inc();
        host.stats.counts.rq_total.inc();
        host.stats.counts.rq_active.inc();
        ActiveRequest { host, _permit: permit }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.host.state.active_requests.fetch_sub(1, Ordering::Relaxed);
        self.host.pool.stats.counts.upstream_rq_active.dec();
        self.host.stats.counts.rq_active.dec();
    }
}
