//! The route configurations that a redirected request is routed by: one for each port, of all services with that port, and
//! one for each service with a listener of its own.
//!
//! Source: Istio `pilot/pkg/networking/core/httproute.go` (`buildSidecarOutboundHTTPRouteConfig`,
//! `BuildSidecarOutboundVirtualHosts`) and `route/route.go` (`BuildSidecarVirtualHostWrapper`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_snapshot::{GatewayName, Host, Protocol, Resolution, Service, ServicePort, View, VirtualService};

use super::{BuiltHost, PORT_OF_UNKNOWN_HOST, default_route, is_routed, route_configuration, unknown_host};
use crate::context::Context;
use crate::listener::address::{Families, is_cidr};
use crate::listener::outbound::RouteName;
use crate::names::{bracketed, domain};
use crate::resources::Origins;
use crate::route::{self, Binding, Built};
use crate::shape::Role;
use crate::virtual_host::{of_all_ports, short_names};

/// What stands before the names of a headless service's endpoints.
const ANY_LABEL: &str = "*.";

/// The route configuration of a name that an outbound listener has.
pub(crate) fn of_route_name(
    context: &Context<'_>,
    name: &RouteName,
    origins: &mut Origins,
) -> RouteConfiguration {
    let text = name.to_string();
    let (port, bind) = match name {
        RouteName::Port(port) | RouteName::Service(_, port) => (*port, None),
        RouteName::Socket(bind) => (0, Some(bind.as_str())),
    };
    let Some(view) = view_of(context, port, bind) else {
        return route_configuration(&text, Vec::new(), true, origins);
    };
    let is_proxy = view.listener.and_then(|(_, listener)| listener.port.as_ref()).is_some_and(|port| {
        Protocol::parse(port.protocol.as_deref().unwrap_or_default()) == Protocol::HttpProxy
    });
    if port == 0 || is_proxy {
        return of_all_ports(context, view, &text, origins);
    }
    let mut hosts = Table::new(context, view, port).build();
    match name {
        RouteName::Service(host, _) => {
            // Whoever reached the listener means the service, whatever the request says.
            hosts.retain(|built| built.host.domains.iter().any(|d| d.eq_ignore_ascii_case(host.as_str())));
            hosts.iter_mut().for_each(|only| only.host.domains = vec!["*".to_owned()]);
        }
        _ => hosts.push(unknown_host(context)),
    }
    route_configuration(&text, hosts, true, origins)
}

/// The egress listener of the port, else the one of all ports.
fn view_of<'a>(context: &'a Context<'_>, port: u16, bind: Option<&str>) -> Option<&'a View<'a>> {
    context.scope.views().iter().find(|view| {
        let Some((listener, named)) = view.listener.and_then(|(_, l)| Some((l, l.port.as_ref()?))) else {
            return true;
        };
        named.number == u32::from(port) && (port != 0 || listener.bind.as_deref() == bind)
    })
}

/// The virtual hosts of a port in the making.
struct Table<'a> {
    context: &'a Context<'a>,
    view: &'a View<'a>,
    port: u16,
    mesh: GatewayName,
    /// Those with the port.
    services: BTreeMap<&'a Host, (&'a Service, &'a ServicePort)>,
    families: Families,
}

/// A virtual host before it is known which of its domains are free.
struct Draft<'a> {
    host: &'a Host,
    service: Option<&'a Service>,
    routes: Vec<Built>,
}

