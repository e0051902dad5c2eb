//! A DestinationRule's traffic policy on a cluster.
//!
//! Source: Istio `pilot/pkg/networking/core/cluster_traffic_policy.go`. Everything is unlimited unless said.

use meltemi_api::istio::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, OutlierDetection, SimpleLb, TcpSettings,
};
use meltemi_envoy::config::cluster::v3::circuit_breakers::Thresholds;
use meltemi_envoy::config::cluster::v3::cluster::LbPolicy;
use meltemi_envoy::config::cluster::v3::{Cluster, OutlierDetection as EnvoyOutlierDetection};
use meltemi_envoy::config::core::v3::{HttpProtocolOptions as CommonOptions, UpstreamHttpProtocolOptions};
use meltemi_envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use meltemi_envoy::r#type::v3::Percent;
use meltemi_snapshot::{Policy, Protocol};

use crate::cluster::{Upstream, set_protocol};
use crate::message::duration;

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
pub(super) struct Connection {
    /// Of the port.
    pub(super) protocol: Protocol,
    pub(super) is_gateway: bool,
    /// The mesh's `h2UpgradePolicy`.
    pub(super) upgrades: bool,
    /// What TLS makes of requests.
    pub(super) tls: Option<UpstreamHttpProtocolOptions>,
}

/// Writes the policy for connections into the cluster.
pub(super) fn apply(policy: &Policy<'_>, connection: Connection, cluster: &mut Cluster) {
    load_balancer(policy, cluster);
    limits(policy, cluster);
    let pool = policy.connection_pool;
    let protocol = connection.protocol;
    if protocol.is_http() || protocol == Protocol::Unsupported || connection.tls.is_some() {
        http_options(pool, connection, cluster);
    }
    if let Some(outlier) = policy.outlier_detection {
        outlier_detection(outlier, cluster);
    }
}

/// Writes the limits of connections and requests into the cluster.
pub(super) fn limits(policy: &Policy<'_>, cluster: &mut Cluster) {
    let pool = policy.connection_pool;
    if let Some(tcp) = pool.and_then(|p| p.tcp.as_ref()) {
        connections(tcp, cluster);
    }
    if let Some(http) = pool.and_then(|p| p.http.as_ref()) {
        requests(http, cluster);
    }
}

fn load_balancer(policy: &Policy<'_>, cluster: &mut Cluster) {
    if cluster.lb_policy == LbPolicy::ClusterProvided as i32 {
        return;
    }
    let simple = policy.load_balancer.and_then(|lb| lb.simple).unwrap_or_default();
    cluster.lb_policy = match simple {
        SimpleLb::RoundRobin => LbPolicy::RoundRobin,
        SimpleLb::Random => LbPolicy::Random,
        // A gateway cannot pass through, so it balances.
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest | SimpleLb::Passthrough => {
            LbPolicy::LeastRequest
        }
    } as i32;
}

fn thresholds(cluster: &mut Cluster) -> Option<&mut Thresholds> {
    cluster.circuit_breakers.as_mut()?.thresholds.first_mut()
}

fn connections(tcp: &TcpSettings, cluster: &mut Cluster) {
    if let (Some(max), Some(limits)) = (positive(tcp.max_connections), thresholds(cluster)) {
        limits.max_connections = Some(max);
    }
    if let Some(timeout) = tcp.connect_timeout {
        cluster.connect_timeout = Some(duration(timeout));
    }
}

fn requests(http: &HttpSettings, cluster: &mut Cluster) {
    let Some(limits) = thresholds(cluster) else { return };
    let set = |limit: &mut Option<u32>, value: Option<i32>| {
        if let Some(value) = positive(value) {
            *limit = Some(value);
        }
    };
    set(&mut limits.max_pending_requests, http.http1_max_pending_requests);
    set(&mut limits.max_requests, http.http2_max_requests);
    set(&mut limits.max_retries, http.max_retries);
}

fn http_options(pool: Option<&ConnectionPoolSettings>, connection: Connection, cluster: &mut Cluster) {
    let http = pool.and_then(|p| p.http.as_ref());
    let common = http.and_then(common_options);
    let upstream = upstream(http, connection.protocol, connection.is_gateway, connection.upgrades);
    if upstream == Upstream::Http1 && common.is_none() && connection.tls.is_none() {
        return;
    }
    let options = HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: connection.tls,
        ..Default::default()
    };
    set_protocol(cluster, upstream, options);
}

/// An undeclared port of a sidecar keeps the caller's version; a gateway's callers may well speak HTTP/2 to
/// services that do not.
pub(super) fn upstream(
    http: Option<&HttpSettings>,
    protocol: Protocol,
    is_gateway: bool,
    upgrades: bool,
) -> Upstream {
    let upgrade = match http.and_then(|h| h.h2_upgrade_policy).unwrap_or_default() {
        H2UpgradePolicy::Default => upgrades && protocol == Protocol::Http,
        H2UpgradePolicy::DoNotUpgrade => false,
        // Whoever says it of a service knows that it is HTTP.
        H2UpgradePolicy::Upgrade => matches!(protocol, Protocol::Http | Protocol::Unsupported),
    };
    let max_concurrent_streams = http.and_then(|h| positive(h.max_concurrent_streams));
    if http.and_then(|h| h.use_client_protocol) == Some(true) {
        return Upstream::AsDownstream { max_concurrent_streams };
    }
    if protocol.is_http2() || upgrade {
        return Upstream::Http2 { max_concurrent_streams };
    }
    match protocol {
        Protocol::Unsupported if !is_gateway => Upstream::AsDownstream { max_concurrent_streams },
        _ => Upstream::Http1,
    }
}

fn common_options(http: &HttpSettings) -> Option<CommonOptions> {
    let options = CommonOptions {
        idle_timeout: http.idle_timeout.map(duration),
        max_requests_per_connection: positive(http.max_requests_per_connection),
        ..Default::default()
    };
    (options != CommonOptions::default()).then_some(options)
}

/// Success-rate ejection is off in Istio. A threshold of 0 switches its kind off.
fn outlier_detection(outlier: &OutlierDetection, cluster: &mut Cluster) {
    let enforcing = |count: u32| if count > 0 { 100 } else { 0 };
    let gateway = outlier.consecutive_gateway_errors;
    cluster.outlier_detection = Some(EnvoyOutlierDetection {
        enforcing_success_rate: Some(0),
        consecutive_5xx: outlier.consecutive_5xx_errors,
        enforcing_consecutive_5xx: outlier.consecutive_5xx_errors.map(enforcing),
        consecutive_gateway_failure: gateway,
        enforcing_consecutive_gateway_failure: gateway.map(enforcing),
        interval: outlier.interval.map(duration),
        base_ejection_time: outlier.base_ejection_time.map(duration),
        max_ejection_percent: positive(outlier.max_ejection_percent),
        ..Default::default()
    });
    if let (Some(min), Some(common)) = (outlier.min_health_percent, cluster.common_lb_config.as_mut()) {
        common.healthy_panic_threshold = Some(Percent { value: f64::from(min) });
    }
}

/// Istio reads zero as "not set" in these numbers.
fn positive(value: Option<i32>) -> Option<u32> {
    value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0)
}
