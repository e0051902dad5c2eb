//! Outbound listeners of a sidecar with a loopback address of its own: the one for all HTTP, and those that
//! `Sidecar.egress` names. Nothing is redirected, and callers know where to connect to.

use std::net::IpAddr;

use meltemi_api::istio::{IstioEgressListener, SidecarPort};
use meltemi_api::{Diagnostic, codes};
use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use meltemi_snapshot::{GatewayName, Protocol, Service, ServicePort, View};

use crate::connection_manager::{Http, Place, Routes, Tcp};
use crate::context::{Context, origin};
use crate::listener::chain::tls_inspector;
use crate::listener::outbound::Outbound;
use crate::listener::{Built, listener};
use crate::names::{self, HTTP_PROXY_ROUTE, outbound_cluster};
use crate::resources::Origins;
use crate::route::{Binding, l4};
use crate::tcp_rule;
use crate::virtual_host::{self, Members};

/// The outbound listeners and the route configurations that they name.
pub(crate) fn build(
    context: &Context<'_>,
    address: IpAddr,
    http_proxy_port: Option<u16>,
    origins: &mut Origins,
) -> Outbound {
    let mut out = Outbound::default();
    for view in context.scope.views() {
        let Some((index, entry)) = view.listener else { continue };
        let Some(port) = &entry.port else { continue };
        let egress = Egress { context, address, view, index, entry, port };
        egress.build(&mut out, origins);
    }
    if let (Some(port), Some(view)) = (http_proxy_port, context.scope.catch_all()) {
        let routes = HTTP_PROXY_ROUTE.to_owned();
        out.listeners
            .push(Built { listener: http(context, &address.to_string(), port, routes), origin: None });
        out.routes.push(virtual_host::of_http_proxy(context, view, origins));
    }
    out
}

fn http(context: &Context<'_>, bind: &str, port: u16, routes: String) -> Listener {
    let http = Http {
        shape: context.shape,
        options: context.options,
        stat_prefix: format!("outbound_{}", names::listener(bind, port)),
        routes: Routes::Named(routes),
        place: Place::Outbound,
    };
    listener(bind, port, TrafficDirection::Outbound, http.filters())
}

/// An entry of `egress` with a port of its own.
struct Egress<'a> {
    context: &'a Context<'a>,
    address: IpAddr,
    view: &'a View<'a>,
    index: usize,
    entry: &'a IstioEgressListener,
    port: &'a SidecarPort,
}

impl<'a> Egress<'a> {
    fn build(&self, out: &mut Outbound, origins: &mut Origins) {
        let Ok(number) = u16::try_from(self.port.number) else { return };
        let bind = match self.entry.bind.as_deref() {
            Some(bind) if !bind.is_empty() => bind.to_owned(),
            _ => self.address.to_string(),
        };
        let members = self.members(number);
        let sidecar = self.context.scope.sidecar();
        let origin = sidecar.map(|s| origin(&s.object, format!("spec.egress[{}]", self.index)));
        if self.protocol(&members).is_http() {
            let name = number.to_string();
            out.listeners.push(Built { listener: http(self.context, &bind, number, name.clone()), origin });
            // Istio looks a route configuration up by port: the first listener of a port gives it.
            if !out.routes.iter().any(|r| r.name == name) {
                let routes =
                    virtual_host::of_egress_listener(self.context, self.view, &name, &members, origins);
                out.routes.push(routes);
            }
        } else if let Some((service, port)) = members.ports.first() {
            out.left_out.extend(self.of_no_address(service));
            out.listeners.push(Built { listener: self.opaque(&bind, number, service, port), origin });
        }
    }

    /// What the listener says, else what the service speaks.
    fn protocol(&self, members: &Members<'_>) -> Protocol {
        match self.port.protocol.as_deref() {
            Some(word) if !word.is_empty() => Protocol::parse(word),
            _ => members.ports.first().map_or(Protocol::Unsupported, |(_, port)| port.protocol),
        }
    }

