//! The filter chains of an outbound port that is not HTTP: by server name where TLS is spoken, by address where the
//! service has a range of them, by the routes of VirtualServices.
//!
//! Source: Istio `pilot/pkg/networking/core/tls.go`.

use std::sync::Arc;

use meltemi_api::Object;
use meltemi_envoy::config::core::v3::Metadata;
use meltemi_snapshot::{GatewayName, Protocol, Service, View, VirtualService};

use crate::context::Context;
use crate::listener::address::is_cidr;
use crate::listener::outbound::entry::Chain;
use crate::listener::outbound::network;
use crate::message::{config_path, fields, istio_metadata, text};
use crate::route::{Binding, l4};

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
        for virtual_service in self.virtual_services() {
            for (server_names, destination) in l4::tls(&self.binding(virtual_service)) {
                let object = &virtual_service.object;
                let filters = network::routed(self.context, object, self.number, destination);
                chains.push(Chain {
                    server_names,
                    cidrs: self.cidrs.to_vec(),
                    metadata: Some(metadata(object)),
                    ..Chain::unconditional(filters)
                });
            }
        }
        if chains.is_empty() {
            let server_names = if self.needs_name() { self.names() } else { Vec::new() };
            chains.push(Chain { server_names, ..self.whole() });
        }
        chains
    }

    /// The first TCP route that holds, else the service itself.
    fn by_route(&self) -> Vec<Chain> {
        let routed = self.virtual_services().find_map(|virtual_service| {
            let destination = l4::tcp(&self.binding(virtual_service))?;
            Some((&virtual_service.object, destination))
        });
        let Some((object, destination)) = routed else { return vec![self.whole()] };
        let filters = network::routed(self.context, object, self.number, destination);
        let metadata = Some(metadata(object));
        vec![Chain { cidrs: self.cidrs.to_vec(), metadata, ..Chain::unconditional(filters) }]
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

    fn names(&self) -> Vec<String> {
        vec![self.service.host.to_string()]
    }

    /// All that may speak of the host, oldest first.
    fn virtual_services(&self) -> impl Iterator<Item = &'a Arc<VirtualService>> {
        let host = &self.service.host;
        let all = self.view.virtual_services.iter().copied();
        all.filter(move |v| v.hosts.iter().any(|h| h.overlaps(host)))
    }

    fn binding(&self, virtual_service: &'a VirtualService) -> Binding<'a> {
        Binding { context: self.context, virtual_service, gateway: self.mesh, port: self.number }
    }
}

/// Which object a chain comes from.
fn metadata(object: &Object) -> Metadata {
    istio_metadata(fields([("config", text(config_path(object)))]))
}
