//! TCP and TLS routes of a VirtualService.
//!
//! Source: Istio `pilot/pkg/networking/core/networkfilter.go`, `tls.go`.

use std::collections::BTreeSet;

use meltemi_api::istio::{L4MatchAttributes, RouteDestination, TlsMatchAttributes};
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};

use crate::route::{Binding, Source, destination_cluster};

/// The destination of the first TCP route that holds; `None` when there is none, or none with weight.
pub(crate) fn tcp(binding: &Binding<'_>) -> Option<ClusterSpecifier> {
    let holds = |m: &L4MatchAttributes| binding.admits(&source_of_tcp(m));
    let mut routes = binding.virtual_service.spec().tcp.iter();
    let route = routes.find(|r| r.matches.is_empty() || r.matches.iter().any(holds))?;
    weighted(binding, &route.route)
}

/// Server names with the destination of their connections. Of two routes for one name the first counts.
pub(crate) fn tls(binding: &Binding<'_>) -> Vec<(Vec<String>, ClusterSpecifier)> {
    let routes = binding.virtual_service.spec().tls.iter();
    let conditions = routes.flat_map(|route| route.matches.iter().map(move |m| (m, &route.route)));
    let mut taken: BTreeSet<&String> = BTreeSet::new();
    let mut chosen = Vec::new();
    for (condition, destinations) in conditions {
        let holds = binding.admits(&source_of_tls(condition));
        let Some(destination) = weighted(binding, destinations).filter(|_| holds) else { continue };
        let names: Vec<String> = condition.sni_hosts.iter().filter(|n| taken.insert(n)).cloned().collect();
        if !names.is_empty() {
            chosen.push((names, destination));
        }
    }
    chosen
}

/// `None` when no destination has any weight.
fn weighted(binding: &Binding<'_>, destinations: &[RouteDestination]) -> Option<ClusterSpecifier> {
    let namespace = binding.virtual_service.namespace();
    let name =
        |d: &RouteDestination| destination_cluster(binding.context, namespace, &d.destination, binding.port);
    if let [only] = destinations {
        return Some(ClusterSpecifier::Cluster(name(only)));
    }
    let weigh = |d: &RouteDestination| {
        let weight = u32::try_from(d.weight.unwrap_or(0)).ok().filter(|w| *w > 0)?;
        Some(ClusterWeight { name: name(d), weight, ..Default::default() })
    };
    let clusters: Vec<ClusterWeight> = destinations.iter().filter_map(weigh).collect();
    (!clusters.is_empty()).then(|| ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }))
}

fn source_of_tcp(m: &L4MatchAttributes) -> Source<'_> {
    Source {
        port: m.port,
        gateways: &m.gateways,
        labels: &m.source_labels,
        namespace: m.source_namespace.as_deref(),
    }
}

fn source_of_tls(m: &TlsMatchAttributes) -> Source<'_> {
    Source {
        port: m.port,
        gateways: &m.gateways,
        labels: &m.source_labels,
        namespace: m.source_namespace.as_deref(),
    }
}
