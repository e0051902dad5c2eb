//! The listener filters of an inbound listener: those that look into connections do so only on the ports whose chains ask
//! for it, as looking means waiting for the client to speak.
//!
//! Source: Istio `pilot/pkg/networking/core/listener_inbound.go` (`populateListenerFilters`).

use std::collections::BTreeMap;

use meltemi_envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use meltemi_envoy::config::listener::v3::{
    FilterChain, ListenerFilter, ListenerFilterChainMatchPredicate as Predicate,
};
use meltemi_envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use meltemi_envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use meltemi_envoy::r#type::v3::Int32Range;

use crate::listener::chain::{PLAIN_HTTP, TLS, http_inspector, listener_filter, tls_inspector};
use crate::message::packed;
use crate::shape::{ORIGINAL_SRC, ProxyShape};

/// The mark of packets that go from the proxy to the workload in the caller's name; the rules of Istio's CNI know it.
const TPROXY_MARK: u32 = 1337;

/// What a port asks for.
#[derive(Clone, Copy, Default)]
struct Needs {
    tls: bool,
    http: bool,
}

/// The filters that find out where a redirected connection was meant to go.
pub(super) fn of_redirect(shape: &ProxyShape, is_transparent: bool) -> Vec<ListenerFilter> {
    let mut filters = vec![listener_filter("envoy.filters.listener.original_dst", packed::<OriginalDst>())];
    if is_transparent && shape.has_extension(ORIGINAL_SRC) {
        let config = OriginalSrc { mark: TPROXY_MARK, ..Default::default() };
        filters.push(listener_filter(ORIGINAL_SRC, meltemi_envoy::Any::pack(&config)));
    }
    filters
}

/// The filters that look into connections.
pub(super) fn of_chains(chains: &[FilterChain]) -> Vec<ListenerFilter> {
    let mut needs: BTreeMap<u16, Needs> = BTreeMap::new();
    for condition in chains.iter().filter_map(|chain| chain.filter_chain_match.as_ref()) {
        let port = condition.destination_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        let needs = needs.entry(port).or_default();
        needs.tls |= condition.transport_protocol == TLS;
        needs.http |= condition.application_protocols.iter().any(|name| PLAIN_HTTP.contains(&name.as_str()));
    }
    let mut filters = Vec::new();
    if needs.values().any(|needs| needs.tls) {
        filters.push(ListenerFilter { filter_disabled: tls_is_off(&needs), ..tls_inspector() });
    }
    if needs.values().any(|needs| needs.http) {
        let off = needs.iter().filter(|(_, needs)| !needs.http).map(|(port, _)| *port);
        filters.push(ListenerFilter { filter_disabled: on_ports(off.collect()), ..http_inspector() });
    }
    filters
}

/// Ports that are not declared decide what the declared ones are exceptions to.
fn tls_is_off(needs: &BTreeMap<u16, Needs>) -> Option<Predicate> {
    let looks = needs.get(&0).is_some_and(|needs| needs.tls);
    let declared = needs.iter().filter(|(port, _)| **port > 0);
    let exceptions: Vec<u16> =
        declared.filter(|(_, needs)| needs.tls != looks).map(|(port, _)| *port).collect();
    let on_exceptions = on_ports(exceptions)?;
    if looks {
        return Some(on_exceptions);
    }
    Some(Predicate { rule: Some(Rule::NotMatch(Box::new(on_exceptions))) })
}

/// `None` for no port.
fn on_ports(ports: Vec<u16>) -> Option<Predicate> {
    let on_port = |port: u16| {
        let range = Int32Range { start: port.into(), end: i32::from(port) + 1 };
        Predicate { rule: Some(Rule::DestinationPortRange(range)) }
    };
    let mut rules: Vec<Predicate> = ports.into_iter().map(on_port).collect();
    if rules.len() > 1 {
        return Some(Predicate { rule: Some(Rule::OrMatch(MatchSet { rules })) });
    }
    rules.pop()
}
