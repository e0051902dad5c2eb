//! The ports of a workload: those of `Sidecar.ingress`, else those that services name.
//!
//! Source: Istio `pilot/pkg/networking/core/listener_inbound.go` (`buildInboundChainConfigs`,
//! `getFilterChainsByServicePort`) and `pilot/pkg/serviceregistry` (`GetProxyServiceTargets`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use meltemi_api::Spec;
use meltemi_api::istio::{CaptureMode, IstioIngressListener, ServerTlsSettings};
use meltemi_snapshot::{EndpointAddress, Protocol, Service, ServicePort, Sidecar, TargetPort, labels_match};

use crate::context::{Context, origin};
use crate::listener::address::{self, Families};
use crate::listener::outbound::by_age;
use crate::resources::Origin;
use crate::shape::{Interception, SidecarShape};

/// A port that the workload listens on.
pub(super) struct Port<'a> {
    pub(super) number: u16,
    /// The port by which its service calls it.
    pub(super) service_port: u16,
    /// Inside of TLS, where the entry terminates it.
    pub(super) protocol: Protocol,
    /// The name of spans.
    pub(super) operation: String,
    /// Where the listener is, or would be; the first names it.
    pub(super) bind: Vec<String>,
    /// Whether callers connect to it.
    pub(super) is_real: bool,
    /// TLS of the user's own.
    pub(super) tls: Option<&'a ServerTlsSettings>,
    /// Where the workload is, if an entry of `ingress` says it.
    pub(super) default_endpoint: Option<&'a str>,
    /// The service whose port it is.
    pub(super) service: Option<&'a Service>,
    pub(super) origin: Option<Origin>,
}

/// By number.
pub(super) fn of_workload<'a>(context: &'a Context<'_>, sidecar: &SidecarShape) -> Vec<Port<'a>> {
    match context.scope.sidecar().filter(|s| !s.spec().ingress.is_empty()) {
        Some(resource) => of_ingress(context, sidecar, resource),
        // The workload has its ports itself where nothing is redirected.
        None if sidecar.interception == Interception::None => Vec::new(),
        None => of_services(context, sidecar),
    }
}

fn of_ingress<'a>(
    context: &'a Context<'_>,
    sidecar: &SidecarShape,
    resource: &'a Arc<Sidecar>,
) -> Vec<Port<'a>> {
    let mut ports: BTreeMap<u16, Port<'a>> = BTreeMap::new();
    for (index, entry) in resource.spec().ingress.iter().enumerate() {
        if let Some(port) = of_entry(context, sidecar, resource, (index, entry)) {
            ports.entry(port.number).or_insert(port);
        }
    }
    ports.into_values().collect()
}

fn of_entry<'a>(
    context: &'a Context<'_>,
    sidecar: &SidecarShape,
    resource: &'a Arc<Sidecar>,
    (index, entry): (usize, &'a IstioIngressListener),
) -> Option<Port<'a>> {
    let number = u16::try_from(entry.port.number).ok().filter(|number| *number > 0)?;
    let target = target_of(context, sidecar, number, entry.port.name.as_deref());
    let own = sidecar.own_address();
    let is_real = match entry.capture_mode.unwrap_or(CaptureMode::Default) {
        CaptureMode::None => true,
        CaptureMode::Iptables => false,
        CaptureMode::Default => sidecar.interception == Interception::None,
    };
    let bind = match entry.bind.as_deref().filter(|bind| !bind.is_empty()) {
        Some(bind) => vec![bind.to_owned()],
        None => match own.or_else(|| address::reachable(sidecar)) {
            Some(address) => vec![address.to_string()],
            None => Families::of(sidecar).wildcards(),
        },
    };
    let declared = entry.port.protocol.as_deref().filter(|word| !word.is_empty()).map(Protocol::parse);
    // On its own address a sidecar stands in the place of the service's port.
    let of_service = own.and(target).map(|(_, port)| port.protocol);
    let protocol = declared.or(of_service).unwrap_or(Protocol::Unsupported);
    let id = &resource.object.id;
    let operation = match own.and(target) {
        Some((service, port)) => format!("{}:{}/*", service.host, port.number),
        None => format!("{}.{}:{number}/*", id.name, id.namespace),
    };
    Some(Port {
        number,
        service_port: number,
        protocol: if entry.tls.is_some() { inside_of_tls(protocol) } else { protocol },
        operation,
        bind,
        is_real,
        tls: entry.tls.as_ref(),
        default_endpoint: entry.default_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()),
        service: target.map(|(service, _)| service),
        origin: Some(origin(&resource.object, format!("spec.ingress[{index}]"))),
    })
}

