//! Workloads: what runs at an address, before its ports are known. From WorkloadEntries, Pods, and the endpoints that a
//! ServiceEntry lists.
//!
//! Source: Istio `pilot/pkg/serviceregistry/serviceentry/conversion.go`, `kube/controller/pod.go`, `pkg/kube/labels`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_api::{Object, Spec, istio, kubernetes};

use super::group::Group;
use super::topology::{self, NETWORK_LABEL, Topology};
use super::{Endpoint, EndpointAddress};
use crate::service::{Service, ServicePort, TargetPort};

/// The condition under which a WorkloadEntry gets traffic. Without it, it does, unless its health is to be looked at.
const HEALTHY: &str = "Healthy";

/// The annotation of a WorkloadEntry whose health its agent tells: until then it gets no traffic.
const HEALTH_CHECKS: &str = "proxy.istio.io/health-checks-enabled";

/// The condition under which a Pod gets traffic.
const READY: &str = "Ready";

/// The label that says whether the workload's sidecar speaks mutual TLS, and the value that says it does.
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";
const TLS_MODE_ISTIO: &str = "istio";

/// The label that names the workload.
const WORKLOAD_NAME_LABEL: &str = "service.istio.io/workload-name";

/// The annotation that names the WorkloadGroup of an entry that has registered itself.
const GROUP_ANNOTATION: &str = "istio.io/autoRegistrationGroup";

/// The label that a ReplicaSet adds to the name of its Deployment and to its pods.
const POD_HASH_LABEL: &str = "pod-template-hash";

/// Service account of a pod that names none.
const DEFAULT_ACCOUNT: &str = "default";

/// An endpoint before its port is known.
#[derive(Clone)]
pub(super) struct Workload {
    /// All but the port.
    endpoint: Endpoint,
    ports: Ports,
    /// A port of it that has the name of a service port is where that leads, whatever number the service says.
    maps_names: bool,
    /// It is at an IP address, not at a name or a Unix socket.
    pub(super) has_address: bool,
}

/// The ports of a workload by name.
#[derive(Clone)]
enum Ports {
    /// Those that the entry says, by the names of service ports and of target ports.
    Said(BTreeMap<String, u32>),
    /// Those of the containers of a pod.
    OfPod(Arc<Object>),
}

impl Ports {
    fn named(&self, name: &str) -> Option<u16> {
        let port = match self {
            Ports::Said(ports) => ports.get(name).copied(),
            Ports::OfPod(object) => match &object.spec {
                Spec::Pod(pod) => pod.port(name),
                _ => None,
            },
        };
        port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
    }

    /// Where a service port leads. A named target port that the workload does not have leaves it out, as in Kubernetes.
    fn target(&self, port: &ServicePort, maps_names: bool) -> Option<u16> {
        match &port.target {
            TargetPort::Named(name) => self.named(name),
            TargetPort::Number(number) | TargetPort::Default(number) => {
                let mapped = maps_names.then(|| self.named(&port.name)).flatten();
                Some(mapped.unwrap_or(*number))
            }
        }
    }
}

impl Workload {
    /// The endpoint that a ServiceEntry lists.
    pub(super) fn of_listed(entry: &istio::WorkloadEntry, namespace: &Arc<str>, name: String) -> Workload {
        Workload::of_entry(entry, &entry.labels, namespace, name)
    }

    /// What DNS knows under the host of a service.
    pub(super) fn of_host(service: &Service) -> Workload {
        let itself = istio::WorkloadEntry { address: Some(service.host.to_string()), ..Default::default() };
        let name = service.object.id.name.to_string();
        let mut workload = Workload::of_entry(&itself, &BTreeMap::new(), &service.namespace, name);
        workload.endpoint.labels = Arc::default();
        workload
    }

