//! Virtual hosts of the services that a sidecar calls.
//!
//! Source: Istio `pilot/pkg/networking/core/httproute.go` (`BuildSidecarOutboundVirtualHosts`, domains) and
//! `route/route.go` (`BuildSidecarVirtualHostWrapper`).

mod port;

pub(crate) use port::{derived_names, of_route_name};

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_api::istio::OutboundTrafficPolicyMode;
use meltemi_envoy::config::route::v3::route::Action;
use meltemi_envoy::config::route::v3::route_action::ClusterSpecifier;
use meltemi_envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use meltemi_snapshot::{
    CLUSTER_DOMAIN, GatewayName, Host, Protocol, Service, ServicePort, View, VirtualService,
};

use crate::context::{Context, origin};
use crate::names::{
    HTTP_PROXY_ROUTE, PASSTHROUGH_CLUSTER, RESOLVING_CLUSTER, bracketed, domain, outbound_cluster,
};
use crate::resources::{Origin, Origins};
use crate::route::{self, Binding, Built};

/// The largest body of a direct response, Istio's bound.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1 << 20;

/// The route configuration, virtual host and route of hosts that are to be resolved.
const RESOLVING: &str = "allow_any_dynamic_dns";

/// The port that a host without a service is taken to have.
const PORT_OF_UNKNOWN_HOST: u16 = 80;

/// A virtual host with the origins of its routes.
pub(crate) struct BuiltHost {
    pub(crate) host: VirtualHost,
    /// Of the routes and their parts, by path below the virtual host.
    pub(crate) origins: Vec<(String, Origin)>,
}

impl BuiltHost {
    pub(crate) fn new(name: String, domains: Vec<String>, routes: Vec<Built>) -> BuiltHost {
        let mut origins = Vec::new();
        for (j, built) in routes.iter().enumerate() {
            let path = format!("routes[{j}]");
            let parts = built.parts.iter().map(|(part, origin)| (format!("{path}.{part}"), origin.clone()));
            origins.extend(parts);
            origins.extend(built.origin.clone().map(|origin| (path, origin)));
        }
        let routes = routes.into_iter().map(|built| built.route).collect();
        let host =
            VirtualHost { name, domains, routes, include_request_attempt_count: true, ..Default::default() };
        BuiltHost { host, origins }
    }
}

/// A route configuration of these virtual hosts; the origins go into the side table.
pub(crate) fn route_configuration(
    name: &str,
    hosts: Vec<BuiltHost>,
    ignore_port: bool,
    origins: &mut Origins,
) -> RouteConfiguration {
    for (i, host) in hosts.iter().enumerate() {
        for (path, origin) in &host.origins {
            let path = format!("virtual_hosts[{i}].{path}");
            origins.insert(meltemi_envoy::type_url::ROUTE, name, path, origin.clone());
        }
    }
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: hosts.into_iter().map(|h| h.host).collect(),
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE_BYTES),
        ignore_port_in_host_matching: ignore_port,
        ..Default::default()
    }
}

/// `http_proxy`: all services on all their HTTP ports, told apart by the port in the authority.
pub(crate) fn of_http_proxy(
    context: &Context<'_>,
    view: &View<'_>,
    origins: &mut Origins,
) -> RouteConfiguration {
    of_all_ports(context, view, HTTP_PROXY_ROUTE, origins)
}

/// All services on all their HTTP ports, as callers of a proxy name them.
fn of_all_ports(
    context: &Context<'_>,
    view: &View<'_>,
    name: &str,
    origins: &mut Origins,
) -> RouteConfiguration {
    let mut table = Table::new(context, view, Authority::WithPort);
    for service in view.services.values() {
        let ports = service.ports.iter().filter(|p| is_routed(p.protocol));
        table.add_service(service, &ports.collect::<Vec<_>>());
    }
    table.add_unknown_hosts();
    let mut hosts = table.hosts;
    hosts.push(unknown_host(context));
    route_configuration(name, hosts, false, origins)
}

/// The route configuration of an egress listener of a Sidecar.
///
/// Differs: where the listener names one service and no other, every request belongs to it, whatever its authority;
/// callers that dial the listener's address themselves name just that address.
pub(crate) fn of_egress_listener(
    context: &Context<'_>,
    view: &View<'_>,
    name: &str,
    members: &Members<'_>,
    origins: &mut Origins,
) -> RouteConfiguration {
    let mut table = Table::new(context, view, Authority::AnyPort);
    for (service, port) in &members.ports {
        table.add_service(service, &[port]);
    }
    if members.number == PORT_OF_UNKNOWN_HOST {
        table.add_unknown_hosts();
    }
    let mut hosts = table.hosts;
    match hosts.as_mut_slice() {
        [only] if members.are_named => only.host.domains = vec!["*".to_owned()],
        _ => hosts.push(unknown_host(context)),
    }
    route_configuration(name, hosts, true, origins)
}

