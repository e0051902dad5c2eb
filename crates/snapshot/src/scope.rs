//! The mesh as one proxy sees it: exports first, then the hosts of its Sidecar, and within that the
//! VirtualServices and DestinationRules that are in force.
//!
//! Source: Istio `pilot/pkg/model/sidecar.go` (selection, egress hosts, services of one host, destinations that a visible
//! VirtualService pulls in) and `push_context.go` (`destinationRule`).

mod destinations;
mod egress_hosts;
mod union;

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::istio;

use crate::config::{GatewayName, Sidecar, VirtualService, labels_match};
use crate::destination_rule::{Asking, DestinationRule};
use crate::endpoint::Endpoint;
use crate::host::Host;
use crate::mesh::Snapshot;
use crate::protocol::Protocol;
use crate::service::{Registry, Service};
use crate::visibility::Visibility;

use self::egress_hosts::EgressHosts;
use self::union::Union;
pub(crate) use self::union::say_the_same;

/// Whose view it is.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Namespace of the workload.
    pub namespace: &'a str,
    /// Labels of the workload.
    pub labels: &'a BTreeMap<String, String>,
    /// A gateway; Sidecar objects do not concern it.
    pub is_gateway: bool,
}

/// What a proxy sees.
#[derive(Debug)]
pub struct Scope<'a> {
    snapshot: &'a Snapshot,
    /// Of the client. Copies, so that a scope may outlive who asked for it.
    namespace: String,
    labels: BTreeMap<String, String>,
    is_gateway: bool,
    sidecar: Option<&'a Arc<Sidecar>>,
    views: Vec<View<'a>>,
    services: Union,
}

/// What is seen through one egress listener of a Sidecar, or through all of them when there is none.
#[derive(Debug)]
pub struct View<'a> {
    /// The listener with its position in the Sidecar; `None` sees everything.
    pub listener: Option<(usize, &'a istio::IstioEgressListener)>,
    /// The services that it brings in: first those that are exported to some namespaces only, then those for all, each the
    /// oldest first. All of one host are of one namespace. Of a service behind a listener with a port only that port.
    pub imported: Vec<Arc<Service>>,
    /// The same by host, those of one host merged.
    pub services: BTreeMap<Host, Arc<Service>>,
    /// VirtualServices for the mesh: those that are exported to some namespaces only before those for all, each the oldest
    /// first.
    pub virtual_services: Vec<&'a Arc<VirtualService>>,
}

impl<'a> Scope<'a> {
    /// The view of a client.
    pub fn of(snapshot: &'a Snapshot, client: Client<'_>) -> Scope<'a> {
        let sidecar = if client.is_gateway { None } else { select_sidecar(snapshot, client) };
        let egress = sidecar.map_or(&[][..], |s| s.spec().egress.as_slice());
        let views: Vec<View<'a>> = match egress {
            [] => vec![View::of(snapshot, client, None)],
            some => {
                some.iter().enumerate().map(|listener| View::of(snapshot, client, Some(listener))).collect()
            }
        };
        let mut services = Union::default();
        for view in &views {
            view.imported.iter().for_each(|service| services.add(service));
            for service in destinations::pulled_in(snapshot, client.namespace, view) {
                services.add(&service);
            }
        }
        Scope {
            snapshot,
            namespace: client.namespace.to_owned(),
            labels: client.labels.clone(),
            is_gateway: client.is_gateway,
            sidecar,
            views,
            services,
        }
    }

    /// The Sidecar in force.
    pub fn sidecar(&self) -> Option<&'a Arc<Sidecar>> {
        self.sidecar
    }

    /// The egress listeners in order.
    pub fn views(&self) -> &[View<'a>] {
        &self.views
    }

    /// The view without a port of its own: what all ports see.
    pub fn catch_all(&self) -> Option<&View<'a>> {
        self.views.iter().find(|v| v.listener.is_none_or(|(_, l)| l.port.is_none()))
    }

    /// Whether it is a gateway's.
    pub(crate) fn is_gateway(&self) -> bool {
        self.is_gateway
    }

    /// The endpoints of all ports of a service.
    pub(crate) fn endpoints(&self, service: &Service) -> impl Iterator<Item = &'a Endpoint> {
        let ports = service.ports.iter().map(|port| port.number);
        let all: Vec<_> = ports.map(|port| self.snapshot.endpoints.of(service, port)).collect();
        all.into_iter().flatten()
    }

    /// Every visible service, one of each host: those that listeners bring in, and destinations of visible VirtualServices.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// The visible service of exactly this host.
    pub fn service(&self, host: &Host) -> Option<&Arc<Service>> {
        self.services.get(host)
    }

    /// The visible VirtualServices that are bound to a gateway: those that are exported to some namespaces only before those
    /// for all, each the oldest first.
    pub fn virtual_services_of(&self, gateway: &GatewayName) -> Vec<&'a Arc<VirtualService>> {
        let visible = visible_virtual_services(self.snapshot, &self.namespace);
        let mut bound: Vec<_> = visible.filter(|v| v.is_bound_to(gateway)).collect();
        bound.sort_by_key(|v| rank(&v.export_to, v.namespace(), &self.namespace));
        bound
    }

    /// The DestinationRule in force for a service: the client's namespace, then the service's, then the root;
    /// in each the most specific host.
    pub fn destination_rule(&self, service: &Service) -> Option<&'a Arc<DestinationRule>> {
        let asking = Asking { namespace: &self.namespace, labels: Some(&self.labels) };
        destination_rule(self.snapshot, asking, &service.host, &service.namespace)
    }
}

