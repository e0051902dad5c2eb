//! Filter chains: what each matches, and the filters behind it.
//!
//! Source: `envoy.config.listener.v3.{FilterChain, FilterChainMatch}`.

use std::sync::Arc;

use meltemi_envoy::config::listener::v3 as proto;
use meltemi_envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;

use crate::chain::{self, ChainIndex};
use crate::ledger::{At, harmless, refuse};
use crate::network_filter::network_filters;
use crate::program::{ChainMatch, Direction, FilterChain, SourceType};
use crate::scalar::{cidr, digest};
use crate::tls;

/// The chains with the default one at the end, its index, and the index by which the others are found.
pub(super) fn chains(
    at: &At<'_>,
    messages: &[proto::FilterChain],
    default: Option<&proto::FilterChain>,
    direction: Direction,
) -> (Vec<Arc<FilterChain>>, Option<usize>, ChainIndex) {
    if messages.is_empty() && default.is_none() {
        at.field("filter_chains").reject("no filter chains specified");
    }
    let mut chains =
        at.each("filter_chains", messages, |at, chain| filter_chain(at, chain, direction).map(Arc::new));
    let chain_index = ChainIndex::new(&chains);
    for (i, j) in chain::overlaps(&chains, &chain_index) {
        at.item("filter_chains", j)
            .field("filter_chain_match")
            .reject(format_args!("has the same matching rules as filter_chains[{i}], or overlapping ones"));
    }
    let default = default.and_then(|message| {
        let at = at.field("default_filter_chain");
        if message.filter_chain_match.as_ref().is_some_and(|m| *m != proto::FilterChainMatch::default()) {
            at.field("filter_chain_match").reject("must be empty: the default chain has no conditions");
        }
        filter_chain(&at, message, direction)
    });
    let index = default.map(|chain| {
        chains.push(Arc::new(chain));
        chains.len() - 1
    });
    (chains, index, chain_index)
}

fn filter_chain(at: &At<'_>, message: &proto::FilterChain, direction: Direction) -> Option<FilterChain> {
    let proto::FilterChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = message;
    if *use_proxy_proto == Some(true) {
        at.field("use_proxy_proto").reject("deprecated: use the proxy_protocol listener filter");
    }
    harmless!(Metadata; metadata);
    let server_names = filter_chain_match.as_ref().map_or(&[][..], |message| &message.server_names);
    let tls = tls::downstream(at, transport_socket.as_ref(), server_names);
    let matches = match filter_chain_match {
        Some(message) => chain_match(&at.field("filter_chain_match"), message)?,
        None => ChainMatch::default(),
    };
    let (before, filter) = network_filters(at, filters, direction)?;
    Some(FilterChain {
        name: name.as_str().into(),
        matches,
        before,
        filter,
        digest: digest(message),
        tls,
        transport_socket_connect_timeout: at.timeout(
            "transport_socket_connect_timeout",
            transport_socket_connect_timeout,
            None,
        ),
    })
}

fn chain_match(at: &At<'_>, message: &proto::FilterChainMatch) -> Option<ChainMatch> {
    let proto::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = message;
    refuse!(at; address_suffix, suffix_len);
    let nonzero = |at: &At<'_>, port: u32| match u16::try_from(port) {
        Ok(port) if port > 0 => Some(port),
        _ => at.none(format_args!("{port} is not a port")),
    };
    Some(ChainMatch {
        destination_port: destination_port.and_then(|port| nonzero(&at.field("destination_port"), port)),
        prefix_ranges: at.each("prefix_ranges", prefix_ranges, cidr),
        server_names: at.each("server_names", server_names, |at, name| server_name(at, name)),
        transport_protocol: (!transport_protocol.is_empty()).then(|| transport_protocol.as_str().into()),
        application_protocols: application_protocols.iter().map(|p| p.as_str().into()).collect(),
        source_prefix_ranges: at.each("source_prefix_ranges", source_prefix_ranges, cidr),
        source_ports: at.each("source_ports", source_ports, |at, port| nonzero(at, *port)),
        direct_source_prefix_ranges: at.each(
            "direct_source_prefix_ranges",
            direct_source_prefix_ranges,
            cidr,
        ),
        source_type: match at.choice("source_type", *source_type)? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
    })
}

fn server_name(at: &At<'_>, name: &str) -> Option<Box<str>> {
    let name = name.to_ascii_lowercase();
    let fixed = name.strip_prefix("*.").unwrap_or(&name);
    if fixed.is_empty() || fixed.contains('*') {
        return at.none(format_args!("{name:?}: only a whole first label may be a wildcard"));
    }
    Some(name.into())
}
