//! The filter chains of an outbound port that is not HTTP: by server name where TLS is spoken, by address where the
//! service has a range of them, by the routes of VirtualServices.
//!
//! Source: Istio `pilot/pkg/networking/core/tls.go`.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_snapshot::{GatewayName, Protocol, Service, View, VirtualService};

use crate::context::Context;
use crate::listener::address::is_cidr;
use crate::listener::outbound::entry::Chain;
use crate::listener::outbound::network;
use crate::message::config_metadata;
use crate::route::Binding;
use crate::route::l4::{self, L4Route};
use crate::virtual_host::derived_names;

/// A port of a service as one listener stands for it.
pub(crate) struct Opaque<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) view: &'a View<'a>,
    /// The gateway that stands for all sidecars.
    pub(crate) mesh: &'a GatewayName,
    pub(crate) service: &'a Service,
    /// The listener's port.
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
    /// The service's first address, a wildcard where it has none.
    pub(crate) address: &'a str,
    /// The ranges that the connections are for; empty where the listener's address says it.
    pub(crate) cidrs: &'a [String],
    /// Whether the listener is on every address, and so the service's own name is needed to tell it from others.
    pub(crate) is_everywhere: bool,
}

impl<'a> Opaque<'a> {
    pub(crate) fn chains(&self) -> Vec<Chain> {
        if self.protocol.is_tls() { self.by_name() } else { self.by_route() }
    }

    /// Every name that a TLS route speaks of. Without such routes all connections to the service are meant; where its
    /// address does not tell it from others, those with its name.
    fn by_name(&self) -> Vec<Chain> {
        let mut chains = Vec::new();
        let mut taken = BTreeSet::new();
        for virtual_service in self.virtual_services() {
            for route in l4::tls_routes(&self.binding(virtual_service)) {
                if taken.insert((route.server_names.clone(), route.destination_subnets.clone())) {
                    chains.push(self.routed(virtual_service, route));
                }
            }
        }
        if chains.is_empty() {
            let server_names = if self.needs_name() { self.names() } else { Vec::new() };
            chains.push(Chain { server_names, ..self.whole() });
        }
        chains
    }

    /// The TCP routes that hold, up to the first for all addresses; without such a one the service itself comes last.
    fn by_route(&self) -> Vec<Chain> {
        let mut chains = Vec::new();
        for virtual_service in self.virtual_services() {
            for route in l4::tcp_routes(&self.binding(virtual_service)) {
                let ends = self.subnets(&route).is_none();
                chains.push(self.routed(virtual_service, route));
                if ends {
                    return chains;
                }
            }
        }
        let whole = self.whole();
        if !chains.iter().any(|chain: &Chain| chain.conflicts_with(&whole)) {
            chains.push(whole);
        }
        chains
    }

    fn routed(&self, virtual_service: &VirtualService, route: L4Route) -> Chain {
        let object = &virtual_service.object;
        let cidrs = self.subnets(&route).unwrap_or(self.cidrs).to_vec();
        let filters = network::routed(self.context, object, route.cluster);
        Chain {
            server_names: route.server_names,
            cidrs,
            metadata: Some(config_metadata(object)),
            ..Chain::unconditional(filters)
        }
    }

    /// The addresses that a route is for, in place of the service's own. Nothing that comes by a Unix socket has one.
    fn subnets<'r>(&self, route: &'r L4Route) -> Option<&'r [String]> {
        Some(route.destination_subnets.as_slice()).filter(|subnets| !subnets.is_empty() && self.number > 0)
    }

    /// A listener's port that is none of the service's stands for its only one.
    fn whole(&self) -> Chain {
        let port = match self.service.ports.as_slice() {
            [only] => only.number,
            _ => self.number,
        };
        let filters = network::to_service(self.context, &self.service.host, port);
        Chain { cidrs: self.cidrs.to_vec(), ..Chain::unconditional(filters) }
    }

    fn needs_name(&self) -> bool {
        let has_no_address = is_cidr(self.address) || self.is_everywhere;
        !self.cidrs.is_empty() || has_no_address
    }

    /// The service's own name, and every spelling of those that stand for it.
    fn names(&self) -> Vec<String> {
        let mut names = vec![self.service.host.to_string()];
        for alias in &self.service.aliases {
            names.push(alias.to_string());
            names.extend(derived_names(alias, &self.context.shape.namespace));
        }
        names
    }

    /// All that may speak of the host, oldest first.
    fn virtual_services(&self) -> impl Iterator<Item = &'a Arc<VirtualService>> {
        let host = &self.service.host;
        let all = self.view.virtual_services.iter().copied();
        all.filter(move |v| v.hosts.iter().any(|h| h.overlaps(host)))
    }

    fn binding(&self, virtual_service: &'a VirtualService) -> Binding<'a> {
        Binding {
            context: self.context,
            virtual_service,
            gateway: self.mesh,
            port: self.number,
            is_of_one_port: false,
        }
    }
}
