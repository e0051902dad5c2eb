//! The listener that outbound connections are redirected to. It hands each to the listener of the address that was meant;
//! what no listener is for goes on as it came, or nowhere.
//!
//! Source: Istio `pilot/pkg/networking/core/listener_builder.go` (`buildVirtualOutboundListener`,
//! `buildOutboundCatchAllNetworkFilterChains`).

use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};

use crate::cluster;
use crate::connection_manager::{Http, Place, Routes};
use crate::context::Context;
use crate::listener::address::Families;
use crate::listener::chain::{PLAIN_HTTP, http_inspector};
use crate::listener::outbound::network;
use crate::listener::{ACCEPTS_PER_EVENT, OUTBOUND_PORT, additional, bound};
use crate::names::{BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER, RESOLVING_CLUSTER};
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
        filters: network::to_cluster(context, &unmatched(context)),
        ..Default::default()
    };
    let resolves = virtual_host::resolves_unknown_hosts(context);
    let requests = resolves.then(|| requests(context));
    Listener {
        name: NAME.to_owned(),
        address: bound(addresses.first().map_or("", String::as_str), OUTBOUND_PORT),
        additional_addresses: additional(&addresses, OUTBOUND_PORT),
        transparent: (interception == Interception::Tproxy).then_some(true),
        use_original_dst: Some(true),
        filter_chains: [to_itself].into_iter().chain(requests).chain([rest]).collect(),
        listener_filters: resolves.then(http_inspector).into_iter().collect(),
        traffic_direction: TrafficDirection::Outbound as i32,
        max_connections_to_accept_per_socket_event: Some(ACCEPTS_PER_EVENT),
        ..Default::default()
    }
}

/// Requests, where their host is to be resolved.
fn requests(context: &Context<'_>) -> FilterChain {
    let http = Http {
        shape: context.shape,
        options: context.options,
        stat_prefix: "outbound_virtualOutbound_allow_any_dynamic_dns;".to_owned(),
        routes: Routes::Inline(Box::new(virtual_host::of_unknown_hosts(context))),
        place: Place::Outbound,
    };
    FilterChain {
        name: format!("{CATCH_ALL_CHAIN}-http"),
        filter_chain_match: Some(FilterChainMatch {
            application_protocols: PLAIN_HTTP.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        }),
        filters: http.filters(),
        ..Default::default()
    }
}

/// The cluster of requests whose host is to be resolved, if they are.
///
/// Differs: it leads to the address that they came for, as our proxy resolves no names of requests.
pub(crate) fn resolving(context: &Context<'_>) -> Option<cluster::Built> {
    if !virtual_host::resolves_unknown_hosts(context) {
        return None;
    }
    let cluster = cluster::passthrough_of(context, RESOLVING_CLUSTER);
    Some(cluster::Built { cluster, endpoints: None, origin: None })
}

/// Where connections go that no listener is for.
pub(crate) fn unmatched(context: &Context<'_>) -> String {
    if virtual_host::resolves_unknown_hosts(context) {
        return PASSTHROUGH_CLUSTER.to_owned();
    }
    if virtual_host::allows_unknown_hosts(context) {
        return unknown_host_cluster(context);
    }
    BLACK_HOLE_CLUSTER.to_owned()
}
