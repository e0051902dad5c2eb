//! What a DestinationRule says of a TCP proxy: times, the host by the caller's address, and the HTTP proxy in between.
//! Only what is said for all ports counts, and for a subset only what the subset says.
//!
//! Source: Istio `pilot/pkg/networking/core/networkfilter.go` (`maybeSetHashPolicy`), `tunnelingconfig`.

use meltemi_api::istio::TunnelSettings;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TunnelingConfig,
};
use meltemi_envoy::r#type::v3::HashPolicy;
use meltemi_envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};
use meltemi_snapshot::{DestinationRule, Host};

use crate::context::Context;
use crate::message::duration;
use crate::names;

/// The protocol of a tunnel that is asked for by POST.
const POST: &str = "POST";

/// The rule in force for the first of the destinations.
pub(crate) fn of<'a>(
    context: &'a Context<'_>,
    destination: &ClusterSpecifier,
) -> Option<&'a DestinationRule> {
    let cluster = match destination {
        ClusterSpecifier::Cluster(name) => name,
        ClusterSpecifier::WeightedClusters(weighted) => &weighted.clusters.first()?.name,
    };
    let service = context.scope.service(&Host::new(names::host(cluster)))?;
    context.scope.destination_rule(service).map(|rule| &**rule)
}

/// Writes the rule of a proxy's service into it. Where there are several destinations, none of them is a subset.
pub(crate) fn apply(rule: Option<&DestinationRule>, proxy: &mut TcpProxy) {
    let Some(rule) = rule else { return };
    let subset = match &proxy.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => names::subset(name).to_owned(),
        _ => String::new(),
    };
    let pool = rule.traffic_policy().and_then(|policy| policy.connection_pool.as_ref());
    if let Some(tcp) = pool.and_then(|pool| pool.tcp.as_ref()) {
        proxy.idle_timeout = tcp.idle_timeout.map(duration);
        proxy.max_downstream_connection_duration = tcp.max_connection_duration.map(duration);
    }
    if hashes_source(rule, &subset) {
        let source = PolicySpecifier::SourceIp(SourceIp {});
        proxy.hash_policy = vec![HashPolicy { policy_specifier: Some(source) }];
    }
    proxy.tunneling_config = rule.tunnel(&subset).map(tunneling);
}

/// A subset with a load balancer of its own decides.
fn hashes_source(rule: &DestinationRule, subset: &str) -> bool {
    let of_subset =
        rule.subset(subset).and_then(|subset| subset.traffic_policy.as_ref()?.load_balancer.as_ref());
    let settings = of_subset.or_else(|| rule.traffic_policy()?.load_balancer.as_ref());
    let hash = settings.and_then(|settings| settings.consistent_hash.as_ref());
    hash.is_some_and(|hash| hash.use_source_ip == Some(true))
}

fn tunneling(tunnel: &TunnelSettings) -> TunnelingConfig {
    let host = names::bracketed(&tunnel.target_host);
    TunnelingConfig {
        hostname: format!("{host}:{}", tunnel.target_port),
        use_post: tunnel.protocol.as_deref() == Some(POST),
        ..Default::default()
    }
}
