//! TCP and TLS routes: where connections go that nobody looks into.
//!
//! Source: Istio `pilot/pkg/networking/core/networkfilter.go`, `tls.go`.

use std::collections::BTreeSet;

use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use meltemi_snapshot::route::{L4Destination, TcpRule};

use crate::route::{Binding, destination_cluster};

/// A route of connections.
#[derive(Debug, Clone)]
pub(crate) struct L4Route {
    /// The server names that it is for; empty for all.
    pub(crate) server_names: Vec<String>,
    /// The addresses that it is for, as IP or CIDR; empty for all.
    pub(crate) destination_subnets: Vec<String>,
    /// Where connections go.
    pub(crate) cluster: ClusterSpecifier,
}

/// The destination of the first TCP route that holds whatever address is called; `None` when there is none, or none
/// with weight.
pub(crate) fn tcp(binding: &Binding<'_>) -> Option<ClusterSpecifier> {
    let routes = tcp_routes(binding);
    routes.into_iter().find(|r| r.destination_subnets.is_empty()).map(|route| route.cluster)
}

/// The TCP routes that hold, up to the first that holds for every address.
pub(crate) fn tcp_routes(binding: &Binding<'_>) -> Vec<L4Route> {
    let mut routes = Vec::new();
    for rule in &binding.virtual_service.rules.tcp {
        let Some(destination_subnets) = subnets(binding, rule) else { continue };
        let Some(cluster) = weighted(binding, &rule.destinations) else { continue };
        let ends = destination_subnets.is_empty();
        routes.push(L4Route { server_names: Vec::new(), destination_subnets, cluster });
        if ends {
            break;
        }
    }
    routes
}

/// The addresses that a rule holds for, empty for all of them; `None` if no condition holds.
fn subnets(binding: &Binding<'_>, rule: &TcpRule) -> Option<Vec<String>> {
    if rule.conditions.is_empty() {
        return Some(Vec::new());
    }
    let mut subnets = Vec::new();
    for condition in rule.conditions.iter().filter(|c| binding.admits(&c.callers)) {
        if condition.destination_subnets.is_empty() {
            return Some(Vec::new());
        }
        subnets.extend(condition.destination_subnets.iter().cloned());
    }
    (!subnets.is_empty()).then_some(subnets)
}

/// Server names with the destination of their connections. Of two routes for one name the first counts.
pub(crate) fn tls(binding: &Binding<'_>) -> Vec<(Vec<String>, ClusterSpecifier)> {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut chosen = Vec::new();
    for route in tls_routes(binding) {
        let names: Vec<String> =
            route.server_names.into_iter().filter(|name| taken.insert(name.clone())).collect();
        if !names.is_empty() {
            chosen.push((names, route.cluster));
        }
    }
    chosen
}

/// The TLS routes that hold, one for each condition; of two for the same names and addresses the first.
pub(crate) fn tls_routes(binding: &Binding<'_>) -> Vec<L4Route> {
    let rules = binding.virtual_service.rules.tls.iter();
    let conditions = rules.flat_map(|rule| rule.conditions.iter().map(move |c| (c, &rule.destinations)));
    let mut taken = BTreeSet::new();
    let mut routes = Vec::new();
    for (condition, destinations) in conditions {
        let holds = binding.admits(&condition.callers);
        let Some(cluster) = weighted(binding, destinations).filter(|_| holds) else { continue };
        if taken.insert((&condition.server_names, &condition.destination_subnets)) {
            routes.push(L4Route {
                server_names: condition.server_names.clone(),
                destination_subnets: condition.destination_subnets.clone(),
                cluster,
            });
        }
    }
    routes
}

/// `None` when no destination has any weight.
fn weighted(binding: &Binding<'_>, destinations: &[L4Destination]) -> Option<ClusterSpecifier> {
    let name = |d: &L4Destination| destination_cluster(binding, &d.destination);
    if let [only] = destinations {
        return Some(ClusterSpecifier::Cluster(name(only)));
    }
    let weighty = destinations.iter().filter(|d| d.weight > 0);
    let clusters: Vec<ClusterWeight> =
        weighty.map(|d| ClusterWeight { name: name(d), weight: d.weight, ..Default::default() }).collect();
    (!clusters.is_empty()).then(|| ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }))
}
