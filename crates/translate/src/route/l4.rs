//! TCP and TLS routes: where connections go that nobody looks into.
//!
//! Source: Istio `pilot/pkg/networking/core/networkfilter.go`, `tls.go`.

use std::collections::BTreeSet;

use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use meltemi_snapshot::route::{Callers, L4Destination, TcpRule};

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
        let Some(destination_subnets) = subnets_of_rule(binding, rule) else { continue };
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
fn subnets_of_rule(binding: &Binding<'_>, rule: &TcpRule) -> Option<Vec<String>> {
    if rule.conditions.is_empty() {
        return Some(Vec::new());
    }
    let mut all = Vec::new();
    for condition in rule.conditions.iter().filter(|c| admits(binding, &c.callers)) {
        let own = subnets(binding, &condition.destination_subnets);
        if own.is_empty() {
            return Some(Vec::new());
        }
        all.extend_from_slice(own);
    }
    (!all.is_empty()).then_some(all)
}

/// Whether connections may take a route. A gateway looks only at where they arrive, not at who makes them.
fn admits(binding: &Binding<'_>, callers: &Callers) -> bool {
    if binding.context.is_gateway() { binding.is_called(callers) } else { binding.admits(callers) }
}

/// Connections to a gateway are addressed to the gateway, whatever they are for.
fn subnets<'a>(binding: &Binding<'_>, destination_subnets: &'a [String]) -> &'a [String] {
    if binding.context.is_gateway() { &[] } else { destination_subnets }
}

/// Server names with the destination of their connections, whatever address is called. Of two routes for one name the
/// first counts.
pub(crate) fn tls(binding: &Binding<'_>) -> Vec<(Vec<String>, ClusterSpecifier)> {
    let routes = tls_routes(binding).into_iter().filter(|route| route.destination_subnets.is_empty());
    routes.map(|route| (route.server_names, route.cluster)).collect()
}

/// The TLS routes that hold, one for each condition. Of two for one name and the same addresses the first counts.
pub(crate) fn tls_routes(binding: &Binding<'_>) -> Vec<L4Route> {
    let rules = binding.virtual_service.rules.tls.iter();
    let conditions = rules.flat_map(|rule| rule.conditions.iter().map(move |c| (c, &rule.destinations)));
    let mut taken = BTreeSet::new();
    let mut routes = Vec::new();
    for (condition, destinations) in conditions {
        let holds = admits(binding, &condition.callers);
        let Some(cluster) = weighted(binding, destinations).filter(|_| holds) else { continue };
        let destination_subnets = subnets(binding, &condition.destination_subnets);
        let names = condition.server_names.iter().filter(|name| taken.insert((*name, destination_subnets)));
        let server_names: Vec<String> = names.cloned().collect();
        if !server_names.is_empty() {
            let destination_subnets = destination_subnets.to_vec();
            routes.push(L4Route { server_names, destination_subnets, cluster });
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
