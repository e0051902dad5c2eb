//! What proxies have in common, built once: the clusters of a service, listeners and route configurations.
//!
//! Everything here is only a saving. A part is found by its name among proxies of one class (`class.rs`) in one snapshot,
//! and a translation without anything in common gives the same bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_snapshot::{Host, Service};

use crate::resources::Resources;

/// A service, as its endpoints are found by.
pub(crate) type ServiceKey = (Host, Arc<str>);

pub(crate) fn key_of(service: &Service) -> ServiceKey {
    (service.host.clone(), Arc::clone(&service.namespace))
}

/// The parts that the proxies of one class share.
#[derive(Debug, Default)]
pub(crate) struct Common {
    clusters: RefCell<BTreeMap<ServiceKey, Arc<Resources>>>,
    outbound: RefCell<BTreeMap<(), Arc<Resources>>>,
}

impl Common {
    /// The clusters of a service with their endpoints.
    pub(crate) fn clusters(&self, service: &Service, build: impl FnOnce() -> Resources) -> Arc<Resources> {
        part(&self.clusters, key_of(service), build)
    }

    /// The outbound listeners with their routes, where they do not bind an address of the proxy's own.
    pub(crate) fn outbound(&self, build: impl FnOnce() -> Resources) -> Arc<Resources> {
        part(&self.outbound, (), build)
    }

    /// Takes the clusters of a service out.
    pub(crate) fn forget_clusters(&self, service: &ServiceKey) -> Option<Arc<Resources>> {
        self.clusters.borrow_mut().remove(service)
    }
}

fn part<K: Ord>(
    parts: &RefCell<BTreeMap<K, Arc<Resources>>>,
    key: K,
    build: impl FnOnce() -> Resources,
) -> Arc<Resources> {
    if let Some(part) = parts.borrow().get(&key) {
        return Arc::clone(part);
    }
    // Not borrowed while it is built: building may ask for other parts.
    let part = Arc::new(build());
    parts.borrow_mut().insert(key, Arc::clone(&part));
    part
}
