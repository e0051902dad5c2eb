//! Destinations of visible VirtualServices: they are seen even where no listener brings them in.
//!
//! Source: Istio `pilot/pkg/model/sidecar.go` (`collectImportedServices`), `push_context.go`
//! (`virtualServiceDestinationsFilteredBySourceNamespace`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{OwnPort, View};
use crate::config::VirtualService;
use crate::host::Host;
use crate::mesh::Snapshot;
use crate::route::HttpRule;
use crate::service::Service;

/// The ports of a destination that are asked for; empty for all.
type Ports = BTreeSet<u16>;

/// The services that the VirtualServices of a view lead to.
pub(super) fn pulled_in(snapshot: &Snapshot, namespace: &str, view: &View<'_>) -> Vec<Arc<Service>> {
    let port = view.listener.and_then(|(_, listener)| OwnPort::of(listener));
    // A number of the listener's own says nothing of the destinations.
    let port = port.filter(|port| !port.are_hosts_named);
    let mut found = Vec::new();
    for virtual_service in &view.virtual_services {
        for (host, ports) in destinations(virtual_service, namespace) {
            let Some(service) = preferred(snapshot, namespace, &host) else { continue };
            found.extend(match port {
                Some(port) => port.of_service(service),
                None => with_ports_only(service, &ports),
            });
        }
    }
    found
}

/// Of the services of one host: that of the client's namespace, else Kubernetes', else the oldest that it may see.
fn preferred<'a>(snapshot: &'a Snapshot, namespace: &str, host: &Host) -> Option<&'a Arc<Service>> {
    let all = snapshot.services.of_host(host);
    let own = all.iter().find(|service| &*service.namespace == namespace);
    own.or_else(|| all.iter().find(|service| service.export_to.reaches(namespace)))
}

/// The service with the ports that routes name. A service that has none of them stays away: nothing would reach it.
fn with_ports_only(service: &Arc<Service>, ports: &Ports) -> Option<Arc<Service>> {
    if ports.is_empty() || service.ports.iter().all(|port| ports.contains(&port.number)) {
        return Some(Arc::clone(service));
    }
    let wanted: Vec<_> = service.ports.iter().filter(|port| ports.contains(&port.number)).cloned().collect();
    let is_reached = !wanted.is_empty();
    is_reached.then(|| Arc::new(Service { ports: wanted, ..Service::clone(service) }))
}

/// Every destination that a VirtualService names for callers of a namespace, those of its delegates too, with its ports.
fn destinations(virtual_service: &VirtualService, namespace: &str) -> BTreeMap<Host, Ports> {
    let rules = &virtual_service.rules;
    let http = rules.http.iter().filter(|rule| concerns(rule, namespace)).flat_map(HttpRule::destinations);
    let l4 = rules.tls.iter().flat_map(|rule| &rule.destinations);
    let l4 = l4.chain(rules.tcp.iter().flat_map(|rule| &rule.destinations));
    let mut found: BTreeMap<Host, (bool, Ports)> = BTreeMap::new();
    for destination in http.chain(l4.map(|weighted| &weighted.destination)) {
        let (all, ports) = found.entry(destination.host.clone()).or_default();
        match destination.port {
            Some(number) => _ = ports.insert(number),
            None => *all = true,
        }
    }
    found.into_iter().map(|(host, (all, ports))| (host, if all { Ports::new() } else { ports })).collect()
}

/// Whether one of the conditions is for this namespace, or none says one.
fn concerns(rule: &HttpRule, namespace: &str) -> bool {
    let said = rule.conditions.iter().map(|condition| condition.callers.namespace.as_str());
    let mut said = said.filter(|name| !name.is_empty()).peekable();
    said.peek().is_none() || said.any(|name| name == namespace)
}
