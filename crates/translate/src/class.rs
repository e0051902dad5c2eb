//! Which proxies have their outbound clusters and routes in common: those whose shapes differ only in facts that nothing
//! outbound depends on, which are most of their own addresses, and labels that no object names.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use meltemi_api::Kind;
use meltemi_snapshot::{EndpointAddress, Resolution, Service, Snapshot};
use serde_json::Value;

use crate::listener::address::has_no_balancing;
use crate::shape::{ProxyShape, Role};

/// Labels that mean something by themselves: where a workload is, and what Istio's own say of it.
const KNOWN_PREFIXES: [&str; 3] = ["topology.", "istio-locality", "istio.io/"];

/// The labels that an object may make a difference by. They are found by looking for their texts anywhere in the objects,
/// whatever they mean there: one too many costs a translation, one too few would be an error.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pairs: BTreeSet<(String, String)>,
    words: BTreeSet<String>,
    /// Endpoints that have listeners of their own: a proxy has none for itself.
    dialled: BTreeSet<IpAddr>,
}

impl Selection {
    pub(crate) fn of(snapshot: &Snapshot) -> Selection {
        let mut selection = Selection::default();
        for object in snapshot.objects().filter(|object| selects_proxies(object.kind())) {
            selection.add(&object.to_json());
        }
        for service in snapshot.services.iter().filter(|service| !is_balanced(service)) {
            selection.dialled.extend(addresses_of(snapshot, service));
        }
        selection
    }

    fn add(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    if let Value::String(text) = value {
                        self.pairs.insert((key.clone(), text.clone()));
                    }
                    self.add(value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::String(text) => {
                self.words.extend(text.split_once('=').map(|(key, _)| key.to_owned()));
                self.words.insert(text.clone());
            }
            _ => {}
        }
    }

    fn may_select(&self, key: &str, value: &str) -> bool {
        KNOWN_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
            || self.words.contains(key)
            || self.pairs.contains(&(key.to_owned(), value.to_owned()))
    }

    /// What stands for all shapes that have their outbound parts in common with this one.
    pub(crate) fn class(&self, shape: &ProxyShape) -> ProxyShape {
        let mut class = shape.clone();
        let Role::Sidecar(sidecar) = &mut class.role else { return class };
        // In their order: the first is the one that a proxy goes by.
        let mut known = BTreeSet::new();
        if !sidecar.addresses.iter().any(|address| self.dialled.contains(address)) {
            sidecar.addresses.iter_mut().for_each(|address| *address = kind(*address));
        }
        sidecar.addresses.retain(|address| known.insert(*address));
        class.labels.retain(|key, value| self.may_select(key, value));
        class
    }
}

/// Whether callers connect to a service, and not to its endpoints.
pub(crate) fn is_balanced(service: &Service) -> bool {
    service.resolution == Resolution::Static && !has_no_balancing(service)
}

/// The addresses behind a service.
pub(crate) fn addresses_of<'a>(snapshot: &'a Snapshot, service: &'a Service) -> impl Iterator<Item = IpAddr> {
    let endpoints = service.ports.iter().flat_map(|port| snapshot.endpoints.of(service, port.number));
    endpoints.filter_map(|endpoint| match &endpoint.address {
        EndpointAddress::Ip(ip) => Some(*ip),
        _ => None,
    })
}

/// Whether objects of a kind may look at the labels of proxies. Those that make endpoints and services do not.
fn selects_proxies(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Service
            | Kind::WorkloadEntry
            | Kind::Pod
            | Kind::Node
            | Kind::EndpointSlice
            | Kind::Endpoints
            | Kind::Deployment
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::ReplicaSet
            | Kind::Job
            | Kind::ServiceAccount
            | Kind::Namespace
            | Kind::Secret
    )
}

/// Of an address, only its family matters to what is outbound, and whether it is one of several on one machine.
fn kind(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) if address.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The addresses that are the proxy's own.
pub(crate) fn own_addresses(shape: &ProxyShape) -> Vec<IpAddr> {
    match &shape.role {
        Role::Sidecar(sidecar) => sidecar.addresses.clone(),
        Role::Proxyless | Role::Router(_) => Vec::new(),
    }
}
