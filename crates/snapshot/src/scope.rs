//! The mesh as one proxy sees it: exports first, then the hosts of its Sidecar, and within that the
//! VirtualServices and DestinationRules that are in force.
//!
//! Source: Istio `pilot/pkg/model/sidecar.go` (selection, egress hosts, destinations that a visible VirtualService
//! pulls in) and `push_context.go` (`destinationRule`).

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::istio;

use crate::config::{DestinationRule, GatewayName, Sidecar, VirtualService, labels_match};
use crate::host::Host;
use crate::mesh::Snapshot;
use crate::service::{Registry, Service};

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
    client: Client<'a>,
    sidecar: Option<&'a Arc<Sidecar>>,
    views: Vec<View<'a>>,
    services: BTreeMap<&'a Host, &'a Arc<Service>>,
}

/// What is seen through one egress listener of a Sidecar, or through all of them when there is none.
#[derive(Debug)]
pub struct View<'a> {
    /// The listener with its position in the Sidecar; `None` sees everything.
    pub listener: Option<(usize, &'a istio::IstioEgressListener)>,
    /// Services by host.
    pub services: BTreeMap<&'a Host, &'a Arc<Service>>,
    /// VirtualServices for the mesh, oldest first.
    pub virtual_services: Vec<&'a Arc<VirtualService>>,
}

impl<'a> Scope<'a> {
    /// The view of a client.
    pub fn of(snapshot: &'a Snapshot, client: Client<'a>) -> Scope<'a> {
        let sidecar = if client.is_gateway { None } else { select_sidecar(snapshot, client) };
        let egress = sidecar.map_or(&[][..], |s| s.spec().egress.as_slice());
        let views: Vec<View<'a>> = match egress {
            [] => vec![View::of(snapshot, client, None)],
            some => {
                some.iter().enumerate().map(|listener| View::of(snapshot, client, Some(listener))).collect()
            }
        };
        let services =
            views.iter().flat_map(|v| &v.services).map(|(host, service)| (*host, *service)).collect();
        Scope { snapshot, client, sidecar, views, services }
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

    /// Every visible service by host.
    pub fn services(&self) -> impl Iterator<Item = &'a Arc<Service>> {
        self.services.values().copied()
    }

    /// The visible service of exactly this host.
    pub fn service(&self, host: &Host) -> Option<&'a Arc<Service>> {
        self.services.get(host).copied()
    }

    /// The visible VirtualServices that are bound to a gateway, oldest first.
    pub fn virtual_services_of(&self, gateway: &GatewayName) -> Vec<&'a Arc<VirtualService>> {
        visible_virtual_services(self.snapshot, self.client.namespace)
            .filter(|v| v.is_bound_to(gateway))
            .collect()
    }

    /// The DestinationRule in force for a service: the client's namespace, then the service's, then the root;
    /// in each the most specific host.
    pub fn destination_rule(&self, service: &Service) -> Option<&'a Arc<DestinationRule>> {
        destination_rule(self.snapshot, self.client.namespace, &service.host, &service.namespace)
    }
}

impl<'a> View<'a> {
    fn of(
        snapshot: &'a Snapshot,
        client: Client<'a>,
        listener: Option<(usize, &'a istio::IstioEgressListener)>,
    ) -> View<'a> {
        let hosts = listener.map(|(_, l)| EgressHosts::parse(&l.hosts, client.namespace));
        let admits = |namespace: &str, host: &Host| hosts.as_ref().is_none_or(|h| h.admit(namespace, host));
        let mut services = visible_services(snapshot, client.namespace, &admits);
        let virtual_services: Vec<_> = visible_virtual_services(snapshot, client.namespace)
            .filter(|v| v.is_bound_to(&GatewayName::mesh()))
            .filter(|v| v.hosts.iter().any(|h| admits(v.namespace(), h)))
            .collect();
        for host in virtual_services.iter().flat_map(|v| destinations(v)) {
            if !services.contains_key(&host)
                && let Some(service) = preferred(snapshot, client.namespace, &host, &|_, _| true)
            {
                services.insert(&service.host, service);
            }
        }
        View { listener, services, virtual_services }
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

/// The lookup of [`Scope::destination_rule`] for a client namespace.
pub(crate) fn destination_rule<'a>(
    snapshot: &'a Snapshot,
    client_namespace: &str,
    host: &Host,
    service_namespace: &str,
) -> Option<&'a Arc<DestinationRule>> {
    let in_namespace = |namespace: &str, own: bool| {
        let rules = snapshot.config.destination_rules.iter();
        rules
            .filter(|r| &*r.namespace == namespace && (own || r.export_to.reaches(client_namespace)))
            .filter(|r| r.host.covers(host))
            .min_by(|a, b| a.host.by_specificity(&b.host))
    };
    in_namespace(client_namespace, true)
        .or_else(|| in_namespace(service_namespace, false))
        .or_else(|| in_namespace(&snapshot.config.mesh.root_namespace, false))
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

fn visible_services<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    admits: &dyn Fn(&str, &Host) -> bool,
) -> BTreeMap<&'a Host, &'a Arc<Service>> {
    let hosts = snapshot.services.iter().map(|s| &s.host);
    hosts.filter_map(|host| Some((host, preferred(snapshot, namespace, host, admits)?))).collect()
}

