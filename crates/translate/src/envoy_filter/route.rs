//! Patches on route configurations, virtual hosts and routes.
//!
//! Source: Istio `pilot/pkg/networking/core/envoyfilter/rc_patch.go`.

use meltemi_api::istio::{PatchContext, PatchOperation};
use meltemi_envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use meltemi_envoy::type_url;

use super::list::edit;
use super::patch::Patch;
use super::{Patches, matching};
use crate::resources::{Origin, Origins};

/// A virtual host with its routes apart, each with what asked for it.
struct Host {
    host: VirtualHost,
    routes: Vec<(Route, Option<Origin>)>,
}

impl Host {
    /// `origin` gives that of a route by its position.
    fn new(mut host: VirtualHost, origin: impl Fn(usize) -> Option<Origin>) -> Host {
        let routes = std::mem::take(&mut host.routes).into_iter().enumerate();
        let routes = routes.map(|(index, route)| (route, origin(index))).collect();
        Host { host, routes }
    }

    /// Takes in what a patch left in the virtual host.
    fn absorb(&mut self, patch: &Patch<'_, VirtualHost>) {
        let added = std::mem::take(&mut self.host.routes);
        self.routes.extend(added.into_iter().map(|route| (route, Some(patch.origin()))));
    }
}

impl Patches<'_> {
    /// `origins` are those of the configuration, if it is a resource of its own.
    pub(super) fn route_configuration(
        &self,
        place: PatchContext,
        configuration: &mut RouteConfiguration,
        origins: Option<&mut Origins>,
    ) {
        for patch in &self.route_configurations {
            if self.is_for_routes(patch, place, &configuration.name) {
                patch.merge_into(configuration);
            }
        }
        if self.virtual_hosts.is_empty() && self.routes.is_empty() {
            return;
        }
        let name = configuration.name.clone();
        let origin = |host: usize, route: usize| {
            let path = format!("virtual_hosts[{host}].routes[{route}]");
            origins.as_deref()?.find(type_url::ROUTE, &name, &path).cloned()
        };
        let hosts = std::mem::take(&mut configuration.virtual_hosts).into_iter().enumerate();
        let mut hosts: Vec<Host> = hosts.map(|(i, host)| Host::new(host, |j| origin(i, j))).collect();
        hosts.retain_mut(|host| self.virtual_host(place, &name, host));
        for patch in self.virtual_hosts.iter().filter(|patch| patch.adds()) {
            if self.is_for_routes(patch, place, &name) {
                hosts.push(Host::new(patch.value.clone(), |_| Some(patch.origin())));
            }
        }
        if let Some(origins) = origins {
            keep_origins(&name, &hosts, origins);
        }
        let whole = |Host { host, routes }| {
            let routes = routes.into_iter().map(|(route, _)| route).collect();
            VirtualHost { routes, ..host }
        };
        configuration.virtual_hosts = hosts.into_iter().map(whole).collect();
    }

    /// Whether the virtual host stays.
    fn virtual_host(&self, place: PatchContext, name: &str, host: &mut Host) -> bool {
        for patch in &self.virtual_hosts {
            let is_meant = self.is_for_routes(patch, place, name)
                && matching::virtual_host(patch.virtual_host(), &host.host);
            if !is_meant {
                continue;
            }
            match patch.operation {
                PatchOperation::Remove => return false,
                PatchOperation::Replace => *host = Host::new(patch.value.clone(), |_| Some(patch.origin())),
                PatchOperation::MergeAndReplaceList if !patch.value.routes.is_empty() => {
                    host.routes.clear();
                    patch.merge_into(&mut host.host);
                }
                _ => patch.merge_into(&mut host.host),
            }
            host.absorb(patch);
        }
        self.routes(place, name, host);
        true
    }

    fn routes(&self, place: PatchContext, name: &str, host: &mut Host) {
        let Host { host, routes } = host;
        let meant = self.routes.iter().filter(|patch| {
            self.is_for_routes(patch, place, name) && matching::virtual_host(patch.virtual_host(), host)
        });
        let patches: Vec<_> = meant.collect();
        routes.retain_mut(|(route, _)| {
            for patch in patches.iter() {
                if !matching::route(patch.route(), route) {
                    continue;
                }
                if patch.operation == PatchOperation::Remove {
                    return false;
                }
                patch.merge_into(route);
            }
            true
        });
        for patch in patches.iter().filter(|patch| patch.adds()) {
            let is_meant = |(route, _): &(Route, Option<Origin>)| matching::route(patch.route(), route);
            let is_absent = patch.route().is_some() && !routes.iter().any(is_meant);
            if patch.operation == PatchOperation::InsertFirst && is_absent {
                continue;
            }
            let anchor = patch.route().map(|_| &is_meant as &dyn Fn(&(Route, Option<Origin>)) -> bool);
            edit(routes, patch.operation, anchor, || (patch.value.clone(), Some(patch.origin())));
        }
    }

    fn is_for_routes<M: prost::Name + Default + Clone>(
        &self,
        patch: &Patch<'_, M>,
        place: PatchContext,
        name: &str,
    ) -> bool {
        let wanted = patch.route_configuration();
        let is_named = match place {
            PatchContext::Gateway => matching::gateway_routes(wanted, name, &self.ports),
            _ => matching::sidecar_routes(wanted, name),
        };
        patch.is_for(place) && is_named
    }
}

/// Routes have moved, so what asked for them is told anew.
fn keep_origins(name: &str, hosts: &[Host], origins: &mut Origins) {
    origins.forget(type_url::ROUTE, name);
    for (i, host) in hosts.iter().enumerate() {
        for (j, (_, origin)) in host.routes.iter().enumerate() {
            if let Some(origin) = origin {
                let path = format!("virtual_hosts[{i}].routes[{j}]");
                origins.insert(type_url::ROUTE, name, path, origin.clone());
            }
        }
    }
}
