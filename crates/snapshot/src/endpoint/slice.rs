//! EndpointSlices, and Endpoints as the slices that Kubernetes makes from them.
//!
//! Source: Istio `pilot/pkg/serviceregistry/kube/controller/endpointslice.go`.
//! Differs: the endpoint of a pod that nobody describes counts with what the slice says of it; Istio waits for the pod.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::kubernetes::{AddressType, EndpointSlice, SliceEndpoint};
use meltemi_api::{Object, Spec};

use super::topology::{self, Topology};
use super::workload::Workloads;
use super::{Endpoint, EndpointAddress};
use crate::service::{Service, ServicePort};

/// The slices of all Kubernetes Services, by namespace and name of the Service.
pub(super) struct Slices<'a>(BTreeMap<(&'a str, &'a str), Vec<Slice<'a>>>);

pub(super) struct Slice<'a>(Cow<'a, EndpointSlice>);

impl<'a> Slices<'a> {
    pub(super) fn collect(objects: &[&'a Arc<Object>]) -> Slices<'a> {
        let mut all: BTreeMap<(&str, &str), Vec<Slice<'a>>> = BTreeMap::new();
        for object in objects {
            if let Spec::EndpointSlice(slice) = &object.spec
                && let Some(service) = EndpointSlice::service_name(&object.meta.labels)
            {
                let key = (&*object.id.namespace, service);
                all.entry(key).or_default().push(Slice(Cow::Borrowed(slice)));
            }
        }
        let mut mirrored: BTreeMap<(&str, &str), Vec<Slice<'a>>> = BTreeMap::new();
        for object in objects {
            if let Spec::Endpoints(endpoints) = &object.spec {
                let slices = endpoints.slices().into_iter().map(|slice| Slice(Cow::Owned(slice)));
                mirrored.insert((&*object.id.namespace, &*object.id.name), slices.collect());
            }
        }
        for (service, slices) in mirrored {
            all.entry(service).or_insert(slices);
        }
        Slices(all)
    }

    pub(super) fn of<'s>(&'s self, service: &'s Service) -> &'s [Slice<'s>] {
        self.0.get(&(&*service.namespace, &*service.name)).map_or(&[], Vec::as_slice)
    }
}

impl Slice<'_> {
    /// The endpoints of a service port: the slice has a port of its name.
    pub(super) fn endpoints(
        &self,
        service: &Service,
        port: &ServicePort,
        workloads: &Workloads<'_>,
        topology: &Topology<'_>,
    ) -> Vec<Endpoint> {
        let named = self.0.ports.iter().find(|p| p.name.as_deref().unwrap_or_default() == port.name);
        let Some(number) = named.and_then(|p| u16::try_from(p.port?).ok()) else { return Vec::new() };
        if self.0.address_type == Some(AddressType::Fqdn) {
            return Vec::new();
        }
        let ready = self.0.endpoints.iter().filter(|endpoint| endpoint.conditions.ready != Some(false));
        let of = |one: &SliceEndpoint| -> Vec<Endpoint> {
            let addresses = one.addresses.iter().filter_map(|address| address.parse().ok());
            let place = Place { service, one, topology };
            addresses.map(|ip| place.endpoint(EndpointAddress::Ip(ip), number, workloads)).collect()
        };
        ready.flat_map(of).collect()
    }
}

struct Place<'a> {
    service: &'a Service,
    one: &'a SliceEndpoint,
    topology: &'a Topology<'a>,
}

impl Place<'_> {
    fn endpoint(&self, address: EndpointAddress, port: u16, workloads: &Workloads<'_>) -> Endpoint {
        let target = self.one.target_ref.as_ref();
        let target = target.filter(|target| target.kind.as_deref().is_none_or(|kind| kind == "Pod"));
        let pod = target.and_then(|target| {
            let namespace = target.namespace.as_deref().unwrap_or(&self.service.namespace);
            workloads.pod(namespace, target.name.as_deref()?)
        });
        match pod {
            Some(pod) => pod.at(address, port),
            None => self.unknown(address, port),
        }
    }

    fn unknown(&self, address: EndpointAddress, port: u16) -> Endpoint {
        let node = self.one.node_name.clone().unwrap_or_default();
        let of_zone = || self.one.zone.as_deref().map(|zone| self.topology.of_zone(zone)).unwrap_or_default();
        let locality = match self.topology.of_node(&node) {
            "" => of_zone(),
            known => known.to_owned(),
        };
        Endpoint {
            address,
            port,
            labels: topology::augmented(&BTreeMap::new(), &locality, &node, ""),
            locality,
            network: String::new(),
            node,
            host_name: self
                .one
                .hostname
                .as_deref()
                .map(|name| format!("{name}.{}", self.service.name).into()),
            weight: 1,
            workload: String::new(),
            namespace: Arc::clone(&self.service.namespace),
            service_account: String::new(),
            has_mtls: false,
        }
    }
}
