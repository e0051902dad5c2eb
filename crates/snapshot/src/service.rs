//! Services: what hosts exist, with their ports and addresses. From Kubernetes Services and ServiceEntries.
//!
//! Source: Istio `pilot/pkg/serviceregistry` (conversion), `pilot/pkg/model/push_context.go` (order, aliases) and
//! `networking.ServiceEntry`.
//! Differs: a ServiceEntry with several addresses is one service here, several of one host in Istio.

mod address;
mod allocation;
mod conversion;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_api::Object;

use crate::host::Host;
use crate::mesh_config::MeshConfig;
use crate::protocol::Protocol;
use crate::visibility::Visibility;

pub use address::{AddressUse, AutoAddresses};

/// A host with its ports. Several objects may define the same host, in one namespace or in several; each is a service of
/// its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// The host, maybe a wildcard, as it is written.
    pub host: Host,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name for metrics: of the Kubernetes Service, else the host.
    pub name: Arc<str>,
    /// Ports in the order of the object.
    pub ports: Vec<ServicePort>,
    /// Virtual addresses, IP or CIDR, in the order of the object. What a proxy makes of them: [`Service::addresses_for`].
    pub addresses: Vec<String>,
    /// Addresses that were allocated because it has none of its own.
    pub auto_addresses: AutoAddresses,
    /// Addresses outside the cluster that lead to it: `externalIPs` and those of its load balancer.
    pub external_addresses: Vec<String>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Where it comes from.
    pub registry: Registry,
    /// Outside the mesh.
    pub external: bool,
    /// Labels of the workloads behind it; empty when endpoints come from elsewhere.
    pub selector: BTreeMap<String, String>,
    /// What an ExternalName stands for.
    pub external_name: Option<Host>,
    /// The ExternalNames that stand for it, by host.
    pub aliases: BTreeSet<Host>,
    /// Which endpoints callers reach first.
    pub traffic_distribution: TrafficDistribution,
    /// Callers reach the endpoints of their own node only (`internalTrafficPolicy: Local`).
    pub is_node_local: bool,
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
    /// The same, where the object says the port.
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
    /// By DNS, from the name in each request (`DYNAMIC_DNS`).
    DynamicDns,
    /// The address that the caller asked for: `NONE`, and headless Kubernetes Services.
    Passthrough,
    /// It only stands for another host (ExternalName); see [`Service::external_name`].
    Alias,
}

/// Where a service comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Registry {
    /// A Kubernetes Service; wins over a ServiceEntry of the same host.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

/// Which endpoints callers reach first, by where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficDistribution {
    /// All alike.
    #[default]
    Any,
    /// Those of the caller's zone, then those of its region.
    PreferSameZone,
    /// Those of the caller's node, then those of its zone.
    PreferSameNode,
}

impl Service {
    /// The port of this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number)
    }

    /// Whether it is a Kubernetes Service without address: callers know its endpoints and connect to one of them.
    pub fn is_headless(&self) -> bool {
        self.registry == Registry::Kubernetes && self.resolution == Resolution::Passthrough
    }

    /// Whether names have to be resolved to reach it.
    pub fn is_resolved_by_dns(&self) -> bool {
        matches!(self.resolution, Resolution::Dns | Resolution::DnsRoundRobin)
    }

    /// Whether both have the same ports, wherever their endpoints listen.
    pub(crate) fn has_ports_of(&self, other: &Service) -> bool {
        let same = |(a, b): (&ServicePort, &ServicePort)| {
            (a.number, &a.name, a.protocol) == (b.number, &b.name, b.protocol)
        };
        self.ports.len() == other.ports.len() && self.ports.iter().zip(&other.ports).all(same)
    }
}

/// Every service of the mesh.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Services {
    by_host: BTreeMap<Host, Vec<Arc<Service>>>,
    by_age: Vec<Arc<Service>>,
}

impl Services {
    pub(crate) fn build<'a>(objects: impl Iterator<Item = &'a Arc<Object>>, mesh: &MeshConfig) -> Services {
        let mut all = conversion::services(objects, mesh);
        all.sort_by(oldest_first);
        allocation::allocate(&mut all);
        resolve_aliases(&mut all);
        let by_age: Vec<Arc<Service>> = all.into_iter().map(Arc::new).collect();
        let mut by_host: BTreeMap<Host, Vec<Arc<Service>>> = BTreeMap::new();
        for service in &by_age {
            by_host.entry(service.host.clone()).or_default().push(Arc::clone(service));
        }
        // Nobody can claim the name of a Kubernetes Service; else the oldest wins.
        by_host.values_mut().for_each(|same| same.sort_by_key(|service| service.registry));
        Services { by_host, by_age }
    }

    /// All services by host, those of the same host by precedence.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_host.values().flatten()
    }

    /// All services, the oldest first: the order in which they claim ports and addresses of a proxy.
    pub fn by_age(&self) -> &[Arc<Service>] {
        &self.by_age
    }

    /// The services of exactly this host: Kubernetes before others, then the oldest.
    pub fn of_host(&self, host: &Host) -> &[Arc<Service>] {
        self.by_host.get(host).map_or(&[], Vec::as_slice)
    }
}

/// By creation time, those without one last, then by name, namespace and object.
fn oldest_first(a: &Service, b: &Service) -> Ordering {
    let rank = |s: &Service| {
        let created = s.object.meta.created_unix_seconds;
        (created.is_none(), created)
    };
    let names =
        |s: &Service| (Arc::clone(&s.name), Arc::clone(&s.namespace), s.registry, s.object.id.clone());
    rank(a).cmp(&rank(b)).then_with(|| names(a).cmp(&names(b)))
}

/// Tells each service which ExternalNames stand for it, through any number of others. A circle stands for nothing.
fn resolve_aliases(services: &mut [Service]) {
    let named: BTreeMap<Host, Host> = services
        .iter()
        .filter_map(|service| Some((service.host.clone(), service.external_name.clone()?)))
        .collect();
    let mut aliases: BTreeMap<Host, BTreeSet<Host>> = BTreeMap::new();
    for (alias, first) in &named {
        let mut seen = BTreeSet::from([alias]);
        let mut at = first;
        while let Some(next) = named.get(at).filter(|_| seen.insert(at)) {
            at = next;
        }
        if !seen.contains(at) {
            aliases.entry(at.clone()).or_default().insert(alias.clone());
        }
    }
    for service in services {
        if let Some(aliases) = aliases.get(&service.host) {
            service.aliases.clone_from(aliases);
        }
    }
}
