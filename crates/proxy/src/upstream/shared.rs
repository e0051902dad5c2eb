//! State of hosts and breakers that all workers share: atomics, keyed by cluster and address.
//!
//! Lives outside the `Program`, so that it survives configuration swaps. The maps are touched when a cluster is
//! built, never by a request; a request holds the `Arc`s.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use meltemi_compile::program::{Cluster, Locality, Name};
use tokio::sync::Notify;

use super::layouts::Layouts;

use crate::access_log::LogSink;
use crate::tls::Contexts;

pub use super::checks::{CheckState, CheckTotals};
pub use super::health::{Health, HealthFlag, HealthFlags};
pub(crate) use super::outlier::timestamp;
pub use super::outlier::{Detector, EventLog, Monitor, Origin, OutlierTotals};
pub use super::totals::{Total, TotalKind};

use super::outlier::Subject;

/// All shared states of a process.
#[derive(Debug, Default)]
pub struct HostStates {
    clusters: Mutex<HashMap<ClusterKey, Arc<ClusterState>>>,
    events: Option<EventLog>,
    logs: Option<LogSink>,
    changed: Notify,
    active_faults: Mutex<HashMap<Name, Arc<AtomicU32>>>,
    tls: Arc<Contexts>,
    place: OnceLock<Place>,
}

/// Where this proxy stands, for balancing by zones.
#[derive(Debug, Default)]
struct Place {
    /// `node.locality`.
    home: Option<Arc<Locality>>,
    /// `cluster_manager.local_cluster_name`: the cluster of the proxies like this one.
    local_cluster: Option<Name>,
}

/// Hosts begin anew when what judges them changes: the name of the cluster, and the digest of its health checks and
/// outlier detection.
type ClusterKey = (Name, u64);

impl HostStates {
    /// No states yet; ejections will be logged there.
    pub fn new(logs: LogSink, ejections: Option<&str>) -> HostStates {
        let events = ejections.map(|path| EventLog::new(logs.clone(), path));
        HostStates { events, logs: Some(logs), ..HostStates::default() }
    }

    /// Where events may be logged.
    pub(crate) fn event_log(&self, path: &str) -> Option<EventLog> {
        self.logs.as_ref().map(|logs| EventLog::new(logs.clone(), path))
    }

