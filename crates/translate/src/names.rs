//! The names that Istio gives to clusters, listeners, route configurations and virtual hosts. Tools and people
//! search for them, so they are exactly Istio's.

use std::fmt::Display;
use std::net::IpAddr;

use meltemi_snapshot::GatewayName;

/// Where traffic goes that no service of the mesh claims, if that is allowed.
pub(crate) const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// A cluster without hosts.
pub(crate) const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";
/// Where requests go whose host is to be resolved.
pub(crate) const RESOLVING_CLUSTER: &str = "AllowAnyDynamicDNSCluster";
/// Where traffic goes that comes to a port nobody declares.
pub(crate) const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";
/// The route configuration of the listener for all outbound HTTP.
pub(crate) const HTTP_PROXY_ROUTE: &str = "http_proxy";

/// `outbound|9080|v1|reviews.default.svc.cluster.local`; `subset` may be empty.
pub(crate) fn outbound_cluster(port: u16, subset: &str, host: impl Display) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The subset in the name of an outbound cluster; empty for the whole service.
pub(crate) fn subset(cluster: &str) -> &str {
    let mut parts = cluster.strip_prefix("outbound|").unwrap_or_default().split('|');
    parts.nth(1).unwrap_or_default()
}

/// The host in the name of an outbound cluster.
pub(crate) fn host(cluster: &str) -> &str {
    cluster.rsplit('|').next().unwrap_or_default()
}

/// `outbound_.9080_.v1_.reviews.default.svc.cluster.local`: the server name of mutual TLS, and the cluster that a
/// gateway forwards it to; `subset` may be empty.
pub(crate) fn server_name(port: u16, subset: &str, host: impl Display) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// `inbound|9080||`, a cluster and its route configuration.
pub(crate) fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// `10.0.0.1_9080`.
pub(crate) fn listener(address: &str, port: u16) -> String {
    format!("{address}_{port}")
}

/// `http.8080`, the route configuration of a plaintext gateway port.
pub(crate) fn gateway_route(port: u16) -> String {
    format!("http.{port}")
}

/// `https.443.web.shop.default`, the route configuration of a gateway server that terminates TLS.
pub(crate) fn https_route(port: u16, port_name: &str, gateway: &GatewayName) -> String {
    format!("https.{port}.{port_name}.{}.{}", gateway.name, gateway.namespace)
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn domain(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}

/// An IPv6 address in brackets, anything else as it is.
pub(crate) fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    }
}
