//! Where a listener listens, and how its sockets are set up.
//!
//! Source: the socket fields of `envoy.config.listener.v3.Listener`.

use std::net::SocketAddr;
use std::time::Duration;

use meltemi_envoy::config::core::v3::address::Address as AddressKind;
use meltemi_envoy::config::core::v3::{Address, SocketOptionsOverride, TcpKeepalive};
use meltemi_envoy::config::listener::v3 as proto;

use crate::ledger::{At, refuse};
use crate::scalar::socket_addr;

/// `tcp_backlog_size` when it is not set: Envoy asks the kernel for its maximum, which caps this.
const BACKLOG: u32 = 4096;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// Address and port; port 0 asks the kernel for one.
    pub address: SocketAddr,
    /// `ipv4_compat`: an IPv6 socket takes IPv4 connections too.
    pub ipv4_compat: bool,
    /// `tcp_keepalive` of accepted connections.
    pub keepalive: Option<Keepalive>,
}

/// `envoy.config.core.v3.TcpKeepalive`; what is not set is the kernel's choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// `keepalive_probes`.
    pub probes: Option<u32>,
    /// `keepalive_time`.
    pub time: Option<Duration>,
    /// `keepalive_interval`.
    pub interval: Option<Duration>,
}

/// How the sockets of all addresses are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSettings {
    /// `bind_to_port`: without, only connections that another listener hands on come here.
    pub is_bound: bool,
    /// `tcp_backlog_size`.
    pub backlog: u32,
    /// `transparent`.
    pub is_transparent: bool,
    /// `freebind`.
    pub is_freebind: bool,
}

/// The first address and those of `additional_addresses`.
pub(super) fn addresses(
    at: &At<'_>,
    message: &proto::Listener,
) -> Option<(ListenAddress, Vec<ListenAddress>)> {
    let first = listen_address(at, &message.address, message.tcp_keepalive.as_ref())?;
    let additional = at.each("additional_addresses", &message.additional_addresses, |at, message| {
        let proto::AdditionalAddress { address, socket_options, tcp_keepalive } = message;
        if let Some(SocketOptionsOverride { socket_options }) = socket_options {
            refuse!(at.field("socket_options"); socket_options);
        }
        listen_address(at, address, tcp_keepalive.as_ref().or(None))
    });
    let keepalive = first.keepalive;
    let additional = additional
        .into_iter()
        .map(|address| ListenAddress { keepalive: address.keepalive.or(keepalive), ..address })
        .collect();
    Some((first, additional))
}

fn listen_address(
    at: &At<'_>,
    address: &Option<Address>,
    keepalive: Option<&TcpKeepalive>,
) -> Option<ListenAddress> {
    let mut plain = address.clone();
    let mut ipv4_compat = false;
    if let Some(Address { address: Some(AddressKind::SocketAddress(socket)) }) = &mut plain {
        ipv4_compat = std::mem::take(&mut socket.ipv4_compat);
    }
    let address = socket_addr(&at.field("address"), &plain)?;
    Some(ListenAddress {
        address,
        ipv4_compat: ipv4_compat && address.is_ipv6(),
        keepalive: keepalive.map(|message| tcp_keepalive(&at.field("tcp_keepalive"), message)),
    })
}

/// Compiles keepalive settings.
fn tcp_keepalive(at: &At<'_>, message: &TcpKeepalive) -> Keepalive {
    let TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = message;
    let seconds = |field, value: &Option<u32>| {
        value.and_then(|seconds| match seconds {
            0 => at.field(field).none("must be at least 1"),
            seconds => Some(Duration::from_secs(seconds.into())),
        })
    };
    Keepalive {
        probes: *keepalive_probes,
        time: seconds("keepalive_time", keepalive_time),
        interval: seconds("keepalive_interval", keepalive_interval),
    }
}

/// The settings of all sockets.
pub(super) fn settings(message: &proto::Listener) -> SocketSettings {
    let deprecated = message.deprecated_v1.as_ref().and_then(|v1| v1.bind_to_port);
    SocketSettings {
        is_bound: message.bind_to_port.or(deprecated).unwrap_or(true),
        backlog: message.tcp_backlog_size.unwrap_or(BACKLOG),
        is_transparent: message.transparent == Some(true),
        is_freebind: message.freebind == Some(true),
    }
}