impl<'a> Scope<'a> {
    /// As [`Scope::destination_rule`], for the client's own service: rules for some workloads are about whom they call,
    /// and not about who calls them.
    pub fn inbound_rule(&self, service: &Service) -> Option<&'a Arc<DestinationRule>> {
        let asking = Asking { namespace: &self.namespace, labels: None };
        destination_rule(self.snapshot, asking, &service.host, &service.namespace)
    }
}

impl<'a> View<'a> {
    fn of(
        snapshot: &'a Snapshot,
        client: Client<'_>,
        listener: Option<(usize, &'a istio::IstioEgressListener)>,
    ) -> View<'a> {
        let hosts = match listener {
            Some((_, listener)) => EgressHosts::parse(&listener.hosts, client.namespace),
            None => EgressHosts::everything(),
        };
        let visible = exported_services(snapshot, client.namespace);
        let admitted = visible.into_iter().filter(|service| hosts.admit(&service.namespace, &service.host));
        let port = listener.and_then(|(_, listener)| OwnPort::of(listener));
        let mut imported: Vec<Arc<Service>> = match port {
            None => admitted.cloned().collect(),
            Some(port) => admitted.filter_map(|service| port.of_service(service)).collect(),
        };
        if !client.is_gateway {
            keep_one_namespace(&mut imported, client.namespace);
        }
        let mut virtual_services: Vec<_> = visible_virtual_services(snapshot, client.namespace)
            .filter(|v| v.is_bound_to(&GatewayName::mesh()))
            .filter(|v| v.hosts.iter().any(|host| hosts.admit_virtual_service(v.namespace(), host)))
            .collect();
        virtual_services.sort_by_key(|v| rank(&v.export_to, v.namespace(), client.namespace));
        let mut union = Union::default();
        imported.iter().for_each(|service| union.add(service));
        View { listener, services: union.into_map(), imported, virtual_services }
    }

    /// The VirtualService in force for a host: the most specific match, then the oldest.
    pub fn virtual_service(&self, host: &Host) -> Option<&'a Arc<VirtualService>> {
        let matches = |v: &'a Arc<VirtualService>| {
            let best = v.hosts.iter().filter(|h| h.covers(host)).min_by(|a, b| a.by_specificity(b))?;
            Some((best, v))
        };
        let found = self.virtual_services.iter().filter_map(|v| matches(v));
        // Of equals, `min_by` keeps the first, which is the oldest.
        found.min_by(|(a, _), (b, _)| a.by_specificity(b)).map(|(_, v)| v)
    }
}

/// The port of an egress listener.
///
/// Differs: a listener whose hosts are all named may have a port number of its own; then the service port of its name is
/// meant, or the service's only one. Istio brings nothing in in that case.
#[derive(Clone, Copy)]
struct OwnPort<'a> {
    number: u16,
    name: &'a str,
    are_hosts_named: bool,
}

