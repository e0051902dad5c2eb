//! Virtual addresses of services, and which of them a proxy uses.
//!
//! Source: Istio `pilot/pkg/model/service.go` (`GetAllAddressesForProxy`), `pilot/pkg/networking/serviceentry`
//! (`ip_autoallocation.go`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use meltemi_api::{Object, istio};

use super::{Registry, Service};

/// The label that keeps a ServiceEntry from getting addresses, by `false`.
const ENABLE_LABEL: &str = "networking.istio.io/enable-autoallocate-ip";

/// Addresses that were allocated to a service which has none of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AutoAddresses {
    /// Of 240.240.0.0/16, unless somebody else gave it.
    pub v4: Option<Ipv4Addr>,
    /// Of 2001:2::/48, unless somebody else gave it.
    pub v6: Option<Ipv6Addr>,
}

/// What a proxy can make of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressUse {
    /// It has an IPv4 address.
    pub v4: bool,
    /// It has an IPv6 address.
    pub v6: bool,
    /// Its agent answers DNS queries with allocated addresses (`DNS_CAPTURE`).
    pub allocated: bool,
}

impl AutoAddresses {
    /// The addresses that stand in the status of a ServiceEntry for one of its hosts.
    pub(super) fn of_status(object: &Object, spec: &istio::ServiceEntry, host: &str) -> AutoAddresses {
        let mut found = AutoAddresses::default();
        if !may_allocate(object, spec) {
            return found;
        }
        let given = object.status.addresses.iter().filter(|address| address.host == host);
        for address in given.filter_map(|address| address.value.parse().ok()) {
            match address {
                IpAddr::V4(v4) => found.v4 = Some(v4),
                IpAddr::V6(v6) => found.v6 = Some(v6),
            }
        }
        found
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

/// Whether an entry may have allocated addresses: nothing can be told from the address if that is where traffic goes.
pub(super) fn may_allocate(object: &Object, spec: &istio::ServiceEntry) -> bool {
    let is_off =
        object.meta.labels.get(ENABLE_LABEL).is_some_and(|value| value.eq_ignore_ascii_case("false"));
    spec.addresses.is_empty() && spec.resolution.unwrap_or_default() != istio::Resolution::None && !is_off
}

/// A block of one address is that address.
pub(super) fn normal(text: &str) -> String {
    let whole = match text.split_once('/') {
        Some((address, "32")) => address.parse::<Ipv4Addr>().ok().map(|_| address),
        Some((address, "128")) => address.parse::<Ipv6Addr>().ok().map(|_| address),
        _ => None,
    };
    whole.unwrap_or(text).to_owned()
}

impl Service {
    /// The virtual addresses that this proxy's callers may use, IP or CIDR. Empty for a service that has none: then it is
    /// known by its port alone. Those of a Kubernetes Service mean the same listener, of a ServiceEntry one each.
    pub fn addresses_for(&self, proxy: AddressUse) -> Vec<String> {
        if self.registry == Registry::External && !self.addresses.is_empty() {
            return self.addresses.clone();
        }
        let fits = |address: &&String| match address.parse() {
            Ok(IpAddr::V6(_)) => proxy.v6,
            _ => proxy.v4,
        };
        let own: Vec<String> = self.addresses.iter().filter(fits).cloned().collect();
        if !own.is_empty() || !proxy.allocated {
            return own;
        }
        let v4 = self.auto_addresses.v4.filter(|_| proxy.v4).map(|address| address.to_string());
        let v6 = self.auto_addresses.v6.filter(|_| proxy.v6).map(|address| address.to_string());
        v4.into_iter().chain(v6).collect()
    }
}
