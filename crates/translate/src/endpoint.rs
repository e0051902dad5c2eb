//! Cluster load assignments (EDS, and inline for clusters that DNS resolves).
//!
//! Source: Istio `pilot/pkg/xds/endpoints`.

mod locality;

pub use locality::Locality;
pub(crate) use locality::{Group, Preference, Setting};

use std::collections::BTreeMap;

use meltemi_envoy::config::core::v3::{Address, Locality as EnvoyLocality, Pipe, address};
use meltemi_envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
    lb_endpoint::HostIdentifier,
};
use meltemi_snapshot::{Endpoint, EndpointAddress};

use crate::message::{fields, istio_metadata, socket, text};
use crate::tls::upstream::{TLS_MODE, TLS_MODE_ISTIO};

/// The namespace of the metadata that chooses a transport socket.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// The cluster that all workloads are in; part of Istio's workload metadata.
const CLUSTER_ID: &str = "Kubernetes";

/// The endpoints of a cluster, by locality, each with whether mutual TLS is spoken with it, in the order that the proxy
/// prefers.
pub(crate) fn load_assignment<'a>(
    cluster: &str,
    endpoints: impl IntoIterator<Item = (&'a Endpoint, bool)>,
    preference: &Preference<'_>,
) -> ClusterLoadAssignment {
    let mut by_locality: BTreeMap<&str, Vec<(&Endpoint, bool)>> = BTreeMap::new();
    for (endpoint, has_mtls) in endpoints {
        by_locality.entry(&endpoint.locality).or_default().push((endpoint, has_mtls));
    }
    let groups = by_locality.into_iter().map(|(name, members)| group(name, &members)).collect();
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: preference.apply(groups),
        ..Default::default()
    }
}

fn group<'a>(name: &str, members: &[(&'a Endpoint, bool)]) -> Group<'a> {
    let locality = Locality::parse(name);
    let Locality { region, zone, subzone } = locality.clone();
    let weight = members.iter().fold(0u32, |sum, (e, _)| sum.saturating_add(e.weight));
    let message = LocalityLbEndpoints {
        locality: Some(EnvoyLocality { region, zone, sub_zone: subzone }),
        lb_endpoints: members.iter().map(|(e, has_mtls)| lb_endpoint(e, *has_mtls)).collect(),
        load_balancing_weight: Some(weight),
        ..Default::default()
    };
    Group { message, members: members.iter().map(|(endpoint, _)| *endpoint).collect(), locality }
}

fn lb_endpoint(endpoint: &Endpoint, has_mtls: bool) -> LbEndpoint {
    let mut lb_endpoint = address_endpoint(address_of(&endpoint.address, endpoint.port));
    lb_endpoint.load_balancing_weight = Some(endpoint.weight);
    if !endpoint.workload.is_empty() {
        lb_endpoint.metadata = Some(istio_metadata(fields([("workload", text(workload(endpoint)))])));
    }
    if has_mtls {
        let metadata = lb_endpoint.metadata.get_or_insert_default();
        let mode = fields([(TLS_MODE, text(TLS_MODE_ISTIO))]);
        metadata.filter_metadata.insert(TRANSPORT_SOCKET_MATCH.to_owned(), mode);
    }
    lb_endpoint
}

/// A host without further properties.
pub(crate) fn address_endpoint(address: Address) -> LbEndpoint {
    let endpoint = EnvoyEndpoint { address: Some(address), ..Default::default() };
    LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() }
}

fn address_of(endpoint: &EndpointAddress, port: u16) -> Address {
    match endpoint {
        EndpointAddress::Ip(ip) => socket(&ip.to_string(), port),
        EndpointAddress::Name(name) => socket(name, port),
        EndpointAddress::Pipe(path) => pipe(path),
    }
}

pub(crate) fn pipe(path: &str) -> Address {
    Address { address: Some(address::Address::Pipe(Pipe { path: path.to_owned(), ..Default::default() })) }
}

/// `workload;namespace;canonical service;canonical revision;cluster`, from which peers' metrics take names.
fn workload(endpoint: &Endpoint) -> String {
    let label = |names: [&str; 3]| names.iter().find_map(|n| endpoint.labels.get(*n)).map(String::as_str);
    let service = label(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    [
        &endpoint.workload,
        &*endpoint.namespace,
        service.unwrap_or(&endpoint.workload),
        revision.unwrap_or("latest"),
        CLUSTER_ID,
    ]
    .join(";")
}
