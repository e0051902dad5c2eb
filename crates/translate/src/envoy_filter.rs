//! EnvoyFilter: patches on what was made for a proxy, before it is encoded.
//!
//! Source: Istio `pilot/pkg/networking/core/envoyfilter` and `pilot/pkg/model/envoyfilter.go`.
//! Differs: MERGE on a LISTENER_FILTER is for the filter of the name that is matched, where Istio merges into every
//! listener filter. A patch whose value is not of the Envoy API is left out alone, where Istio refuses the object. An
//! extension that the proxy does not say it has is not sent to it: it would refuse everything around it.

mod check;
mod cluster;
mod list;
mod listener;
mod matching;
mod patch;
mod route;
mod value;

pub use check::check;

use meltemi_api::istio::{ApplyTo, EnvoyConfigObjectPatch, PatchContext};
use meltemi_api::{Diagnostic, Object, codes};
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::core::v3::TypedExtensionConfig;
use meltemi_envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use meltemi_envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use crate::context::Context;
use crate::draft::Draft;
use crate::resources::Origins;

use self::matching::PortMap;
use self::patch::Patch;

/// The patches for one proxy, by what they are for.
#[derive(Default)]
struct Patches<'a> {
    listeners: Vec<Patch<'a, Listener>>,
    listener_filters: Vec<Patch<'a, ListenerFilter>>,
    filter_chains: Vec<Patch<'a, FilterChain>>,
    network_filters: Vec<Patch<'a, Filter>>,
    http_filters: Vec<Patch<'a, HttpFilter>>,
    route_configurations: Vec<Patch<'a, RouteConfiguration>>,
    virtual_hosts: Vec<Patch<'a, VirtualHost>>,
    routes: Vec<Patch<'a, Route>>,
    clusters: Vec<Patch<'a, Cluster>>,
    extension_configs: Vec<Patch<'a, TypedExtensionConfig>>,
    /// Patches that the proxy is not sent.
    left_out: Vec<Diagnostic>,
    is_gateway: bool,
    /// Which ports of servers a port of a gateway stands for.
    ports: PortMap,
}

/// Applies the EnvoyFilters for the proxy. Gives what it was not sent, and why.
pub(crate) fn apply(context: &Context<'_>, draft: &mut Draft, origins: &mut Origins) -> Vec<Diagnostic> {
    let patches = Patches::of(context);
    if patches.is_empty() {
        return patches.left_out;
    }
    patches.clusters(&mut draft.clusters);
    patches.listeners(&mut draft.listeners);
    for configuration in &mut draft.routes {
        patches.route_configuration(patches.outwards(), configuration, Some(&mut *origins));
    }
    let added = patches.extension_configs.iter().filter(|patch| patch.adds());
    draft.extension_configs.extend(added.map(|patch| (patch.value.clone(), patch.origin())));
    patches.left_out
}

/// Whether there are EnvoyFilters for the proxy.
pub(crate) fn patches(context: &Context<'_>) -> bool {
    let (shape, config) = (context.shape, &context.snapshot.config);
    let root = &config.mesh.root_namespace;
    config.envoy_filters.of_workload(root, &shape.namespace, &shape.labels).into_iter().next().is_some()
}

impl<'a> Patches<'a> {
    fn of(context: &Context<'a>) -> Patches<'a> {
        let shape = context.shape;
        let config = &context.snapshot.config;
        let root = &config.mesh.root_namespace;
        let mut patches = Patches { is_gateway: context.is_gateway(), ..Patches::default() };
        for (object, filter) in config.envoy_filters.of_workload(root, &shape.namespace, &shape.labels) {
            for (index, wire) in filter.config_patches.iter().enumerate() {
                let proxy = wire.matches.as_ref().and_then(|m| m.proxy.as_ref());
                if proxy.is_none_or(|proxy| matching::proxy(proxy, shape)) {
                    patches.add(context, object, index, wire);
                }
            }
        }
        if patches.is_gateway && !patches.is_empty() {
            patches.ports = PortMap::of(context);
        }
        patches
    }

    fn add(
        &mut self,
        context: &Context<'_>,
        object: &'a Object,
        index: usize,
        wire: &'a EnvoyConfigObjectPatch,
    ) {
        if let Some(absent) = value::types(wire).into_iter().find(|name| !context.shape.takes(name)) {
            let message = format!("the proxy does not have `{absent}`, so it does not get the patch");
            let diagnostic = Diagnostic::new(&codes::ABSENT_EXTENSION, message);
            self.left_out.push(diagnostic.at(object, format!("spec.configPatches[{index}].patch.value")));
            return;
        }
        match wire.apply_to.unwrap_or_default() {
            // The bootstrap is read before the control plane is asked.
            ApplyTo::Invalid | ApplyTo::Bootstrap => {}
            ApplyTo::Listener => self.listeners.extend(Patch::new(object, index, wire)),
            ApplyTo::ListenerFilter => self.listener_filters.extend(Patch::new(object, index, wire)),
            ApplyTo::FilterChain => self.filter_chains.extend(Patch::new(object, index, wire)),
            ApplyTo::NetworkFilter => self.network_filters.extend(Patch::new(object, index, wire)),
            ApplyTo::HttpFilter => self.http_filters.extend(Patch::new(object, index, wire)),
            ApplyTo::RouteConfiguration => self.route_configurations.extend(Patch::new(object, index, wire)),
            ApplyTo::VirtualHost => self.virtual_hosts.extend(Patch::new(object, index, wire)),
            ApplyTo::HttpRoute => self.routes.extend(Patch::new(object, index, wire)),
            ApplyTo::Cluster => self.clusters.extend(Patch::new(object, index, wire)),
            ApplyTo::ExtensionConfig => self.extension_configs.extend(Patch::new(object, index, wire)),
        }
    }

    /// Where objects stand that lead out of the proxy.
    fn outwards(&self) -> PatchContext {
        if self.is_gateway { PatchContext::Gateway } else { PatchContext::SidecarOutbound }
    }

    /// Where there are objects.
    fn places(&self) -> &'static [PatchContext] {
        match self.is_gateway {
            true => &[PatchContext::Gateway],
            false => &[PatchContext::SidecarInbound, PatchContext::SidecarOutbound],
        }
    }

    fn is_empty(&self) -> bool {
        self.listeners.is_empty()
            && self.listener_filters.is_empty()
            && self.filter_chains.is_empty()
            && self.network_filters.is_empty()
            && self.http_filters.is_empty()
            && self.route_configurations.is_empty()
            && self.virtual_hosts.is_empty()
            && self.routes.is_empty()
            && self.clusters.is_empty()
            && self.extension_configs.is_empty()
    }
}