/// The route configuration of one port of a service, whatever the authority.
pub(crate) fn of_one_service(
    context: &Context<'_>,
    view: &View<'_>,
    (service, port): (&Service, &ServicePort),
    name: &str,
    origins: &mut Origins,
) -> RouteConfiguration {
    let mut table = Table::new(context, view, Authority::AnyPort);
    table.add_service(service, &[port]);
    let mut hosts = table.hosts;
    hosts.truncate(1);
    hosts.iter_mut().for_each(|only| only.host.domains = vec!["*".to_owned()]);
    route_configuration(name, hosts, false, origins)
}

/// All names of a service with a port, for a caller in `namespace`.
pub(crate) fn names_with_port(service: &Service, port: u16, namespace: &str) -> Vec<String> {
    let mut names = vec![service.host.as_str().to_owned()];
    names.extend(short_names(&service.host, namespace));
    names.iter().map(|name| domain(name, port)).collect()
}

/// What an egress listener stands for.
pub(crate) struct Members<'a> {
    /// The listener's port.
    pub(crate) number: u16,
    /// No wildcard among its hosts.
    pub(crate) are_named: bool,
    /// The services behind it, each with the port that is meant.
    pub(crate) ports: Vec<(&'a Service, &'a ServicePort)>,
}

/// Undeclared ports are taken for HTTP where only HTTP arrives.
pub(crate) fn is_routed(protocol: Protocol) -> bool {
    protocol.is_http() || protocol == Protocol::Unsupported
}

fn unknown_host(context: &Context<'_>) -> BuiltHost {
    let mut route = route::unknown_host(allows_unknown_hosts(context));
    if resolves_unknown_hosts(context) {
        RESOLVING.clone_into(&mut route.name);
    }
    if let Some(Action::Route(action)) = &mut route.action {
        action.cluster_specifier = Some(ClusterSpecifier::Cluster(unknown_host_cluster(context)));
    }
    BuiltHost::new(
        route.name.clone(),
        vec!["*".to_owned()],
        vec![Built { route, origin: None, parts: Vec::new() }],
    )
}

/// The Sidecar's `outboundTrafficPolicy`, else the mesh's.
pub(crate) fn allows_unknown_hosts(context: &Context<'_>) -> bool {
    let policy = context.scope.sidecar().and_then(|s| s.spec().outbound_traffic_policy.as_ref());
    policy.map_or(context.snapshot.config.mesh.allows_unknown_hosts, |p| {
        p.mode == Some(OutboundTrafficPolicyMode::AllowAny)
    })
}

/// Whether requests for unknown hosts are to go to what the host resolves to.
pub(crate) fn resolves_unknown_hosts(context: &Context<'_>) -> bool {
    let has_policy = context.scope.sidecar().is_some_and(|s| s.spec().outbound_traffic_policy.is_some());
    context.snapshot.config.mesh.resolves_unknown_hosts && !has_policy && !context.is_gateway()
}

/// The route configuration of requests that come where no listener is for: every host is unknown there.
pub(crate) fn of_unknown_hosts(context: &Context<'_>) -> RouteConfiguration {
    let hosts = vec![unknown_host(context)];
    route_configuration(RESOLVING, hosts, true, &mut Origins::default())
}

/// Where requests go that no service claims, if that is allowed: the Sidecar's `egressProxy`, else to where it wants.
pub(crate) fn unknown_host_cluster(context: &Context<'_>) -> String {
    let policy = context.scope.sidecar().and_then(|s| s.spec().outbound_traffic_policy.as_ref());
    let Some(proxy) = policy.and_then(|policy| policy.egress_proxy.as_ref()) else {
        let resolves = resolves_unknown_hosts(context);
        return if resolves { RESOLVING_CLUSTER } else { PASSTHROUGH_CLUSTER }.to_owned();
    };
    let port = proxy.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
    outbound_cluster(port.unwrap_or(0), proxy.subset.as_deref().unwrap_or_default(), Host::new(&proxy.host))
}

/// Whether domains name the port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Authority {
    WithPort,
    AnyPort,
}

/// Virtual hosts in the making. A domain belongs to the first that claims it, but a short name never takes the full
/// name of another service.
struct Table<'a> {
    context: &'a Context<'a>,
    view: &'a View<'a>,
    authority: Authority,
    hosts: Vec<BuiltHost>,
    full_names: BTreeSet<&'a str>,
    taken: BTreeSet<String>,
}

