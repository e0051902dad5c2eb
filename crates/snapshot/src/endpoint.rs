//! Endpoints: where the ports of a service are reached.
//!
//! Source: Istio `pilot/pkg/serviceregistry/serviceentry/conversion.go` and the selection of WorkloadEntries
//! by Kubernetes Services (`kube/controller`). A WorkloadEntry whose `Healthy` condition is not true is left
//! out, as readiness leaves a pod out of an EndpointSlice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_api::{Object, Spec, istio};

use crate::config::labels_match;
use crate::host::Host;
use crate::service::{Resolution, Service, ServicePort, Services, TargetPort};

/// The condition under which a WorkloadEntry gets traffic. Without it, it does.
const HEALTHY: &str = "Healthy";

/// The label that says whether the workload's sidecar speaks mutual TLS, and the value that says it does.
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";
const TLS_MODE_ISTIO: &str = "istio";

/// The label that names the workload of an entry.
const WORKLOAD_NAME_LABEL: &str = "service.istio.io/workload-name";

/// One place where a service port is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where.
    pub address: EndpointAddress,
    /// Port there; 0 for a Unix socket.
    pub port: u16,
    /// Labels, which subsets select by.
    pub labels: BTreeMap<String, String>,
    /// `region/zone/subzone`, maybe shorter or empty.
    pub locality: String,
    /// Load balancing weight, at least 1.
    pub weight: u32,
    /// Name of the workload, such as the Deployment; empty when not known.
    pub workload: String,
    /// Namespace of the workload.
    pub namespace: Arc<str>,
    /// Service account; empty when not known.
    pub service_account: String,
    /// Its sidecar speaks mutual TLS: `security.istio.io/tlsMode` says so, or, without it, that it has a service
    /// account.
    pub has_mtls: bool,
}

/// The kind of address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name, for services resolved by DNS.
    Name(String),
    /// The path of a Unix socket.
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
        let workloads = Workloads::collect(objects);
        let by_service = services
            .iter()
            .map(|s| ((s.host.clone(), Arc::clone(&s.namespace)), of_service(s, &workloads)))
            .collect();
        Endpoints { by_service }
    }

    /// The endpoints of a port of a service.
    pub fn of(&self, service: &Service, port: u16) -> &[Endpoint] {
        self.by_service
            .get(&(service.host.clone(), Arc::clone(&service.namespace)))
            .and_then(|ports| ports.get(&port))
            .map_or(&[], Vec::as_slice)
    }
}

impl Endpoints {
    /// Namespace and service account of everything behind a service, on any of its ports.
    pub fn service_accounts(&self, service: &Service) -> BTreeSet<(&str, &str)> {
        let ports = self.by_service.get(&(service.host.clone(), Arc::clone(&service.namespace)));
        let endpoints = ports.into_iter().flat_map(|ports| ports.values().flatten());
        let known = endpoints.filter(|endpoint| !endpoint.service_account.is_empty());
        known.map(|endpoint| (&*endpoint.namespace, endpoint.service_account.as_str())).collect()
    }
}

/// The WorkloadEntries that get traffic, by namespace.
struct Workloads<'a>(BTreeMap<&'a str, Vec<(&'a Object, &'a istio::WorkloadEntry)>>);

impl<'a> Workloads<'a> {
    fn collect(objects: impl Iterator<Item = &'a Arc<Object>>) -> Workloads<'a> {
        let mut by_namespace: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for object in objects {
            if let Spec::WorkloadEntry(entry) = &object.spec
                && object.status.condition(HEALTHY) != Some(false)
            {
                by_namespace.entry(&object.id.namespace).or_default().push((&**object, entry));
            }
        }
        Workloads(by_namespace)
    }

    fn select(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<Workload<'a>> {
        if selector.is_empty() {
            return Vec::new();
        }
        let all = self.0.get(namespace).map_or(&[][..], Vec::as_slice);
        let selected = all.iter().filter(|(_, entry)| labels_match(selector, &entry.labels));
        selected.map(|(object, entry)| Workload { name: workload_name(object, entry), entry }).collect()
    }
}

/// An endpoint before its port is known.
struct Workload<'a> {
    name: String,
    entry: &'a istio::WorkloadEntry,
}