fn inside_of_tls(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Https => Protocol::Http,
        Protocol::Tls => Protocol::Tcp,
        other => other,
    }
}

/// Of two services with the same port the older says what is spoken on it.
fn of_services<'a>(context: &'a Context<'_>, sidecar: &SidecarShape) -> Vec<Port<'a>> {
    let wildcards = Families::of(sidecar).wildcards();
    let mut ports: BTreeMap<u16, Port<'a>> = BTreeMap::new();
    for (service, index, port, number) in targets(context, sidecar) {
        if sidecar.static_ports.contains(&number) {
            continue;
        }
        if let Entry::Vacant(free) = ports.entry(number) {
            free.insert(Port {
                number,
                service_port: port.number,
                protocol: port.protocol,
                operation: format!("{}:{}/*", service.host, port.number),
                bind: wildcards.clone(),
                is_real: false,
                tls: None,
                default_endpoint: None,
                service: Some(service),
                origin: Some(origin(&service.object, format!("spec.ports[{index}]"))),
            });
        }
    }
    ports.into_values().collect()
}

/// The service of the workload with this target port.
fn target_of<'a>(
    context: &'a Context<'_>,
    sidecar: &SidecarShape,
    number: u16,
    name: Option<&str>,
) -> Option<(&'a Service, &'a ServicePort)> {
    if sidecar.own_address().is_none() {
        let found = targets(context, sidecar).into_iter().find(|(_, _, _, target)| *target == number);
        return found.map(|(service, _, port, _)| (service, port));
    }
    let leads_here = |port: &ServicePort| match &port.target {
        TargetPort::Default(target) | TargetPort::Number(target) => *target == number,
        TargetPort::Named(target) => Some(target.as_str()) == name,
    };
    let own = context.snapshot.services.iter().filter(|s| *s.namespace == *context.shape.namespace);
    own.filter(|s| selects(context, s)).find_map(|s| Some((&**s, s.ports.iter().find(|p| leads_here(p))?)))
}

/// Every port of every service that leads to the workload, with the port there; the oldest service first.
fn targets<'a>(
    context: &'a Context<'_>,
    sidecar: &SidecarShape,
) -> Vec<(&'a Service, usize, &'a ServicePort, u16)> {
    let mut services: Vec<&Service> = context.snapshot.services.iter().map(|service| &**service).collect();
    services.sort_by(|a, b| by_age(a, b));
    let mut targets = Vec::new();
    for service in services {
        for (index, port) in service.ports.iter().enumerate() {
            let numbers = numbers(context, sidecar, service, port);
            targets.extend(numbers.into_iter().map(|number| (service, index, port, number)));
        }
    }
    targets
}

/// Where a port of a service leads on the workload: by the endpoints with its address, else, as a workload that is not
/// ready has none, by the selector.
fn numbers(context: &Context<'_>, sidecar: &SidecarShape, service: &Service, port: &ServicePort) -> Vec<u16> {
    let is_own = |address: &EndpointAddress| match address {
        EndpointAddress::Ip(ip) => sidecar.addresses.contains(ip),
        _ => false,
    };
    let endpoints = context.snapshot.endpoints.of(service, port.number).iter();
    let mut numbers: Vec<u16> = endpoints.filter(|e| is_own(&e.address)).map(|e| e.port).collect();
    let is_known = matches!(service.object.spec, Spec::Service(_));
    if numbers.is_empty() && is_known && selects(context, service) {
        numbers.extend(match port.target {
            TargetPort::Default(number) | TargetPort::Number(number) => Some(number),
            TargetPort::Named(_) => None,
        });
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Whether a service of the workload's namespace has a selector for it.
fn selects(context: &Context<'_>, service: &Service) -> bool {
    let labels = &context.shape.labels;
    let is_near = *service.namespace == *context.shape.namespace;
    is_near
        && match &service.object.spec {
            Spec::Service(spec) => !spec.selector.is_empty() && labels_match(&spec.selector, labels),
            Spec::ServiceEntry(spec) => spec
                .workload_selector
                .as_ref()
                .is_some_and(|s| !s.labels.is_empty() && labels_match(&s.labels, labels)),
            _ => false,
        }
}
