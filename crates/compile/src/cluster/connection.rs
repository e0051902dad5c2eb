//! How connections to the hosts of a cluster are made.
//!
//! Source: `envoy.config.cluster.v3.UpstreamConnectionOptions`, `envoy.config.core.v3.BindConfig`.

use std::net::SocketAddr;
use std::time::Duration;

use meltemi_envoy::config::cluster::v3::{Cluster, UpstreamConnectionOptions};
use meltemi_envoy::config::core::v3 as core;
use meltemi_envoy::config::core::v3::address;

use crate::ledger::{At, harmless, refuse};
use crate::program::{ConnectionOptions, TcpKeepalive};
use crate::scalar::socket_addr;

/// Compiles what holds for each connection.
pub(super) fn compile(at: &At<'_>, message: &Cluster) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    if let Some(message) = &message.upstream_connection_options {
        let at = at.field("upstream_connection_options");
        let UpstreamConnectionOptions {
            tcp_keepalive,
            set_local_interface_name_on_upstream_connections,
            happy_eyeballs_config,
        } = message;
        refuse!(at; happy_eyeballs_config);
        harmless!(Metadata; set_local_interface_name_on_upstream_connections);
        options.tcp_keepalive = tcp_keepalive.as_ref().map(keepalive);
    }
    if let Some(message) = &message.upstream_bind_config {
        bind(&at.field("upstream_bind_config"), message, &mut options);
    }
    options
}

fn keepalive(message: &core::TcpKeepalive) -> TcpKeepalive {
    let core::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = message;
    // Zero leaves a setting to the kernel.
    let seconds =
        |value: Option<u32>| value.filter(|value| *value != 0).map(|s| Duration::from_secs(s.into()));
    TcpKeepalive {
        probes: keepalive_probes.filter(|probes| *probes != 0),
        time: seconds(*keepalive_time),
        interval: seconds(*keepalive_interval),
    }
}

fn bind(at: &At<'_>, message: &core::BindConfig, options: &mut ConnectionOptions) {
    let core::BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = message;
    refuse!(at; socket_options, local_address_selector, validate_network_namespaces);
    if !extra_source_addresses.is_empty() && !additional_source_addresses.is_empty() {
        at.field("extra_source_addresses").reject("must not be set beside additional_source_addresses");
    }
    options.freebind = freebind.unwrap_or(false);
    let source = |at: &At<'_>, address: &core::SocketAddress| -> Option<SocketAddr> {
        let address = address::Address::SocketAddress(address.clone());
        socket_addr(at, &Some(core::Address { address: Some(address) }))
    };
    if let Some(address) = source_address {
        options.sources.extend(source(&at.field("source_address"), address));
    }
    options.sources.extend(at.each("extra_source_addresses", extra_source_addresses, |at, extra| {
        let core::ExtraSourceAddress { address, socket_options } = extra;
        refuse!(at; socket_options);
        match address {
            Some(address) => source(&at.field("address"), address),
            None => at.field("address").none("must be set"),
        }
    }));
    options.sources.extend(at.each("additional_source_addresses", additional_source_addresses, source));
}
