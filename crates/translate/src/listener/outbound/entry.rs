//! An outbound listener in the making: what several services ask for on one address and port, and what becomes of
//! those that do not go together.
//!
//! Source: Istio `pilot/pkg/networking/core/listener.go` (`buildSidecarOutboundListener`, `mergeTCPFilterChains`,
//! `buildListenerFromEntry`).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use meltemi_envoy::config::core::v3::{CidrRange, Metadata, TrafficDirection};
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use meltemi_snapshot::{Host, Protocol};

use crate::listener::chain::{PLAIN_HTTP, RAW_BUFFER, http_inspector, tls_inspector};
use crate::listener::{ACCEPTS_PER_EVENT, additional, bound};
use crate::message::UNLIMITED;
use crate::names;
use crate::resources::Origin;

/// Name of the chain of what no other takes.
const PASSTHROUGH_CHAIN: &str = "PassthroughFilterChain";

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: prost_types::Duration = prost_types::Duration { seconds: 15, nanos: 0 };

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    /// Its addresses; the first one names it.
    pub(crate) addresses: Vec<String>,
    pub(crate) port: u16,
    /// Whether callers connect to it; otherwise it takes what was redirected and meant for its address.
    pub(crate) is_real: bool,
}

impl Bind {
    pub(crate) fn primary(&self) -> &str {
        self.addresses.first().map_or("", String::as_str)
    }

    pub(crate) fn key(&self) -> (String, u16) {
        (self.primary().to_owned(), self.port)
    }

    pub(crate) fn name(&self) -> String {
        names::listener(self.primary(), self.port)
    }
}

/// Which route configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteName {
    /// `9080`: of all services with this port.
    Port(u16),
    /// `reviews.default.svc.cluster.local:9080`: of one that has a listener of its own.
    Service(Host, u16),
    /// `unix:///var/run/egress.sock`: of the listener on a Unix socket.
    Socket(String),
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteName::Port(port) => write!(f, "{port}"),
            RouteName::Service(host, port) => write!(f, "{host}:{port}"),
            RouteName::Socket(path) => f.write_str(path),
        }
    }
}

/// What of a port is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests.
    Http,
    /// Bytes.
    Tcp,
    /// Which of the two it is, is found out.
    Sniffed,
}

impl Kind {
    /// `None` for what is not proxied.
    pub(crate) fn of(protocol: Protocol) -> Option<Kind> {
        match protocol {
            Protocol::Udp => None,
            Protocol::Unsupported => Some(Kind::Sniffed),
            protocol if protocol.is_http() => Some(Kind::Http),
            _ => Some(Kind::Tcp),
        }
    }
}

/// A filter chain with its condition.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) server_names: Vec<String>,
    pub(crate) cidrs: Vec<String>,
    /// Only plaintext HTTP, as the inspector finds it.
    pub(crate) is_plain_http: bool,
    pub(crate) filters: Vec<Filter>,
    pub(crate) metadata: Option<Metadata>,
    /// The route configuration that its filters name.
    pub(crate) routes: Option<RouteName>,
}

impl Chain {
    /// A chain without a condition.
    pub(crate) fn unconditional(filters: Vec<Filter>) -> Chain {
        Chain {
            server_names: Vec::new(),
            cidrs: Vec::new(),
            is_plain_http: false,
            filters,
            metadata: None,
            routes: None,
        }
    }

    fn takes_all(&self) -> bool {
        let any_name = self.server_names.is_empty() || self.server_names.iter().any(|name| name == "*");
        any_name && self.cidrs.is_empty() && !self.is_plain_http
    }

    /// Whether two chains have the same condition, which a listener must not have twice.
    pub(crate) fn conflicts_with(&self, other: &Chain) -> bool {
        let names = |chain: &Chain| -> BTreeSet<String> {
            chain.server_names.iter().filter(|name| *name != "*").cloned().collect()
        };
        let ranges = |chain: &Chain| -> BTreeSet<(IpAddr, u8)> {
            chain
                .cidrs
                .iter()
                .filter_map(|cidr| masked(cidr))
                .filter(|(ip, _)| !is_v4_wildcard(*ip))
                .collect()
        };
        self.is_plain_http == other.is_plain_http
            && names(self) == names(other)
            && ranges(self) == ranges(other)
    }

    /// `None` for all connections.
    fn condition(&self) -> Option<FilterChainMatch> {
        if self.takes_all() {
            return None;
        }
        let mut condition = FilterChainMatch::default();
        if self.is_plain_http {
            condition.application_protocols = PLAIN_HTTP.iter().map(|name| (*name).to_owned()).collect();
            condition.transport_protocol = RAW_BUFFER.to_owned();
        }
        if !self.server_names.iter().any(|name| name == "*") {
            condition.server_names.clone_from(&self.server_names);
            condition.server_names.sort();
        }
        let mut cidrs = self.cidrs.clone();
        cidrs.sort();
        condition.prefix_ranges = cidrs.iter().filter_map(|cidr| range(cidr)).collect();
        Some(condition)
    }

    fn build(&self) -> FilterChain {
        FilterChain {
            filter_chain_match: self.condition(),
            filters: self.filters.clone(),
            metadata: self.metadata.clone(),
            transport_socket_connect_timeout: Some(HANDSHAKE_TIMEOUT),
            ..Default::default()
        }
    }
}

