//! A DestinationRule's traffic policy on a cluster.
//!
//! Source: Istio `pilot/pkg/networking/core/cluster_traffic_policy.go`. Everything is unlimited unless said.
//! Differs: limits of HTTP/2 connections also hold where the caller's version is kept; Istio forgets them there.

use meltemi_api::istio::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, OutlierDetection, ProxyProtocol,
    ProxyProtocolVersion, RetryBudget, TcpKeepalive, TcpSettings,
};
use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use meltemi_envoy::config::cluster::v3::{
    Cluster, OutlierDetection as EnvoyOutlierDetection, UpstreamConnectionOptions,
};
use meltemi_envoy::config::core::v3::proxy_protocol_config::Version;
use meltemi_envoy::config::core::v3::{
    HttpProtocolOptions as CommonOptions, ProxyProtocolConfig, TcpKeepalive as EnvoyTcpKeepalive,
    TransportSocket, UpstreamHttpProtocolOptions, transport_socket,
};
use meltemi_envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use meltemi_envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use meltemi_envoy::r#type::v3::Percent;
use meltemi_snapshot::{MeshConfig, Policy, Protocol};

use super::protocol::{Http2, Upstream, Version as HttpVersion, set_protocol};
use crate::cluster::load_balancing;
use crate::message::duration;
use crate::tls::raw_buffer;

/// `retryBudget.percent` and `retryBudget.minRetryConcurrency` where nobody says others.
const RETRY_PERCENT: f64 = 20.0;
const MIN_RETRIES: u32 = 3;

/// Thresholds that never trip.
pub(super) fn unlimited() -> Thresholds {
    Thresholds {
        max_connections: Some(u32::MAX),
        max_pending_requests: Some(u32::MAX),
        max_requests: Some(u32::MAX),
        max_retries: Some(u32::MAX),
        ..Default::default()
    }
}

/// What else decides how connections speak.
pub(crate) struct Connection<'a> {
    pub(crate) mesh: &'a MeshConfig,
    /// Of the port.
    pub(crate) protocol: Protocol,
    pub(crate) is_gateway: bool,
    /// Towards the workload of the proxy itself, where nobody upgrades.
    pub(crate) is_inbound: bool,
    /// Header names keep their case in HTTP/1.
    pub(crate) preserves_case: bool,
    /// What TLS makes of requests.
    pub(crate) tls: Option<UpstreamHttpProtocolOptions>,
}

/// Writes the policy of an outbound cluster into it.
pub(super) fn apply(policy: &Policy<'_>, connection: &Connection<'_>, cluster: &mut Cluster) {
    load_balancing::apply(policy.load_balancer, cluster);
    connections(policy, connection, cluster);
    if let Some(outlier) = policy.outlier_detection {
        outlier_detection(outlier, cluster);
    }
}

/// Writes the part of the policy that is about connections into the cluster.
pub(crate) fn connections(policy: &Policy<'_>, connection: &Connection<'_>, cluster: &mut Cluster) {
    unconditional(policy, connection.mesh, cluster);
    let pool = policy.connection_pool;
    let upstream = connection.upstream(pool.and_then(|pool| pool.http.as_ref()));
    let options = HttpProtocolOptions {
        common_http_protocol_options: pool.and_then(common_options),
        upstream_http_protocol_options: connection.tls.clone(),
        ..Default::default()
    };
    if upstream != Upstream::default() || options != HttpProtocolOptions::default() {
        set_protocol(cluster, upstream, options);
    }
}

/// Writes what holds whatever is spoken: limits, and probes of idle connections.
pub(super) fn unconditional(policy: &Policy<'_>, mesh: &MeshConfig, cluster: &mut Cluster) {
    limits(policy, cluster);
    keepalive(mesh, policy.connection_pool.and_then(|pool| pool.tcp.as_ref()), cluster);
}

