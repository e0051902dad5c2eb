//! `ClusterChoice` from `cluster_specifier`.

use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::route_action::ClusterSpecifier;
use meltemi_envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier;
use meltemi_envoy::config::route::v3::weighted_cluster::{ClusterWeight, RandomValueSpecifier};

use super::RouteEdits;
use crate::choice::{ClusterChoice, ClusterName, PointSource, WeightedCluster, WeightedClusters};
use crate::filter::per_filter_configs;
use crate::header_edit::{Fields, header_edits};
use crate::ledger::{At, harmless};
use crate::matcher::header_subject;
use crate::metadata_match::{MetadataMatch, metadata_match};

/// Compiles where a route sends its requests; `criteria` are those of the route.
pub(super) fn cluster_choice(
    at: &At<'_>,
    specifier: Option<&ClusterSpecifier>,
    criteria: Option<&MetadataMatch>,
) -> Option<ClusterChoice> {
    match specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            at.required("cluster", name);
            Some(ClusterChoice::One(ClusterName::Fixed(name.as_str().into())))
        }
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            let subject = header_subject(at, "cluster_header", name)?;
            Some(ClusterChoice::One(ClusterName::Header(subject)))
        }
        Some(ClusterSpecifier::WeightedClusters(clusters)) => {
            weighted_clusters(&at.field("weighted_clusters"), clusters, criteria)
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => {
            at.field("cluster_specifier_plugin").none("not supported yet")
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            at.field("inline_cluster_specifier_plugin").none("not supported yet")
        }
        None => at.none("a cluster specifier must be set"),
    }
}

/// A cluster by `name` or by a header, exactly one of them.
pub(super) fn name_or_header(
    at: &At<'_>,
    (field, name): (&'static str, &str),
    header: &str,
) -> Option<ClusterName> {
    match (name.is_empty(), header.is_empty()) {
        (false, true) => Some(ClusterName::Fixed(name.into())),
        (true, false) => header_subject(at, "cluster_header", header).map(ClusterName::Header),
        (true, true) => at.field(field).none("must not be empty, unless cluster_header is set"),
        (false, false) => at.field("cluster_header").none(format_args!("must not be set beside {field}")),
    }
}

fn weighted_clusters(
    at: &At<'_>,
    message: &proto::WeightedCluster,
    criteria: Option<&MetadataMatch>,
) -> Option<ClusterChoice> {
    let proto::WeightedCluster { clusters, total_weight, runtime_key_prefix, random_value_specifier } =
        message;
    harmless!(RuntimeKey; runtime_key_prefix);
    // Envoy 1.40 adds up the weights itself and takes any value here.
    harmless!(Deprecated; total_weight);
    let point = match random_value_specifier {
        Some(RandomValueSpecifier::HeaderName(name)) if !name.is_empty() => {
            PointSource::Header(at.header_name("header_name", name)?)
        }
        Some(RandomValueSpecifier::UseHashPolicy(true)) => PointSource::HashPolicy,
        Some(RandomValueSpecifier::HeaderName(_) | RandomValueSpecifier::UseHashPolicy(false)) | None => {
            PointSource::Random
        }
    };
    let entries = at.each("clusters", clusters, |at, entry| cluster_weight(at, entry, criteria));
    let total: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
    let at_clusters = at.field("clusters");
    if entries.len() < clusters.len() {
        return None;
    }
    let Ok(total) = u32::try_from(total) else {
        return at_clusters.none(format_args!("sum of weights {total} exceeds {}", u32::MAX));
    };
    if total == 0 {
        return at_clusters.none("sum of weights in the weighted_cluster must be greater than 0");
    }
    let has_filters = entries.iter().any(|entry| !entry.filters.is_empty());
    Some(ClusterChoice::Weighted(Box::new(WeightedClusters { entries, total, point, has_filters })))
}

fn cluster_weight(
    at: &At<'_>,
    message: &ClusterWeight,
    criteria: Option<&MetadataMatch>,
) -> Option<WeightedCluster> {
    let ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match: own_criteria,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = message;
    let edits = RouteEdits {
        request: header_edits(at, &Fields::REQUEST, request_headers_to_add, request_headers_to_remove),
        response: header_edits(at, &Fields::RESPONSE, response_headers_to_add, response_headers_to_remove),
    };
    let host_rewrite = match host_rewrite_specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => at.header_value("host_rewrite_literal", host),
        None => None,
    };
    let metadata_match = match (criteria, metadata_match(at, own_criteria)) {
        (Some(route), Some(own)) => Some(route.merged(&own)),
        (route, own) => own.or_else(|| route.cloned()),
    };
    let cluster = name_or_header(at, ("name", name), cluster_header)?;
    let Some(weight) = *weight else { return at.field("weight").none("must be set") };
    let filters = per_filter_configs(at, typed_per_filter_config);
    Some(WeightedCluster { cluster, metadata_match, weight, edits, host_rewrite, filters })
}
