//! Services: what hosts exist, with their ports. From Kubernetes Services and ServiceEntries.
//!
//! Source: Istio `pilot/pkg/serviceregistry` (conversion) and `networking.ServiceEntry`.
//! Differs: a headless Service is load balanced like any other (Istio with
//! `PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES`), because explicit proxying knows no original destination.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Object, Spec, istio, kubernetes};

use crate::config::oldest_first;
use crate::host::Host;
use crate::protocol::Protocol;
use crate::visibility::Visibility;

/// The annotation that holds `exportTo` of a Kubernetes Service, comma-separated.
const EXPORT_TO_ANNOTATION: &str = "networking.istio.io/exportTo";

/// A host with its ports. Several namespaces may define the same host; each is a service of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// The host, maybe a wildcard.
    pub host: Host,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name for metrics: of the Kubernetes Service, else the host.
    pub name: Arc<str>,
    /// Ports in the order of the object.
    pub ports: Vec<ServicePort>,
    /// Virtual addresses, IP or CIDR.
    pub addresses: Vec<String>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Where it comes from.
    pub registry: Registry,
    /// Outside the mesh.
    pub external: bool,
    /// Names of which the certificates of its endpoints carry one, as far as the object says.
    pub subject_alt_names: Vec<String>,
    /// Who may see it.
    pub export_to: Visibility,
    /// The object that defines it.
    pub object: Arc<Object>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The number that callers use.
    pub number: u16,
    /// The name; empty when the only port has none.
    pub name: String,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Where endpoints listen.
    pub target: TargetPort,
}

/// Where endpoints of a port listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// On this port, unless the endpoint maps the service port's name to another.
    Default(u16),
    /// On this port.
    Number(u16),
    /// On the endpoint's port of this name.
    Named(String),
}

/// How the endpoints of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The mesh knows them (EDS).
    Static,
    /// By DNS, all addresses (`DNS`).
    Dns,
    /// By DNS, one address at a time (`DNS_ROUND_ROBIN`).
    DnsRoundRobin,
    /// The address that the caller asked for (`NONE`).
    Passthrough,
}

/// Where a service comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Registry {
    /// A Kubernetes Service; wins over a ServiceEntry of the same host.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

impl Service {
    /// The port of this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number)
    }
}

/// Every service of the mesh.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Services {
    by_host: BTreeMap<Host, Vec<Arc<Service>>>,
}

impl Services {
    pub(crate) fn build<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Services {
        let mut by_host: BTreeMap<Host, Vec<Arc<Service>>> = BTreeMap::new();
        for service in objects.flat_map(of_object) {
            by_host.entry(service.host.clone()).or_default().push(Arc::new(service));
        }
        by_host.values_mut().for_each(|same| same.sort_by(|a, b| by_precedence(a, b)));
        Services { by_host }
    }

    /// All services by host, those of the same host by precedence.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_host.values().flatten()
    }

    /// The services of exactly this host: Kubernetes before others, then the oldest.
    pub fn of_host(&self, host: &Host) -> &[Arc<Service>] {
        self.by_host.get(host).map_or(&[], Vec::as_slice)
    }
}

/// Nobody can claim the name of a Kubernetes Service; else the oldest wins.
fn by_precedence(a: &Service, b: &Service) -> Ordering {
    a.registry.cmp(&b.registry).then_with(|| oldest_first(&a.object, &b.object))
}

fn of_object(object: &Arc<Object>) -> Vec<Service> {
    match &object.spec {
        Spec::Service(spec) => vec![of_kubernetes(object, spec)],
        Spec::ServiceEntry(spec) => spec.hosts.iter().map(|host| of_entry(object, spec, host)).collect(),
        _ => Vec::new(),
    }
}

fn of_kubernetes(object: &Arc<Object>, spec: &kubernetes::Service) -> Service {
    let exported: Vec<&str> = object
        .meta
        .annotations
        .get(EXPORT_TO_ANNOTATION)
        .map_or(Vec::new(), |list| list.split(',').collect());
    let is_name_only = spec.service_type == Some(kubernetes::ServiceType::ExternalName);
    Service {
        host: Host::service(&object.id.name, &object.id.namespace),
        namespace: Arc::clone(&object.id.namespace),
        name: Arc::clone(&object.id.name),
        ports: spec.ports.iter().filter_map(kubernetes_port).collect(),
        addresses: spec.cluster_ip.iter().filter(|ip| !ip.is_empty() && *ip != "None").cloned().collect(),
        resolution: if is_name_only { Resolution::Dns } else { Resolution::Static },
        registry: Registry::Kubernetes,
        external: is_name_only,
        subject_alt_names: Vec::new(),
        export_to: Visibility::parse(&exported, &object.id.namespace),
        object: Arc::clone(object),
    }
}

fn kubernetes_port(port: &kubernetes::ServicePort) -> Option<ServicePort> {
    let number = u16::try_from(port.port).ok()?;
    let target = match &port.target_port {
        None => TargetPort::Default(number),
        Some(kubernetes::PortRef::Number(target)) => TargetPort::Number(u16::try_from(*target).ok()?),
        Some(kubernetes::PortRef::Name(name)) => TargetPort::Named(name.clone()),
    };
    let protocol = Protocol::of_service_port(
        port.protocol.as_deref(),
        port.app_protocol.as_deref(),
        port.name.as_deref(),
        number,
    );
    Some(ServicePort { number, name: port.name.clone().unwrap_or_default(), protocol, target })
}

fn of_entry(object: &Arc<Object>, spec: &istio::ServiceEntry, host: &str) -> Service {
    let host = Host::new(host);
    Service {
        namespace: Arc::clone(&object.id.namespace),
        name: host.as_str().into(),
        ports: spec.ports.iter().filter_map(entry_port).collect(),
        addresses: spec.addresses.clone(),
        resolution: match spec.resolution.unwrap_or_default() {
            istio::Resolution::Static => Resolution::Static,
            istio::Resolution::Dns => Resolution::Dns,
            istio::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
            istio::Resolution::None | istio::Resolution::DynamicDns => Resolution::Passthrough,
        },
        registry: Registry::External,
        external: spec.location.unwrap_or_default() == istio::Location::MeshExternal,
        subject_alt_names: spec.subject_alt_names.clone(),
        export_to: Visibility::parse(&spec.export_to, &object.id.namespace),
        object: Arc::clone(object),
        host,
    }
}

fn entry_port(port: &istio::ServicePort) -> Option<ServicePort> {
    let number = u16::try_from(port.number).ok()?;
    let protocol = match port.protocol.as_deref() {
        None | Some("") => Protocol::of_service_port(None, None, Some(&port.name), number),
        Some(word) => Protocol::parse(word),
    };
    let target = TargetPort::Default(u16::try_from(port.target_port.unwrap_or(port.number)).ok()?);
    Some(ServicePort { number, name: port.name.clone(), protocol, target })
}
