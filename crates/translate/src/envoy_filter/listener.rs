//! Patches on listeners and what is in them: listener filters, filter chains, network filters, HTTP filters, and the
//! routes that a connection manager has in itself.
//!
//! Source: Istio `pilot/pkg/networking/core/envoyfilter/listener_patch.go`.

use meltemi_api::istio::{PatchContext, PatchOperation};
use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::listener::v3::{
    Filter, FilterChain, Listener, ListenerFilter, filter, listener_filter,
};
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
};

use super::cluster::merge_socket;
use super::list::edit;
use super::patch::{Patch, merge_config};
use super::{Patches, matching};
use crate::listener::Built;

const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// A listener or a chain whose parts are patched, and where it stands.
#[derive(Clone, Copy)]
struct Around<'a> {
    place: PatchContext,
    listener: &'a Listener,
}

impl Patches<'_> {
    pub(super) fn listeners(&self, listeners: &mut Vec<Built>) {
        listeners.retain_mut(|built| self.listener(&mut built.listener));
        for place in self.places() {
            let added = self.listeners.iter().filter(|patch| patch.adds_to(*place));
            listeners.extend(
                added.map(|patch| Built { listener: patch.value.clone(), origin: Some(patch.origin()) }),
            );
        }
    }

    /// Whether the listener stays.
    fn listener(&self, listener: &mut Listener) -> bool {
        let place = match listener.traffic_direction == TrafficDirection::Inbound as i32 {
            true => PatchContext::SidecarInbound,
            false => self.outwards(),
        };
        for patch in self.listeners.iter().filter(|patch| patch.is_for(place)) {
            if !matching::listener(patch.listener(), listener, true) {
                continue;
            }
            if patch.operation == PatchOperation::Remove {
                return false;
            }
            patch.merge_into(listener);
        }
        self.listener_filters(place, listener);
        self.chains(place, listener);
        true
    }

    fn listener_filters(&self, place: PatchContext, listener: &mut Listener) {
        let mut filters = std::mem::take(&mut listener.listener_filters);
        for patch in self.listener_filters.iter().filter(|patch| patch.is_for(place)) {
            if !matching::listener(patch.listener(), listener, false) {
                continue;
            }
            let anchor = patch.listener_filter();
            let is_meant = |filter: &ListenerFilter| Some(filter.name.as_str()) == anchor;
            edit(
                &mut filters,
                patch.operation,
                anchor.map(|_| &is_meant as &dyn Fn(&ListenerFilter) -> bool),
                || patch.value.clone(),
            );
            if patch.operation == PatchOperation::Merge && anchor.is_some() {
                filters.iter_mut().filter(|f| is_meant(f)).for_each(|f| merge_listener_filter(f, patch));
            }
        }
        listener.listener_filters = filters;
    }

    fn chains(&self, place: PatchContext, listener: &mut Listener) {
        let mut chains = std::mem::take(&mut listener.filter_chains);
        let mut default = listener.default_filter_chain.take();
        let around = Around { place, listener };
        chains.retain_mut(|chain| chain.filters.is_empty() || self.chain(around, chain));
        if default.as_mut().is_some_and(|chain| !chain.filters.is_empty() && !self.chain(around, chain)) {
            default = None;
        }
        let added = self.filter_chains.iter().filter(|patch| patch.adds() && patch.is_for(place));
        let added = added.filter(|patch| matching::listener(patch.listener(), listener, false));
        chains.extend(added.map(|patch| patch.value.clone()));
        listener.filter_chains = chains;
        listener.default_filter_chain = default;
    }

    /// Whether the chain stays.
    fn chain(&self, around: Around<'_>, chain: &mut FilterChain) -> bool {
        for patch in &self.filter_chains {
            if !around.is_patched_by(patch, chain) {
                continue;
            }
            if patch.operation == PatchOperation::Remove {
                return false;
            }
            if patch.merges() && !has_merged_socket(chain, patch) {
                patch.merge_into(chain);
            }
        }
        self.network_filters(around, chain);
        true
    }

    fn network_filters(&self, around: Around<'_>, chain: &mut FilterChain) {
        let meant = self.network_filters.iter().filter(|patch| around.is_patched_by(patch, chain));
        let patches: Vec<_> = meant.collect();
        for patch in &patches {
            let anchor = patch.network_filter().map(|filter| filter.name.as_str());
            let is_meant = |filter: &Filter| Some(filter.name.as_str()) == anchor;
            edit(
                &mut chain.filters,
                patch.operation,
                anchor.map(|_| &is_meant as &dyn Fn(&Filter) -> bool),
                || patch.value.clone(),
            );
        }
        let mut filters = std::mem::take(&mut chain.filters);
        for filter in &mut filters {
            for patch in &patches {
                let is_meant = patch.network_filter().is_none_or(|wanted| wanted.name == filter.name);
                if is_meant && patch.operation == PatchOperation::Merge {
                    merge_network_filter(filter, patch);
                }
            }
            if filter.name == CONNECTION_MANAGER {
                self.connection_manager(around, chain, filter);
            }
        }
        chain.filters = filters;
    }

    fn connection_manager(&self, around: Around<'_>, chain: &FilterChain, filter: &mut Filter) {
        let Some(filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else { return };
        let Ok(mut manager) = config.unpack::<HttpConnectionManager>() else { return };
        let of_managers = self.http_filters.iter().filter(|patch| {
            let is_meant = patch.network_filter().is_none_or(|wanted| wanted.name == CONNECTION_MANAGER);
            is_meant && around.is_patched_by(patch, chain)
        });
        let patches: Vec<_> = of_managers.collect();
        for patch in &patches {
            let anchor = patch.http_filter();
            let is_meant = |filter: &HttpFilter| Some(filter.name.as_str()) == anchor;
            edit(
                &mut manager.http_filters,
                patch.operation,
                anchor.map(|_| &is_meant as &dyn Fn(&HttpFilter) -> bool),
                || patch.value.clone(),
            );
        }
        for filter in &mut manager.http_filters {
            for patch in patches.iter().filter(|patch| patch.operation == PatchOperation::Merge) {
                if patch.http_filter().is_none_or(|wanted| wanted == filter.name) {
                    merge_http_filter(filter, patch);
                }
            }
        }
        if let Some(RouteSpecifier::RouteConfig(routes)) = &mut manager.route_specifier {
            self.route_configuration(around.place, routes, None);
        }
        *config = Any::pack(&manager);
    }
}

