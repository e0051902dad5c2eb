//! NDS: the names that a workload resolves, for Istio's agent, which answers its DNS queries.
//!
//! Source: Istio `pilot/pkg/xds/nds.go`, `pkg/dns/server/name_table.go`.
//! Differs: only agents that capture queries (`DNS_CAPTURE`) get a table; istiod makes one for every proxy that asks.

use std::net::IpAddr;
use std::sync::Arc;

use meltemi_envoy::istio::networking::nds::v1::NameTable;
use meltemi_envoy::istio::networking::nds::v1::name_table::NameInfo;
use meltemi_snapshot::{AddressUse, Registry, Resolver};

use crate::context::Context;
use crate::resources::Resource;
use crate::shape::Role;

/// Istio's names of the registries.
const KUBERNETES: &str = "Kubernetes";
const EXTERNAL: &str = "External";

/// The table of a sidecar; it has no name.
pub(crate) fn build(context: &Context<'_>) -> Vec<Arc<Resource>> {
    let Role::Sidecar(sidecar) = &context.shape.role else { return Vec::new() };
    if !context.shape.captures_dns {
        return Vec::new();
    }
    let uses = AddressUse {
        v4: sidecar.addresses.iter().any(IpAddr::is_ipv4),
        v6: sidecar.addresses.iter().any(IpAddr::is_ipv6),
        allocated: true,
    };
    let names = context.scope.name_table(Resolver { uses, network: "" });
    let entry = |info: meltemi_snapshot::NameInfo| NameInfo {
        ips: info.addresses.iter().map(ToString::to_string).collect(),
        registry: match info.registry {
            Registry::Kubernetes => KUBERNETES.to_owned(),
            Registry::External => EXTERNAL.to_owned(),
        },
        shortname: info.short_name,
        namespace: info.namespace,
    };
    let table = names.into_iter().map(|(name, info)| (name, entry(info))).collect();
    vec![Resource::encode("", &NameTable { table })]
}
