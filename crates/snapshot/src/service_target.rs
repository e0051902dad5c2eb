//! The services that a workload is behind, from its own side: whom its inbound listeners serve.
//!
//! Source: Istio `pilot/pkg/serviceregistry/kube/controller` and `serviceentry` (`GetProxyServiceTargets`),
//! `pilot/pkg/model/context.go` (order).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_api::{Object, Spec};

use crate::config::labels_match;
use crate::endpoint::{EndpointAddress, selected_ports, workload_at};
use crate::mesh::Snapshot;
use crate::protocol::Protocol;
use crate::service::{Registry, Service, ServicePort, TargetPort};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels, as its proxy tells them.
    pub labels: &'a BTreeMap<String, String>,
    /// Its addresses, the most important first.
    pub addresses: &'a [IpAddr],
}

/// A port of a service that leads to a port of the workload.
#[derive(Debug, Clone, Copy)]
pub struct ServiceTarget<'a> {
    /// The service.
    pub service: &'a Arc<Service>,
    /// Its port.
    pub port: &'a ServicePort,
    /// The port of the workload; 0 for a Unix socket.
    pub target: u16,
}

impl Snapshot {
    /// The service ports that lead to a workload, those of the oldest service first. It is found by its address; one that
    /// nobody describes is taken at its own word. UDP is not proxied and is left out.
    pub fn service_targets(&self, workload: Workload<'_>) -> Vec<ServiceTarget<'_>> {
        let mut targets = self.kubernetes_targets(workload);
        for address in workload.addresses {
            targets.extend(self.entry_targets(workload.namespace, *address));
        }
        targets.retain(|target| target.port.protocol != Protocol::Udp);
        let rank = |target: &ServiceTarget<'_>| {
            let created = target.service.object.meta.created_unix_seconds;
            (created.is_none(), created, target.service.host.clone())
        };
        targets.sort_by_key(rank);
        targets
    }

    /// The labels of the workload at an address, as its object says them; `None` if nobody describes it.
    pub fn workload_labels(&self, namespace: &str, address: IpAddr) -> Option<BTreeMap<String, String>> {
        self.workload(namespace, address).map(|object| labels_of(object))
    }

    fn workload(&self, namespace: &str, address: IpAddr) -> Option<&Arc<Object>> {
        workload_at(self.objects(), namespace, address)
    }

    fn kubernetes_targets(&self, workload: Workload<'_>) -> Vec<ServiceTarget<'_>> {
        let known = workload.addresses.first().and_then(|first| self.workload(workload.namespace, *first));
        let Some(object) = known else {
            return self.selecting(workload.namespace, workload.labels).flat_map(by_its_word).collect();
        };
        let labels = labels_of(object);
        let selecting = self.selecting(&object.id.namespace, &labels);
        let found: Vec<_> = selecting.flat_map(|service| at_object(service, object)).collect();
        if !found.is_empty() {
            return found;
        }
        let first = workload.addresses.first().copied();
        first.map_or(Vec::new(), |address| self.at_address(workload.namespace, address, Registry::Kubernetes))
    }

    fn entry_targets(&self, namespace: &str, address: IpAddr) -> Vec<ServiceTarget<'_>> {
        self.at_address(namespace, address, Registry::External)
    }

    /// The Kubernetes Services of a namespace whose selectors find these labels.
    fn selecting<'a>(
        &'a self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let (namespace, labels) = (namespace.to_owned(), labels.clone());
        self.services.by_age().iter().filter(move |service| {
            service.registry == Registry::Kubernetes
                && *service.namespace == *namespace
                && !service.selector.is_empty()
                && labels_match(&service.selector, &labels)
        })
    }

    /// The services of a namespace that have an endpoint at this address.
    fn at_address(&self, namespace: &str, address: IpAddr, registry: Registry) -> Vec<ServiceTarget<'_>> {
        let own = self.services.by_age().iter();
        let own = own.filter(|service| service.registry == registry && *service.namespace == *namespace);
        let mut found = Vec::new();
        for service in own {
            for port in &service.ports {
                let endpoints = self.endpoints.of(service, port.number).iter();
                let here = endpoints.filter(|one| one.address == EndpointAddress::Ip(address));
                found.extend(here.map(|one| ServiceTarget { service, port, target: one.port }));
            }
        }
        found
    }
}

fn labels_of(object: &Object) -> BTreeMap<String, String> {
    let mut labels = match &object.spec {
        Spec::WorkloadEntry(entry) => entry.labels.clone(),
        _ => BTreeMap::new(),
    };
    labels.extend(object.meta.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    labels
}

fn at_object<'a>(service: &'a Arc<Service>, object: &Arc<Object>) -> Vec<ServiceTarget<'a>> {
    let ports = selected_ports(service, object).into_iter();
    distinct(ports.map(|(port, target)| ServiceTarget { service, port, target }))
}

/// A port by name cannot be looked up in a workload that nobody describes.
fn by_its_word(service: &Arc<Service>) -> Vec<ServiceTarget<'_>> {
    let target = |port: &ServicePort| match &port.target {
        TargetPort::Number(number) | TargetPort::Default(number) => Some(*number),
        TargetPort::Named(_) => None,
    };
    distinct(
        service.ports.iter().filter_map(|port| Some(ServiceTarget { service, port, target: target(port)? })),
    )
}

/// Of service ports that lead to the same port and speak the same, the first.
fn distinct<'a>(targets: impl Iterator<Item = ServiceTarget<'a>>) -> Vec<ServiceTarget<'a>> {
    let mut kept: Vec<ServiceTarget<'a>> = Vec::new();
    for target in targets {
        let is_same = |other: &ServiceTarget<'_>| {
            (other.target, other.port.protocol) == (target.target, target.port.protocol)
        };
        if !kept.iter().any(is_same) {
            kept.push(target);
        }
    }
    kept
}