impl<'a> Table<'a> {
    fn new(context: &'a Context<'a>, view: &'a View<'a>, port: u16) -> Table<'a> {
        let with_port =
            |(host, service): (&'a Host, &'a Arc<Service>)| Some((host, (&**service, service.port(port)?)));
        let services = view.services.iter().filter_map(with_port).collect();
        let families = match &context.shape.role {
            Role::Sidecar(sidecar) => Families::of(sidecar),
            Role::Proxyless | Role::Router { .. } => Families::default(),
        };
        Table { context, view, port, mesh: GatewayName::mesh(), services, families }
    }

    /// By name. A domain belongs to the first that claims it, and a name that was derived never takes the full name of
    /// another service.
    fn build(self) -> Vec<BuiltHost> {
        let drafts = self.drafts();
        let full_names: BTreeSet<&str> =
            drafts.iter().filter(|draft| draft.service.is_some()).map(|draft| draft.host.as_str()).collect();
        let mut names = BTreeSet::new();
        let mut taken = BTreeSet::new();
        let mut hosts = Vec::new();
        for draft in drafts {
            let name = domain(&draft.host.as_str().to_ascii_lowercase(), self.port);
            if !names.insert(name.clone()) {
                continue;
            }
            let is_free =
                |(d, is_derived): &(String, bool)| !(*is_derived && full_names.contains(d.as_str()));
            let wanted = self.domains(&draft).into_iter().filter(is_free).map(|(d, _)| d);
            // An authority is compared in lower case.
            let wanted = wanted.map(|domain| domain.to_ascii_lowercase());
            let free: Vec<String> = wanted.filter(|d| taken.insert(d.clone())).collect();
            if !free.is_empty() {
                hosts.push(BuiltHost::new(name, free, draft.routes));
            }
        }
        hosts.sort_by(|a, b| a.host.name.cmp(&b.host.name));
        hosts
    }

    /// First what VirtualServices speak of, oldest first, then the rest of the services.
    fn drafts(&self) -> Vec<Draft<'a>> {
        let mut drafts = Vec::new();
        let mut routed: BTreeSet<&Host> = BTreeSet::new();
        for virtual_service in &self.view.virtual_services {
            self.add_virtual_service(virtual_service, &mut routed, &mut drafts);
        }
        for (host, (service, port)) in &self.services {
            let stands_alone = service.resolution != Resolution::Alias && !routed.contains(host);
            if stands_alone && is_routed(port.protocol) {
                let routes = vec![default_route(self.context, service, self.port)];
                drafts.push(Draft { host, service: Some(service), routes });
            }
        }
        drafts
    }

    /// Its hosts that are no service count on the ports where another of them is one; and on port 80.
    fn add_virtual_service(
        &self,
        virtual_service: &'a Arc<VirtualService>,
        routed: &mut BTreeSet<&'a Host>,
        drafts: &mut Vec<Draft<'a>>,
    ) {
        let (services, others) = self.hosts_of(virtual_service);
        let is_here = services.iter().any(|(_, port)| is_routed(port.protocol));
        if !is_here && self.port != PORT_OF_UNKNOWN_HOST {
            return;
        }
        let routes = route::of_virtual_service(&Binding {
            context: self.context,
            virtual_service,
            gateway: &self.mesh,
            port: self.port,
            is_of_one_port: true,
        });
        if routes.is_empty() {
            return;
        }
        for host in others {
            drafts.push(Draft { host, service: None, routes: routes.clone() });
        }
        for (service, _) in services.into_iter().filter(|(_, port)| is_routed(port.protocol)) {
            routed.insert(&service.host);
            drafts.push(Draft { host: &service.host, service: Some(service), routes: routes.clone() });
        }
    }

    /// The services that it speaks of, and its hosts that are none. A wildcard means the services for which nothing more
    /// specific is said.
    fn hosts_of(
        &self,
        virtual_service: &'a Arc<VirtualService>,
    ) -> (Vec<(&'a Service, &'a ServicePort)>, Vec<&'a Host>) {
        let mut services = Vec::new();
        let mut others = Vec::new();
        let (wildcards, exact): (Vec<&Host>, Vec<&Host>) =
            virtual_service.hosts.iter().partition(|host| host.is_wildcard());
        for host in exact {
            match self.services.get(host) {
                Some(found) => services.push(*found),
                None => others.push(host),
            }
        }
        for host in wildcards {
            let matching: Vec<_> = self.services.values().filter(|(s, _)| s.host.overlaps(host)).collect();
            if matching.is_empty() {
                others.push(host);
            }
            let is_best = |service: &Service| {
                self.view
                    .virtual_service(&service.host)
                    .is_some_and(|best| Arc::ptr_eq(best, virtual_service))
            };
            services.extend(matching.into_iter().filter(|(service, _)| is_best(service)));
        }
        (services, others)
    }

    /// Every name that callers may use, and whether it was derived. The port does not matter.
    fn domains(&self, draft: &Draft<'_>) -> Vec<(String, bool)> {
        let Some(service) = draft.service else { return vec![(bracketed(draft.host.as_str()), false)] };
        let mut names = Vec::new();
        for host in std::iter::once(&service.host).chain(&service.aliases) {
            names.push((bracketed(host.as_str()), false));
            let derived = derived_names(host, &self.context.shape.namespace);
            names.extend(derived.into_iter().map(|name| (name, true)));
        }
        if service.is_headless() {
            let below: Vec<_> = names.iter().map(|(name, _)| (format!("{ANY_LABEL}{name}"), false)).collect();
            names.extend(below);
        }
        let addresses = service.addresses_for(self.families.use_of(self.context.shape));
        let single = addresses.iter().filter(|address| !is_cidr(address));
        names.extend(single.map(|address| (bracketed(address), false)));
        names
    }
}

/// The other names of a host for a caller in `namespace`: with a dot at the end, and in Kubernetes the short ones.
pub(crate) fn derived_names(host: &Host, namespace: &str) -> Vec<String> {
    let mut names = Vec::new();
    if host.as_str().parse::<IpAddr>().is_err() {
        names.push(format!("{host}."));
    }
    names.extend(short_names(host, namespace));
    names
}