    fn of_object(object: &Object, entry: &istio::WorkloadEntry) -> Workload {
        let mut labels = entry.labels.clone();
        labels.extend(object.meta.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        Workload::of_entry(entry, &labels, &object.id.namespace, entry_name(object, &labels))
    }

    fn of_entry(
        entry: &istio::WorkloadEntry,
        labels: &BTreeMap<String, String>,
        namespace: &Arc<str>,
        workload: String,
    ) -> Workload {
        let said = entry.locality.clone().filter(|locality| !locality.is_empty());
        let locality = said.or_else(|| topology::of_labels(labels)).unwrap_or_default();
        let of_label = || labels.get(NETWORK_LABEL).cloned();
        let network = entry.network.clone().filter(|network| !network.is_empty()).or_else(of_label);
        let network = network.unwrap_or_default();
        let address = EndpointAddress::parse(entry.address.as_deref().unwrap_or_default());
        Workload {
            has_address: matches!(address, EndpointAddress::Ip(_)),
            ports: Ports::Said(entry.ports.clone()),
            maps_names: true,
            endpoint: Endpoint {
                address,
                port: 0,
                labels: topology::augmented(labels, &locality, "", &network),
                locality,
                network,
                node: String::new(),
                host_name: None,
                weight: entry.weight.unwrap_or(1).max(1),
                workload,
                namespace: Arc::clone(namespace),
                service_account: entry.service_account.clone().unwrap_or_default(),
                has_mtls: mtls(labels, entry.service_account.as_deref()),
            },
        }
    }

    fn of_pod(object: &Arc<Object>, pod: &kubernetes::Pod, topology: &Topology<'_>) -> Option<Workload> {
        let labels = &object.meta.labels;
        let node = pod.node_name.clone().unwrap_or_default();
        let locality = topology::of_labels(labels).unwrap_or_else(|| topology.of_node(&node).to_owned());
        let network = labels.get(NETWORK_LABEL).cloned().unwrap_or_default();
        let address = addresses(object).next()?;
        let account = pod.service_account_name.clone().filter(|account| !account.is_empty());
        Some(Workload {
            has_address: true,
            ports: Ports::OfPod(Arc::clone(object)),
            maps_names: false,
            endpoint: Endpoint {
                address: EndpointAddress::Ip(address),
                port: 0,
                labels: topology::augmented(labels, &locality, &node, &network),
                locality,
                network,
                node,
                host_name: host_name(object, pod),
                weight: 1,
                workload: pod_workload(object),
                namespace: Arc::clone(&object.id.namespace),
                service_account: account.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned()),
                has_mtls: mtls(labels, None),
            },
        })
    }

    /// Its labels.
    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        &self.endpoint.labels
    }

    /// The endpoint of a service port. A Unix socket has no ports.
    pub(super) fn endpoint(&self, port: &ServicePort) -> Option<Endpoint> {
        let number = match &self.endpoint.address {
            EndpointAddress::Pipe(_) => 0,
            EndpointAddress::Name(name) if name.is_empty() => return None,
            _ => self.ports.target(port, self.maps_names)?,
        };
        Some(Endpoint { port: number, ..self.endpoint.clone() })
    }

    /// The same workload at another of its addresses and at a port that is known.
    pub(super) fn at(&self, address: EndpointAddress, port: u16) -> Endpoint {
        Endpoint { address, port, ..self.endpoint.clone() }
    }
}

/// The workloads that get traffic, by namespace.
pub(super) struct Workloads<'a> {
    entries: BTreeMap<&'a str, Group>,
    /// Pods that run and have an address.
    pods: BTreeMap<&'a str, Group>,
    by_pod: BTreeMap<(&'a str, &'a str), (&'a str, usize)>,
}

impl<'a> Workloads<'a> {
    pub(super) fn collect(objects: &[&'a Arc<Object>], topology: &Topology<'_>) -> Workloads<'a> {
        let mut found =
            Workloads { entries: BTreeMap::new(), pods: BTreeMap::new(), by_pod: BTreeMap::new() };
        for object in objects {
            let namespace = &*object.id.namespace;
            match &object.spec {
                Spec::WorkloadEntry(entry) if is_healthy(object) => {
                    let workload = Workload::of_object(object, entry);
                    found.entries.entry(namespace).or_default().push(true, workload);
                }
                Spec::Pod(pod) if runs(object) => {
                    let Some(workload) = Workload::of_pod(object, pod, topology) else { continue };
                    let is_ready = object.status.condition(READY) == Some(true);
                    let position = found.pods.entry(namespace).or_default().push(is_ready, workload);
                    found.by_pod.insert((namespace, &*object.id.name), (namespace, position));
                }
                _ => {}
            }
        }
        found
    }

