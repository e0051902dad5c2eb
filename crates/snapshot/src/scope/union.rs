//! Services of several listeners together, one of each host.
//!
//! Source: Istio `pilot/pkg/model/sidecar.go` (`appendSidecarServices`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::host::Host;
use crate::service::{Registry, Service};

/// Services by host. Of two of one host the first one wins, unless the later is Kubernetes' and the first is not; the ports
/// of two that say the same otherwise are put together.
#[derive(Debug, Default)]
pub(super) struct Union {
    services: Vec<Arc<Service>>,
    by_host: BTreeMap<Host, usize>,
}

impl Union {
    pub(super) fn add(&mut self, service: &Arc<Service>) {
        let Some(index) = self.by_host.get(&service.host).copied() else {
            self.by_host.insert(service.host.clone(), self.services.len());
            self.services.push(Arc::clone(service));
            return;
        };
        let known = &mut self.services[index];
        match (known.registry, service.registry) {
            _ if Arc::ptr_eq(known, service) => {}
            (Registry::Kubernetes, Registry::External) => {}
            (Registry::External, Registry::Kubernetes) => *known = Arc::clone(service),
            _ if known.has_ports_of(service) || !say_the_same(known, service) => {}
            _ => *known = Arc::new(with_ports(known, service)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    pub(super) fn get(&self, host: &Host) -> Option<&Arc<Service>> {
        self.services.get(*self.by_host.get(host)?)
    }

    pub(super) fn into_map(self) -> BTreeMap<Host, Arc<Service>> {
        self.services.into_iter().map(|service| (service.host.clone(), service)).collect()
    }
}

/// Whether two services differ in their ports alone, as far as it matters.
pub(crate) fn say_the_same(a: &Service, b: &Service) -> bool {
    a.namespace == b.namespace
        && a.resolution == b.resolution
        && a.registry == b.registry
        && a.object.meta.labels == b.object.meta.labels
        && a.selector == b.selector
        && a.export_to == b.export_to
}

fn with_ports(known: &Service, other: &Service) -> Service {
    let mut merged = known.clone();
    for port in &other.ports {
        if merged.port(port.number).is_none() {
            merged.ports.push(port.clone());
        }
    }
    merged
}
