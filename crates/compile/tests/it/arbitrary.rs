//! Whatever a server sends, the compiler answers.

use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proptest::prelude::*;
use prost::{Message, Name};

use crate::yaml::message;

/// Compiles what decodes, as each kind of resource; nothing may panic.
fn compile_all(bytes: &[u8]) {
    if let Ok(message) = Listener::decode(bytes) {
        drop(meltemi_compile::listener(&message));
    }
    if let Ok(message) = Cluster::decode(bytes) {
        drop(meltemi_compile::cluster(&message));
    }
    if let Ok(message) = ClusterLoadAssignment::decode(bytes) {
        drop(meltemi_compile::endpoints(&message));
    }
    if let Ok(message) = RouteConfiguration::decode(bytes) {
        drop(meltemi_compile::route_table(&message));
    }
    for type_url in [HttpConnectionManager::type_url(), TcpProxy::type_url()] {
        drop(meltemi_compile::listener(&around(Any { type_url, value: bytes.to_vec().into() })));
    }
}

/// A listener with one filter.
fn around(config: Any) -> Listener {
    let filter = Filter { name: "f".into(), config_type: Some(filter::ConfigType::TypedConfig(config)) };
    let base: Listener = message("{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}}");
    Listener { filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }], ..base }
}

/// Valid resources, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        message::<Listener>(crate::listener::HTTP).encode_to_vec(),
        message::<Cluster>(crate::cluster::FULL).encode_to_vec(),
        message::<RouteConfiguration>(
            "{name: r, virtual_hosts: [{name: v, domains: ['*.a', b], routes: [
               {match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c, weight: 1}]}}},
               {match: {safe_regex: {regex: a+}}, redirect: {regex_rewrite: {pattern: {regex: '(a)'}, substitution: '\\1'}}}]}]}",
        )
        .encode_to_vec(),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        compile_all(&bytes);
    }

    #[test]
    fn damaged_resources_do_not_panic(
        seed in 0..3_usize,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = seeds().swap_remove(seed);
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        compile_all(&bytes);
    }
}