    /// The WorkloadEntries at IP addresses that a selector finds; an empty one finds none.
    pub(super) fn entries(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<Workload> {
        let found = self.entries.get(namespace).into_iter().flat_map(|group| group.select(selector));
        found.map(|(_, one)| one).filter(|one| one.has_address).cloned().collect()
    }

    /// The WorkloadEntries and ready Pods that the selector of a ServiceEntry finds; an empty one finds none.
    pub(super) fn all(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<Workload> {
        let groups = self.pods.get(namespace).into_iter().chain(self.entries.get(namespace));
        let ready = groups.flat_map(|group| group.select(selector)).filter(|(is_ready, _)| *is_ready);
        ready.map(|(_, one)| Workload { maps_names: true, ..one.clone() }).collect()
    }

    /// The Pods of a Kubernetes Service that get traffic.
    pub(super) fn pods(&self, service: &Service) -> Vec<&Workload> {
        let publishes = match &service.object.spec {
            Spec::Service(spec) => spec.publish_not_ready_addresses == Some(true),
            _ => false,
        };
        let group = self.pods.get(&*service.namespace).into_iter();
        let found = group.flat_map(|group| group.select(&service.selector));
        found.filter(|(is_ready, _)| *is_ready || publishes).map(|(_, workload)| workload).collect()
    }

    /// The Pod of this name.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<&Workload> {
        let (namespace, position) = self.by_pod.get(&(namespace, name))?;
        self.pods.get(namespace)?.get(*position)
    }
}

/// The name of a pod below its service; its host name is its own name unless it says another.
fn host_name(object: &Object, pod: &kubernetes::Pod) -> Option<Arc<str>> {
    let subdomain = pod.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let hostname = pod.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(&object.id.name);
    Some(format!("{hostname}.{subdomain}").into())
}

/// Whether a WorkloadEntry gets traffic.
fn is_healthy(object: &Object) -> bool {
    let looks = object.meta.annotations.get(HEALTH_CHECKS).is_some_and(|value| value == "true");
    object.status.condition(HEALTHY).unwrap_or(!looks)
}

/// Whether a Pod runs and is to go on running.
fn runs(object: &Object) -> bool {
    let has_ended = matches!(object.status.phase.as_deref(), Some("Failed" | "Succeeded"));
    !has_ended && !object.meta.is_terminating && addresses(object).next().is_some()
}

/// The addresses of a Pod, the first one first.
fn addresses(object: &Object) -> impl Iterator<Item = IpAddr> {
    let first = object.status.pod_ip.iter();
    let all = first.chain(object.status.pod_ips.iter().map(|address| &address.ip));
    all.filter_map(|address| address.parse().ok())
}

/// The group, the label, else the entry's name without the ordinal that its maker appends (`reviews-v1-0`).
fn entry_name(object: &Object, labels: &BTreeMap<String, String>) -> String {
    let said = object.meta.annotations.get(GROUP_ANNOTATION).or_else(|| labels.get(WORKLOAD_NAME_LABEL));
    if let Some(name) = said {
        return name.clone();
    }
    match object.id.name.rsplit_once('-') {
        Some((stem, ordinal)) if ordinal.bytes().all(|b| b.is_ascii_digit()) => stem.to_owned(),
        _ => object.id.name.to_string(),
    }
}

/// The label, else the Deployment, StatefulSet or other object that made the pod, else the pod itself.
fn pod_workload(object: &Object) -> String {
    let labels = &object.meta.labels;
    if let Some(name) = labels.get(WORKLOAD_NAME_LABEL) {
        return name.clone();
    }
    let Some((kind, name)) = &object.meta.controller else { return object.id.name.to_string() };
    let hash = labels.get(POD_HASH_LABEL).filter(|_| kind == "ReplicaSet");
    let deployment = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    let cron = (kind == "Job").then(|| name.rsplit_once('-')).flatten();
    let cron =
        cron.filter(|(_, time)| (8..=10).contains(&time.len()) && time.bytes().all(|b| b.is_ascii_digit()));
    deployment.or_else(|| cron.map(|(stem, _)| stem)).unwrap_or(name).to_owned()
}

/// Whether a workload's sidecar speaks mutual TLS: see [`Endpoint::has_mtls`].
pub fn has_mtls(entry: &istio::WorkloadEntry) -> bool {
    mtls(&entry.labels, entry.service_account.as_deref())
}

fn mtls(labels: &BTreeMap<String, String>, service_account: Option<&str>) -> bool {
    match labels.get(TLS_MODE_LABEL) {
        Some(mode) => mode == TLS_MODE_ISTIO,
        None => service_account.is_some_and(|account| !account.is_empty()),
    }
}

/// The object that runs at an address: a WorkloadEntry before a Pod, in the namespace before elsewhere.
pub(crate) fn workload_at<'a>(
    objects: impl Iterator<Item = &'a Arc<Object>>,
    namespace: &str,
    address: IpAddr,
) -> Option<&'a Arc<Object>> {
    let is_there = |object: &&Arc<Object>| match &object.spec {
        Spec::WorkloadEntry(entry) => {
            entry.address.as_deref().and_then(|text| text.parse().ok()) == Some(address) && is_healthy(object)
        }
        Spec::Pod(_) => runs(object) && addresses(object).next() == Some(address),
        _ => false,
    };
    let rank = |object: &&Arc<Object>| {
        let is_pod = matches!(object.spec, Spec::Pod(_));
        (is_pod, *object.id.namespace != *namespace, object.id.clone())
    };
    objects.filter(is_there).min_by_key(rank)
}

/// Where the ports of a service lead in the workload that an object is; ports that lead nowhere are left out.
pub(crate) fn selected_ports<'s>(
    service: &'s Service,
    workload: &Arc<Object>,
) -> Vec<(&'s ServicePort, u16)> {
    let (ports, maps_names) = match &workload.spec {
        Spec::WorkloadEntry(entry) => (Ports::Said(entry.ports.clone()), true),
        _ => (Ports::OfPod(Arc::clone(workload)), false),
    };
    service.ports.iter().filter_map(|port| Some((port, ports.target(port, maps_names)?))).collect()
}
