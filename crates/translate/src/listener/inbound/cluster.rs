//! The clusters that lead to the workload itself.
//!
//! Source: Istio `pilot/pkg/networking/core/cluster.go` (`buildInboundClusters`) and `cluster_builder.go`
//! (`buildInboundCluster`, `buildInboundPassthroughCluster`).

use std::net::IpAddr;
use std::time::Duration;

use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::cluster::v3::cluster::DiscoveryType;
use meltemi_envoy::config::core::v3::{Address, BindConfig, address};
use meltemi_envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use meltemi_envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use meltemi_snapshot::Protocol;

use crate::cluster::{self, Built, Upstream};
use crate::context::Context;
use crate::endpoint::{address_endpoint, pipe};
use crate::listener::UNIX_SCHEME;
use crate::listener::inbound::ports::Port;
use crate::message::{duration, socket};
use crate::names::{self, INBOUND_PASSTHROUGH_CLUSTER};
use crate::shape::SidecarShape;

/// The address that the rules of the redirection know as the proxy's own, so that what it sends to the workload is not
/// sent back to it.
const OWN_SOURCE: &str = "127.0.0.6";
const OWN_SOURCE_V6: &str = "::6";

/// The workload does not go away before its proxy.
const NEVER: Duration = Duration::from_secs(9_223_372_035);

/// Idle connections to ports that nobody declares.
const PASSTHROUGH_IDLE: Duration = Duration::from_secs(300);

/// `None` where the proxy cannot reach the workload.
pub(super) fn of_port(context: &Context<'_>, sidecar: &SidecarShape, port: &Port<'_>) -> Option<Built> {
    let is_socket = port.default_endpoint.is_some_and(|endpoint| endpoint.starts_with(UNIX_SCHEME));
    if is_socket && !context.shape.takes_unix_sockets() {
        return None;
    }
    let name = names::inbound(port.number);
    let mut cluster = match endpoint(sidecar, port) {
        Some(address) => fixed(&name, address),
        None => by_destination(&name, sidecar),
    };
    cluster.metadata = port.service.map(|(service, _)| cluster::service_metadata(service));
    let upstream = match port.protocol {
        protocol if protocol.is_http2() => Some(Upstream::Http2 { max_concurrent_streams: None }),
        // What is found out to be HTTP goes on as it came.
        Protocol::Unsupported => Some(Upstream::AsDownstream { max_concurrent_streams: None }),
        _ => None,
    };
    if let Some(upstream) = upstream {
        cluster::set_protocol(&mut cluster, upstream, HttpProtocolOptions::default());
    }
    Some(Built { cluster, endpoints: None, origin: port.origin.clone() })
}

/// The cluster of what comes to ports that nobody declares.
pub(super) fn passthrough(_context: &Context<'_>, sidecar: &SidecarShape) -> Built {
    let mut cluster = cluster::base(INBOUND_PASSTHROUGH_CLUSTER, DiscoveryType::OriginalDst);
    cluster.upstream_bind_config = Some(own_source(sidecar));
    let mut options = HttpProtocolOptions::default();
    options.common_http_protocol_options.get_or_insert_default().idle_timeout =
        Some(duration(PASSTHROUGH_IDLE));
    let upstream = Upstream::AsDownstream { max_concurrent_streams: None };
    cluster::set_protocol(&mut cluster, upstream, options);
    Built { cluster, endpoints: None, origin: None }
}

fn fixed(name: &str, address: Address) -> Cluster {
    let mut cluster = cluster::base(name, DiscoveryType::Static);
    cluster.load_assignment = Some(ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![address_endpoint(address)],
            ..Default::default()
        }],
        ..Default::default()
    });
    cluster
}

fn by_destination(name: &str, sidecar: &SidecarShape) -> Cluster {
    let mut cluster = cluster::base(name, DiscoveryType::OriginalDst);
    cluster.cleanup_interval = Some(duration(NEVER));
    cluster.upstream_bind_config = Some(own_source(sidecar));
    cluster
}

fn own_source(sidecar: &SidecarShape) -> BindConfig {
    let has_v4 = sidecar.addresses.iter().any(IpAddr::is_ipv4);
    let source = if has_v4 { OWN_SOURCE } else { OWN_SOURCE_V6 };
    let source_address = match socket(source, 0).address {
        Some(address::Address::SocketAddress(address)) => Some(address),
        _ => None,
    };
    BindConfig { source_address, ..Default::default() }
}

/// `defaultEndpoint`: the unspecified address stands for the workload's own. `None` for the address that the caller asked
/// for; on its own address the proxy stands in the workload's place, which is on localhost then.
fn endpoint(sidecar: &SidecarShape, port: &Port<'_>) -> Option<Address> {
    let Some(text) = port.default_endpoint else {
        return sidecar.own_address().map(|_| socket("127.0.0.1", port.number));
    };
    if let Some(path) = text.strip_prefix(UNIX_SCHEME) {
        return Some(pipe(path));
    }
    let (host, number) = text.rsplit_once(':').unwrap_or((text, ""));
    let number = number.parse().unwrap_or(port.number);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(ip) = host.parse::<IpAddr>() else { return Some(socket("127.0.0.1", number)) };
    let own = sidecar.addresses.iter().find(|own| own.is_ipv4() == ip.is_ipv4());
    Some(match own.filter(|_| ip.is_unspecified()) {
        Some(own) => socket(&own.to_string(), number),
        None if ip.is_unspecified() => socket(if ip.is_ipv4() { "127.0.0.1" } else { "::1" }, number),
        None => socket(host, number),
    })
}