/// Writes the limits of connections and requests into the cluster.
pub(super) fn limits(policy: &Policy<'_>, cluster: &mut Cluster) {
    let tcp = policy.connection_pool.and_then(|pool| pool.tcp.as_ref());
    let http = policy.connection_pool.and_then(|pool| pool.http.as_ref());
    if let Some(timeout) = tcp.and_then(|tcp| tcp.connect_timeout) {
        cluster.connect_timeout = Some(duration(timeout));
    }
    let Some(limits) = cluster.circuit_breakers.as_mut().and_then(|breakers| breakers.thresholds.first_mut())
    else {
        return;
    };
    let set = |limit: &mut Option<u32>, value: Option<i32>| {
        if let Some(value) = positive(value) {
            *limit = Some(value);
        }
    };
    set(&mut limits.max_connections, tcp.and_then(|tcp| tcp.max_connections));
    set(&mut limits.max_pending_requests, http.and_then(|http| http.http1_max_pending_requests));
    set(&mut limits.max_requests, http.and_then(|http| http.http2_max_requests));
    set(&mut limits.max_retries, http.and_then(|http| http.max_retries));
    limits.retry_budget = policy.retry_budget.map(retry_budget);
}

/// `budgetInterval` is left out: proxies count the requests in flight.
fn retry_budget(budget: &RetryBudget) -> thresholds::RetryBudget {
    let minimum = budget.min_retry_concurrency.filter(|minimum| *minimum > 0);
    thresholds::RetryBudget {
        budget_percent: Some(Percent { value: budget.percent.unwrap_or(RETRY_PERCENT) }),
        min_retry_concurrency: Some(minimum.unwrap_or(MIN_RETRIES)),
        ..Default::default()
    }
}

/// The rule's word counts, number by number, then the mesh's.
fn keepalive(mesh: &MeshConfig, tcp: Option<&TcpSettings>, cluster: &mut Cluster) {
    let of_rule = tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref());
    let of_mesh = mesh.wire().and_then(|wire| wire.tcp_keepalive.as_ref());
    if of_rule.is_none() && of_mesh.is_none() {
        return;
    }
    let either = |number: fn(&TcpKeepalive) -> Option<u32>| {
        of_rule.and_then(number).or_else(|| of_mesh.and_then(number))
    };
    let seconds = |value: std::time::Duration| u32::try_from(value.as_secs()).ok();
    cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(EnvoyTcpKeepalive {
            keepalive_probes: either(|keepalive| keepalive.probes.filter(|probes| *probes > 0)),
            keepalive_time: of_rule.and_then(|k| k.time).or(of_mesh.and_then(|k| k.time)).and_then(seconds),
            keepalive_interval: of_rule
                .and_then(|k| k.interval)
                .or(of_mesh.and_then(|k| k.interval))
                .and_then(seconds),
        }),
        ..Default::default()
    });
}

impl Connection<'_> {
    /// An undeclared port of a sidecar keeps the caller's version; a gateway's callers may well speak HTTP/2 to
    /// services that do not. Nothing upgrades what has a version already.
    pub(crate) fn upstream(&self, http: Option<&HttpSettings>) -> Upstream {
        let keepalive = http.and_then(|http| http.http2_keep_alive.as_ref());
        let http2 = Http2 {
            max_concurrent_streams: http.and_then(|http| positive(http.max_concurrent_streams)),
            keepalive: keepalive.and_then(|keepalive| Some((keepalive.interval?, keepalive.timeout?))),
        };
        let is_unknown = self.protocol == Protocol::Unsupported;
        let preserves_case = self.preserves_case && (self.protocol.is_http() || is_unknown);
        let keeps_version = http.and_then(|http| http.use_client_protocol) == Some(true);
        let version = if keeps_version || is_unknown && !self.is_gateway {
            HttpVersion::AsDownstream
        } else if self.protocol.is_http2() || !preserves_case && self.upgrades(http) {
            HttpVersion::Http2
        } else {
            HttpVersion::Http1
        };
        Upstream { version, http2, preserves_case: preserves_case && version != HttpVersion::Http2 }
    }

    /// Whoever asks for it for a service knows that it is HTTP.
    fn upgrades(&self, http: Option<&HttpSettings>) -> bool {
        match http.and_then(|http| http.h2_upgrade_policy).unwrap_or_default() {
            _ if self.is_inbound => false,
            H2UpgradePolicy::Default => self.mesh.upgrades_to_http2 && self.protocol.is_http(),
            H2UpgradePolicy::DoNotUpgrade => false,
            H2UpgradePolicy::Upgrade => true,
        }
    }
}

