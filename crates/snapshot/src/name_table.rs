//! Names and their addresses, for agents that answer the DNS queries of their workload.
//!
//! Source: Istio `pkg/dns/server/name_table.go`. The agent itself completes short names of Kubernetes Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::endpoint::{Endpoint, EndpointAddress};
use crate::scope::Scope;
use crate::service::{AddressUse, Registry, Resolution, Service};

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameInfo {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it comes from.
    pub registry: Registry,
    /// `service` or `pod.service`, of names in Kubernetes; else empty.
    pub short_name: String,
    /// The namespace, of names in Kubernetes; else empty.
    pub namespace: String,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Resolver<'a> {
    /// What it makes of addresses.
    pub uses: AddressUse,
    /// Its network; empty for the one of the mesh.
    pub network: &'a str,
}

impl Scope<'_> {
    /// The names that a workload can resolve without asking anybody else. A service without virtual address is known by its
    /// endpoints' if callers choose among these themselves. Gateways capture no queries, and have none.
    pub fn name_table(&self, resolver: Resolver<'_>) -> BTreeMap<String, NameInfo> {
        let mut table = Table { resolver, names: BTreeMap::new() };
        if self.is_gateway() {
            return table.names;
        }
        for service in self.views().iter().flat_map(|view| &view.imported) {
            let listed = service.addresses_for(resolver.uses);
            let addresses = match listed.is_empty() {
                true => table.of_endpoints(self, service),
                false => listed.iter().filter_map(|address| address.parse().ok()).collect(),
            };
            if !addresses.is_empty() {
                table.add(service, addresses);
            }
        }
        table.names
    }
}

struct Table<'a> {
    resolver: Resolver<'a>,
    names: BTreeMap<String, NameInfo>,
}

impl Table<'_> {
    fn add(&mut self, service: &Service, addresses: Vec<IpAddr>) {
        let host = service.host.as_str();
        match self.names.get_mut(host) {
            None => _ = self.names.insert(host.to_owned(), info(service, &service.name, addresses)),
            Some(known) if known.registry == Registry::Kubernetes => {}
            Some(known) if service.registry == Registry::Kubernetes => {
                *known = info(service, &service.name, addresses);
            }
            Some(known) => known.addresses.extend(addresses),
        }
    }

    /// The addresses of a headless service, and each of its pods that has a name of its own.
    fn of_endpoints(&mut self, scope: &Scope<'_>, service: &Service) -> Vec<IpAddr> {
        if service.resolution != Resolution::Passthrough {
            return Vec::new();
        }
        let mut addresses = Vec::new();
        let mut pods: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for (address, endpoint) in self.near(scope.endpoints(service)) {
            addresses.push(address);
            if let Some(name) = &endpoint.host_name {
                pods.entry(name).or_default().push(address);
            }
        }
        let domain = service.host.as_str().split_once('.').map_or("", |(_, domain)| domain);
        for (name, addresses) in pods {
            self.names.insert(format!("{name}.{domain}"), info(service, name, addresses));
        }
        addresses
    }

    /// Those of the own network, by address.
    fn near<'e>(&self, endpoints: impl Iterator<Item = &'e Endpoint>) -> Vec<(IpAddr, &'e Endpoint)> {
        let own = self.resolver.network;
        let mut seen = BTreeSet::new();
        let is_near = |network: &str| network.is_empty() || own.is_empty() || network == own;
        endpoints
            .filter(|endpoint| is_near(&endpoint.network))
            .filter_map(|endpoint| match endpoint.address {
                EndpointAddress::Ip(address) => seen.insert(address).then_some((address, endpoint)),
                _ => None,
            })
            .collect()
    }
}

fn info(service: &Service, name: &str, addresses: Vec<IpAddr>) -> NameInfo {
    let is_known = service.registry == Registry::Kubernetes;
    let of_kubernetes = |text: &str| if is_known { text.to_owned() } else { String::new() };
    NameInfo {
        addresses,
        registry: service.registry,
        short_name: of_kubernetes(name),
        namespace: of_kubernetes(&service.namespace),
    }
}