impl<'a> Table<'a> {
    fn new(context: &'a Context<'a>, view: &'a View<'a>, authority: Authority) -> Table<'a> {
        let full_names = view.services.keys().map(|host| host.as_str()).collect();
        Table { context, view, authority, hosts: Vec::new(), full_names, taken: BTreeSet::new() }
    }

    /// The VirtualService routes of all ports, or the default ones when it has none for this proxy.
    fn add_service(&mut self, service: &Service, ports: &[&ServicePort]) {
        let virtual_service = self.view.virtual_service(&service.host);
        let of_port = |port: u16| virtual_service.map_or(Vec::new(), |v| self.routes_of(v, port));
        let mut routes: Vec<(u16, Vec<Built>)> =
            ports.iter().map(|p| (p.number, of_port(p.number))).collect();
        if routes.iter().all(|(_, r)| r.is_empty()) {
            let default = |port| vec![default_route(self.context, service, port)];
            routes = ports.iter().map(|p| (p.number, default(p.number))).collect();
        }
        for (port, routes) in routes.into_iter().filter(|(_, r)| !r.is_empty()) {
            let domains = service_domains(service, port, &self.context.shape.namespace, self.authority);
            self.push(service.host.as_str(), port, domains, routes);
        }
    }

    /// The hosts of VirtualServices that are no service.
    ///
    /// Differs: they are on the HTTP proxy listener too, as port 80; Istio knows them on port 80 only.
    fn add_unknown_hosts(&mut self) {
        for virtual_service in &self.view.virtual_services {
            for host in
                virtual_service.hosts.iter().filter(|h| !self.view.services.keys().any(|s| h.covers(s)))
            {
                let is_in_force =
                    self.view.virtual_service(host).is_some_and(|best| Arc::ptr_eq(best, virtual_service));
                let routes = self.routes_of(virtual_service, PORT_OF_UNKNOWN_HOST);
                if is_in_force && !routes.is_empty() {
                    let domains = spellings(host.as_str(), PORT_OF_UNKNOWN_HOST, self.authority);
                    self.push(host.as_str(), PORT_OF_UNKNOWN_HOST, domains, routes);
                }
            }
        }
    }

    fn routes_of(&self, virtual_service: &VirtualService, port: u16) -> Vec<Built> {
        let gateway = GatewayName::mesh();
        route::of_virtual_service(&Binding {
            context: self.context,
            virtual_service,
            gateway: &gateway,
            port,
            is_of_one_port: false,
        })
    }

    fn push(&mut self, host: &str, port: u16, domains: Vec<String>, routes: Vec<Built>) {
        let is_of_another = |d: &str| d != host && self.full_names.contains(d);
        let free: Vec<String> = domains
            .into_iter()
            .filter(|d| !is_of_another(d))
            .filter(|d| self.taken.insert(d.clone()))
            .collect();
        if !free.is_empty() {
            self.hosts.push(BuiltHost::new(domain(host, port), free, routes));
        }
    }
}

fn default_route(context: &Context<'_>, service: &Service, port: u16) -> Built {
    let origin = origin(&service.object, "spec");
    Built { route: route::default_outbound(context, service, port), origin: Some(origin), parts: Vec::new() }
}

/// All names of a service for a caller in `namespace`: the full one, in Kubernetes the short ones, addresses.
fn service_domains(service: &Service, port: u16, namespace: &str, authority: Authority) -> Vec<String> {
    let mut names = vec![service.host.as_str().to_owned()];
    names.extend(short_names(&service.host, namespace));
    names.extend(service.addresses.iter().filter(|a| !a.contains('/')).cloned());
    names.iter().flat_map(|name| spellings(name, port, authority)).collect()
}

/// `reviews` (only in its own namespace), `reviews.default.svc`, `reviews.default`.
fn short_names(host: &Host, namespace: &str) -> Vec<String> {
    let Some(local) = host.as_str().strip_suffix(CLUSTER_DOMAIN).and_then(|h| h.strip_suffix(".svc.")) else {
        return Vec::new();
    };
    let Some((name, home)) = local.split_once('.') else { return Vec::new() };
    let mut names = Vec::new();
    if home == namespace {
        names.push(name.to_owned());
    }
    names.extend([format!("{local}.svc"), local.to_owned()]);
    names
}

fn spellings(name: &str, port: u16, authority: Authority) -> Vec<String> {
    match authority {
        Authority::WithPort => vec![bracketed(name), domain(name, port)],
        Authority::AnyPort => vec![bracketed(name)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_end_at_the_namespace() {
        let names = |host: &str| short_names(&Host::new(host), "shop");
        assert_eq!(names("a.shop.svc.cluster.local"), ["a", "a.shop.svc", "a.shop"]);
        assert_eq!(names("a.infra.svc.cluster.local"), ["a.infra.svc", "a.infra"]);
        assert!(names("example.com").is_empty());
    }
}