/// An address with the length of its prefix, all of it where none is said.
fn prefix(cidr: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = cidr.split_once('/').map_or((cidr, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
    (bits <= most).then_some((ip, bits))
}

fn masked(cidr: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = prefix(cidr)?;
    let ip = match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    };
    Some((ip, bits))
}

fn is_v4_wildcard(ip: IpAddr) -> bool {
    ip.is_ipv4() && ip.is_unspecified()
}

/// `None` for a range of all addresses.
fn range(cidr: &str) -> Option<CidrRange> {
    let (ip, bits) = prefix(cidr)?;
    let range = CidrRange { address_prefix: ip.to_string(), prefix_len: Some(u32::from(bits)) };
    (!is_v4_wildcard(ip)).then_some(range)
}

/// What a port asks for, and who asks.
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    pub(crate) bind: Bind,
    pub(crate) origin: Option<Origin>,
}

/// A listener in the making.
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) bind: Bind,
    pub(crate) origin: Option<Origin>,
    /// An egress listener of a Sidecar has named it, so that it takes no other services.
    pub(crate) is_locked: bool,
    chains: Vec<Chain>,
}

impl Entry {
    pub(crate) fn new(wanted: Wanted, chains: Vec<Chain>) -> Entry {
        let Wanted { kind, bind, origin } = wanted;
        Entry { kind, bind, origin, is_locked: false, chains }
    }

    /// Takes more chains in; of two with the same condition the first stays. Whether all of them could be taken.
    pub(crate) fn merge(&mut self, incoming: Vec<Chain>) -> bool {
        let mut took_all = true;
        for chain in incoming {
            if self.chains.iter().any(|existing| existing.conflicts_with(&chain)) {
                took_all = false;
            } else {
                self.chains.push(chain);
            }
        }
        took_all
    }

    /// The route configurations that it needs.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &RouteName> {
        self.chains.iter().filter_map(|chain| chain.routes.as_ref())
    }

    /// A chain that takes everything becomes the default, so that what begins to match another is not lost; without one
    /// the default is `unmatched`.
    pub(crate) fn build(&self, unmatched: Vec<Filter>) -> Listener {
        let (all, some): (Vec<&Chain>, Vec<&Chain>) = self.chains.iter().partition(|c| c.takes_all());
        let mut listener = Listener {
            name: self.bind.name(),
            address: bound(self.bind.primary(), self.bind.port),
            additional_addresses: additional(&self.bind.addresses, self.bind.port),
            traffic_direction: TrafficDirection::Outbound as i32,
            continue_on_listener_filters_timeout: true,
            listener_filters_timeout: Some(UNLIMITED),
            filter_chains: some.into_iter().map(Chain::build).collect(),
            default_filter_chain: all.last().map(|chain| chain.build()),
            ..Default::default()
        };
        if self.bind.is_real {
            listener.max_connections_to_accept_per_socket_event = Some(ACCEPTS_PER_EVENT);
        } else {
            listener.bind_to_port = Some(false);
        }
        if self.chains.iter().any(|chain| !chain.server_names.is_empty()) {
            listener.listener_filters.push(tls_inspector());
        }
        if self.chains.iter().any(|chain| chain.is_plain_http) {
            listener.listener_filters.push(http_inspector());
        }
        match listener.default_filter_chain.take() {
            Some(only) if listener.filter_chains.is_empty() => listener.filter_chains.push(only),
            Some(default) => listener.default_filter_chain = Some(default),
            None => listener.default_filter_chain = Some(passthrough_chain(unmatched)),
        }
        listener
    }
}

fn passthrough_chain(filters: Vec<Filter>) -> FilterChain {
    FilterChain {
        name: PASSTHROUGH_CHAIN.to_owned(),
        filter_chain_match: Some(FilterChainMatch::default()),
        filters,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(server_names: &[&str], cidrs: &[&str]) -> Chain {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Chain { server_names: owned(server_names), cidrs: owned(cidrs), ..Chain::unconditional(Vec::new()) }
    }

    #[test]
    fn equal_conditions_conflict_however_they_are_written() {
        let conflict = |a: &Chain, b: &Chain| a.conflicts_with(b) && b.conflicts_with(a);
        assert!(conflict(&chain(&["a", "b"], &[]), &chain(&["b", "*", "a"], &[])));
        assert!(conflict(&chain(&[], &["10.1.2.3/8"]), &chain(&[], &["10.9.9.9/8"])));
        assert!(conflict(&chain(&[], &["10.1.2.3"]), &chain(&[], &["10.1.2.3/32"])));
        assert!(conflict(&chain(&[], &["0.0.0.0/0"]), &chain(&[], &[])));
        assert!(conflict(&chain(&[], &["2001:db8::1/16"]), &chain(&[], &["2001:ff::/16"])));
        assert!(!conflict(&chain(&[], &["10.1.2.3/8"]), &chain(&[], &["10.1.2.3/16"])));
        assert!(!conflict(&chain(&["a"], &[]), &chain(&[], &[])));
        let http = Chain { is_plain_http: true, ..chain(&[], &[]) };
        assert!(!conflict(&http, &chain(&[], &[])));
    }

    #[test]
    fn a_star_among_names_takes_every_name() {
        let condition = chain(&["*", "a"], &["10.0.0.0/8"]).condition().expect("a range");
        assert!(condition.server_names.is_empty());
        assert_eq!(condition.prefix_ranges.len(), 1);
        assert_eq!(chain(&["*"], &[]).condition(), None);
    }
}
