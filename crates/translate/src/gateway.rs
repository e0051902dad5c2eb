//! Listeners and routes of a gateway: the servers of all Gateways that select it, merged by port.
//!
//! Source: Istio `pilot/pkg/networking/core/gateway.go`, `pkg/model/gateway.go` (`MergeGateways`).

mod encrypted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_api::istio::Server;
use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::listener::v3::{Filter, Listener};
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::config::route::v3::virtual_host::TlsRequirementType;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use meltemi_snapshot::{Gateway, Host, ServerHost, ServerKind, VirtualService, labels_match, oldest_first};

use crate::cluster;
use crate::connection_manager::{Http, Place, Routes, Tcp};
use crate::context::{Context, origin};
use crate::listener::{self, listener};
use crate::names;
use crate::resources::Origins;
use crate::route::{self, Binding, l4};
use crate::virtual_host::{BuiltHost, route_configuration};

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
pub(crate) fn build(context: &Context<'_>, bind: IpAddr, origins: &mut Origins) -> Built {
    let bind = bind.to_string();
    let mut built = Built::default();
    for ((number, own_bind), servers) in by_port(context) {
        let Some((gateway, index, first)) = servers.first() else { continue };
        let port = Port { context, number, own_bind, address: own_bind.unwrap_or(&bind) };
        let listener = match Gateway::kind(first) {
            ServerKind::Http => Some(port.http(&servers, &mut built, origins)),
            ServerKind::Tcp => port.opaque(&servers),
            ServerKind::Https | ServerKind::Tls | ServerKind::TlsPassthrough => {
                port.encrypted(&servers, &mut built, origins)
            }
        };
        let origin = Some(origin(&gateway.object, format!("spec.servers[{index}]")));
        built.listeners.extend(listener.map(|listener| listener::Built { listener, origin }));
    }
    built
}

/// A port with servers on it.
#[derive(Clone, Copy)]
struct Port<'a> {
    context: &'a Context<'a>,
    number: u16,
    /// The `bind` of the servers.
    own_bind: Option<&'a str>,
    address: &'a str,
}

impl Port<'_> {
    fn listener(&self, filters: Vec<Filter>) -> Listener {
        listener(self.address, self.number, TrafficDirection::Outbound, filters)
    }

    fn name(&self) -> String {
        names::listener(self.address, self.number)
    }

    fn http(&self, servers: &[Entry<'_>], built: &mut Built, origins: &mut Origins) -> Listener {
        let name = self.with_bind(names::gateway_route(self.number));
        let hosts = virtual_hosts(self.context, self.number, servers);
        built.routes.push(route_configuration(&name, hosts, true, origins));
        self.listener(self.requests(name, None))
    }

    /// A port without a route stays closed.
    fn opaque(&self, servers: &[Entry<'_>]) -> Option<Listener> {
        let destination = tcp_destination(self.context, self.number, servers)?;
        Some(self.listener(self.bytes(destination, false)))
    }

    /// The name of a route configuration; a server with a `bind` of its own has one of its own.
    fn with_bind(&self, name: String) -> String {
        self.own_bind.map_or_else(|| name.clone(), |bind| format!("{name}.{bind}"))
    }

    /// `server` is the name of one that terminates TLS.
    fn requests(&self, routes: String, server: Option<&Server>) -> Vec<Filter> {
        let own_prefix = server.and_then(|server| server.name.clone()).filter(|name| !name.is_empty());
        let http = Http {
            shape: self.context.shape,
            options: self.context.options,
            stat_prefix: own_prefix.unwrap_or_else(|| format!("outbound_{}", self.name())),
            routes: Routes::Named(routes),
            place: Place::Edge { terminates_tls: server.is_some() },
        };
        http.filters()
    }

    /// `exchanges`: clients of the mesh may tell who they are.
    fn bytes(&self, destination: ClusterSpecifier, exchanges: bool) -> Vec<Filter> {
        let tcp = Tcp {
            shape: self.context.shape,
            options: self.context.options,
            listener: &self.name(),
            destination,
            limits: None,
            exchanges,
        };
        tcp.filters()
    }
}

/// The first TCP route of the oldest VirtualService that is bound to one of the servers. A port without one stays
/// closed.
fn tcp_destination(context: &Context<'_>, port: u16, servers: &[Entry<'_>]) -> Option<ClusterSpecifier> {
    servers.iter().find_map(|(gateway, _, server)| {
        let accepted = accepted_hosts(gateway, server);
        let bound = context.scope.virtual_services_of(&gateway.name).into_iter();
        let mut admitted = bound.filter(|v| {
            v.hosts.iter().any(|host| accepted.iter().any(|a| a.admit(v.namespace(), host).is_some()))
        });
        admitted.find_map(|v| l4::tcp(&Binding { context, virtual_service: v, gateway: &gateway.name, port }))
    })
}