fn common_options(pool: &ConnectionPoolSettings) -> Option<CommonOptions> {
    let (tcp, http) = (pool.tcp.as_ref(), pool.http.as_ref());
    let idle = http.and_then(|http| http.idle_timeout).or_else(|| tcp.and_then(|tcp| tcp.idle_timeout));
    let options = CommonOptions {
        idle_timeout: idle.map(duration),
        max_requests_per_connection: http.and_then(|http| positive(http.max_requests_per_connection)),
        max_connection_duration: tcp.and_then(|tcp| tcp.max_connection_duration).map(duration),
        ..Default::default()
    };
    (options != CommonOptions::default()).then_some(options)
}

/// Success-rate ejection is off in Istio. A threshold of 0 switches its kind off.
fn outlier_detection(outlier: &OutlierDetection, cluster: &mut Cluster) {
    let enforcing = |count: u32| if count > 0 { 100 } else { 0 };
    let gateway = outlier.consecutive_gateway_errors;
    let splits = outlier.split_external_local_origin_errors == Some(true);
    let local = outlier.consecutive_local_origin_failures.filter(|count| splits && *count > 0);
    cluster.outlier_detection = Some(EnvoyOutlierDetection {
        enforcing_success_rate: Some(0),
        consecutive_5xx: outlier.consecutive_5xx_errors,
        enforcing_consecutive_5xx: outlier.consecutive_5xx_errors.map(enforcing),
        consecutive_gateway_failure: gateway,
        enforcing_consecutive_gateway_failure: gateway.map(enforcing),
        interval: outlier.interval.map(duration),
        base_ejection_time: outlier.base_ejection_time.map(duration),
        max_ejection_percent: positive(outlier.max_ejection_percent),
        split_external_local_origin_errors: splits,
        consecutive_local_origin_failure: local,
        enforcing_consecutive_local_origin_failure: local.map(enforcing),
        enforcing_local_origin_success_rate: splits.then_some(0),
        ..Default::default()
    });
    let min = outlier.min_health_percent.unwrap_or_default();
    let common = cluster.common_lb_config.get_or_insert_default();
    common.healthy_panic_threshold = Some(Percent { value: f64::from(min) });
}

/// Puts a PROXY header before whatever the cluster's connections say.
pub(super) fn proxy_protocol(settings: &ProxyProtocol, cluster: &mut Cluster) {
    let version = match settings.version.unwrap_or_default() {
        ProxyProtocolVersion::V1 => Version::V1,
        ProxyProtocolVersion::V2 => Version::V2,
    };
    let wrap = |inner: TransportSocket| {
        let config = ProxyProtocolUpstreamTransport {
            config: Some(ProxyProtocolConfig { version: version as i32, ..Default::default() }),
            transport_socket: Some(inner),
            ..Default::default()
        };
        TransportSocket {
            name: "envoy.transport_sockets.upstream_proxy_protocol".to_owned(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(Any::pack(&config))),
        }
    };
    for socket_match in &mut cluster.transport_socket_matches {
        socket_match.transport_socket = socket_match.transport_socket.take().map(wrap);
    }
    if cluster.transport_socket.is_some() || cluster.transport_socket_matches.is_empty() {
        let inner = cluster.transport_socket.take().unwrap_or_else(raw_buffer);
        cluster.transport_socket = Some(wrap(inner));
    }
}

/// Istio reads zero as "not set" in these numbers.
fn positive(value: Option<i32>) -> Option<u32> {
    value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0)
}
