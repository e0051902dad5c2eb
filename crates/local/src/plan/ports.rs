//! The listeners of a workload's sidecar, as ports: what it accepts for the program, and the caller-own ports on which
//! the program reaches services that HTTP proxying cannot carry.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_agent::{ADMIN_PORT, HTTP_PROXY_PORT, PROMETHEUS_PORT, READINESS_PORT};
use meltemi_api::kubernetes::{Container, PortRef, Service, ServicePort, ServiceType};
use meltemi_api::{Object, ObjectId};

use crate::plan::memory::Memory;
use crate::plan::protocol::Spoken;

/// Ports of every sidecar itself.
pub(crate) const RESERVED: [u16; 4] = [ADMIN_PORT, HTTP_PROXY_PORT, READINESS_PORT, PROMETHEUS_PORT];
/// Caller-own ports that cannot be the service's own number start here, below the `$PORT`s.
const FIRST_SPARE_PORT: u16 = 17_000;

/// A port on which the sidecar accepts for its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InboundPort {
    /// Of the container.
    pub(crate) number: u16,
    /// Of the container's port, or `port-<n>`.
    pub(crate) name: String,
    /// Istio's word.
    pub(crate) protocol: String,
}

/// A port of the caller's own sidecar that leads to one port of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboundPort {
    /// On the caller's address.
    pub(crate) number: u16,
    /// Of the listener.
    pub(crate) name: String,
    /// Istio's word.
    pub(crate) protocol: String,
    /// Namespace and host, as in `Sidecar.egress.hosts`.
    pub(crate) host: String,
    /// `<NAME>` of `<NAME>_SERVICE_HOST`.
    pub(crate) variable: String,
    /// `_<PORT NAME>` of a port that has a name, as Kubernetes adds it.
    pub(crate) suffix: Option<String>,
}

/// Whether a selector selects these labels. An empty one selects nothing, as in a Service.
pub(crate) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The program's own port for a port of its container: `$PORT` stands for every declared one, and a number that is
/// not declared is taken as it is.
pub(crate) fn probe_port(container: &Container, port: &PortRef, program_port: u16) -> Option<u16> {
    match port {
        PortRef::Name(name) => {
            container.ports.iter().any(|port| port.name.as_ref() == Some(name)).then_some(program_port)
        }
        PortRef::Number(number) => {
            let declared = container.ports.iter().any(|port| port.container_port == *number);
            if declared { Some(program_port) } else { u16::try_from(*number).ok() }
        }
    }
}

/// What the sidecar accepts: the container's ports, and numbers that a selecting service targets without the container
/// declaring them (which Kubernetes allows).
pub(crate) fn inbound(
    namespace: &str,
    labels: &BTreeMap<String, String>,
    container: &Container,
    services: &[(&Object, &Service)],
) -> Vec<InboundPort> {
    let targets: Vec<&ServicePort> = services
        .iter()
        .filter(|(object, service)| *object.id.namespace == *namespace && selects(&service.selector, labels))
        .flat_map(|(_, service)| &service.ports)
        .collect();
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    for port in &container.ports {
        let spoken = targets
            .iter()
            .find(|target| leads_to(target, port.name.as_deref(), port.container_port))
            .map(|target| spoken(target))
            .unwrap_or_else(|| Spoken::of(port.protocol.as_deref(), None, port.name.as_deref()));
        add(&mut ports, port.container_port, port.name.as_deref(), spoken);
    }
    for target in targets {
        if let Some(number) = numeric_target(target) {
            add(&mut ports, number, None, spoken(target));
        }
    }
    ports.into_values().collect()
}

fn add(ports: &mut BTreeMap<u16, InboundPort>, number: u32, name: Option<&str>, spoken: Spoken) {
    let Ok(number) = u16::try_from(number) else { return };
    if !spoken.is_proxied() || RESERVED.contains(&number) {
        return;
    }
    ports.entry(number).or_insert_with(|| InboundPort {
        number,
        name: name.map_or_else(|| format!("port-{number}"), str::to_owned),
        protocol: spoken.field(),
    });
}

fn leads_to(service: &ServicePort, name: Option<&str>, number: u32) -> bool {
    match &service.target_port {
        Some(PortRef::Name(target)) => name == Some(target),
        _ => numeric_target(service) == Some(number),
    }
}

fn numeric_target(service: &ServicePort) -> Option<u32> {
    match &service.target_port {
        Some(PortRef::Name(_)) => None,
        Some(PortRef::Number(number)) => Some(*number),
        None => Some(service.port),
    }
}

fn spoken(port: &ServicePort) -> Spoken {
    Spoken::of(port.protocol.as_deref(), port.app_protocol.as_deref(), port.name.as_deref())
}

/// The caller-own ports of a Deployment. Names of services of other namespaces would collide in the environment, so only
/// those of its own are given, as Kubernetes does.
pub(crate) fn outbound(
    deployment: &ObjectId,
    services: &[(&Object, &Service)],
    inbound: &BTreeSet<u16>,
    program_port: u16,
    memory: &mut Memory,
) -> Vec<OutboundPort> {
    let mut own: Vec<_> = services
        .iter()
        .filter(|(object, service)| object.id.namespace == deployment.namespace && is_reachable(service))
        .collect();
    own.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    let wanted: Vec<OutboundPort> =
        own.iter().flat_map(|(object, service)| wanted_ports(object, service)).collect();
    let mut taken: BTreeSet<u16> = inbound.iter().copied().chain(RESERVED).chain([program_port]).collect();
    // Known ones first, so that a newcomer takes nobody's number.
    let mut numbers: Vec<Option<u16>> = Vec::new();
    for port in &wanted {
        let known = memory.caller_port(deployment, &port.name, &taken);
        taken.extend(known);
        numbers.push(known);
    }
    let mut ports = Vec::new();
    for (port, known) in wanted.into_iter().zip(numbers) {
        let Some(number) = known.or_else(|| free_port(port.number, &taken)) else { continue };
        taken.insert(number);
        memory.keep_caller_port(deployment, &port.name, number);
        ports.push(OutboundPort { number, ..port });
    }
    ports
}

/// The ports of one service that need an address of the caller's own, with the service's numbers.
fn wanted_ports(object: &Object, service: &Service) -> Vec<OutboundPort> {
    let (namespace, name) = (&object.id.namespace, &object.id.name);
    let variable = |text: &str| text.to_ascii_uppercase().replace(['-', '.'], "_");
    service
        .ports
        .iter()
        .map(|port| (port, spoken(port)))
        .filter(|(_, spoken)| spoken.is_proxied() && !spoken.goes_through_http_proxy())
        .filter_map(|(port, spoken)| {
            Some(OutboundPort {
                number: u16::try_from(port.port).ok()?,
                name: format!("{name}-{}", port.port),
                protocol: spoken.field(),
                host: format!("{namespace}/{name}.{namespace}.svc.cluster.local"),
                variable: variable(name),
                suffix: port.name.as_deref().map(variable),
            })
        })
        .collect()
}

fn is_reachable(service: &Service) -> bool {
    !service.selector.is_empty() && service.service_type != Some(ServiceType::ExternalName)
}

/// The service's own number where the caller's address has it free, because Istio ties a listener to a service by its
/// port number; else a spare one, which works for services with one port.
fn free_port(wanted: u16, taken: &BTreeSet<u16>) -> Option<u16> {
    let own = Some(wanted).filter(|port| *port >= 1024 && !taken.contains(port));
    own.or_else(|| (FIRST_SPARE_PORT..20_000).find(|port| !taken.contains(port)))
}
