//! The Services in front of a gateway workload, which say what port stands for which.
//!
//! Source: Istio `pilot/pkg/model/context.go` (`SetServiceTargets`, for the order) and the registries'
//! `GetProxyServiceTargets`.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_api::Spec;

use super::GatewayWorkload;
use crate::config::{labels_match, oldest_first};
use crate::endpoint::EndpointAddress;
use crate::mesh::Snapshot;
use crate::service::{Registry, Service, ServicePort, TargetPort};

/// The Services that a Gateway is for, instead of a selector: hosts, comma-separated.
pub(super) const SERVICES_ANNOTATION: &str = "internal.istio.io/gateway-service";

/// A label of Services whose ports mean nothing to Gateways.
const NO_TRANSLATION_LABEL: &str = "experimental.istio.io/disable-gateway-port-translation";

/// A port of a Service that leads to the workload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    service: &'a Service,
    /// The port of the Service.
    pub(super) port: u16,
    /// The port of the workload.
    pub(super) target: u16,
    /// Whether a Gateway that selects by labels may mean the Service's port.
    pub(super) translates: bool,
}

impl Target<'_> {
    /// Whether a list of hosts names the Service, which must be of this namespace.
    pub(super) fn is_of(&self, names: &str, namespace: &str) -> bool {
        let host = self.service.host.as_str();
        &*self.service.namespace == namespace && names.split(',').any(|name| name.trim() == host)
    }
}

/// The Services of a workload, oldest first.
pub(super) fn of_workload<'a>(snapshot: &'a Snapshot, workload: &GatewayWorkload<'_>) -> Vec<Target<'a>> {
    let mut services: Vec<&'a Arc<Service>> = snapshot.services.iter().collect();
    let created = |service: &Service| service.object.meta.created_unix_seconds;
    services.sort_by(|a, b| {
        let by_age = (created(a).is_none(), created(a)).cmp(&(created(b).is_none(), created(b)));
        by_age.then_with(|| a.host.cmp(&b.host)).then_with(|| oldest_first(&a.object, &b.object))
    });
    services.into_iter().flat_map(|service| of_service(snapshot, service, workload)).collect()
}

fn of_service<'a>(
    snapshot: &'a Snapshot,
    service: &'a Service,
    workload: &GatewayWorkload<'_>,
) -> Vec<Target<'a>> {
    let translates = !service.object.meta.labels.contains_key(NO_TRANSLATION_LABEL);
    let is_selected = selects(service, workload);
    let is_kubernetes = service.registry == Registry::Kubernetes;
    let mut known = BTreeSet::new();
    let target = |port: &ServicePort| {
        let target = endpoint_port(snapshot, service, port.number, workload)
            .or_else(|| declared_target(port).filter(|_| is_selected))?;
        // Of the ports of a Kubernetes Service that lead to the same one, only the first leads there.
        let is_first = known.insert((target, port.protocol)) || !is_kubernetes;
        is_first.then_some(Target { service, port: port.number, target, translates })
    };
    service.ports.iter().filter_map(target).collect()
}

/// A Kubernetes Service of the workload's namespace finds it by its labels.
fn selects(service: &Service, workload: &GatewayWorkload<'_>) -> bool {
    match &service.object.spec {
        Spec::Service(spec) if &*service.namespace == workload.namespace => {
            !spec.selector.is_empty() && labels_match(&spec.selector, workload.labels)
        }
        _ => false,
    }
}

fn declared_target(port: &ServicePort) -> Option<u16> {
    match port.target {
        TargetPort::Default(number) | TargetPort::Number(number) => Some(number),
        // Only an endpoint tells what its ports are called.
        TargetPort::Named(_) => None,
    }
}

/// The port of the endpoint that is the workload itself.
fn endpoint_port(
    snapshot: &Snapshot,
    service: &Service,
    port: u16,
    workload: &GatewayWorkload<'_>,
) -> Option<u16> {
    if workload.addresses.is_empty() {
        return None;
    }
    let is_own = |address: &EndpointAddress| match address {
        EndpointAddress::Ip(ip) => workload.addresses.contains(ip),
        _ => false,
    };
    let endpoints = snapshot.endpoints.of(service, port).iter();
    endpoints.into_iter().find(|endpoint| is_own(&endpoint.address)).map(|endpoint| endpoint.port)
}
