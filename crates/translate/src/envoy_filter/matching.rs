//! Which objects of which proxies a patch is for.
//!
//! Source: Istio `listener_patch.go`, `rc_patch.go`, `cluster_patch.go` (the `…Match` functions).

use std::collections::{BTreeMap, BTreeSet};

use meltemi_api::istio::{
    ClusterMatch, FilterChainMatch as WantedChain, ListenerMatch, ProxyMatch, RouteConfigurationMatch,
    RouteMatch, RouteMatchAction, VirtualHostMatch,
};
use meltemi_envoy::config::core::v3::{Address, address, socket_address::PortSpecifier};
use meltemi_envoy::config::listener::v3::{FilterChain, Listener};
use meltemi_envoy::config::route::v3::{Route, VirtualHost, route::Action};
use regex::Regex;

use crate::ProxyShape;
use crate::context::Context;
use crate::gateway;
use crate::shape::Role;

/// The listeners that take redirected traffic: there a port is that of a chain.
const VIRTUAL_LISTENERS: [&str; 2] = ["virtualInbound", "virtualOutbound"];

/// The key of a node's metadata that holds the version of Istio that it is for.
const VERSION: &str = "ISTIO_VERSION";

pub(super) fn proxy(wanted: &ProxyMatch, shape: &ProxyShape) -> bool {
    let text = |key: &str| shape.metadata.get(key).map_or("", String::as_str);
    let version = wanted.proxy_version.as_deref().filter(|pattern| !pattern.is_empty());
    let is_version = |pattern: &str| {
        let matches = || Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text(VERSION)));
        !text(VERSION).is_empty() && matches()
    };
    version.is_none_or(is_version) && wanted.metadata.iter().all(|(key, value)| text(key) == value)
}

/// `is_whole`: the patch is for the listener itself, so that even of a virtual one the port is its own.
pub(super) fn listener(wanted: Option<&ListenerMatch>, listener: &Listener, is_whole: bool) -> bool {
    let Some(wanted) = wanted else { return true };
    if !is_name(wanted.name.as_deref(), &listener.name) {
        return false;
    }
    let is_virtual = VIRTUAL_LISTENERS.contains(&listener.name.as_str());
    let port = wanted.port_number.unwrap_or_default();
    port == 0 || is_virtual && !is_whole || port_of(listener.address.as_ref()) == Some(port)
}

fn port_of(address: Option<&Address>) -> Option<u32> {
    let Some(address::Address::SocketAddress(socket)) = &address?.address else { return None };
    match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => Some(port),
        _ => None,
    }
}

pub(super) fn chain(wanted: Option<&ListenerMatch>, listener: &str, chain: &FilterChain) -> bool {
    let Some(wanted) = wanted else { return true };
    let condition = chain.filter_chain_match.as_ref();
    let destination = condition.and_then(|c| c.destination_port);
    let port = wanted.port_number.unwrap_or_default();
    if VIRTUAL_LISTENERS.contains(&listener) && port > 0 && destination != Some(port) {
        return false;
    }
    let Some(WantedChain {
        name,
        sni,
        transport_protocol,
        application_protocols,
        filter: _,
        destination_port,
    }) = &wanted.filter_chain
    else {
        return true;
    };
    let has = |list: &[String], text: &str| list.iter().any(|own| own == text);
    is_name(name.as_deref(), &chain.name)
        && said(sni.as_deref()).is_none_or(|sni| condition.is_some_and(|c| has(&c.server_names, sni)))
        && said(transport_protocol.as_deref())
            .is_none_or(|wanted| condition.is_some_and(|c| c.transport_protocol == wanted))
        && said(application_protocols.as_deref()).is_none_or(|wanted| {
            condition.is_some_and(|c| wanted.split(',').all(|name| has(&c.application_protocols, name)))
        })
        && destination_port.is_none_or(|port| port == 0 || destination == Some(port))
}