    /// The service ports behind the listener: those of its number.
    ///
    /// Differs: a listener whose hosts are all named may have a port number of its own; then the service port of its
    /// name is meant, or the service's only one. Istio has no listener in that case.
    fn members(&self, number: u16) -> Members<'a> {
        let are_named = !self.entry.hosts.iter().any(|h| h.contains('*'));
        let name = self.port.name.as_deref().unwrap_or_default();
        let choose = |service: &'a Service| {
            let by_name = || service.ports.iter().find(|p| are_named && !name.is_empty() && p.name == name);
            let only = || match service.ports.as_slice() {
                [only] if are_named => Some(only),
                _ => None,
            };
            service.port(number).or_else(by_name).or_else(only)
        };
        let services = self.view.services.values().map(|s| &**s);
        let ports = services.filter(|s| !are_named || self.names(s)).filter_map(|s| Some((s, choose(s)?)));
        Members { number, are_named, ports: ports.collect() }
    }

    /// A destination that a VirtualService pulled into the view is not what the listener stands for.
    fn names(&self, service: &Service) -> bool {
        self.entry.hosts.iter().any(|h| h.rsplit('/').next() == Some(service.host.as_str()))
    }

    /// Conditions on the address that is called: here it is always the listener's own.
    fn of_no_address(&self, service: &Service) -> Vec<Diagnostic> {
        let Some(virtual_service) = self.view.virtual_service(&service.host) else { return Vec::new() };
        let rules = &virtual_service.rules;
        let tcp = rules
            .tcp
            .iter()
            .flat_map(|rule| rule.conditions.iter().map(|c| (&c.destination_subnets, &rule.written)));
        let tls = rules
            .tls
            .iter()
            .flat_map(|rule| rule.conditions.iter().map(|c| (&c.destination_subnets, &rule.written)));
        let asked = tcp.chain(tls).filter(|(subnets, _)| !subnets.is_empty());
        let told = asked.map(|(_, written)| {
            let message =
                "the condition on `destinationSubnets` never holds for a sidecar with an address of its own";
            Diagnostic::new(&codes::NO_ADDRESS_TO_MATCH, message).at(&written.object, &*written.field)
        });
        told.collect()
    }

    /// A listener that does not look into the stream, except for the server name where routes ask for it.
    fn opaque(&self, bind: &str, number: u16, service: &Service, port: &ServicePort) -> Listener {
        let whole = ClusterSpecifier::Cluster(outbound_cluster(port.number, "", &service.host));
        let gateway = GatewayName::mesh();
        let binding = self.view.virtual_service(&service.host).map(|virtual_service| Binding {
            context: self.context,
            virtual_service,
            gateway: &gateway,
            port: port.number,
            is_of_one_port: false,
        });
        let filters = |destination| {
            let tcp = Tcp {
                shape: self.context.shape,
                options: self.context.options,
                listener: &names::listener(bind, number),
                rule: tcp_rule::of(self.context, &destination),
                destination,
                exchanges: false,
            };
            tcp.filters()
        };
        let routed = binding.as_ref().and_then(l4::tcp).unwrap_or(whole);
        let mut listener = listener(bind, number, TrafficDirection::Outbound, filters(routed));
        let by_name = binding.as_ref().filter(|_| port.protocol.is_tls()).map_or(Vec::new(), l4::tls);
        if !by_name.is_empty() {
            listener.listener_filters = vec![tls_inspector()];
            listener.default_filter_chain = listener.filter_chains.pop();
            let chain = |(names, destination)| server_name_chain(names, filters(destination));
            listener.filter_chains = by_name.into_iter().map(chain).collect();
        }
        listener
    }
}

fn server_name_chain(server_names: Vec<String>, filters: Vec<Filter>) -> FilterChain {
    FilterChain {
        filter_chain_match: Some(FilterChainMatch { server_names, ..Default::default() }),
        filters,
        ..Default::default()
    }
}
