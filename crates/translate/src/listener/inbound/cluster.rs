//! The clusters that lead to the workload itself: where it listens.
//!
//! Source: Istio `pilot/pkg/networking/core/cluster.go` (`buildInboundClusters`).

use std::net::IpAddr;

use meltemi_api::istio::InboundTrafficPolicyMode;
use meltemi_envoy::config::core::v3::Address;

use crate::cluster::Built;
use crate::cluster::inbound::{self, Inbound};
use crate::context::Context;
use crate::endpoint::pipe;
use crate::listener::UNIX_SCHEME;
use crate::listener::inbound::ports::Port;
use crate::message::socket;
use crate::shape::{Interception, SidecarShape};

/// `None` where the proxy cannot reach the workload.
pub(super) fn of_port(context: &Context<'_>, sidecar: &SidecarShape, port: &Port<'_>) -> Option<Built> {
    let is_socket = port.default_endpoint.is_some_and(|endpoint| endpoint.starts_with(UNIX_SCHEME));
    if is_socket && !context.shape.takes_unix_sockets() {
        return None;
    }
    let is_redirected = sidecar.interception != Interception::None;
    let resource = context.scope.sidecar();
    let inbound = Inbound {
        port: port.number,
        services: port.services.clone(),
        protocol: port.protocol,
        application: endpoint(sidecar, port).or_else(|| on_localhost(context, sidecar, port)),
        pool: resource.and_then(|resource| resource.inbound_connection_pool(port.number)),
        redirected: is_redirected.then_some(sidecar.addresses.as_slice()),
    };
    Some(Built { cluster: inbound.build(context), endpoints: None, origin: port.origin.clone() })
}

/// Where `inboundTrafficPolicy` says that workloads listen, if nothing of their own does.
fn on_localhost(context: &Context<'_>, sidecar: &SidecarShape, port: &Port<'_>) -> Option<Address> {
    let mesh = context.snapshot.config.mesh.wire()?;
    let mode = mesh.inbound_traffic_policy.as_ref().and_then(|policy| policy.mode);
    let is_declared = context.scope.sidecar().is_some_and(|resource| !resource.spec().ingress.is_empty());
    let has_v4 = sidecar.addresses.iter().any(IpAddr::is_ipv4);
    let asked = mode == Some(InboundTrafficPolicyMode::Localhost) && !is_declared;
    asked.then(|| socket(if has_v4 { "127.0.0.1" } else { "::1" }, port.number))
}

/// The cluster of what comes to ports that nobody declares.
pub(super) fn passthrough(context: &Context<'_>, sidecar: &SidecarShape) -> Built {
    Built { cluster: inbound::passthrough(context, &sidecar.addresses), endpoints: None, origin: None }
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
