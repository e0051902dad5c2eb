//! State of hosts and breakers that all workers share: atomics, keyed by cluster and address.
//!
//! Lives outside the `Program`, so that it survives configuration swaps. The maps are touched when a cluster is
//! built, never by a request; a request holds the `Arc`s.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use meltemi_compile::program::Name;

pub use super::health::{Health, HealthFlag, HealthFlags};

/// All shared states of a process.
#[derive(Debug, Default)]
pub struct HostStates {
    clusters: Mutex<HashMap<Name, Arc<ClusterState>>>,
    active_faults: Mutex<HashMap<Name, Arc<AtomicU32>>>,
}

impl HostStates {
    /// The state of a cluster, made when it is new.
    pub fn cluster(&self, name: &Name) -> Arc<ClusterState> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.entry(name.clone()).or_default().clone()
    }

    /// Faults under way under a `stat_prefix` of connection managers.
    pub fn active_faults(&self, prefix: &Name) -> Arc<AtomicU32> {
        let mut faults = self.active_faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|name, count| name == prefix || Arc::strong_count(count) > 1);
        faults.entry(prefix.clone()).or_default().clone()
    }

    /// Forgets clusters that no worker uses any more.
    pub fn forget_unused(&self) {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.retain(|_, state| Arc::strong_count(state) > 1);
    }
}

/// What is shared of one cluster.
#[derive(Debug, Default)]
pub struct ClusterState {
    /// Resources in use by priority (default, high).
    pub breakers: [Breaker; 2],
    /// Changes with every ejection and return, so that balancers see that their list of healthy hosts is old.
    pub(crate) health_epoch: AtomicU64,
    /// Hosts that outlier detection has ejected now.
    pub(crate) ejected: AtomicU32,
    hosts: Mutex<HashMap<SocketAddr, Arc<HostState>>>,
}

impl ClusterState {
    /// The state of a host, made when it is new.
    pub fn host(&self, address: SocketAddr) -> Arc<HostState> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.entry(address).or_default().clone()
    }

    /// Forgets hosts that no worker uses any more; an ejected one is no longer counted.
    pub(crate) fn forget_unused(&self) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, state| {
            let used = Arc::strong_count(state) > 1;
            if !used && state.flags.has(HealthFlag::FailedOutlierCheck) {
                self.ejected.fetch_sub(1, Ordering::Relaxed);
            }
            used
        });
    }
}

/// Resources in use, against the limits of `CircuitBreakers.Thresholds`.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Open connections.
    pub connections: AtomicU32,
    /// Requests that wait for a connection.
    pub pending: AtomicU32,
    /// Requests in flight.
    pub requests: AtomicU32,
    /// Retries in flight.
    pub retries: AtomicU32,
}

/// One host, as all workers see it.
#[derive(Debug, Default)]
pub struct HostState {
    /// Requests in flight.
    pub active_requests: AtomicU32,
    /// What checks say of it.
    pub flags: HealthFlags,
    /// 5xx in a row.
    pub(crate) consecutive_5xx: AtomicU32,
    /// Gateway failures in a row.
    pub(crate) consecutive_gateway: AtomicU32,
    /// How often it was ejected lately: the factor of `base_ejection_time`.
    pub(crate) ejections: AtomicU32,
    /// When it was ejected, in milliseconds since the process began.
    pub(crate) ejected_at_ms: AtomicU64,
}

impl HostState {
    /// How fit the host is, given what discovery says of it.
    pub fn health(&self, discovered: Health) -> Health {
        discovered.min(self.flags.health())
    }

    /// Whether the host does not count at all when a balancer works out which part of its hosts is fit: it was never
    /// checked (`ignore_new_hosts_until_first_hc`), or said itself that it is to be left out.
    pub fn is_excluded(&self) -> bool {
        self.flags.is_excluded()
    }
}

/// A resource that a breaker counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resource {
    Connections,
    Pending,
    Requests,
    Retries,
}

impl Breaker {
    fn counter(&self, resource: Resource) -> &AtomicU32 {
        match resource {
            Resource::Connections => &self.connections,
            Resource::Pending => &self.pending,
            Resource::Requests => &self.requests,
            Resource::Retries => &self.retries,
        }
    }
}

/// One unit of a limited resource; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    state: Arc<ClusterState>,
    priority: usize,
    resource: Resource,
}

impl Permit {
    /// Takes a unit unless `limit` are in use.
    pub(crate) fn take(
        state: &Arc<ClusterState>,
        priority: usize,
        resource: Resource,
        limit: u32,
    ) -> Option<Permit> {
        let counter = state.breakers[priority].counter(resource);
        if counter.fetch_add(1, Ordering::Relaxed) >= limit {
            counter.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit { state: state.clone(), priority, resource })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.breakers[self.priority].counter(self.resource).fetch_sub(1, Ordering::Relaxed);
    }
}
