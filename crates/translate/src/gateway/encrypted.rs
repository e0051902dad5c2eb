//! Servers whose connections begin with TLS: one filter chain by server name for each of them, or for each of their
//! routes.
//!
//! Source: Istio `pilot/pkg/networking/core/gateway.go` (`createGatewayHTTPFilterChainOpts`,
//! `createGatewayTCPFilterChainOpts`, `builtAutoPassthroughFilterChains`).

use std::collections::BTreeSet;

use meltemi_api::istio::{ServerTlsSettings, TlsMode};
use meltemi_envoy::Any;
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};
use meltemi_snapshot::{GatewayServer, Host, Protocol, ServerKind, Service};

use super::hosts::virtual_hosts;
use super::{Built, Port, bytes, chain};
use crate::cluster;
use crate::listener::outbound::network;
use crate::names;
use crate::resources::Origins;
use crate::route::Binding;
use crate::route::l4::{self, L4Route};
use crate::tls::{MESH_ALPN, downstream, transport_socket};
use crate::virtual_host::route_configuration;

impl Port<'_> {
    /// The chains of TLS servers.
    pub(super) fn encrypted(&self, built: &mut Built, origins: &mut Origins) -> Vec<FilterChain> {
        let mut routed = BTreeSet::new();
        let mut taken = BTreeSet::new();
        let mut chains = Vec::new();
        for server in &self.merged.encrypted {
            let own = self.chains(server, &mut routed, built, origins).into_iter();
            // Two chains with the same condition would lose the whole listener.
            chains.extend(own.filter_map(|chain| with_free_names(chain, &mut taken)));
        }
        chains
    }

    fn chains(
        &self,
        server: &GatewayServer,
        routed: &mut BTreeSet<String>,
        built: &mut Built,
        origins: &mut Origins,
    ) -> Vec<FilterChain> {
        let Some(tls) = &server.spec().tls else { return Vec::new() };
        let passes = tls.mode().is_passthrough();
        if !passes && tls.mode().is_of_mesh() && self.context.identity().is_none() {
            // Without a certificate nobody could be let in.
            return Vec::new();
        }
        if !passes {
            built.credentials.extend(credentials(tls));
        }
        match server.kind() {
            ServerKind::Https => vec![self.https(server, tls, built, origins)],
            ServerKind::TlsPassthrough if tls.mode() == TlsMode::AutoPassthrough => {
                self.forwarded_by_name(server, built)
            }
            ServerKind::TlsPassthrough => self.passthrough(server, routed),
            _ => self.bytes_in_tls(server, tls).into_iter().collect(),
        }
    }

    fn https(
        &self,
        server: &GatewayServer,
        tls: &ServerTlsSettings,
        built: &mut Built,
        origins: &mut Origins,
    ) -> FilterChain {
        let spec = server.spec();
        let name = names::https_route(server.port(), &spec.port.name, &server.gateway.name);
        let name = self.with_bind(name);
        let hosts = virtual_hosts(self.context, std::slice::from_ref(server));
        built.routes.push(route_configuration(&name, hosts, true, origins));
        let context = downstream::of_server(self.context, tls, true);
        terminating(server, self.requests(name, Some(spec)), context)
    }

    fn bytes_in_tls(&self, server: &GatewayServer, tls: &ServerTlsSettings) -> Option<FilterChain> {
        let context = downstream::of_server(self.context, tls, false);
        let is_of_mesh = tls.mode() == TlsMode::IstioMutual;
        Some(terminating(server, bytes(self.context, server, is_of_mesh)?, context))
    }

    /// By the TLS routes of the VirtualServices that are bound to the server. A route that asks for a server name which
    /// an older one on this port has is left out.
    fn passthrough(&self, server: &GatewayServer, routed: &mut BTreeSet<String>) -> Vec<FilterChain> {
        let accepted = server.hosts();
        let gateway = &server.gateway.name;
        let mut chains = Vec::new();
        for virtual_service in self.context.scope.virtual_services_of(gateway) {
            let wants =
                |host: &Host| accepted.iter().any(|a| a.admit(virtual_service.namespace(), host).is_some());
            if !virtual_service.hosts.iter().any(wants) {
                continue;
            }
            let binding = Binding {
                context: self.context,
                virtual_service,
                gateway,
                port: server.port(),
                is_of_one_port: false,
            };
            for L4Route { server_names, cluster, .. } in l4::tls_routes(&binding) {
                if server_names.iter().any(|name| routed.contains(name)) {
                    continue;
                }
                routed.extend(server_names.iter().cloned());
                let object = &virtual_service.object;
                let filters = network::routed(self.context, object, cluster);
                chains.push(by_server_name(server_names, filters));
            }
        }
        chains
    }

    /// To any service of the mesh that the server's hosts cover, by the server name of mutual TLS. Only endpoints that
    /// speak it are reached, so nobody gets past it this way.
    fn forwarded_by_name(&self, server: &GatewayServer, built: &mut Built) -> Vec<FilterChain> {
        let hosts: Vec<Host> = server.hosts().into_iter().map(|accepted| accepted.host).collect();
        let covered = |service: &Service| hosts.iter().any(|host| host.covers(&service.host));
        let services = self.context.scope.services().filter(|s| !s.external && covered(s));
        let mut chains = Vec::new();
        for service in services {
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                for cluster in cluster::by_server_name(self.context, service, port) {
                    let name = cluster.cluster.name.clone();
                    let filters = network::through(self.context, name.clone(), &service.host);
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
    let filter_chain_match = Some(FilterChainMatch { server_names, ..Default::default() });
    FilterChain { filter_chain_match, ..chain(filters) }
}

fn terminating(server: &GatewayServer, filters: Vec<Filter>, context: Any) -> FilterChain {
    let names: BTreeSet<String> = server.hosts().iter().map(|accepted| accepted.host.to_string()).collect();
    let chain = by_server_name(names.into_iter().collect(), filters);
    FilterChain { transport_socket: Some(transport_socket(context)), ..chain }
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
