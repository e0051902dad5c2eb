//! The ports of a workload: those of `Sidecar.ingress`, else those that services name.
//!
//! Source: Istio `pilot/pkg/networking/core/listener_inbound.go` (`buildInboundChainConfigs`,
//! `getFilterChainsByServicePort`) and `pilot/pkg/serviceregistry` (`GetProxyServiceTargets`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use meltemi_api::Object;
use meltemi_api::istio::{CaptureMode, IstioIngressListener, ServerTlsSettings};
use meltemi_snapshot::{
    Protocol, Service, ServicePort, ServiceTarget, Sidecar, TargetPort, Workload, labels_match,
};

use crate::context::{Context, origin};
use crate::listener::address::{self, Families};
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
    /// The service ports that lead to it, the oldest service first.
    pub(super) services: Vec<(&'a Service, &'a ServicePort)>,
    /// The Sidecar that says it.
    pub(super) entry_of: Option<&'a Object>,
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
        services: target.into_iter().collect(),
        entry_of: own.is_none().then_some(&*resource.object),
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
    for ServiceTarget { service, port, target } in targets(context, sidecar) {
        if target == 0 || sidecar.static_ports.contains(&target) {
            continue;
        }
        match ports.entry(target) {
            Entry::Occupied(mut known) => known.get_mut().services.push((service, port)),
            Entry::Vacant(free) => {
                let index = service.ports.iter().position(|p| p == port).unwrap_or_default();
                _ = free.insert(Port {
                    number: target,
                    service_port: port.number,
                    protocol: port.protocol,
                    operation: format!("{}:{}/*", service.host, port.number),
                    bind: wildcards.clone(),
                    is_real: false,
                    tls: None,
                    default_endpoint: None,
                    services: vec![(service, port)],
                    entry_of: None,
                    origin: Some(origin(&service.object, format!("spec.ports[{index}]"))),
                });
            }
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
        let found = targets(context, sidecar).into_iter().find(|target| target.target == number);
        return found.map(|target| (&**target.service, target.port));
    }
    let leads_here = |port: &ServicePort| match &port.target {
        TargetPort::Default(target) | TargetPort::Number(target) => *target == number,
        TargetPort::Named(target) => Some(target.as_str()) == name,
    };
    let labels = &context.shape.labels;
    let own = context.snapshot.services.iter().filter(|s| *s.namespace == *context.shape.namespace);
    let selecting = own.filter(|s| !s.selector.is_empty() && labels_match(&s.selector, labels));
    selecting.into_iter().find_map(|s| Some((&**s, s.ports.iter().find(|p| leads_here(p))?)))
}

fn targets<'a>(context: &'a Context<'_>, sidecar: &SidecarShape) -> Vec<ServiceTarget<'a>> {
    context.snapshot.service_targets(Workload {
        namespace: &context.shape.namespace,
        labels: &context.shape.labels,
        addresses: &sidecar.addresses,
    })
}
