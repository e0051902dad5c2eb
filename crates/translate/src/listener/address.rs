//! Which addresses the listeners of a sidecar have.
//!
//! Source: Istio `pilot/pkg/networking/core/listener_address.go` and `pilot/pkg/model/service.go`
//! (`GetAddressForProxy`, `GetExtraAddressesForProxy`).
//! Differs: a proxy with addresses of both families listens on both; Istio asks for `ISTIO_DUAL_STACK` first.

use std::net::IpAddr;

use meltemi_snapshot::{AddressUse, Registry, Resolution, Service};

use crate::shape::{ProxyShape, SidecarShape};

/// Every address of the first family.
const UNSPECIFIED: &str = "0.0.0.0";
const UNSPECIFIED_V6: &str = "::";
const LOOPBACK: &str = "127.0.0.1";
const LOOPBACK_V6: &str = "::1";

/// The families of a proxy's own addresses; one at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Families {
    v4: bool,
    v6: bool,
}

impl Default for Families {
    fn default() -> Families {
        Families { v4: true, v6: false }
    }
}

impl Families {
    pub(crate) fn of(sidecar: &SidecarShape) -> Families {
        let v6 = sidecar.addresses.iter().any(IpAddr::is_ipv6);
        Families { v4: !v6 || sidecar.addresses.iter().any(IpAddr::is_ipv4), v6 }
    }

    /// The addresses that stand for all of the machine's.
    pub(crate) fn wildcards(self) -> Vec<String> {
        self.each(UNSPECIFIED, UNSPECIFIED_V6)
    }

    /// Those that only the machine itself reaches.
    pub(crate) fn loopbacks(self) -> Vec<String> {
        self.each(LOOPBACK, LOOPBACK_V6)
    }

    fn each(self, v4: &str, v6: &str) -> Vec<String> {
        let chosen = [(self.v4, v4), (self.v6, v6)].into_iter().filter(|(is_spoken, _)| *is_spoken);
        chosen.map(|(_, address)| address.to_owned()).collect()
    }

    /// What the proxy makes of addresses of services.
    pub(crate) fn use_of(self, shape: &ProxyShape) -> AddressUse {
        AddressUse { v4: self.v4, v6: self.v6, allocated: shape.captures_dns }
    }
}

/// The first of a proxy's addresses that others reach it by.
pub(crate) fn reachable(sidecar: &SidecarShape) -> Option<IpAddr> {
    let is_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let mut all = sidecar.addresses.iter().copied();
    all.find(|ip| !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_local(ip)))
}

/// Where callers find a service, a list for each listener; in a list the first is the one that names it. A service
/// without addresses is everywhere.
pub(crate) fn of_service(service: &Service, shape: &ProxyShape, families: Families) -> Vec<Vec<String>> {
    let listed = service.addresses_for(families.use_of(shape));
    if listed.is_empty() {
        // A Kubernetes Service of the other family alone keeps its addresses to itself.
        return vec![
            service.addresses.first().map_or_else(|| everywhere(service, families), |a| vec![a.clone()]),
        ];
    }
    if service.registry == Registry::External && !service.addresses.is_empty() {
        return listed.into_iter().map(|address| vec![address]).collect();
    }
    vec![listed]
}

/// What stands for a service without an address. The family is known of Kubernetes' services only.
fn everywhere(service: &Service, families: Families) -> Vec<String> {
    match service.registry {
        Registry::External => families.wildcards(),
        Registry::Kubernetes => vec![UNSPECIFIED.to_owned()],
    }
}

/// Whether it is a range.
pub(crate) fn is_cidr(address: &str) -> bool {
    address.contains('/')
}

/// Whether it stands for all addresses.
pub(crate) fn is_wildcard(address: &str) -> bool {
    matches!(address, UNSPECIFIED | UNSPECIFIED_V6)
}

/// Nothing stands between callers and endpoints.
pub(crate) fn has_no_balancing(service: &Service) -> bool {
    service.resolution == Resolution::Passthrough
}