/// Of the services of one host: Kubernetes', else the one of the client's namespace, else the oldest.
fn preferred<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    host: &Host,
    admits: &dyn Fn(&str, &Host) -> bool,
) -> Option<&'a Arc<Service>> {
    let visible = snapshot.services.of_host(host).iter();
    visible
        .filter(|s| s.export_to.reaches(namespace) && admits(&s.namespace, &s.host))
        .min_by_key(|s| (s.registry != Registry::Kubernetes, &*s.namespace != namespace))
}

/// Every destination that a VirtualService names.
pub(crate) fn destinations(virtual_service: &VirtualService) -> Vec<Host> {
    let spec = virtual_service.spec();
    let http = spec.http.iter().flat_map(|r| {
        let routes = r.route.iter().map(|d| &d.destination);
        routes.chain(r.mirror.as_ref()).chain(r.mirrors.iter().map(|m| &m.destination))
    });
    let tcp = spec.tcp.iter().flat_map(|r| r.route.iter().map(|d| &d.destination));
    let tls = spec.tls.iter().flat_map(|r| r.route.iter().map(|d| &d.destination));
    http.chain(tcp).chain(tls).map(|d| Host::resolve(&d.host, virtual_service.namespace())).collect()
}

/// `hosts` of an egress listener: `namespace/host`, with `~namespace/host` to exclude.
struct EgressHosts {
    admitted: Vec<(NamespacePattern, Host)>,
    excluded: Vec<(NamespacePattern, Host)>,
}

enum NamespacePattern {
    Any,
    Nobody,
    Is(String),
}

impl EgressHosts {
    fn parse(hosts: &[String], namespace: &str) -> EgressHosts {
        let mut parsed = EgressHosts { admitted: Vec::new(), excluded: Vec::new() };
        for text in hosts {
            let (scope, host) = text.split_once('/').unwrap_or(("*", text));
            let entry = |scope| (NamespacePattern::parse(scope, namespace), Host::new(host));
            match scope.strip_prefix('~') {
                Some(scope) if !scope.is_empty() => parsed.excluded.push(entry(scope)),
                _ => parsed.admitted.push(entry(scope)),
            }
        }
        parsed
    }

    fn admit(&self, namespace: &str, host: &Host) -> bool {
        let listed = |entries: &[(NamespacePattern, Host)]| {
            entries.iter().any(|(scope, pattern)| scope.matches(namespace) && pattern.covers(host))
        };
        listed(&self.admitted) && !listed(&self.excluded)
    }
}

impl NamespacePattern {
    fn parse(text: &str, namespace: &str) -> NamespacePattern {
        match text {
            "*" => NamespacePattern::Any,
            "~" => NamespacePattern::Nobody,
            "." => NamespacePattern::Is(namespace.to_owned()),
            name => NamespacePattern::Is(name.to_owned()),
        }
    }

    fn matches(&self, namespace: &str) -> bool {
        match self {
            NamespacePattern::Any => true,
            NamespacePattern::Nobody => false,
            NamespacePattern::Is(name) => name == namespace,
        }
    }
}
