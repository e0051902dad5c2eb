//! The filters behind an outbound port that is not looked into: one destination, or several with weights.
//!
//! Source: Istio `pilot/pkg/networking/core/networkfilter.go`.

use meltemi_api::Object;
use meltemi_envoy::config::listener::v3::Filter;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use meltemi_snapshot::{DestinationRule, Host};

use crate::connection_manager::tcp_filters;
use crate::context::Context;
use crate::names::outbound_cluster;
use crate::tcp_rule;

/// To a cluster with nothing special about it.
pub(crate) fn to_cluster(context: &Context<'_>, cluster: &str) -> Vec<Filter> {
    let proxy = TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    tcp_filters((context.shape, context.options), proxy, false)
}

/// To a port of a service, by its DestinationRule.
pub(crate) fn to_service(context: &Context<'_>, host: &Host, port: u16) -> Vec<Filter> {
    through(context, outbound_cluster(port, "", host), host)
}

/// To a port of a service through a cluster of its own.
pub(crate) fn through(context: &Context<'_>, cluster: String, host: &Host) -> Vec<Filter> {
    let proxy = TcpProxy {
        stat_prefix: cluster.clone(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        ..Default::default()
    };
    let rule = context.scope.service(host).and_then(|service| context.scope.destination_rule(service));
    with_rule(context, rule.map(|rule| &**rule), proxy, false)
}

/// To where a route leads; the DestinationRule of its first destination holds for all.
pub(crate) fn routed(
    context: &Context<'_>,
    virtual_service: &Object,
    destination: ClusterSpecifier,
) -> Vec<Filter> {
    routed_for(context, virtual_service, destination, false)
}

/// As [`routed`]; `exchanges` says whether clients may tell who they are.
pub(crate) fn routed_for(
    context: &Context<'_>,
    virtual_service: &Object,
    destination: ClusterSpecifier,
    exchanges: bool,
) -> Vec<Filter> {
    let id = &virtual_service.id;
    let stat_prefix = match &destination {
        ClusterSpecifier::Cluster(name) => name.clone(),
        ClusterSpecifier::WeightedClusters(_) => format!("{}.{}", id.name, id.namespace),
    };
    let proxy = TcpProxy { stat_prefix, cluster_specifier: Some(destination), ..Default::default() };
    limited(context, proxy, exchanges)
}

fn limited(context: &Context<'_>, proxy: TcpProxy, exchanges: bool) -> Vec<Filter> {
    let rule = proxy.cluster_specifier.as_ref().and_then(|destination| tcp_rule::of(context, destination));
    with_rule(context, rule, proxy, exchanges)
}

fn with_rule(
    context: &Context<'_>,
    rule: Option<&DestinationRule>,
    mut proxy: TcpProxy,
    exchanges: bool,
) -> Vec<Filter> {
    tcp_rule::apply(rule, &mut proxy);
    tcp_filters((context.shape, context.options), proxy, exchanges)
}