impl Around<'_> {
    fn is_patched_by<M: prost::Name + Default + Clone>(
        &self,
        patch: &Patch<'_, M>,
        chain: &FilterChain,
    ) -> bool {
        patch.is_for(self.place)
            && matching::listener(patch.listener(), self.listener, false)
            && matching::chain(patch.listener(), &self.listener.name, chain)
    }
}

/// A patch with a transport socket of the chain's own kind is for that alone: its configuration is merged.
fn has_merged_socket(chain: &mut FilterChain, patch: &Patch<'_, FilterChain>) -> bool {
    let (Some(own), Some(wanted)) = (&mut chain.transport_socket, &patch.value.transport_socket) else {
        return false;
    };
    if own.name != wanted.name {
        return false;
    }
    merge_socket(own, wanted);
    true
}

/// The name and the configuration are all that a filter has to merge, and only one that has a configuration is.
fn merge_listener_filter(filter: &mut ListenerFilter, patch: &Patch<'_, ListenerFilter>) {
    let Some(listener_filter::ConfigType::TypedConfig(own)) = &mut filter.config_type else { return };
    if let Some(listener_filter::ConfigType::TypedConfig(wanted)) = &patch.value.config_type {
        merge_config(own, wanted);
    }
    rename(&mut filter.name, &patch.value.name);
}

fn merge_network_filter(filter: &mut Filter, patch: &Patch<'_, Filter>) {
    let Some(filter::ConfigType::TypedConfig(own)) = &mut filter.config_type else { return };
    if let Some(filter::ConfigType::TypedConfig(wanted)) = &patch.value.config_type {
        merge_config(own, wanted);
    }
    rename(&mut filter.name, &patch.value.name);
}

fn merge_http_filter(filter: &mut HttpFilter, patch: &Patch<'_, HttpFilter>) {
    let Some(http_filter::ConfigType::TypedConfig(own)) = &mut filter.config_type else { return };
    if let Some(http_filter::ConfigType::TypedConfig(wanted)) = &patch.value.config_type {
        merge_config(own, wanted);
    }
    rename(&mut filter.name, &patch.value.name);
}

fn rename(name: &mut String, wanted: &str) {
    if !wanted.is_empty() {
        wanted.clone_into(name);
    }
}
