//! Statistics: what workers count, and the registry that sums it for the admin interface.
//!
//! Owns: the cells ([`Counter`], [`Gauge`], [`Histogram`]), the scopes that hold them ([`ClusterStats`],
//! [`HttpStats`], …, [`RequestSeries`] of Istio's metrics) and their output as text, JSON and Prometheus.
//! A worker asks [`WorkerStats`] for handles when configuration changes and only touches those handles while it
//! serves. Leaves out: what the main thread counts about configuration (`config`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use meltemi_compile::program::{Cluster, Listener, Name};

mod breakers;
mod config;
mod filter;
mod grpc;
mod istio;
mod network;
pub mod prometheus;
mod sample;
mod scope;
mod ssl;
pub mod text;
mod value;

pub use breakers::Breakers;
pub use config::StatsConfig;
pub use filter::{CorsCounts, FaultCounts, FilterStats};
pub use grpc::{GrpcCounts, GrpcStats};
pub use istio::{RequestSeries, TcpSeries};
pub use network::{ConnectionLimitCounts, HttpInspectorCounts, ProxyProtocolCounts, TlsInspectorCounts};
pub use sample::{Sample, Value};
pub use scope::{
    Cell, ClusterCounts, ClusterStats, HostCounts, HostStats, HttpCounts, HttpStats, ListenerCounts,
    ListenerStats, ResponseCodes, TcpCounts, TcpStats,
};
pub use ssl::{ClusterTlsStats, ListenerTlsStats, SslCounts, SslFactoryCounts, SslStats};
pub use value::{BUCKETS, Counter, Distribution, Gauge, Histogram};

/// All statistics of the process that workers write.
#[derive(Debug, Default)]
pub struct Registry {
    scopes: Mutex<Scopes>,
    workloads: Arc<istio::WorkloadIds>,
}

/// A scope's parts, one per worker that uses it.
type Parts<K, S> = BTreeMap<K, BTreeMap<usize, Arc<S>>>;

#[derive(Debug, Default)]
struct Scopes {
    clusters: Parts<Name, ClusterStats>,
    listeners: Parts<Name, ListenerStats>,
    http: Parts<Name, HttpStats>,
    tcp: Parts<Name, TcpStats>,
    tls_inspector: Parts<(), TlsInspectorCounts>,
    http_inspector: Parts<(), HttpInspectorCounts>,
    proxy_protocol: Parts<Name, ProxyProtocolCounts>,
    connection_limits: Parts<Name, ConnectionLimitCounts>,
    istio: istio::Tables,
    next_cluster_id: u32,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Arc<Registry> {
        Arc::default()
    }

    /// The part of a worker. Two workers must not have the same number.
    pub fn worker(self: &Arc<Registry>, worker: usize) -> WorkerStats {
        WorkerStats { registry: Arc::clone(self), worker }
    }

    /// Whether a cluster ever had a connection from a client's request.
    pub fn had_upstream_connections(&self, cluster: &str) -> bool {
        let scopes = self.scopes();
        let mut parts = scopes.clusters.get(cluster).into_iter().flat_map(BTreeMap::values);
        parts.any(|part| part.counts.upstream_cx_total.get() > 0)
    }

    /// Forgets scopes that no worker holds any more. Call it after a change of configuration.
    pub fn prune(&self) {
        let mut scopes = self.scopes();
        prune(&mut scopes.clusters);
        prune(&mut scopes.listeners);
        prune(&mut scopes.http);
        prune(&mut scopes.tcp);
        prune(&mut scopes.tls_inspector);
        prune(&mut scopes.http_inspector);
        prune(&mut scopes.proxy_protocol);
        prune(&mut scopes.connection_limits);
    }

    fn scopes(&self) -> MutexGuard<'_, Scopes> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prune<K: Ord, S>(parts: &mut Parts<K, S>) {
    parts.retain(|_, workers| workers.values().any(|part| Arc::strong_count(part) > 1));
}

/// Where a worker gets its cells. Every call takes a lock: for configuration time only.
#[derive(Debug, Clone)]
pub struct WorkerStats {
    registry: Arc<Registry>,
    worker: usize,
}

