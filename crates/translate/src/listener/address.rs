//! Which addresses the listeners of a sidecar have.
//!
//! Source: Istio `pilot/pkg/networking/core/listener_address.go` and `pilot/pkg/model/service.go`
//! (`GetAddressForProxy`, `GetExtraAddressesForProxy`).
//! Differs: a proxy with addresses of both families listens on both; Istio asks for `ISTIO_DUAL_STACK` first.

use std::net::IpAddr;

use meltemi_api::Spec;
use meltemi_snapshot::{Registry, Resolution, Service};

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

    /// Whether an address, or the addresses of a CIDR, are of a family that is spoken.
    fn speaks(self, address: &str) -> bool {
        if address.contains(':') { self.v6 } else { self.v4 }
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
    let _ = shape;
    let listed: Vec<String> = service.addresses.iter().map(|address| whole(address)).collect();
    if listed.is_empty() {
        return vec![everywhere(service, families)];
    }
    if service.registry == Registry::External {
        return listed.into_iter().map(|address| vec![address]).collect();
    }
    let spoken: Vec<String> = listed.iter().filter(|address| families.speaks(address)).cloned().collect();
    vec![if spoken.is_empty() { listed } else { spoken }]
}

/// What stands for a service without an address. The family is known of Kubernetes' services only.
fn everywhere(service: &Service, families: Families) -> Vec<String> {
    match service.registry {
        Registry::External => families.wildcards(),
        Registry::Kubernetes => vec![UNSPECIFIED.to_owned()],
    }
}

/// A CIDR of one address is that address.
fn whole(address: &str) -> String {
    let Some((ip, bits)) = address.split_once('/') else { return address.to_owned() };
    match (ip.parse::<IpAddr>(), bits) {
        (Ok(IpAddr::V4(ip)), "32") => ip.to_string(),
        (Ok(IpAddr::V6(ip)), "128") => ip.to_string(),
        _ => address.to_owned(),
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
    let is_headless = match &service.object.spec {
        Spec::Service(spec) => spec.cluster_ip.as_deref() == Some("None"),
        _ => false,
    };
    is_headless || service.resolution == Resolution::Passthrough
}