fn accepted_hosts(gateway: &Gateway, server: &Server) -> Vec<ServerHost> {
    server.hosts.iter().map(|h| ServerHost::parse(h, &gateway.name.namespace)).collect()
}

/// A server of a gateway with its position there.
type Entry<'a> = (&'a Arc<Gateway>, usize, &'a Server);

/// The servers for this proxy, oldest Gateway first, by port and `bind`. The first of a port decides what is spoken
/// on it; servers that differ are left out.
fn by_port<'a>(context: &Context<'a>) -> BTreeMap<(u16, Option<&'a str>), Vec<Entry<'a>>> {
    let mut gateways: Vec<&'a Arc<Gateway>> = context.snapshot.config.gateways.values().collect();
    gateways.retain(|g| labels_match(&g.spec().selector, &context.shape.labels));
    gateways.sort_by(|a, b| oldest_first(&a.object, &b.object));
    let mut ports: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for gateway in gateways {
        for (index, server) in gateway.spec().servers.iter().enumerate() {
            let Ok(port) = u16::try_from(server.port.number) else { continue };
            let bind = server.bind.as_deref().filter(|b| !b.is_empty());
            let same_port = ports.entry((port, bind)).or_default();
            let kind = Gateway::kind(server);
            let first = same_port.first().map(|(_, _, first): &Entry<'_>| Gateway::kind(first));
            if first.is_none_or(|first| kind.shares_port_with(first)) {
                same_port.push((gateway, index, server));
            }
        }
    }
    ports
}

/// What is known of one host on a port.
#[derive(Default)]
struct Claim<'a> {
    bound: Vec<(&'a Arc<VirtualService>, &'a Arc<Gateway>)>,
    redirects_to_https: bool,
}

fn virtual_hosts(context: &Context<'_>, port: u16, servers: &[Entry<'_>]) -> Vec<BuiltHost> {
    let mut claims: BTreeMap<Host, Claim<'_>> = BTreeMap::new();
    for (gateway, _, server) in servers {
        claim(context, gateway, server, &mut claims);
    }
    let hosts: Vec<BuiltHost> =
        claims.into_iter().filter_map(|(host, claim)| virtual_host(context, port, &host, claim)).collect();
    if hosts.is_empty() {
        return vec![BuiltHost::new(names::domain("blackhole", port), vec!["*".to_owned()], Vec::new())];
    }
    hosts
}

/// Adds the hosts that a server accepts and a bound VirtualService asks for; the more specific of the two counts.
fn claim<'a>(
    context: &Context<'a>,
    gateway: &'a Arc<Gateway>,
    server: &Server,
    claims: &mut BTreeMap<Host, Claim<'a>>,
) {
    let redirects = server.tls.as_ref().is_some_and(|t| t.https_redirect == Some(true));
    let accepted = accepted_hosts(gateway, server);
    for virtual_service in context.scope.virtual_services_of(&gateway.name) {
        for wanted in &virtual_service.hosts {
            for host in accepted.iter().filter_map(|a| a.admit(virtual_service.namespace(), wanted)) {
                let claim = claims.entry(host).or_default();
                claim.redirects_to_https |= redirects;
                let is_known = claim
                    .bound
                    .iter()
                    .any(|(v, g)| v.object.id == virtual_service.object.id && g.name == gateway.name);
                if !is_known {
                    claim.bound.push((virtual_service, gateway));
                }
            }
        }
    }
    if redirects {
        for host in accepted {
            claims.entry(host.host).or_default().redirects_to_https = true;
        }
    }
}

/// `None` for a host that has neither a route nor a redirect.
fn virtual_host(context: &Context<'_>, port: u16, host: &Host, mut claim: Claim<'_>) -> Option<BuiltHost> {
    claim.bound.sort_by(|(a, _), (b, _)| oldest_first(&a.object, &b.object));
    let mut routes: Vec<route::Built> = Vec::new();
    for (virtual_service, gateway) in claim.bound {
        let binding = Binding { context, virtual_service, gateway: &gateway.name, port };
        routes.extend(route::of_virtual_service(&binding));
    }
    // What matches everything comes last, so that no VirtualService hides another.
    routes.sort_by_key(|r| route::catches_all(&r.route));
    if routes.is_empty() && !claim.redirects_to_https {
        return None;
    }
    let mut built = BuiltHost::new(names::domain(host.as_str(), port), vec![host.to_string()], routes);
    if claim.redirects_to_https {
        built.host.require_tls = TlsRequirementType::All as i32;
    }
    Some(built)
}