impl WorkerStats {
    /// The cells of a cluster; those that the worker had before if the cluster is not new.
    pub fn cluster(&self, cluster: &Cluster) -> Arc<ClusterStats> {
        let mut scopes = self.registry.scopes();
        let known = scopes.clusters.get(&cluster.name);
        if let Some(part) = known.and_then(|parts| parts.get(&self.worker))
            && part.service == cluster.service
        {
            return Arc::clone(part);
        }
        let id = match known.and_then(|parts| parts.values().next()) {
            Some(part) if part.service == cluster.service => part.id,
            _ => {
                scopes.next_cluster_id += 1;
                scopes.next_cluster_id
            }
        };
        let part = Arc::new(ClusterStats::new(cluster, id, Arc::clone(&self.registry.workloads)));
        scopes.clusters.entry(cluster.name.clone()).or_default().insert(self.worker, Arc::clone(&part));
        part
    }

    /// The cells of a listener.
    pub fn listener(&self, listener: &Listener) -> Arc<ListenerStats> {
        let make = || ListenerStats {
            name: listener.name.clone(),
            address: match &listener.stat_prefix {
                Some(prefix) => prefix.clone(),
                None => listener.address.to_string().replace(':', "_").into(),
            },
            counts: ListenerCounts::default(),
            tls: OnceLock::new(),
        };
        let part = self.part(&mut self.registry.scopes().listeners, &listener.name, make);
        if listener.chains.iter().any(|chain| chain.tls.is_some()) {
            part.tls.get_or_init(Box::default);
        }
        part
    }

    /// The cells of a `stat_prefix` of HTTP connection managers.
    pub fn http(&self, prefix: &Name) -> Arc<HttpStats> {
        let make = || HttpStats {
            prefix: prefix.clone(),
            counts: HttpCounts::default(),
            codes: ResponseCodes::default(),
            bytes: Arc::default(),
            filters: FilterStats::default(),
        };
        self.part(&mut self.registry.scopes().http, prefix, make)
    }

    /// The cells of a `stat_prefix` of TCP proxies.
    pub fn tcp(&self, prefix: &Name) -> Arc<TcpStats> {
        let make = || TcpStats { prefix: prefix.clone(), counts: TcpCounts::default() };
        self.part(&mut self.registry.scopes().tcp, prefix, make)
    }

    /// The cells of all TLS inspectors.
    pub fn tls_inspector(&self) -> Arc<TlsInspectorCounts> {
        self.part(&mut self.registry.scopes().tls_inspector, &(), TlsInspectorCounts::default)
    }

    /// The cells of all HTTP inspectors.
    pub fn http_inspector(&self) -> Arc<HttpInspectorCounts> {
        self.part(&mut self.registry.scopes().http_inspector, &(), HttpInspectorCounts::default)
    }

    /// The cells of a `stat_prefix` of PROXY protocol filters.
    pub fn proxy_protocol(&self, prefix: &Name) -> Arc<ProxyProtocolCounts> {
        self.part(&mut self.registry.scopes().proxy_protocol, prefix, ProxyProtocolCounts::default)
    }

    /// The cells of a `stat_prefix` of connection limits.
    pub fn connection_limit(&self, prefix: &Name) -> Arc<ConnectionLimitCounts> {
        self.part(&mut self.registry.scopes().connection_limits, prefix, ConnectionLimitCounts::default)
    }

    /// A new series of Istio's request metrics; `labels` in Prometheus form without braces.
    pub fn request_series(&self, labels: String) -> Arc<RequestSeries> {
        self.registry.scopes().istio.request(labels)
    }

    /// A new series of Istio's TCP metrics; `labels` in Prometheus form without braces.
    pub fn tcp_series(&self, labels: String) -> Arc<TcpSeries> {
        self.registry.scopes().istio.tcp(labels)
    }

    fn part<K: Ord + Clone, S>(&self, parts: &mut Parts<K, S>, name: &K, make: impl FnOnce() -> S) -> Arc<S> {
        let workers = parts.entry(name.clone()).or_default();
        Arc::clone(workers.entry(self.worker).or_insert_with(|| Arc::new(make())))
    }
}
