//! Listeners and routes of a gateway: the servers of all Gateways that select it, merged by port.
//!
//! Source: Istio `pilot/pkg/networking/core/gateway.go`, `listener.go` (`buildGatewayListener`).

mod encrypted;
mod hosts;

use std::collections::BTreeSet;

use meltemi_api::istio::Server;
use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_snapshot::{
    GatewayServer, GatewayTopology, GatewayWorkload, MergedGateway, MergedPort, ServerKind,
};

use crate::cluster;
use crate::connection_manager::{Http, Place, Routes};
use crate::context::{Context, origin};
use crate::listener::chain::{proxy_protocol, tls_inspector};
use crate::listener::outbound::network;
use crate::listener::{self, ACCEPTS_PER_EVENT, listener};
use crate::message::duration;
use crate::names;
use crate::resources::Origins;
use crate::route::{Binding, l4};
use crate::shape::Edge;
use crate::virtual_host::route_configuration;

use self::hosts::virtual_hosts;

/// How long a handshake may take at the edge, Istio's bound.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

/// The first port that needs no privilege.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// What a gateway gets for its servers.
#[derive(Default)]
pub(crate) struct Built {
    pub(crate) listeners: Vec<listener::Built>,
    /// The route configurations that the listeners name.
    pub(crate) routes: Vec<RouteConfiguration>,
    /// Clusters that connections are forwarded to by server name.
    pub(crate) clusters: Vec<cluster::Built>,
    /// The credentials that the listeners name.
    pub(crate) credentials: BTreeSet<String>,
}

/// Everything for the servers of the Gateways that select the proxy.
pub(crate) fn build(context: &Context<'_>, edge: &Edge, origins: &mut Origins) -> Built {
    let mut built = Built::default();
    let everywhere = edge.bind.to_string();
    let topology = edge.topology.unwrap_or(context.snapshot.config.mesh.gateway_topology);
    for merged in merged(context, edge).ports {
        if edge.is_unprivileged && merged.number < FIRST_UNPRIVILEGED_PORT {
            continue;
        }
        let address = merged.bind.as_deref().unwrap_or(&everywhere);
        let port = Port { context, merged: &merged, address, topology };
        if let Some(listener) = port.listener(&mut built, origins) {
            built.listeners.push(listener);
        }
    }
    built
}

/// The servers that the proxy opens.
pub(crate) fn merged(context: &Context<'_>, edge: &Edge) -> MergedGateway {
    let workload = GatewayWorkload {
        namespace: &context.shape.namespace,
        labels: &context.shape.labels,
        addresses: &edge.addresses,
        is_behind_services: edge.is_behind_services,
    };
    MergedGateway::of(context.snapshot, workload)
}

/// A port with servers on it.
#[derive(Clone, Copy)]
struct Port<'a> {
    context: &'a Context<'a>,
    merged: &'a MergedPort,
    address: &'a str,
    topology: GatewayTopology,
}

impl Port<'_> {
    /// `None` if no connection would lead anywhere.
    fn listener(&self, built: &mut Built, origins: &mut Origins) -> Option<listener::Built> {
        let mut chains: Vec<FilterChain> = self.encrypted(built, origins);
        let needs_names = !chains.is_empty();
        chains.extend(self.plain(built, origins));
        let first = self.merged.plain.first().or(self.merged.encrypted.first())?;
        if chains.is_empty() {
            return None;
        }
        let empty = listener(self.address, self.merged.number, TrafficDirection::Outbound, Vec::new());
        let listener = Listener {
            filter_chains: chains,
            listener_filters: self.inspectors(needs_names),
            max_connections_to_accept_per_socket_event: Some(ACCEPTS_PER_EVENT),
            ..empty
        };
        let origin = Some(origin(&first.gateway.object, format!("spec.servers[{}]", first.index)));
        Some(listener::Built { listener, origin })
    }

    /// What looks at the beginning of a connection; a PROXY header comes before everything.
    fn inspectors(&self, needs_names: bool) -> Vec<ListenerFilter> {
        let header = self.topology.has_proxy_protocol.then(proxy_protocol);
        header.into_iter().chain(needs_names.then(tls_inspector)).collect()
    }

    /// The chain without a condition: requests of all its servers, or the bytes of the one that has a route.
    fn plain(&self, built: &mut Built, origins: &mut Origins) -> Option<FilterChain> {
        let first = self.merged.plain.first()?;
        let filters = if first.kind() == ServerKind::Http {
            let name = self.with_bind(names::gateway_route(self.merged.number));
            let hosts = virtual_hosts(self.context, &self.merged.plain);
            built.routes.push(route_configuration(&name, hosts, true, origins));
            self.requests(name, None)
        } else {
            bytes(self.context, first, false)?
        };
        Some(chain(filters))
    }

    fn name(&self) -> String {
        names::listener(self.address, self.merged.number)
    }

    /// The name of a route configuration; a server with a `bind` of its own has one of its own.
    fn with_bind(&self, name: String) -> String {
        self.merged.bind.as_deref().map_or_else(|| name.clone(), |bind| format!("{name}.{bind}"))
    }

    /// `server` is the name of one that terminates TLS.
    fn requests(&self, routes: String, server: Option<&Server>) -> Vec<Filter> {
        let own_prefix = server.and_then(|server| server.name.clone()).filter(|name| !name.is_empty());
        let http = Http {
            shape: self.context.shape,
            options: self.context.options,
            stat_prefix: own_prefix.unwrap_or_else(|| format!("outbound_{}", self.name())),
            routes: Routes::Named(routes),
            place: Place::Edge { topology: self.topology },
        };
        http.filters()
    }
}

/// A chain for connections of any kind.
fn chain(filters: Vec<Filter>) -> FilterChain {
    FilterChain {
        filters,
        transport_socket_connect_timeout: Some(duration(HANDSHAKE_TIMEOUT)),
        ..Default::default()
    }
}

/// By the first TCP route of the oldest VirtualService that is bound to the server; a server without one stays closed.
/// `exchanges`: clients of the mesh may tell who they are.
fn bytes(context: &Context<'_>, server: &GatewayServer, exchanges: bool) -> Option<Vec<Filter>> {
    let accepted = server.hosts();
    let (gateway, port) = (&server.gateway.name, server.port());
    let bound = context.scope.virtual_services_of(gateway).into_iter();
    let mut admitted = bound.filter(|v| {
        v.hosts.iter().any(|host| accepted.iter().any(|a| a.admit(v.namespace(), host).is_some()))
    });
    admitted.find_map(|v| {
        let routes =
            l4::tcp_routes(&Binding { context, virtual_service: v, gateway, port, is_of_one_port: false });
        // What a client of a gateway dials is no address of a service, so such conditions are passed over.
        let first = routes.into_iter().next()?;
        Some(network::routed_for(context, &v.object, first.cluster, exchanges))
    })
}