    /// Tells whoever waits in [`HostStates::changed`] that configuration may go on because of the state of a host.
    pub(crate) fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits for [`HostStates::notify`]. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The state of a cluster, made when it is new.
    pub fn cluster(&self, cluster: &Cluster) -> Arc<ClusterState> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let state = || {
            let mut state = ClusterState::new(&cluster.name, self.events.clone());
            state.tls = Arc::clone(&self.tls);
            Arc::new(state)
        };
        clusters.entry((cluster.name.clone(), cluster.health_digest)).or_insert_with(state).clone()
    }

    /// The TLS contexts of the process.
    pub fn tls(&self) -> &Arc<Contexts> {
        &self.tls
    }

    /// Says once where this proxy stands: `node.locality` and `cluster_manager.local_cluster_name`.
    pub fn set_place(&self, home: Option<Locality>, local_cluster: Option<Name>) {
        let _ = self.place.set(Place { home: home.map(Arc::new), local_cluster });
    }

    pub(crate) fn home(&self) -> Option<&Arc<Locality>> {
        self.place.get()?.home.as_ref()
    }

    pub(crate) fn local_cluster(&self) -> Option<&Name> {
        self.place.get()?.local_cluster.as_ref()
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
#[derive(Debug)]
pub struct ClusterState {
    /// `name`.
    pub(crate) name: Name,
    /// Resources in use by priority (default, high).
    pub breakers: [Breaker; 2],
    /// Outlier detection.
    pub outlier: Detector,
    /// What active health checks count.
    pub checks: CheckTotals,
    /// Changes with the health of any host, so that balancers see that their list of healthy hosts is old.
    pub(crate) health_epoch: AtomicU64,
    /// Who may be picked.
    pub(crate) layouts: Layouts,
    /// Where ejections are logged.
    pub(super) events: Option<EventLog>,
    tls: Arc<Contexts>,
    /// How often a host got the transport socket of a name.
    transport_sockets: Mutex<BTreeMap<Box<str>, u64>>,
    hosts: Mutex<HashMap<SocketAddr, Arc<HostState>>>,
}

impl ClusterState {
    /// A cluster without hosts.
    pub fn new(name: &Name, events: Option<EventLog>) -> ClusterState {
        ClusterState {
            name: name.clone(),
            breakers: Default::default(),
            outlier: Detector::default(),
            checks: CheckTotals::default(),
            health_epoch: AtomicU64::new(0),
            layouts: Layouts::default(),
            events,
            tls: Arc::default(),
            transport_sockets: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    /// The state of a host, made when it is new.
    pub fn host(&self, address: SocketAddr) -> Arc<HostState> {
        self.hosts().entry(address).or_default().clone()
    }

    /// The TLS contexts of the process.
    pub(crate) fn tls(&self) -> &Contexts {
        &self.tls
    }

    /// A host has the transport socket of this name from now on, which counts once for all workers.
    pub(crate) fn note_transport_socket(&self, host: &HostState, name: &str) {
        let digest = xxhash_rust::xxh3::xxh3_64(name.as_bytes()).max(1);
        if host.transport_socket.swap(digest, Ordering::Relaxed) != digest {
            self.count_transport_socket(name);
        }
    }

    /// A transport socket was chosen by what `transport_socket_matches` say.
    pub(crate) fn count_transport_socket(&self, name: &str) {
        let mut counts = self.transport_sockets.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(name.into()).or_default() += 1;
    }

    /// How often a transport socket was chosen.
    pub(crate) fn transport_socket_count(&self, name: &str) -> u64 {
        let counts = self.transport_sockets.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(name).copied().unwrap_or_default()
    }

    /// All hosts that are known.
    pub(crate) fn all(&self) -> Vec<Member> {
        let member = |(address, state): (&SocketAddr, &Arc<HostState>)| Member {
            address: *address,
            state: Arc::clone(state),
        };
        self.hosts().iter().map(member).collect()
    }

    /// Sets or clears a flag of a host, and tells balancers. Says whether that changed anything.
    pub(crate) fn put_flag(&self, host: &HostState, flag: HealthFlag, on: bool) -> bool {
        let changed = host.flags.put(flag, on);
        if changed {
            self.health_epoch.fetch_add(1, Ordering::Relaxed);
        }
        changed
    }

    /// A host asked in an answer to be left out (`x-envoy-immediate-health-check-fail`): its checks take it from here.
    pub(crate) fn fail_passively(&self, host: &HostState) {
        self.put_flag(host, HealthFlag::ExcludedViaImmediateHcFail, true);
        host.checks.fail_passively();
    }

    /// Forgets a host that left the cluster: should it come back, it begins anew.
    pub(crate) fn forget(&self, address: SocketAddr) {
        if let Some(state) = self.hosts().remove(&address) {
            self.discount(&state);
        }
    }

    /// Forgets hosts that no worker uses any more.
    pub(crate) fn forget_unused(&self) {
        self.hosts().retain(|_, state| {
            let used = Arc::strong_count(state) > 1;
            if !used {
                self.discount(state);
            }
            used
        });
    }

    /// An ejected host that is gone is no longer counted.
    fn discount(&self, state: &HostState) {
        if state.flags.put(HealthFlag::FailedOutlierCheck, false) {
            self.outlier.totals.ejections_active.dec();
        }
    }

    /// A checked host that is gone is no longer counted.
    pub(crate) fn discount_checks(&self, state: &HostState) {
        if !state.flags.has(HealthFlag::FailedActiveHc) {
            self.checks.healthy.dec();
        }
        if state.flags.has(HealthFlag::DegradedActiveHc) {
            self.checks.degraded.dec();
        }
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<HostState>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host that belongs to a cluster now.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<HostState>,
}

impl Member {
    pub(crate) fn subject<'a>(&'a self, cluster: &'a ClusterState) -> Subject<'a> {
        Subject { cluster, address: self.address, state: &self.state }
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
    /// Connections that are open or being dialled.
    pub connections: AtomicU32,
    /// What checks say of it.
    pub flags: HealthFlags,
    /// Digest of the name of its transport socket; 0 before it has one.
    transport_socket: AtomicU64,
    /// What outlier detection knows.
    pub outlier: Monitor,
    /// When it began to be healthy, in milliseconds since [`EPOCH`]; 0 while it never was.
    healthy_since_ms: AtomicU64,
    /// Active health checks.
    pub checks: CheckState,
}

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

impl HostState {
    /// How fit the host is, given what discovery says of it.
    pub fn health(&self, discovered: Health) -> Health {
        discovered.min(self.flags.health())
    }

    /// Takes in how fit it is found now. A host that its active check failed begins anew when it is back; one that outlier
    /// detection ejected does not, as in Envoy.
    pub(crate) fn note_health(&self, health: Health) {
        if self.flags.has(HealthFlag::FailedActiveHc) {
            self.healthy_since_ms.store(0, Ordering::Relaxed);
        } else if health == Health::Healthy {
            let now = u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            let since = &self.healthy_since_ms;
            let _ = since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Since when it is healthy.
    pub(crate) fn healthy_since(&self) -> Option<Instant> {
        match self.healthy_since_ms.load(Ordering::Relaxed) {
            0 => None,
            since => Some(*EPOCH + Duration::from_millis(since)),
        }
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

    /// Takes a unit whatever the limit.
    pub(crate) fn exceed(state: &Arc<ClusterState>, priority: usize, resource: Resource) -> Permit {
        state.breakers[priority].counter(resource).fetch_add(1, Ordering::Relaxed);
        Permit { state: state.clone(), priority, resource }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.breakers[self.priority].counter(self.resource).fetch_sub(1, Ordering::Relaxed);
    }
}
