//! Listeners of a sidecar that no traffic is redirected to (`interceptionMode: NONE`): they bind the workload's own
//! address, and clients connect to them.
//!
//! Source: Istio `pilot/pkg/networking/core/listener*.go`.

pub(crate) mod chain;
pub(crate) mod inbound;
pub(crate) mod outbound;

use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, Listener};

use crate::message::socket;
use crate::names;
use crate::resources::Origin;

/// A listener and what asked for it.
pub(crate) struct Built {
    pub(crate) listener: Listener,
    pub(crate) origin: Option<Origin>,
}

/// A listener with one filter chain that takes every connection.
pub(crate) fn listener(
    address: &str,
    port: u16,
    direction: TrafficDirection,
    filters: Vec<Filter>,
) -> Listener {
    Listener {
        name: names::listener(address, port),
        address: Some(socket(address, port)),
        filter_chains: vec![FilterChain { filters, ..Default::default() }],
        traffic_direction: direction as i32,
        ..Default::default()
    }
}
