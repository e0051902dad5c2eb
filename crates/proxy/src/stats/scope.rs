//! The statistics of a cluster, host, listener, HTTP connection manager and TCP proxy.
//!
//! Names are Envoy's, so that dashboards and tools find them:
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats> and its
//! siblings. One value of each per worker; the registry sums them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use meltemi_compile::program::{Cluster, ClusterService, Host, Name};
use meltemi_http::ByteCounts;

use super::breakers::Breakers;
use super::filter::FilterStats;
use super::grpc::GrpcStats;
use super::istio::WorkloadIds;
use super::ssl::ClusterTlsStats;
use super::ssl::ListenerTlsStats;
use super::value::{Counter, Gauge, Histogram};

/// A cell of a scope, for whoever walks it.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    /// A counter.
    Counter(&'a Counter),
    /// A gauge.
    Gauge(&'a Gauge),
    /// A histogram.
    Histogram(&'a Histogram),
}

macro_rules! counts {
    ($(#[$meta:meta])* $scope:ident { $($kind:ident $field:ident $doc:literal;)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $scope {
            $(#[doc = $doc] pub $field: $kind,)*
        }

        impl $scope {
            /// Shows every cell with its name.
            pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'static str, Cell<'a>)) {
                $(visit(stringify!($field), Cell::$kind(&self.$field));)*
            }
        }
    };
}
pub(super) use counts;

counts! {
    /// `cluster.<name>.*`.
    ClusterCounts {
        Counter upstream_cx_total "Connections made.";
        Gauge upstream_cx_active "Connections open.";
        Counter upstream_cx_http1_total "HTTP/1.1 connections made.";
        Counter upstream_cx_http2_total "HTTP/2 connections made.";
        Counter upstream_cx_connect_fail "Connection attempts that failed.";
        Counter upstream_cx_connect_timeout "Connection attempts that took too long.";
        Counter upstream_cx_connect_attempts_exceeded "TCP proxy ran out of connect attempts.";
        Counter upstream_cx_overflow "`max_connections` refused a connection.";
        Counter upstream_cx_idle_timeout "Connections closed because idle.";
        Counter upstream_cx_max_duration_reached "Connections closed for their age.";
        Counter upstream_cx_max_requests "Connections closed at `max_requests_per_connection`.";
        Counter upstream_cx_none_healthy "No host could be picked.";
        Counter upstream_cx_destroy "Connections closed.";
        Counter upstream_cx_destroy_local "Connections closed by us.";
        Counter upstream_cx_destroy_remote "Connections closed by the upstream.";
        Counter upstream_cx_destroy_with_active_rq "Connections closed with requests on them.";
        Counter upstream_cx_protocol_error "Upstream broke the protocol.";
        Histogram upstream_cx_connect_ms "Time to connect, in milliseconds.";
        Counter upstream_rq_total "Requests sent.";
        Gauge upstream_rq_active "Requests under way.";
        Gauge upstream_rq_pending_active "Requests that wait for a connection.";
        Counter upstream_rq_pending_total "Requests that waited for a connection.";
        Counter upstream_rq_active_overflow "Requests refused by `max_requests`.";
        Counter upstream_rq_pending_overflow "Requests refused by `max_pending_requests`.";
        Counter upstream_rq_pending_failure_eject "Requests that failed while they waited for a connection.";
        Counter upstream_rq_cancelled "Requests given up before they got a connection.";
        Counter upstream_rq_maintenance_mode "Requests refused for maintenance; always 0.";
        Counter upstream_rq_timeout "Requests that took too long.";
        Counter upstream_rq_per_try_timeout "Attempts that took too long.";
        Counter upstream_rq_per_try_idle_timeout "Attempts that stood still for too long.";
        Counter upstream_rq_max_duration_reached "Requests that reached their maximal duration.";
        Counter upstream_rq_rx_reset "Requests reset by the upstream.";
        Counter upstream_rq_tx_reset "Requests reset by us.";
        Counter upstream_rq_retry "Retries.";
        Counter upstream_rq_retry_success "Retries that succeeded.";
        Counter upstream_rq_retry_overflow "Retries refused by a circuit breaker.";
        Counter upstream_rq_retry_limit_exceeded "Requests that used all their retries.";
        Counter upstream_rq_retry_backoff_exponential "Retries after an exponential back-off.";
        Counter upstream_rq_retry_backoff_ratelimited "Retries after the pause that a response asked for.";
        Histogram upstream_rq_time "Time from request to response, in milliseconds.";
        Counter lb_healthy_panic "Picks among all hosts because too few are healthy.";
        Counter lb_subsets_selected "Picks from the subset that the request asked for.";
        Counter lb_subsets_fallback "Picks from the fallback, for want of a subset.";
        Counter lb_subsets_fallback_panic "Picks among all hosts, for want of any in the fallback.";
        Counter lb_local_cluster_not_ok "The proxy's own cluster could not be used for zone-aware routing.";
        Counter lb_recalculate_zone_structures "Zone-aware routing was worked out anew.";
        Counter lb_zone_cluster_too_small "Too few hosts for zone-aware routing.";
        Counter lb_zone_no_capacity_left "Picks of a locality at random because none has room.";
        Counter lb_zone_routing_all_directly "Picks in the own locality, which takes all.";
        Counter lb_zone_routing_cross_zone "Picks in another locality.";
        Counter lb_zone_routing_sampled "Picks in the own locality, which takes a part.";
        Counter upstream_internal_redirect_succeeded_total "Redirects that were followed.";
        Counter upstream_internal_redirect_failed_total "Redirects that were to be followed and were passed on.";
        Counter retry_or_shadow_abandoned "Bodies too large to keep for a retry.";
        Counter original_dst_host_invalid "Requests without a usable original destination.";
    }
}

counts! {
    /// Numbers of one host, in `/clusters`.
    HostCounts {
        Gauge cx_active "Connections open.";
        Counter cx_connect_fail "Connection attempts that failed.";
        Counter cx_total "Connections made.";
        Gauge rq_active "Requests under way.";
        Counter rq_error "Requests that failed.";
        Counter rq_success "Requests that succeeded.";
        Counter rq_timeout "Requests that took too long.";
        Counter rq_total "Requests sent.";
    }
}

counts! {
    /// `listener.<address>.*`.
    ListenerCounts {
        Counter downstream_cx_total "Connections accepted.";
        Gauge downstream_cx_active "Connections open.";
        Counter downstream_cx_destroy "Connections closed.";
        Counter downstream_cx_overflow "Connections refused by a limit.";
        Counter downstream_global_cx_overflow "Connections refused by the limit of the process.";
        Counter downstream_pre_cx_timeout "Listener filters took too long.";
        Gauge downstream_pre_cx_active "Connections in listener filters.";
        Counter no_filter_chain_match "Connections that no filter chain wanted.";
        Counter downstream_listener_filter_error "Listener filters that failed.";
        Counter downstream_listener_filter_remote_close "Clients that closed while listener filters looked.";
        Counter downstream_cx_transport_socket_connect_timeout "Handshakes that took too long.";
    }
}

counts! {
    /// `http.<stat_prefix>.*`.
    HttpCounts {
        Counter downstream_cx_total "Connections.";
        Gauge downstream_cx_active "Connections open.";
        Counter downstream_cx_http1_total "HTTP/1 connections.";
        Gauge downstream_cx_http1_active "HTTP/1 connections open.";
        Counter downstream_cx_http2_total "HTTP/2 connections.";
        Gauge downstream_cx_http2_active "HTTP/2 connections open.";
        Counter downstream_cx_destroy "Connections closed.";
        Counter downstream_cx_destroy_local "Connections closed by us.";
        Counter downstream_cx_destroy_remote "Connections closed by the client.";
        Counter downstream_cx_destroy_active_rq "Connections closed with requests on them.";
        Counter downstream_cx_idle_timeout "Connections closed because idle.";
        Counter downstream_cx_max_duration_reached "Connections closed for their age.";
        Counter downstream_cx_max_requests_reached "Connections closed after so many requests.";
        Counter downstream_cx_drain_close "Connections closed by draining.";
        Counter downstream_cx_delayed_close_timeout "Clients that did not close in time.";
        Counter downstream_cx_protocol_error "Clients that broke the protocol.";
        Counter downstream_cx_upgrades_total "Upgraded connections.";
        Gauge downstream_cx_upgrades_active "Upgraded connections open.";
        Counter downstream_rq_total "Requests.";
        Gauge downstream_rq_active "Requests under way.";
        Counter downstream_rq_http1_total "HTTP/1 requests.";
        Counter downstream_rq_http2_total "HTTP/2 requests.";
        Counter downstream_rq_rx_reset "Requests reset by the client.";
        Counter downstream_rq_tx_reset "Requests reset by us.";
        Counter downstream_rq_non_relative_path "Requests refused for their path.";
        Counter downstream_rq_too_large "Requests with too large a head or body.";
        Counter downstream_rq_idle_timeout "Streams that were idle for too long.";
        Counter downstream_rq_timeout "Requests that came too slowly.";
        Counter downstream_rq_header_timeout "Heads that came too slowly.";
        Counter downstream_rq_max_duration_reached "Requests that lived too long.";
        Counter downstream_rq_overload_close "Requests refused by overload protection.";
        Counter downstream_rq_redirected_with_normalized_path "Redirects to a normal path.";
        Counter downstream_rq_failed_path_normalization "Paths that could not be normalised.";
        Counter downstream_rq_ws_on_non_ws_route "Upgrades that no route allows.";
        Counter no_route "Requests without a route.";
        Counter no_cluster "Requests to a cluster that does not exist.";
        Counter passthrough_internal_redirect_bad_location "Redirects passed on: no URL.";
        Counter passthrough_internal_redirect_unsafe_scheme "Redirects passed on: another scheme.";
        Counter passthrough_internal_redirect_too_many_redirects "Redirects passed on: there were enough.";
        Counter passthrough_internal_redirect_no_route "Redirects passed on: no route.";
        Counter passthrough_internal_redirect_predicate "Redirects passed on: a predicate said so.";
        Counter rq_direct_response "Direct responses.";
        Counter rq_redirect "Always 0: redirects are direct responses.";
        Counter rq_reset_after_downstream_response_started "Responses cut short.";
        Counter rq_total "Requests routed.";
        Histogram downstream_rq_time "Time of the whole request, in milliseconds.";
        Histogram downstream_cx_length_ms "Life of a connection, in milliseconds.";
    }
}

counts! {
    /// `tcp.<stat_prefix>.*`.
    TcpCounts {
        Counter downstream_cx_total "Connections.";
        Counter downstream_cx_no_route "Connections without a cluster.";
        Counter downstream_cx_rx_bytes_total "Bytes received.";
        Counter downstream_cx_tx_bytes_total "Bytes sent.";
        Counter idle_timeout "Connections closed because idle.";
        Counter max_downstream_connection_duration "Connections closed for their age.";
        Counter upstream_flush_total "Upstreams flushed after the client closed.";
        Gauge upstream_flush_active "Upstreams being flushed.";
    }
}

/// Counts of responses by status: per class always, per code from its first use on.
#[derive(Debug, Default)]
pub struct ResponseCodes {
    /// All responses.
    pub completed: Counter,
    classes: [Counter; 5],
    codes: [OnceLock<Box<[Counter; 100]>>; 5],
}

impl ResponseCodes {
    /// Counts a response; a status outside of 100..600 counts as completed only.
    pub fn record(&self, status: u16) {
        self.completed.inc();
        let Some(class) = usize::from(status / 100).checked_sub(1).filter(|class| *class < 5) else { return };
        self.classes[class].inc();
        let page = self.codes[class].get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
        page[usize::from(status % 100)].inc();
    }

    /// Shows classes 1 to 5.
    pub fn visit_classes<'a>(&'a self, visit: &mut dyn FnMut(usize, &'a Counter)) {
        self.classes.iter().enumerate().for_each(|(class, counter)| visit(class + 1, counter));
    }

    /// Shows every code that was counted.
    pub fn visit_codes<'a>(&'a self, visit: &mut dyn FnMut(usize, &'a Counter)) {
        for (class, page) in self.codes.iter().enumerate() {
            let Some(page) = page.get() else { continue };
            for (code, counter) in page.iter().enumerate().filter(|(_, counter)| counter.get() > 0) {
                visit((class + 1) * 100 + code, counter);
            }
        }
    }
}

/// What one worker counts for a cluster.
#[derive(Debug)]
pub struct ClusterStats {
    /// `name`.
    pub name: Name,
    /// `alt_stat_name`, else the name; the part of statistics' names.
    pub stat_name: Name,
    /// Whom the cluster stands for.
    pub service: Option<ClusterService>,
    /// The same for all workers and versions of the cluster name.
    pub id: u32,
    /// The numbers.
    pub counts: ClusterCounts,
    /// Responses by status.
    pub codes: ResponseCodes,
    /// gRPC calls, where the grpc_stats filter counts them.
    pub grpc: GrpcStats,
    /// Bytes of its connections.
    pub bytes: Arc<ByteCounts>,
    /// Handshakes, where the cluster has any.
    tls: Option<Box<ClusterTlsStats>>,
    hosts: Mutex<BTreeMap<SocketAddr, Arc<HostStats>>>,
    breakers: Mutex<Option<Breakers>>,
    workloads: Arc<WorkloadIds>,
}

impl ClusterStats {
    pub(super) fn new(cluster: &Cluster, id: u32, workloads: Arc<WorkloadIds>) -> ClusterStats {
        ClusterStats {
            name: cluster.name.clone(),
            stat_name: cluster.stat_name.clone(),
            service: cluster.service.clone(),
            id,
            counts: ClusterCounts::default(),
            codes: ResponseCodes::default(),
            grpc: GrpcStats::default(),
            bytes: Arc::default(),
            tls: cluster.transport_sockets.all().any(|socket| socket.tls().is_some()).then(Box::default),
            hosts: Mutex::default(),
            breakers: Mutex::default(),
            workloads,
        }
    }

    /// The numbers of a host on this worker, the same as before when it was there before. For configuration
    /// time: takes a lock. Also forgets hosts that nobody holds any more.
    pub fn host(&self, host: &Host) -> Arc<HostStats> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, stats| Arc::strong_count(stats) > 1);
        let known = hosts
            .get(&host.address)
            .filter(|stats| stats.workload == host.workload && stats.hostname == host.hostname);
        if let Some(stats) = known {
            return Arc::clone(stats);
        }
        let stats = Arc::new(HostStats::new(host, self.workloads.id(host.workload.as_deref())));
        hosts.insert(host.address, Arc::clone(&stats));
        stats
    }

    /// What is counted of handshakes.
    pub fn ssl(&self) -> Option<&ClusterTlsStats> {
        self.tls.as_deref()
    }

    /// Says where the breakers are. For configuration time: takes a lock.
    pub fn set_breakers(&self, breakers: Breakers) {
        *self.breakers.lock().unwrap_or_else(PoisonError::into_inner) = Some(breakers);
    }

    /// Shows the gauges of the breakers with their names.
    pub fn visit_breakers(&self, visit: impl FnMut(String, u64)) {
        if let Some(breakers) = &*self.breakers.lock().unwrap_or_else(PoisonError::into_inner) {
            breakers.visit(visit);
        }
    }

    /// All hosts that are in use.
    pub fn hosts(&self) -> Vec<Arc<HostStats>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// What one worker counts for a host of a cluster.
