//! Which filter chain a connection takes.
//!
//! Source: `envoy.config.listener.v3.FilterChainMatch`. The criteria are weighed one after another; at each,
//! the chains with the most specific value that fits stay. There is no way back: when those fail a later
//! criterion, the connection gets the default chain, as in Envoy.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::program::{ChainMatch, ConnectionFacts, FilterChain, Listener, SourceType};

/// How well a chain fits by one criterion: `None` not at all, 0 by not asking, more by asking more exactly.
type Rank = Option<usize>;

/// The criteria in Envoy's order.
const CRITERIA: [fn(&ChainMatch, &ConnectionFacts<'_>) -> Rank; 9] = [
    |chain, facts| by_equal(chain.destination_port.as_slice(), &facts.destination.port()),
    |chain, facts| by_prefix(&chain.prefix_ranges, facts.destination.ip()),
    |chain, facts| by_server_name(&chain.server_names, facts.server_name),
    |chain, facts| match chain.transport_protocol.as_deref() {
        None => Some(0),
        Some(protocol) => (protocol == facts.transport_protocol).then_some(1),
    },
    |chain, facts| by_application_protocol(&chain.application_protocols, facts.application_protocols),
    |chain, facts| by_prefix(&chain.direct_source_prefix_ranges, facts.direct_source),
    |chain, facts| match (chain.source_type, is_same_ip_or_loopback(facts)) {
        (SourceType::Any, _) => Some(0),
        (SourceType::SameIpOrLoopback, true) | (SourceType::External, false) => Some(1),
        _ => None,
    },
    |chain, facts| by_prefix(&chain.source_prefix_ranges, facts.source.ip()),
    |chain, facts| by_equal(&chain.source_ports, &facts.source.port()),
];

impl Listener {
    /// The chain for a connection; `None` closes it. Criteria are weighed in Envoy's order: destination port,
    /// destination address (longest prefix), server name (exact, then longest wildcard), transport protocol,
    /// application protocol, direct source, source type, source address, source port; then the default chain.
    pub fn choose(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let default = self.default_chain.map(|i| &self.chains[i]);
        let matching = &self.chains[..self.default_chain.unwrap_or(self.chains.len())];
        match matching {
            [] => default,
            [only] => fits(&only.matches, facts).then_some(only).or(default),
            several => most_specific(several, facts).or(default),
        }
    }
}

fn fits(chain: &ChainMatch, facts: &ConnectionFacts<'_>) -> bool {
    CRITERIA.iter().all(|rank| rank(chain, facts).is_some())
}

fn most_specific<'c>(
    chains: &'c [Arc<FilterChain>],
    facts: &ConnectionFacts<'_>,
) -> Option<&'c Arc<FilterChain>> {
    let mut left: Vec<_> = chains.iter().collect();
    for rank in CRITERIA {
        let best = left.iter().filter_map(|chain| rank(&chain.matches, facts)).max()?;
        left.retain(|chain| rank(&chain.matches, facts) == Some(best));
    }
    left.first().copied()
}

fn by_equal<T: PartialEq>(asked: &[T], actual: &T) -> Rank {
    if asked.is_empty() { Some(0) } else { asked.contains(actual).then_some(1) }
}

/// The length of the longest range around the address. Asking for nothing is asking for a range of length 0.
fn by_prefix(ranges: &[IpNet], address: IpAddr) -> Rank {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges.iter().filter(|range| range.contains(&address)).map(|range| usize::from(range.prefix_len())).max()
}

fn by_server_name(names: &[Box<str>], actual: &str) -> Rank {
    if names.is_empty() {
        return Some(0);
    }
    let rank = |name: &str| match name.strip_prefix('*') {
        None => (name == actual).then_some(usize::MAX),
        Some(suffix) => (actual.len() > suffix.len() && actual.ends_with(suffix)).then_some(suffix.len()),
    };
    names.iter().filter_map(|name| rank(name)).max()
}

/// The first protocol of the connection that any chain asks for wins.
fn by_application_protocol(asked: &[Box<str>], offered: &[&str]) -> Rank {
    if asked.is_empty() {
        return Some(0);
    }
    let first = offered.iter().position(|protocol| asked.iter().any(|a| **a == **protocol))?;
    Some(offered.len() - first)
}

fn is_same_ip_or_loopback(facts: &ConnectionFacts<'_>) -> bool {
    facts.source.ip().is_loopback() || facts.source.ip() == facts.destination.ip()
}

/// Pairs of chains that some connection would fit equally well.
pub(crate) fn overlaps(chains: &[Arc<FilterChain>]) -> Vec<(usize, usize)> {
    let pairs = (0..chains.len()).flat_map(|j| (0..j).map(move |i| (i, j)));
    pairs.filter(|(i, j)| overlap(&chains[*i].matches, &chains[*j].matches)).collect()
}

/// Whether both ask, for every criterion, for one same value.
fn overlap(a: &ChainMatch, b: &ChainMatch) -> bool {
    a.destination_port == b.destination_port
        && shares(&a.prefix_ranges, &b.prefix_ranges)
        && shares(&a.server_names, &b.server_names)
        && a.transport_protocol == b.transport_protocol
        && shares(&a.application_protocols, &b.application_protocols)
        && shares(&a.direct_source_prefix_ranges, &b.direct_source_prefix_ranges)
        && a.source_type == b.source_type
        && shares(&a.source_prefix_ranges, &b.source_prefix_ranges)
        && shares(&a.source_ports, &b.source_ports)
}

fn shares<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    (a.is_empty() && b.is_empty()) || a.iter().any(|value| b.contains(value))
}
