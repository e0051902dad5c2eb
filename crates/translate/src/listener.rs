//! Listeners of a sidecar: those that take what the kernel redirects, and those that callers connect to.
//!
//! Source: Istio `pilot/pkg/networking/core/listener*.go`.

pub(crate) mod address;
pub(crate) mod chain;
pub(crate) mod inbound;
pub(crate) mod outbound;
pub(crate) mod own_address;

use meltemi_envoy::config::core::v3::{Address, TrafficDirection};
use meltemi_envoy::config::listener::v3::{AdditionalAddress, Filter, FilterChain, Listener};

use crate::endpoint::pipe;
use crate::message::socket;
use crate::names;
use crate::resources::Origin;

/// Where outbound connections are redirected to.
pub(crate) const OUTBOUND_PORT: u16 = 15001;
/// Where inbound connections are redirected to.
pub(crate) const INBOUND_PORT: u16 = 15006;

/// How many connections a listener takes before it looks at those that it has.
pub(crate) const ACCEPTS_PER_EVENT: u32 = 1;

/// What the address of a Unix socket begins with.
pub(crate) const UNIX_SCHEME: &str = "unix://";

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

/// The address of a listener, maybe a Unix socket.
pub(crate) fn bound(address: &str, port: u16) -> Option<Address> {
    Some(match address.strip_prefix(UNIX_SCHEME) {
        Some(path) => pipe(path),
        None => socket(address, port),
    })
}

/// All addresses of a listener but the first.
pub(crate) fn additional(addresses: &[String], port: u16) -> Vec<AdditionalAddress> {
    let more = addresses.iter().skip(1);
    more.map(|address| AdditionalAddress { address: bound(address, port), ..Default::default() }).collect()
}
