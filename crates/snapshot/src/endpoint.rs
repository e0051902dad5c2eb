//! Endpoints: where the ports of a service are reached.
//!
//! Source: Istio `pilot/pkg/serviceregistry/serviceentry/conversion.go`, `kube/controller` (EndpointSlices, Pods, and the
//! selection of WorkloadEntries by Kubernetes Services). What is not ready is left out.

mod group;
mod slice;
mod topology;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_api::{Object, Spec};

use crate::host::Host;
use crate::service::{Registry, Resolution, Service, ServicePort, Services};

use self::slice::Slices;
use self::topology::Topology;
use self::workload::{Workload, Workloads};

pub use workload::has_mtls;
pub(crate) use workload::{selected_ports, workload_at};

/// One place where a service port is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where.
    pub address: EndpointAddress,
    /// Port there; 0 for a Unix socket.
    pub port: u16,
    /// Labels, which subsets select by, with those that say where it stands.
    pub labels: Arc<BTreeMap<String, String>>,
    /// `region/zone/subzone`, maybe shorter or empty.
    pub locality: String,
    /// The network that it is in; empty for the one of the mesh.
    pub network: String,
    /// The node that it is on; empty when not known.
    pub node: String,
    /// `pod.service`, of a pod that has a name below a headless service.
    pub host_name: Option<Arc<str>>,
    /// Load balancing weight, at least 1.
    pub weight: u32,
    /// Name of the workload, such as the Deployment; empty when not known.
    pub workload: String,
    /// Namespace of the workload.
    pub namespace: Arc<str>,
    /// Service account; empty when not known.
    pub service_account: String,
    /// Its sidecar speaks mutual TLS: `security.istio.io/tlsMode` says so, or, for a WorkloadEntry without it, that it has
    /// a service account.
    pub has_mtls: bool,
}

/// The kind of address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name, for services resolved by DNS.
    Name(String),
    /// The path of a Unix socket; `@` first for one that is not in the file system.
    Pipe(String),
}

impl EndpointAddress {
    fn parse(text: &str) -> EndpointAddress {
        if let Some(path) = text.strip_prefix("unix://") {
            return EndpointAddress::Pipe(path.to_owned());
        }
        text.parse().map_or_else(|_| EndpointAddress::Name(text.to_owned()), EndpointAddress::Ip)
    }
}

/// The endpoints of every service port, in the order of their addresses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Endpoints {
    by_service: BTreeMap<(Host, Arc<str>), BTreeMap<u16, Vec<Endpoint>>>,
}

impl Endpoints {
    pub(crate) fn build<'a>(
        services: &Services,
        objects: impl Iterator<Item = &'a Arc<Object>>,
    ) -> Endpoints {
        let sources = Sources::collect(objects);
        let mut by_service: BTreeMap<(Host, Arc<str>), BTreeMap<u16, Vec<Endpoint>>> = BTreeMap::new();
        for service in services.by_age() {
            let key = (service.host.clone(), Arc::clone(&service.namespace));
            if by_service.contains_key(&key) {
                continue;
            }
            let same: Vec<&Service> = services
                .of_host(&service.host)
                .iter()
                .filter(|other| other.namespace == service.namespace)
                .map(|other| &**other)
                .collect();
            by_service.insert(key, sources.of_services(&same));
        }
        Endpoints { by_service }
    }

    /// The endpoints of a port of a service.
    pub fn of(&self, service: &Service, port: u16) -> &[Endpoint] {
        self.by_service
            .get(&(service.host.clone(), Arc::clone(&service.namespace)))
            .and_then(|ports| ports.get(&port))
            .map_or(&[], Vec::as_slice)
    }

    /// Namespace and service account of everything behind a service, on any of its ports.
    pub fn service_accounts(&self, service: &Service) -> BTreeSet<(&str, &str)> {
        let ports = self.by_service.get(&(service.host.clone(), Arc::clone(&service.namespace)));
        let endpoints = ports.into_iter().flat_map(|ports| ports.values().flatten());
        let known = endpoints.filter(|endpoint| !endpoint.service_account.is_empty());
        known.map(|endpoint| (&*endpoint.namespace, endpoint.service_account.as_str())).collect()
    }
}