/// What is said, if anything is.
fn said(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn is_name(wanted: Option<&str>, name: &str) -> bool {
    said(wanted).is_none_or(|wanted| wanted == name)
}

/// The ports of Gateway servers by the ports that route configurations are named after.
#[derive(Default)]
pub(super) struct PortMap(BTreeMap<u32, BTreeSet<u32>>);

impl PortMap {
    pub(super) fn of(context: &Context<'_>) -> PortMap {
        let mut ports: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let Role::Router(edge) = &context.shape.role else { return PortMap::default() };
        for merged in gateway::merged(context, edge).ports {
            let plain = merged.plain.iter().map(|server| (merged.number, server));
            let encrypted = merged.encrypted.iter().map(|server| (server.port(), server));
            for (number, server) in plain.chain(encrypted) {
                ports.entry(number.into()).or_default().insert(server.port().into());
            }
        }
        PortMap(ports)
    }

    fn is_port(&self, number: u32, wanted: u32) -> bool {
        self.0.get(&number).map_or(number == wanted, |servers| servers.contains(&wanted))
    }
}

/// On a gateway, the name of a route configuration says what it is for.
pub(super) fn gateway_routes(wanted: Option<&RouteConfigurationMatch>, name: &str, ports: &PortMap) -> bool {
    let Some(wanted) = wanted else { return true };
    let own = GatewayRoutes::parse(name);
    let port = wanted.port_number.unwrap_or_default();
    is_name(wanted.name.as_deref(), name)
        && said(wanted.port_name.as_deref()).is_none_or(|wanted| wanted == own.port_name)
        && said(wanted.gateway.as_deref()).is_none_or(|wanted| wanted == own.gateway)
        && (port == 0 || ports.is_port(own.port, port))
}

/// `http.PORT`, `https.PORT.PORT_NAME.GATEWAY.NAMESPACE`.
#[derive(Default)]
struct GatewayRoutes {
    port: u32,
    port_name: String,
    gateway: String,
}

impl GatewayRoutes {
    fn parse(name: &str) -> GatewayRoutes {
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["http", port, ..] => GatewayRoutes { port: number(port), ..GatewayRoutes::default() },
            ["https", port, port_name, gateway, namespace] => GatewayRoutes {
                port: number(port),
                port_name: (*port_name).to_owned(),
                gateway: format!("{namespace}/{gateway}"),
            },
            _ => GatewayRoutes::default(),
        }
    }
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_default()
}

/// In a sidecar a route configuration is named after its port, or after the inbound cluster.
pub(super) fn sidecar_routes(wanted: Option<&RouteConfigurationMatch>, name: &str) -> bool {
    let Some(wanted) = wanted else { return true };
    let own = name.strip_prefix("inbound|").and_then(|rest| rest.split('|').next()).unwrap_or(name);
    let port = wanted.port_number.unwrap_or_default();
    is_name(wanted.name.as_deref(), name) && (port == 0 || number(own) == port)
}

pub(super) fn virtual_host(wanted: Option<&VirtualHostMatch>, host: &VirtualHost) -> bool {
    let Some(wanted) = wanted else { return true };
    let has = |domain: &str| host.domains.iter().any(|own| own == domain);
    is_name(wanted.name.as_deref(), &host.name) && said(wanted.domain_name.as_deref()).is_none_or(has)
}

pub(super) fn route(wanted: Option<&RouteMatch>, route: &Route) -> bool {
    let Some(wanted) = wanted else { return true };
    let is_action = match (wanted.action.unwrap_or_default(), &route.action) {
        (RouteMatchAction::Any, _) => true,
        (wanted, Some(Action::Route(_))) => wanted == RouteMatchAction::Route,
        (wanted, Some(Action::Redirect(_))) => wanted == RouteMatchAction::Redirect,
        (wanted, Some(Action::DirectResponse(_))) => wanted == RouteMatchAction::DirectResponse,
        _ => true,
    };
    is_action && is_name(wanted.name.as_deref(), &route.name)
}

/// `hosts` are those of the services that an inbound cluster stands for.
pub(super) fn cluster(wanted: Option<&ClusterMatch>, name: &str, hosts: &[String]) -> bool {
    let Some(wanted) = wanted else { return true };
    if let Some(wanted) = said(wanted.name.as_deref()) {
        return wanted == name;
    }
    let own = ClusterParts::parse(name);
    let is_host = |wanted: &str| match own.is_inbound && !hosts.is_empty() {
        true => hosts.iter().any(|host| host == wanted),
        false => own.host == wanted,
    };
    let port = wanted.port_number.unwrap_or_default();
    is_name(wanted.subset.as_deref(), own.subset)
        && said(wanted.service.as_deref()).is_none_or(is_host)
        && (port == 0 || own.port == port)
}

/// `outbound|PORT|SUBSET|HOST`, or with `_.` in between.
struct ClusterParts<'a> {
    is_inbound: bool,
    port: u32,
    subset: &'a str,
    host: &'a str,
}

impl<'a> ClusterParts<'a> {
    fn parse(name: &'a str) -> ClusterParts<'a> {
        let separator = if name.starts_with("outbound_.") { "_." } else { "|" };
        let mut parts = name.splitn(4, separator);
        let mut next = || parts.next().unwrap_or_default();
        let is_inbound = next() == "inbound";
        ClusterParts { is_inbound, port: number(next()), subset: next(), host: next() }
    }
}
