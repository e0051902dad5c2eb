//! Servers whose connections begin with TLS: one filter chain by server name for each of them, or for each of their
//! routes.
//!
//! Source: Istio `pilot/pkg/networking/core/gateway.go` (`createGatewayHTTPFilterChainOpts`,
//! `createGatewayTCPFilterChainOpts`, `builtAutoPassthroughFilterChains`).

use std::collections::BTreeSet;

use meltemi_api::istio::{Server, ServerTlsSettings, TlsMode};
use meltemi_envoy::Any;
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use meltemi_snapshot::{Gateway, Host, Protocol, ServerKind, Service};

use super::{Built, Entry, Port, accepted_hosts, tcp_destination, virtual_hosts};
use crate::cluster;
use crate::listener::chain::tls_inspector;
use crate::message::duration;
use crate::names;
use crate::resources::Origins;
use crate::route::{Binding, l4};
use crate::tls::{MESH_ALPN, downstream, transport_socket};
use crate::virtual_host::route_configuration;

/// How long a handshake may take at the edge, Istio's bound.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

impl Port<'_> {
    /// The listener of TLS servers; `None` if none of them leads anywhere.
    pub(super) fn encrypted(
        &self,
        servers: &[Entry<'_>],
        built: &mut Built,
        origins: &mut Origins,
    ) -> Option<Listener> {
        let mut hosts = BTreeSet::new();
        let mut taken = BTreeSet::new();
        let mut chains = Vec::new();
        for entry in servers {
            let (_, _, server) = entry;
            let own: Vec<&str> = names(server).collect();
            // A host belongs to the server that had it first, and a server has all of its hosts or none.
            if own.iter().any(|host| hosts.contains(host)) {
                continue;
            }
            hosts.extend(own);
            let own_chains = self.chains(entry, built, origins).into_iter();
            // Two chains with the same condition would lose the whole listener.
            chains.extend(own_chains.filter_map(|chain| with_free_names(chain, &mut taken)));
        }
        let listener = self.listener(Vec::new());
        (!chains.is_empty()).then(|| Listener {
            filter_chains: chains,
            listener_filters: vec![tls_inspector()],
            ..listener
        })
    }

    fn chains(&self, entry: &Entry<'_>, built: &mut Built, origins: &mut Origins) -> Vec<FilterChain> {
        let (gateway, _, server) = entry;
        let Some(tls) = &server.tls else { return Vec::new() };
        let passes = tls.mode().is_passthrough();
        if !passes && tls.mode().is_of_mesh() && self.context.identity().is_none() {
            // Without a certificate nobody could be let in.
            return Vec::new();
        }
        if !passes {
            built.credentials.extend(credentials(tls));
        }
        match Gateway::kind(server) {
            ServerKind::Https => vec![self.https(entry, tls, built, origins)],
            ServerKind::TlsPassthrough if tls.mode() == TlsMode::AutoPassthrough => {
                self.forwarded_by_name(gateway, server, built)
            }
            ServerKind::TlsPassthrough => self.passthrough(gateway, server),
            _ => self.bytes_in_tls(entry, tls).into_iter().collect(),
        }
    }

    fn https(
        &self,
        entry: &Entry<'_>,
        tls: &ServerTlsSettings,
        built: &mut Built,
        origins: &mut Origins,
    ) -> FilterChain {
        let (gateway, _, server) = entry;
        let name = self.with_bind(names::https_route(self.number, &server.port.name, &gateway.name));
        let hosts = virtual_hosts(self.context, self.number, std::slice::from_ref(entry));
        built.routes.push(route_configuration(&name, hosts, true, origins));
        let context = downstream::of_server(self.context, tls, true);
        terminating(server, self.requests(name, Some(server)), context)
    }

    fn bytes_in_tls(&self, entry: &Entry<'_>, tls: &ServerTlsSettings) -> Option<FilterChain> {
        let (_, _, server) = entry;
        let destination = tcp_destination(self.context, self.number, std::slice::from_ref(entry))?;
        let context = downstream::of_server(self.context, tls, false);
        let is_of_mesh = tls.mode() == TlsMode::IstioMutual;
        Some(terminating(server, self.bytes(destination, is_of_mesh), context))
    }

    /// By the TLS routes of the VirtualServices that are bound to the server.
    fn passthrough(&self, gateway: &Gateway, server: &Server) -> Vec<FilterChain> {
        let accepted = accepted_hosts(gateway, server);
        let mut chains = Vec::new();
        for virtual_service in self.context.scope.virtual_services_of(&gateway.name) {
            let wants =
                |host: &Host| accepted.iter().any(|a| a.admit(virtual_service.namespace(), host).is_some());
            if !virtual_service.hosts.iter().any(wants) {
                continue;
            }
            let binding =
                Binding { context: self.context, virtual_service, gateway: &gateway.name, port: self.number };
            let routes = l4::tls(&binding).into_iter();
            chains.extend(
                routes.map(|(names, destination)| by_server_name(names, self.bytes(destination, false))),
            );
        }
        chains
    }

    /// To any service of the mesh that the server's hosts cover, by the server name of mutual TLS. Only endpoints that
    /// speak it are reached, so nobody gets past it this way.
    fn forwarded_by_name(&self, gateway: &Gateway, server: &Server, built: &mut Built) -> Vec<FilterChain> {
        let hosts: Vec<Host> =
            accepted_hosts(gateway, server).into_iter().map(|accepted| accepted.host).collect();
        let covered = |service: &Service| hosts.iter().any(|host| host.covers(&service.host));
        let services = self.context.scope.services().filter(|s| !s.external && covered(s));
        let mut chains = Vec::new();
        for service in services {
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                for cluster in cluster::by_server_name(self.context, service, port) {
                    let name = cluster.cluster.name.clone();
                    let filters = self.bytes(ClusterSpecifier::Cluster(name.clone()), false);
                    let mut chain = by_server_name(vec![name], filters);
                    let alpn = MESH_ALPN.iter().map(|name| (*name).to_owned()).collect();
                    chain.filter_chain_match.get_or_insert_default().application_protocols = alpn;
                    chains.push(chain);
                    built.clusters.push(cluster);
                }
            }
        }
        chains
    }
}

