//! Which listener gets a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use meltemi_envoy::config::core::v3::address::Address as Kind;
use meltemi_envoy::config::core::v3::socket_address::PortSpecifier;
use meltemi_envoy::config::core::v3::{Address, SocketAddress};
use meltemi_envoy::config::listener::v3::Listener;

use crate::call::{Completed, Mode};

/// The listener that redirected connections out of a workload arrive at.
const VIRTUAL_OUTBOUND: &str = "virtualOutbound";

/// The listener that redirected connections into a workload arrive at.
const VIRTUAL_INBOUND: &str = "virtualInbound";

/// The listener of a call. Redirected connections are handed on by their original destination: to the listener of that
/// very address, else to the one of all addresses, else they stay where they arrived.
pub(crate) fn choose<'l>(listeners: &'l [Listener], completed: &Completed) -> Option<&'l Listener> {
    let destination = SocketAddr::new(completed.address, completed.call.port);
    let named = |name: &str| listeners.iter().find(|listener| listener.name == name);
    let bound = |address: IpAddr| {
        let wanted = SocketAddr::new(address, destination.port());
        listeners.iter().find(|listener| addresses(listener).any(|bound| bound == wanted))
    };
    let any = match destination.ip() {
        IpAddr::V4(_) => [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        IpAddr::V6(_) => [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
    };
    let at_address = || bound(destination.ip()).or_else(|| any.into_iter().find_map(bound));
    match completed.call.mode {
        Mode::Inbound => named(VIRTUAL_INBOUND).or_else(at_address),
        Mode::Outbound => at_address().or_else(|| named(VIRTUAL_OUTBOUND)),
        Mode::Gateway => at_address(),
    }
}

fn addresses(listener: &Listener) -> impl Iterator<Item = SocketAddr> {
    let additional = listener.additional_addresses.iter().filter_map(|more| more.address.as_ref());
    listener.address.iter().chain(additional).filter_map(socket_address)
}

fn socket_address(address: &Address) -> Option<SocketAddr> {
    let Some(Kind::SocketAddress(SocketAddress { address, port_specifier, .. })) = &address.address else {
        return None;
    };
    let Some(PortSpecifier::PortValue(port)) = port_specifier else { return None };
    Some(SocketAddr::new(address.parse().ok()?, u16::try_from(*port).ok()?))
}
