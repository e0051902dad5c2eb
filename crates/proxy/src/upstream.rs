//! Upstream clusters of a worker: hosts, balancers, pools, circuit breakers, outlier detection.
//!
//! A [`Cluster`] belongs to one generation of the configuration; what must outlive it is taken over from the one
//! before: pools by address while the cluster's own configuration is the same, shared host state always.

mod balancer;
mod checks;
mod health;
mod host;
mod layouts;
mod original_dst;
pub(crate) mod outlier;
mod pick;
pub(crate) mod pool;
pub mod shared;
mod totals;
pub(crate) mod transport;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use meltemi_compile::program::{self, Endpoints};
use tokio::time::Instant;

pub(crate) use self::host::{ActiveRequest, Host};
pub(crate) use self::pick::PickContext;

use self::balancer::{Asked, Balancer};
use self::layouts::{Layouts, Spec};
use self::original_dst::OriginalHosts;
use self::pool::Pool;
use self::shared::{ClusterState, HostStates};
use self::transport::Transport;
use crate::random;
use crate::stats::{Breakers, ClusterStats, WorkerStats};

/// A cluster as one worker uses it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: Arc<program::Cluster>,
    pub(crate) stats: Arc<ClusterStats>,
    pub(crate) shared: Arc<ClusterState>,
    endpoints: Option<Arc<Endpoints>>,
    hosts: Vec<Rc<Host>>,
    /// What layouts are made of.
    spec: Arc<Spec>,
    balancer: RefCell<Balancer>,
    /// Of the health that `balancer` knows.
    health_epoch: Cell<u64>,
    /// The proxy's own cluster and its epoch, where zones matter.
    peers: RefCell<Option<(Weak<Cluster>, u64)>>,
    /// Of an `ORIGINAL_DST` cluster, in place of a balancer.
    original: Option<OriginalHosts>,
}

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
        let stats = stats.cluster(config);
        let shared = states.cluster(config);
        let limits = config.circuit_breakers;
        stats.set_breakers(Breakers { state: Arc::downgrade(&shared), limits });
        let keeps_pools = !config.lb.close_connections_on_host_set_change;
        let pools = same_config.filter(|_| keeps_pools).map(|old| old.pools()).unwrap_or_default();
        let hosts = endpoints.map(|endpoints| hosts(config, endpoints, &stats, &shared, &pools));
        let hosts = hosts.unwrap_or_default();
        let spec = Arc::new(Spec::new(
            config.clone(),
            endpoints.cloned().unwrap_or_default(),
            hosts.iter().map(|host| host.state.clone()).collect(),
            states.home().cloned(),
        ));
        shared.outlier.hosts.store(u32::try_from(hosts.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        let (layout, epoch) = shared.layouts.first(&spec, &shared.health_epoch);
        let balancer = {
            let turns = same_config.map(|old| old.balancer.borrow());
            Balancer::new(&config.lb, &layout, &hosts, turns.as_deref())
        };
        let built = Cluster {
            config: config.clone(),
            stats,
            shared,
            endpoints: endpoints.cloned(),
            hosts,
            spec,
            balancer: RefCell::new(balancer),
            health_epoch: Cell::new(epoch),
            peers: RefCell::default(),
            original: config.lb.original_dst.as_ref().map(OriginalHosts::new),
        };
        built.close_unused(old);
        Rc::new(built)
    }

    /// Pools that this generation no longer uses.
    fn close_unused(&self, old: Option<&Rc<Cluster>>) {
        if let Some(original) = old.and_then(|old| old.original.as_ref()) {
            original.close();
        }
        let used: HashSet<*const Pool> = self.hosts.iter().map(|host| Rc::as_ptr(&host.pool)).collect();
        for host in old.iter().flat_map(|old| &old.hosts) {
            if !used.contains(&Rc::as_ptr(&host.pool)) {
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
        if let Some(original) = &self.original {
            return self.original_host(original, context);
        }
        let mut asked = self.asked(context);
        let mut host = self.draw(&asked)?;
        for attempt in 1..=context.attempts {
            if !host.is_rejected_by(context) {
                break;
            }
            asked.attempt = attempt;
            host = self.draw(&asked)?;
        }
        Some(host.clone())
    }

    fn original_host(&self, original: &OriginalHosts, context: &PickContext<'_>) -> Option<Rc<Host>> {
        let address = original.destination(context, &self.stats.counts)?;
        let make = || {
            let host = program::Host { address, ..program::Host::default() };
            new_host(&self.config, 0, &host, &self.stats, &self.shared, None)
        };
        Some(original.host(address, make))
    }

    fn asked<'c>(&self, context: &PickContext<'c>) -> Asked<'c> {
        let mut asked = Asked {
            metadata: context.metadata,
            tried_priorities: context.tried_priorities,
            priority_update_frequency: context.priority_update_frequency,
            ..Asked::default()
        };
        if self.uses_hash() {
            // Without a hash the choice is random.
            asked.hash = context.hash.unwrap_or_else(random::next);
            let active = self.shared.breakers.iter().map(|breaker| breaker.requests.load(Ordering::Relaxed));
            asked.cluster_active = active.sum();
        }
        asked
    }

    fn draw(&self, asked: &Asked<'_>) -> Option<&Rc<Host>> {
        let epoch = self.shared.health_epoch.load(Ordering::Acquire);
        if self.health_epoch.get() != epoch {
            self.catch_up(epoch);
        }
        if self.peers.borrow().is_some() {
            self.follow_peers();
        }
        let number = self.balancer.borrow_mut().pick(&self.hosts, asked, &self.stats.counts)?;
        Some(&self.hosts[number as usize])
    }

    /// The health of hosts changed.
    fn catch_up(&self, epoch: u64) {
        let Some((layout, epoch)) = Layouts::next(&self.shared, &self.spec, epoch) else { return };
        self.health_epoch.set(epoch);
        let mut balancer = self.balancer.borrow_mut();
        *balancer = Balancer::new(&self.config.lb, &layout, &self.hosts, Some(&balancer));
        if let Some((_, seen)) = self.peers.borrow_mut().as_mut() {
            *seen = u64::MAX;
        }
    }

    /// Says which cluster holds the proxy's peers.
    pub(crate) fn set_peers(&self, peers: &Rc<Cluster>) {
        if self.balancer.borrow().knows_zones() {
            self.peers.replace(Some((Rc::downgrade(peers), u64::MAX)));
        }
    }

    /// Routes anew by zones when the proxy's peers changed.
    fn follow_peers(&self) {
        let mut slot = self.peers.borrow_mut();
        let Some((peers, seen)) = slot.as_mut() else { return };
        let Some(peers) = peers.upgrade() else { return };
        let epoch = peers.shared.health_epoch.load(Ordering::Acquire);
        if *seen == epoch {
            return;
        }
        *seen = epoch;
        if !std::ptr::eq(&*peers, self) && peers.health_epoch.get() != epoch {
            peers.catch_up(epoch);
        }
        // The peers may be the cluster itself.
        let zones = peers.balancer.borrow().peers();
        self.balancer.borrow_mut().route_by_zones(zones.as_ref(), &self.stats.counts);
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

    /// How many hosts are healthy, and how many there are.
    pub(crate) fn membership(&self) -> (u32, u32) {
        let discovered = self.endpoints.iter().flat_map(|endpoints| endpoints.priorities.iter().flatten());
        let is_healthy = |(host, state): &(&program::Host, &Rc<Host>)| {
            state.state.health(health::Health::from(host.health)) == health::Health::Healthy
        };
        let healthy = discovered.zip(&self.hosts).filter(is_healthy).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        (count(healthy), count(self.hosts.len()))
    }

    /// Closes idle connections in time.
    pub(crate) fn reap(&self, now: Instant) {
        for host in &self.hosts {
            host.pool.reap(now);
        }
        // What is shared of hosts goes with them: clients may name any number in time.
        if self.original.as_ref().is_some_and(|original| original.reap(now)) {
            self.shared.forget_unused();
        }
    }

    /// How many requests to refuse (`drop_overloads`), in parts per million.
    pub(crate) fn drop_overload_ppm(&self) -> u32 {
        self.endpoints.as_ref().map_or(0, |endpoints| endpoints.drop_overload_ppm)
    }

    /// Closes idle connections for good: the cluster is gone.
    pub(crate) fn close(&self) {
        self.hosts.iter().for_each(|host| host.pool.close());
        if let Some(original) = &self.original {
            original.close();
        }
    }
}

/// All hosts, with the pools that stay.
fn hosts(
    config: &Arc<program::Cluster>,
    endpoints: &Endpoints,
    stats: &Arc<ClusterStats>,
    shared: &Arc<ClusterState>,
    pools: &HashMap<SocketAddr, Rc<Pool>>,
) -> Vec<Rc<Host>> {
    let each = endpoints.priorities.iter().enumerate();
    let each = each.flat_map(|(priority, hosts)| hosts.iter().map(move |host| (priority, host)));
    each.map(|(priority, host)| {
        let pool = pools.get(&host.address);
        new_host(config, priority as u32, host, stats, shared, pool)
    })
    .collect()
}

/// A host, with its pool when that stays.
fn new_host(
    config: &Arc<program::Cluster>,
    priority: u32,
    host: &program::Host,
    stats: &Arc<ClusterStats>,
    shared: &Arc<ClusterState>,
    pool: Option<&Rc<Pool>>,
) -> Rc<Host> {
    let host_stats = stats.host(host);
    let state = shared.host(host.address);
    let (name, transport) = config.transport_sockets.of(host);
    shared.note_transport_socket(&state, name);
    let pool = pool.filter(|pool| pool.serves(host, &transport)).cloned().unwrap_or_else(|| {
        let transport = Transport::new(transport, shared.tls(), &host.hostname)
            .exchanging(config.peer_exchange.as_deref(), shared.tls());
        let (cluster, stats, shared) = (config.clone(), stats.clone(), shared.clone());
        Rc::new(Pool::new(host, cluster, transport, stats, host_stats.clone(), shared))
    });
    Rc::new(Host::new(host, priority, pool, state, host_stats))
}

fn same_endpoints(old: Option<&Arc<Endpoints>>, new: Option<&Arc<Endpoints>>) -> bool {
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
        _ => false,
    }
}
