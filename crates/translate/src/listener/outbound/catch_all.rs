//! The listener that outbound connections are redirected to. It hands each to the listener of the address that was meant;
//! what no listener is for goes on as it came, or nowhere.
//!
//! Source: Istio `pilot/pkg/networking/core/listener_builder.go` (`buildVirtualOutboundListener`,
//! `buildOutboundCatchAllNetworkFilterChains`).

use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};

use crate::context::Context;
use crate::listener::address::Families;
use crate::listener::outbound::network;
use crate::listener::{ACCEPTS_PER_EVENT, OUTBOUND_PORT, additional, bound};
use crate::names::BLACK_HOLE_CLUSTER;
use crate::shape::Interception;
use crate::virtual_host::{self, unknown_host_cluster};

const NAME: &str = "virtualOutbound";
const CATCH_ALL_CHAIN: &str = "virtualOutbound-catchall-tcp";
const BLACK_HOLE_CHAIN: &str = "virtualOutbound-blackhole";

pub(crate) fn listener(context: &Context<'_>, families: Families, interception: Interception) -> Listener {
    let addresses = families.wildcards();
    // Who asks for the port itself would be sent to it again, and again.
    let to_itself = FilterChain {
        name: BLACK_HOLE_CHAIN.to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(OUTBOUND_PORT.into()),
            ..Default::default()
        }),
        filters: network::to_cluster(context, BLACK_HOLE_CLUSTER),
        ..Default::default()
    };
    let rest = FilterChain {
        name: CATCH_ALL_CHAIN.to_owned(),
        filters: network::to_cluster(context, &cluster(context)),
        ..Default::default()
    };
    Listener {
        name: NAME.to_owned(),
        address: bound(addresses.first().map_or("", String::as_str), OUTBOUND_PORT),
        additional_addresses: additional(&addresses, OUTBOUND_PORT),
        transparent: (interception == Interception::Tproxy).then_some(true),
        use_original_dst: Some(true),
        filter_chains: vec![to_itself, rest],
        traffic_direction: TrafficDirection::Outbound as i32,
        max_connections_to_accept_per_socket_event: Some(ACCEPTS_PER_EVENT),
        ..Default::default()
    }
}

/// Where connections go that no listener is for.
pub(crate) fn cluster(context: &Context<'_>) -> String {
    if virtual_host::allows_unknown_hosts(context) {
        return unknown_host_cluster(context);
    }
    BLACK_HOLE_CLUSTER.to_owned()
}
