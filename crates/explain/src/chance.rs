//! The endpoints of a cluster and their chances, read from what the proxy is sent.

use meltemi_envoy::config::core::v3::address::Address as Kind;
use meltemi_envoy::config::core::v3::socket_address::PortSpecifier;
use meltemi_envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use meltemi_envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use meltemi_snapshot::{Endpoint, EndpointAddress, Host, Snapshot};
use serde::Serialize;

use crate::proxy::Proxy;

/// An endpoint and its chance.
#[derive(Debug, Clone, Serialize)]
pub struct Chance {
    /// Address and port, name and port, or path.
    pub address: String,
    /// Its share in percent of the requests to the cluster, by weights, while all endpoints are well; 0 of those that wait
    /// for others to fail.
    pub percent: f64,
    /// Its priority; 0 is asked first.
    pub priority: u32,
    /// `region/zone/subzone`; empty when not known.
    pub locality: String,
    /// The workload, if it is one of the mesh.
    pub workload: String,
    #[serde(skip)]
    pub(crate) endpoint: Option<Endpoint>,
}

/// The endpoints of a cluster, in the order in which they are sent.
pub(crate) fn of(snapshot: &Snapshot, proxy: &Proxy, cluster: &str) -> Vec<Chance> {
    let Some(assignment) = proxy.assignment(cluster) else { return Vec::new() };
    let known = known(snapshot, cluster);
    let is_weighted = proxy.weighs_localities(cluster);
    let first = assignment.endpoints.iter().filter(|l| !l.lb_endpoints.is_empty()).map(|l| l.priority).min();
    let shares = Shares { first: first.unwrap_or_default(), is_weighted, assignment: &assignment };
    let each = assignment
        .endpoints
        .iter()
        .flat_map(|locality| locality.lb_endpoints.iter().map(move |e| (locality, e)));
    let chance = |(locality, endpoint): (&LocalityLbEndpoints, &LbEndpoint)| {
        let address = address(endpoint)?;
        let endpoint_of_mesh = known.iter().find(|known| at(known) == address);
        Some(Chance {
            percent: shares.of(locality, endpoint),
            priority: locality.priority,
            locality: name(locality),
            workload: endpoint_of_mesh.map_or(String::new(), |endpoint| endpoint.workload.clone()),
            endpoint: endpoint_of_mesh.map(|endpoint| (*endpoint).clone()),
            address,
        })
    };
    each.filter_map(chance).collect()
}

/// What weights add up to.
struct Shares<'a> {
    /// The priority that is asked while its endpoints are well.
    first: u32,
    /// Localities have weights, and endpoints share that of their own.
    is_weighted: bool,
    assignment: &'a ClusterLoadAssignment,
}

impl Shares<'_> {
    fn of(&self, locality: &LocalityLbEndpoints, endpoint: &LbEndpoint) -> f64 {
        if locality.priority != self.first {
            return 0.0;
        }
        let in_locality: f64 = locality.lb_endpoints.iter().map(weight).sum();
        let peers = || self.assignment.endpoints.iter().filter(|other| other.priority == self.first);
        let share = if self.is_weighted {
            let total: f64 = peers().map(of_locality).sum();
            of_locality(locality) / total * weight(endpoint) / in_locality
        } else {
            weight(endpoint) / peers().flat_map(|other| &other.lb_endpoints).map(weight).sum::<f64>()
        };
        if share.is_finite() { share * 100.0 } else { 0.0 }
    }
}

/// A locality without a weight gets nothing where others have one.
fn of_locality(locality: &LocalityLbEndpoints) -> f64 {
    locality.load_balancing_weight.map_or(0.0, f64::from)
}

fn weight(endpoint: &LbEndpoint) -> f64 {
    endpoint.load_balancing_weight.map_or(1.0, f64::from)
}

fn name(locality: &LocalityLbEndpoints) -> String {
    let Some(locality) = &locality.locality else { return String::new() };
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/")
}

fn address(endpoint: &LbEndpoint) -> Option<String> {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return None };
    match endpoint.address.as_ref()?.address.as_ref()? {
        Kind::SocketAddress(socket) => {
            let Some(PortSpecifier::PortValue(port)) = &socket.port_specifier else { return None };
            Some(joined(&socket.address, *port))
        }
        Kind::Pipe(pipe) => Some(format!("unix://{}", pipe.path)),
        Kind::EnvoyInternalAddress(_) => None,
    }
}

fn joined(host: &str, port: u32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What the mesh knows of the endpoints of `outbound|PORT|SUBSET|HOST`.
fn known<'s>(snapshot: &'s Snapshot, cluster: &str) -> Vec<&'s Endpoint> {
    let mut parts = cluster.split('|');
    let (Some("outbound"), Some(port), Some(_), Some(host)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Vec::new();
    };
    let host = Host::new(host);
    let services = snapshot.services.iter().filter(|service| service.host == host);
    let port: u16 = port.parse().unwrap_or_default();
    services.flat_map(|service| snapshot.endpoints.of(service, port)).collect()
}

fn at(endpoint: &Endpoint) -> String {
    match &endpoint.address {
        EndpointAddress::Ip(ip) => joined(&ip.to_string(), endpoint.port.into()),
        EndpointAddress::Name(name) => joined(name, endpoint.port.into()),
        EndpointAddress::Pipe(path) => format!("unix://{path}"),
    }
}