/// What endpoints are made from.
struct Sources<'a> {
    topology: Topology<'a>,
    workloads: Workloads<'a>,
    slices: Slices<'a>,
}

impl<'a> Sources<'a> {
    fn collect(objects: impl Iterator<Item = &'a Arc<Object>>) -> Sources<'a> {
        let objects: Vec<&Arc<Object>> = objects.collect();
        let topology = Topology::of(&objects);
        let workloads = Workloads::collect(&objects, &topology);
        let slices = Slices::collect(&objects);
        Sources { topology, workloads, slices }
    }

    /// The endpoints of the services of one host and namespace, by port: they are one service's, as far as their ports are
    /// the same. So a ServiceEntry can add endpoints to a Kubernetes Service.
    fn of_services(&self, same: &[&Service]) -> BTreeMap<u16, Vec<Endpoint>> {
        let mut by_port: BTreeMap<u16, (&str, Vec<Endpoint>)> = BTreeMap::new();
        for service in same {
            let members = self.members(service);
            for port in &service.ports {
                let found = self.of_port(service, port, &members);
                let (name, all) = by_port.entry(port.number).or_insert_with(|| (&port.name, Vec::new()));
                // EDS finds endpoints by the name of the port, DNS by its number, and one name only for LOGICAL_DNS.
                let counts = match service.resolution {
                    Resolution::DnsRoundRobin => all.is_empty(),
                    Resolution::Dns => true,
                    _ => *name == port.name,
                };
                if counts {
                    all.extend(found);
                }
            }
        }
        by_port.into_iter().map(|(number, (_, endpoints))| (number, in_order(endpoints))).collect()
    }

    /// The workloads behind a service.
    fn members(&self, service: &Service) -> Vec<Workload> {
        match &service.object.spec {
            Spec::Service(_) => self.workloads.entries(&service.namespace, &service.selector),
            Spec::ServiceEntry(spec) if spec.workload_selector.is_some() => {
                let selected = self.workloads.all(&service.namespace, &service.selector);
                selected.into_iter().filter(|one| one.has_address || service.is_resolved_by_dns()).collect()
            }
            Spec::ServiceEntry(spec) => {
                let name = |index: usize| format!("{}-{index}", service.object.id.name);
                let listed = spec.endpoints.iter().enumerate();
                listed.map(|(i, entry)| Workload::of_listed(entry, &service.namespace, name(i))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn of_port(&self, service: &Service, port: &ServicePort, members: &[Workload]) -> Vec<Endpoint> {
        if names_itself(service) {
            return Workload::of_host(service).endpoint(port).into_iter().collect();
        }
        let mut endpoints: Vec<Endpoint> = members.iter().filter_map(|m| m.endpoint(port)).collect();
        if service.registry == Registry::Kubernetes && service.resolution != Resolution::Alias {
            endpoints.extend(self.of_kubernetes(service, port));
        }
        endpoints
    }

    /// What the slices of the Service say; without any, what would stand in them: the pods that its selector finds.
    fn of_kubernetes(&self, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
        match self.slices.of(service) {
            [] => self.workloads.pods(service).iter().filter_map(|pod| pod.endpoint(port)).collect(),
            slices => slices
                .iter()
                .flat_map(|slice| slice.endpoints(service, port, &self.workloads, &self.topology))
                .collect(),
        }
    }
}

/// A service resolved by DNS without endpoints is reached under its own name.
fn names_itself(service: &Service) -> bool {
    let Spec::ServiceEntry(spec) = &service.object.spec else { return false };
    let says_none = spec.endpoints.is_empty() && spec.workload_selector.is_none();
    service.is_resolved_by_dns() && says_none && !service.host.is_wildcard()
}

fn in_order(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    endpoints.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
    endpoints.dedup_by(|a, b| (&a.address, a.port) == (&b.address, b.port));
    endpoints
}
