//! Which filter chain a connection takes.
//!
//! Source: `envoy.config.listener.v3.FilterChainMatch`. The criteria are weighed one after another; at each,
//! the chains with the most specific value that fits stay. There is no way back: when those fail a later
//! criterion, the connection gets the default chain, as in Envoy. The first three criteria, by which large listeners
//! tell their chains apart, are looked up in an index; what is left is compared one by one.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::program::{ChainMatch, ConnectionFacts, FilterChain, Listener, SourceType};

/// How well a chain fits by one criterion: `None` not at all, 0 by not asking, more by asking more exactly.
type Rank = Option<usize>;

/// A criterion on one chain.
type Criterion = fn(&ChainMatch, &ConnectionFacts<'_>) -> Rank;

/// The criteria that are not indexed, in Envoy's order.
const CRITERIA: [Criterion; 6] = [
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
    /// The index in `chains` of the chain for a connection; `None` closes it. Criteria are weighed in Envoy's order:
    /// destination port, destination address (longest prefix), server name (exact, then longest wildcard), transport
    /// protocol, application protocol, direct source, source type, source address, source port; then the default chain.
    pub fn choose(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        most_specific(&self.chains, self.index.candidates(facts), facts).or(self.default_chain)
    }
}

/// Chains by destination port, destination address and server name.
#[derive(Debug, Default)]
pub struct ChainIndex(ByPort);

type ByPort = Level<u16, ByAddress>;

/// Values that chains ask for, and the chains that do not ask.
#[derive(Debug)]
struct Level<K, V> {
    asked: HashMap<K, V, foldhash::fast::RandomState>,
    any: Option<Box<V>>,
}

#[derive(Debug, Default)]
struct ByAddress {
    ranges: HashMap<IpNet, ByName, foldhash::fast::RandomState>,
    /// The prefix lengths that occur, longest first.
    lengths: BTreeSet<std::cmp::Reverse<u8>>,
}

#[derive(Debug, Default)]
struct ByName {
    exact: Level<Box<str>, Vec<usize>>,
    /// By what follows the `*`, with its dot.
    wildcards: HashMap<Box<str>, Vec<usize>, foldhash::fast::RandomState>,
}

impl<K, V> Default for Level<K, V> {
    fn default() -> Level<K, V> {
        Level { asked: HashMap::default(), any: None }
    }
}

impl<K: Hash + Eq, V: Default> Level<K, V> {
    fn entry(&mut self, key: Option<K>) -> &mut V {
        match key {
            Some(key) => self.asked.entry(key).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }
}

impl ChainIndex {
    /// The index of these chains, without the default one.
    pub(crate) fn new(chains: &[Arc<FilterChain>]) -> ChainIndex {
        let mut index = ChainIndex::default();
        for (i, chain) in chains.iter().enumerate() {
            let matches = &chain.matches;
            let by_address = index.0.entry(matches.destination_port);
            // Asking for nothing is asking for any address of either family.
            let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
            let asked = matches.prefix_ranges.as_slice();
            for range in if asked.is_empty() { &everything } else { asked } {
                by_address.lengths.insert(std::cmp::Reverse(range.prefix_len()));
                let by_name = by_address.ranges.entry(*range).or_default();
                for name in asked_or_any(&matches.server_names) {
                    by_name.list(name.map(|name| &**name)).push(i);
                }
            }
        }
        index
    }

    /// The chains that fit best by the indexed criteria, in order.
    fn candidates(&self, facts: &ConnectionFacts<'_>) -> &[usize] {
        let ByPort { asked, any } = &self.0;
        let by_address = asked.get(&facts.destination.port()).or(any.as_deref());
        by_address
            .and_then(|level| level.find(facts.destination.ip()))
            .and_then(|level| level.find(facts.server_name))
            .unwrap_or_default()
    }

    /// Every list of chains that ask for the same values.
    fn lists(&self) -> impl Iterator<Item = &Vec<usize>> {
        let by_address = self.0.asked.values().chain(self.0.any.as_deref());
        let by_name = by_address.flat_map(|level| level.ranges.values());
        by_name.flat_map(|level| {
            level.exact.asked.values().chain(level.exact.any.as_deref()).chain(level.wildcards.values())
        })
    }
}

impl ByAddress {
    fn find(&self, address: IpAddr) -> Option<&ByName> {
        let network = |length: u8| IpNet::new(address, length).ok().map(|net| net.trunc());
        self.lengths.iter().find_map(|length| self.ranges.get(&network(length.0)?))
    }
}

impl ByName {
    fn list(&mut self, name: Option<&str>) -> &mut Vec<usize> {
        match name.and_then(|name| name.strip_prefix('*')) {
            Some(suffix) => self.wildcards.entry(suffix.into()).or_default(),
            None => self.exact.entry(name.map(Box::from)),
        }
    }

    fn find(&self, name: &str) -> Option<&[usize]> {
        if let Some(list) = self.exact.asked.get(name) {
            return Some(list);
        }
        let dots = name.match_indices('.').filter(|(at, _)| *at > 0);
        let mut suffixes = dots.map(|(at, _)| &name[at..]).filter(|_| !self.wildcards.is_empty());
        let wildcard = suffixes.find_map(|suffix| self.wildcards.get(suffix));
        wildcard.or(self.exact.any.as_deref()).map(Vec::as_slice)
    }
}

/// Each value that is asked for, or once nothing.
fn asked_or_any<T>(asked: &[T]) -> impl Iterator<Item = Option<&T>> {
    let none = asked.is_empty().then_some(None);
    asked.iter().map(Some).chain(none)
}

fn most_specific(
    chains: &[Arc<FilterChain>],
    candidates: &[usize],
    facts: &ConnectionFacts<'_>,
) -> Option<usize> {
    if let [only] = candidates {
        let fits = CRITERIA.iter().all(|rank| rank(&chains[*only].matches, facts).is_some());
        return fits.then_some(*only);
    }
    let mut left = candidates.to_vec();
    for rank in CRITERIA {
        let best = left.iter().filter_map(|i| rank(&chains[*i].matches, facts)).max()?;
        left.retain(|i| rank(&chains[*i].matches, facts) == Some(best));
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
pub(crate) fn overlaps(chains: &[Arc<FilterChain>], index: &ChainIndex) -> BTreeSet<(usize, usize)> {
    let mut found = BTreeSet::new();
    for list in index.lists() {
        for (at, j) in list.iter().enumerate() {
            let overlaps = |i: &&usize| overlap(&chains[**i].matches, &chains[*j].matches);
            found.extend(list[..at].iter().filter(overlaps).map(|i| (*i, *j)));
        }
    }
    found
}

/// Whether both ask, for every criterion that is not indexed, for one same value.
fn overlap(a: &ChainMatch, b: &ChainMatch) -> bool {
    a.transport_protocol == b.transport_protocol
        && shares(&a.application_protocols, &b.application_protocols)
        && shares(&a.direct_source_prefix_ranges, &b.direct_source_prefix_ranges)
        && a.source_type == b.source_type
        && shares(&a.source_prefix_ranges, &b.source_prefix_ranges)
        && shares(&a.source_ports, &b.source_ports)
}

fn shares<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    (a.is_empty() && b.is_empty()) || a.iter().any(|value| b.contains(value))
}

#[cfg(test)]
mod tests;