#[derive(Debug)]
pub struct HostStats {
    /// Address and port.
    pub address: SocketAddr,
    /// `hostname` of the endpoint, may be empty.
    pub hostname: Box<str>,
    /// `istio.workload` of the endpoint's metadata.
    pub workload: Option<Box<str>>,
    /// The same number for the same workload, 0 for none.
    pub workload_id: u32,
    /// The numbers.
    pub counts: HostCounts,
}

impl HostStats {
    fn new(host: &Host, workload_id: u32) -> HostStats {
        HostStats {
            address: host.address,
            hostname: host.hostname.clone(),
            workload: host.workload.clone(),
            workload_id,
            counts: HostCounts::default(),
        }
    }
}

/// What one worker counts for a listener.
#[derive(Debug)]
pub struct ListenerStats {
    /// Name of the listener.
    pub name: Name,
    /// Its address with `.` and `:` as Envoy writes them in names of statistics, such as `0.0.0.0_8080`.
    pub address: Box<str>,
    /// The numbers.
    pub counts: ListenerCounts,
    /// The numbers of TLS, once a chain has it.
    pub tls: OnceLock<Box<ListenerTlsStats>>,
}

/// What one worker counts for a `stat_prefix` of HTTP connection managers.
#[derive(Debug)]
pub struct HttpStats {
    /// `stat_prefix`.
    pub prefix: Name,
    /// The numbers.
    pub counts: HttpCounts,
    /// Responses by status.
    pub codes: ResponseCodes,
    /// Bytes of its connections.
    pub bytes: Arc<ByteCounts>,
    /// The numbers of its filters.
    pub filters: FilterStats,
}

/// What one worker counts for a `stat_prefix` of TCP proxies.
#[derive(Debug)]
pub struct TcpStats {
    /// `stat_prefix`.
    pub prefix: Name,
    /// The numbers.
    pub counts: TcpCounts,
}