impl<'a> OwnPort<'a> {
    /// `None` for a listener of all ports; one that is an HTTP proxy is.
    fn of(listener: &'a istio::IstioEgressListener) -> Option<OwnPort<'a>> {
        let port = listener.port.as_ref()?;
        let is_proxy =
            port.protocol.as_deref().is_some_and(|word| Protocol::parse(word) == Protocol::HttpProxy);
        let number = u16::try_from(port.number).ok().filter(|number| *number > 0 && !is_proxy)?;
        let are_hosts_named = !listener.hosts.iter().any(|host| host.contains('*'));
        Some(OwnPort { number, name: port.name.as_deref().unwrap_or_default(), are_hosts_named })
    }

    /// The service with the port that is meant, alone.
    fn of_service(self, service: &Arc<Service>) -> Option<Arc<Service>> {
        let by_name = || service.ports.iter().find(|port| !self.name.is_empty() && port.name == self.name);
        let only = || service.ports.first().filter(|_| service.ports.len() == 1);
        let own = || self.are_hosts_named.then(|| by_name().or_else(only)).flatten();
        let port = service.port(self.number).or_else(own)?;
        Some(match service.ports.len() {
            1 => Arc::clone(service),
            _ => Arc::new(Service { ports: vec![port.clone()], ..Service::clone(service) }),
        })
    }
}

/// Of the services of one host those of one namespace: the client's, else the first Kubernetes Service's, else the first's.
fn keep_one_namespace(services: &mut Vec<Arc<Service>>, namespace: &str) {
    let mut chosen: BTreeMap<Host, Arc<Service>> = BTreeMap::new();
    for service in services.iter() {
        let Some(other) = chosen.get(&service.host) else {
            chosen.insert(service.host.clone(), Arc::clone(service));
            continue;
        };
        let is_first_of_kubernetes =
            other.registry != Registry::Kubernetes && service.registry == Registry::Kubernetes;
        if &*service.namespace == namespace || is_first_of_kubernetes && &*other.namespace != namespace {
            chosen.insert(service.host.clone(), Arc::clone(service));
        }
    }
    services
        .retain(|service| chosen.get(&service.host).is_some_and(|one| one.namespace == service.namespace));
}

/// The lookup of [`Scope::destination_rule`].
pub(crate) fn destination_rule<'a>(
    snapshot: &'a Snapshot,
    asking: Asking<'_>,
    host: &Host,
    service_namespace: &str,
) -> Option<&'a Arc<DestinationRule>> {
    let root = &snapshot.config.mesh.root_namespace;
    snapshot.config.destination_rules.find(asking, (host, service_namespace), root)
}

/// A matching selector wins, then the namespace's Sidecar without one, then the root namespace's.
fn select_sidecar<'a>(snapshot: &'a Snapshot, client: Client<'_>) -> Option<&'a Arc<Sidecar>> {
    let sidecars = &snapshot.config.sidecars;
    let of = |namespace: &str| {
        let namespace = namespace.to_owned();
        sidecars.iter().filter(move |s| *s.object.id.namespace == *namespace)
    };
    of(client.namespace)
        .find(|s| s.selector().is_some_and(|labels| labels_match(labels, client.labels)))
        .or_else(|| of(client.namespace).find(|s| s.selector().is_none()))
        .or_else(|| of(&snapshot.config.mesh.root_namespace).find(|s| s.selector().is_none()))
}

fn visible_virtual_services<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
) -> impl Iterator<Item = &'a Arc<VirtualService>> {
    snapshot.config.virtual_services.iter().filter(move |v| v.export_to.reaches(namespace))
}

/// The services that a namespace may see, in the order in which they claim hosts and ports.
fn exported_services<'a>(snapshot: &'a Snapshot, namespace: &str) -> Vec<&'a Arc<Service>> {
    let all = snapshot.services.by_age().iter();
    let (public, chosen): (Vec<_>, Vec<_>) =
        all.filter(|s| s.export_to.reaches(namespace)).partition(|s| s.export_to == Visibility::All);
    chosen.into_iter().chain(public).collect()
}

/// Of the own namespace's own, of those exported to it by name, of those for all.
fn rank(export_to: &Visibility, namespace: &str, client: &str) -> u8 {
    match export_to {
        Visibility::All => 2,
        _ if namespace == client => 0,
        _ => 1,
    }
}