/// The label, else the entry's name without the ordinal that its maker appends (`reviews-v1-0`).
fn workload_name(object: &Object, entry: &istio::WorkloadEntry) -> String {
    if let Some(name) =
        entry.labels.get(WORKLOAD_NAME_LABEL).or_else(|| object.meta.labels.get(WORKLOAD_NAME_LABEL))
    {
        return name.clone();
    }
    match object.id.name.rsplit_once('-') {
        Some((stem, ordinal)) if ordinal.bytes().all(|b| b.is_ascii_digit()) => stem.to_owned(),
        _ => object.id.name.to_string(),
    }
}

fn of_service(service: &Service, workloads: &Workloads<'_>) -> BTreeMap<u16, Vec<Endpoint>> {
    let name_only;
    let members = match &service.object.spec {
        Spec::Service(spec) => match &spec.external_name {
            Some(name) if service.resolution == Resolution::Dns => {
                name_only = istio::WorkloadEntry { address: Some(name.clone()), ..Default::default() };
                vec![Workload { name: String::new(), entry: &name_only }]
            }
            _ => workloads.select(&service.namespace, &spec.selector),
        },
        Spec::ServiceEntry(spec) => match &spec.workload_selector {
            Some(selector) => workloads.select(&service.namespace, &selector.labels),
            None => listed(spec),
        },
        _ => Vec::new(),
    };
    service.ports.iter().map(|port| (port.number, of_port(service, port, &members))).collect()
}

fn listed(spec: &istio::ServiceEntry) -> Vec<Workload<'_>> {
    spec.endpoints.iter().map(|entry| Workload { name: String::new(), entry }).collect()
}

/// A service resolved by DNS without endpoints is reached under its own name.
fn of_port(service: &Service, port: &ServicePort, members: &[Workload<'_>]) -> Vec<Endpoint> {
    let by_dns = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if by_dns && members.is_empty() && !service.host.is_wildcard() {
        let itself = istio::WorkloadEntry { address: Some(service.host.to_string()), ..Default::default() };
        let itself = Workload { name: String::new(), entry: &itself };
        return endpoint(service, port, &itself).into_iter().collect();
    }
    let mut endpoints: Vec<Endpoint> = members.iter().filter_map(|m| endpoint(service, port, m)).collect();
    endpoints.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
    endpoints.dedup_by(|a, b| (&a.address, a.port) == (&b.address, b.port));
    endpoints
}

fn endpoint(service: &Service, port: &ServicePort, member: &Workload<'_>) -> Option<Endpoint> {
    let entry = member.entry;
    Some(Endpoint {
        address: EndpointAddress::parse(entry.address.as_deref()?),
        port: target_port(port, entry)?,
        labels: entry.labels.clone(),
        locality: entry.locality.clone().unwrap_or_default(),
        weight: entry.weight.unwrap_or(1).max(1),
        workload: member.name.clone(),
        namespace: Arc::clone(&service.namespace),
        service_account: entry.service_account.clone().unwrap_or_default(),
        has_mtls: has_mtls(entry),
    })
}

/// Whether a workload's sidecar speaks mutual TLS: see [`Endpoint::has_mtls`].
pub fn has_mtls(entry: &istio::WorkloadEntry) -> bool {
    match entry.labels.get(TLS_MODE_LABEL) {
        Some(mode) => mode == TLS_MODE_ISTIO,
        None => entry.service_account.as_ref().is_some_and(|account| !account.is_empty()),
    }
}

/// A named target port that the workload does not have leaves the workload out, as in Kubernetes.
fn target_port(port: &ServicePort, entry: &istio::WorkloadEntry) -> Option<u16> {
    let named = |name: &str| entry.ports.get(name).and_then(|p| u16::try_from(*p).ok());
    match &port.target {
        TargetPort::Named(name) => named(name),
        TargetPort::Number(number) => Some(*number),
        TargetPort::Default(number) => Some(named(&port.name).unwrap_or(*number)),
    }
}