fn by_server_name(server_names: Vec<String>, filters: Vec<Filter>) -> FilterChain {
    // A chain for every name has no condition.
    let server_names = if server_names.iter().any(|name| name == "*") { Vec::new() } else { server_names };
    FilterChain {
        filter_chain_match: Some(FilterChainMatch { server_names, ..Default::default() }),
        filters,
        transport_socket_connect_timeout: Some(duration(HANDSHAKE_TIMEOUT)),
        ..Default::default()
    }
}

fn terminating(server: &Server, filters: Vec<Filter>, context: Any) -> FilterChain {
    let names: BTreeSet<String> = names(server).map(str::to_owned).collect();
    let chain = by_server_name(names.into_iter().collect(), filters);
    FilterChain { transport_socket: Some(transport_socket(context)), ..chain }
}

/// The server names of a server, without the namespaces in front.
fn names(server: &Server) -> impl Iterator<Item = &str> {
    server.hosts.iter().map(|host| host.rsplit('/').next().unwrap_or(host))
}

/// The chain without the server names that earlier ones have; `None` if it has no other.
fn with_free_names(mut chain: FilterChain, taken: &mut BTreeSet<String>) -> Option<FilterChain> {
    const EVERY_NAME: &str = "*";
    let condition = chain.filter_chain_match.get_or_insert_default();
    if condition.server_names.is_empty() {
        return taken.insert(EVERY_NAME.to_owned()).then_some(chain);
    }
    condition.server_names.retain(|name| taken.insert(name.clone()));
    (!condition.server_names.is_empty()).then_some(chain)
}

/// The credentials that a server names, itself or by implication.
fn credentials(tls: &ServerTlsSettings) -> Vec<String> {
    let mut names = tls.credentials().to_vec();
    if !matches!(tls.mode(), TlsMode::Mutual | TlsMode::OptionalMutual) {
        return names;
    }
    names.extend(downstream::ca_credential(tls));
    names
}
