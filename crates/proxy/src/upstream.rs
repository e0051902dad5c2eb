//! Upstream clusters of a worker: hosts, balancers, pools, circuit breakers, outlier detection.
//!
//! A [`Cluster`] belongs to one generation of the configuration; what must outlive it is taken over from the one
//! before: pools by address while the cluster's own configuration is the same, shared host state always.

mod balancer;
mod health;
mod host;
pub(crate) mod outlier;
mod pick;
pub(crate) mod pool;
pub mod shared;
mod totals;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use meltemi_compile::program::{self, Endpoints};

pub(crate) use self::host::{ActiveRequest, Host};
pub(crate) use self::pick::PickContext;

use self::balancer::Balancer;
use self::pool::Pool;
use self::shared::{ClusterState, HostStates};
use crate::stats::{ClusterStats, WorkerStats};

/// A cluster as one worker uses it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: Arc<program::Cluster>,
    pub(crate) stats: Arc<ClusterStats>,
    pub(crate) shared: Arc<ClusterState>,
    endpoints: Option<Arc<Endpoints>>,
    hosts: Vec<Rc<Host>>,
    levels: Vec<Vec<usize>>,
    balancer: RefCell<Balancer>,
    health_epoch: Cell<u64>,
}

/// `policy.overprovisioning_factor` when there are no endpoints yet.
const OVERPROVISIONING_PERCENT: u32 = 140;

impl Cluster {
    /// The cluster of the next generation; the old one itself when nothing changed.
    pub(crate) fn next(
        old: Option<&Rc<Cluster>>,
        config: &Arc<program::Cluster>,
        endpoints: Option<&Arc<Endpoints>>,
        stats: &WorkerStats,
        states: &HostStates,
    ) -> Rc<Cluster> {
        let same_config = old.filter(|old| old.config.digest == config.digest);
        if let Some(old) = same_config.filter(|old| same_endpoints(old.endpoints.as_ref(), endpoints)) {
            return old.clone();
        }
        let shared = states.cluster(config);
        let mut built = Cluster::empty(config, endpoints, stats.cluster(config), shared);
        let pools = same_config.map(|old| old.pools()).unwrap_or_default();
        built.add_hosts(&pools);
        built.take_turn(same_config);
        built.close_unused(old);
        Rc::new(built)
    }

    fn empty(
        config: &Arc<program::Cluster>,
        endpoints: Option<&Arc<Endpoints>>,
        stats: Arc<ClusterStats>,
        shared: Arc<ClusterState>,
    ) -> Cluster {
        let no_hosts: [Rc<Host>; 0] = [];
        Cluster {
            config: config.clone(),
            stats,
            shared,
            endpoints: endpoints.cloned(),
            hosts: Vec::new(),
            levels: Vec::new(),
            balancer: RefCell::new(Balancer::new(
                config.lb.policy,
                0.0,
                OVERPROVISIONING_PERCENT,
                &no_hosts,
                &[],
            )),
            health_epoch: Cell::new(0),
        }
    }

    fn add_hosts(&mut self, pools: &HashMap<SocketAddr, Rc<Pool>>) {
        let Some(endpoints) = self.endpoints.clone() else { return };
        for level in &endpoints.priorities {
            let mut indices = Vec::with_capacity(level.len());
            for host in level {
                indices.push(self.hosts.len());
                let pool = pools.get(&host.address).cloned().unwrap_or_else(|| self.new_pool(host));
                let state = self.shared.host(host.address);
                self.hosts.push(Rc::new(Host::new(host, pool, state, self.stats.host(host))));
            }
            self.levels.push(indices);
        }
        self.shared
            .outlier
            .hosts
            .store(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn new_pool(&self, host: &program::Host) -> Rc<Pool> {
        let host_stats = self.stats.host(host);
        Rc::new(Pool::new(
            host.address,
            self.config.clone(),
            self.stats.clone(),
            host_stats,
            self.shared.clone(),
        ))
    }

    fn take_turn(&mut self, old: Option<&Rc<Cluster>>) {
        self.health_epoch.set(self.shared.health_epoch.load(Ordering::Relaxed));
        let overprovisioning =
            self.endpoints.as_ref().map_or(OVERPROVISIONING_PERCENT, |e| e.overprovisioning_factor_percent);
        let turns = old.map(|old| old.balancer.borrow().turns()).unwrap_or_default();
        let panic_threshold = f64::from(self.config.lb.panic_threshold_percent);
        let mut balancer = Balancer::new(
            self.config.lb.policy,
            panic_threshold,
            overprovisioning,
            &self.hosts,
            &self.levels,
        );
        balancer.resume(&turns);
        self.balancer = RefCell::new(balancer);
    }

    /// Pools that this generation no longer uses.
    fn close_unused(&self, old: Option<&Rc<Cluster>>) {
        for host in old.iter().flat_map(|old| &old.hosts) {
            if !self.hosts.iter().any(|new| Rc::ptr_eq(&new.pool, &host.pool)) {
                host.pool.close();
            }
        }
    }

    fn pools(&self) -> HashMap<SocketAddr, Rc<Pool>> {
        self.hosts.iter().map(|host| (host.address, host.pool.clone())).collect()
    }

    /// The host for the next request. With hosts to avoid it draws again, at most `attempts` further times, and takes
    /// whatever came last.
    pub(crate) fn pick(&self, context: &PickContext<'_>) -> Option<Rc<Host>> {
        let mut host = self.draw()?;
        for _ in 0..context.attempts {
            if !context.avoid.contains(&host.address) {
                break;
            }
            host = self.draw()?;
        }
        Some(host.clone())
    }

    fn draw(&self) -> Option<&Rc<Host>> {
        let mut balancer = self.balancer.borrow_mut();
        let epoch = self.shared.health_epoch.load(Ordering::Relaxed);
        if self.health_epoch.replace(epoch) != epoch {
            balancer.refresh(&self.hosts, &self.levels);
        }
        balancer.pick(&self.hosts).map(|index| &self.hosts[index])
    }

    /// Whether a pick reads [`PickContext::hash`]; without, it is not worth computing.
    pub(crate) fn uses_hash(&self) -> bool {
        self.config.lb.policy.is_hashing()
    }

    /// How many retries may be under way: a fixed number, or a part of the requests.
    pub(crate) fn max_retries(&self, priority: usize) -> u32 {
        let breaker = &self.config.circuit_breakers[priority];
        let Some(budget) = breaker.retry_budget else { return breaker.max_retries };
        let used = &self.shared.breakers[priority];
        let requests =
            used.pending.load(Ordering::Relaxed).saturating_add(used.requests.load(Ordering::Relaxed));
        budget.max_retries(requests)
    }

    /// All hosts, of every priority.
    pub(crate) fn hosts(&self) -> &[Rc<Host>] {
        &self.hosts
    }

    /// Closes idle connections for good: the cluster is gone.
    pub(crate) fn close(&self) {
        self.hosts.iter().for_each(|host| host.pool.close());
    }
}

fn same_endpoints(old: Option<&Arc<Endpoints>>, new: Option<&Arc<Endpoints>>) -> bool {
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
        _ => false,
    }
}
