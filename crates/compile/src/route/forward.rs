//! `Forward` from `RouteAction`: where a request goes, and how it changes on the way.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use meltemi_envoy::config::core::v3::RoutingPriority;
use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration,
    RequestMirrorPolicy,
};
use meltemi_envoy::config::route::v3::weighted_cluster::ClusterWeight;
use meltemi_envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as EntryRewrite;

use super::build::Inherited;
use super::retry_policy::retry_policy;
use super::upgrade::upgrades;
use super::{ClusterChoice, Forward, HostRewrite, Mirror, RouteEdits, WeightedCluster};
use crate::filter::per_filter_configs;
use crate::hash_policy::hash_policies;
use crate::header_edit::{Fields, header_edits};
use crate::ledger::{At, harmless, refuse};
use crate::matcher::rewrite_pattern;
use crate::metadata_match::{MetadataMatch, metadata_match};
use crate::scalar::{WHOLE_PPM, runtime_fraction_ppm};

/// `timeout` when it is not set.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);

/// Compiles a route action.
pub(super) fn forward(at: &At<'_>, message: &proto::RouteAction, above: &Inherited) -> Option<Forward> {
    let proto::RouteAction {
        cluster_not_found_response_code,
        metadata_match: criteria,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy: retry,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = message;
    refuse!(at; path_rewrite_policy, path_rewrite, flush_timeout, early_data_policy);
    refuse!(at; retry_policy_typed_config, rate_limits, cors, grpc_timeout_offset);
    refuse!(at; internal_redirect_policy, internal_redirect_action);
    refuse!(at; max_internal_redirects, hedge_policy);
    at.refuse_true("include_vh_rate_limits", *include_vh_rate_limits);
    at.header_value("prefix_rewrite", prefix_rewrite);
    if !prefix_rewrite.is_empty() && regex_rewrite.is_some() {
        at.field("regex_rewrite").reject("must not be set beside prefix_rewrite");
    }
    let regex_rewrite = regex_rewrite.as_ref().map(|r| rewrite_pattern(&at.field("regex_rewrite"), r));
    let own_retry = retry.as_ref().and_then(|policy| retry_policy(&at.field("retry_policy"), policy));
    let mirrors = mirrors(at, request_mirror_policies);
    let host_rewrite = host_rewrite(at, host_rewrite_specifier.as_ref());
    let metadata_match = metadata_match(at, criteria);
    Some(Forward {
        cluster: cluster_choice(at, cluster_specifier.as_ref(), metadata_match.as_ref())?,
        cluster_not_found: match at
            .choice("cluster_not_found_response_code", *cluster_not_found_response_code)?
        {
            ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        },
        // Read in any case, so that a bad value is refused.
        timeout: at
            .timeout("timeout", timeout, Some(ROUTE_TIMEOUT))
            .filter(|_| max_stream_duration.is_none()),
        idle_timeout: at.duration("idle_timeout", idle_timeout),
        max_grpc_timeout: grpc_timeout(at, max_grpc_timeout, max_stream_duration.as_ref()),
        uses_stream_duration: max_stream_duration.is_some(),
        retry: own_retry.map(Arc::new).or_else(|| above.retry.clone()),
        prefix_rewrite: (!prefix_rewrite.is_empty()).then(|| prefix_rewrite.as_str().into()),
        regex_rewrite: regex_rewrite.flatten(),
        host_rewrite: host_rewrite?,
        append_x_forwarded_host: *append_x_forwarded_host,
        hash: hash_policies(at, hash_policy),
        metadata_match,
        mirrors: if mirrors.is_empty() { above.mirrors.clone() } else { mirrors },
        high_priority: at.choice::<RoutingPriority>("priority", *priority)? == RoutingPriority::High,
        upgrades: upgrades(at, upgrade_configs),
    })
}

/// How far `grpc-timeout` is honoured, by the new field or the old one. The limit of the stream itself must be
/// off.
fn grpc_timeout(
    at: &At<'_>,
    max_grpc_timeout: &Option<prost_types::Duration>,
    max_stream_duration: Option<&MaxStreamDuration>,
) -> Option<Duration> {
    let old = at.duration("max_grpc_timeout", max_grpc_timeout);
    let Some(message) = max_stream_duration else { return old };
    let at = at.field("max_stream_duration");
    let MaxStreamDuration { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset } =
        message;
    refuse!(at; grpc_timeout_header_offset);
    if at.timeout("max_stream_duration", max_stream_duration, None).is_some() {
        at.field("max_stream_duration").reject("not supported yet: only 0");
    }
    at.duration("grpc_timeout_header_max", grpc_timeout_header_max).or(old)
}

fn host_rewrite(at: &At<'_>, specifier: Option<&HostRewriteSpecifier>) -> Option<HostRewrite> {
    match specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(
            at.header_value("host_rewrite_literal", host).map_or(HostRewrite::None, HostRewrite::Literal),
        ),
        Some(HostRewriteSpecifier::AutoHostRewrite(true)) => Some(HostRewrite::Auto),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) if !name.is_empty() => {
            at.header_name("host_rewrite_header", name).map(HostRewrite::Header)
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => {
            at.field("host_rewrite_path_regex").none("not supported yet")
        }
        Some(HostRewriteSpecifier::HostRewrite(text)) => {
            at.refuse("host_rewrite", text);
            Some(HostRewrite::None)
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(false) | HostRewriteSpecifier::HostRewriteHeader(_))
        | None => Some(HostRewrite::None),
    }
}

/// Compiles mirrors.
pub(super) fn mirrors(at: &At<'_>, policies: &[RequestMirrorPolicy]) -> Vec<Mirror> {
    at.each("request_mirror_policies", policies, |at, policy| {
        let RequestMirrorPolicy {
            cluster,
            cluster_header,
            runtime_fraction,
            trace_sampled,
            disable_shadow_host_suffix_append,
            request_headers_mutations,
            host_rewrite_literal,
        } = policy;
        refuse!(at; cluster_header, request_headers_mutations, host_rewrite_literal);
        harmless!(NoTracing; trace_sampled);
        at.required("cluster", cluster);
        let fraction_ppm = runtime_fraction_ppm(&at.field("runtime_fraction"), runtime_fraction);
        Some(Mirror {
            cluster: cluster.as_str().into(),
            fraction_ppm: fraction_ppm.unwrap_or(WHOLE_PPM),
            appends_shadow: !disable_shadow_host_suffix_append,
        })
    })
}

fn cluster_choice(
    at: &At<'_>,
    specifier: Option<&ClusterSpecifier>,
    criteria: Option<&MetadataMatch>,
) -> Option<ClusterChoice> {
    match specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            at.required("cluster", name);
            Some(ClusterChoice::One(name.as_str().into()))
        }
        Some(ClusterSpecifier::ClusterHeader(name)) => cluster_header(at, name),
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

fn cluster_header(at: &At<'_>, name: &str) -> Option<ClusterChoice> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return at.field("cluster_header").none("not supported yet: a pseudo header");
    }
    at.header_name("cluster_header", name).map(|name: HeaderName| ClusterChoice::Header(name))
}

fn weighted_clusters(
    at: &At<'_>,
    message: &proto::WeightedCluster,
    criteria: Option<&MetadataMatch>,
) -> Option<ClusterChoice> {
    let proto::WeightedCluster { clusters, total_weight, runtime_key_prefix, random_value_specifier } =
        message;
    refuse!(at; random_value_specifier);
    harmless!(RuntimeKey; runtime_key_prefix);
    // Envoy 1.40 adds up the weights itself and takes any value here.
    harmless!(Deprecated; total_weight);
    let entries = at.each("clusters", clusters, |at, entry| cluster_weight(at, entry, criteria));
    let total: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
    let at_clusters = at.field("clusters");
    if entries.len() < clusters.len() {
        return None;
    }
    let Ok(sum) = u32::try_from(total) else {
        return at_clusters.none(format_args!("sum of weights {total} exceeds {}", u32::MAX));
    };
    if sum == 0 {
        return at_clusters.none("sum of weights in the weighted_cluster must be greater than 0");
    }
    Some(ClusterChoice::Weighted(entries, sum))
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
    refuse!(at; cluster_header);
    at.required("name", name);
    let edits = RouteEdits {
        request: header_edits(at, &Fields::REQUEST, request_headers_to_add, request_headers_to_remove),
        response: header_edits(at, &Fields::RESPONSE, response_headers_to_add, response_headers_to_remove),
    };
    let host_rewrite = match host_rewrite_specifier {
        Some(EntryRewrite::HostRewriteLiteral(host)) => at.header_value("host_rewrite_literal", host),
        None => None,
    };
    let Some(weight) = *weight else { return at.field("weight").none("must be set") };
    let metadata_match = match (criteria, metadata_match(at, own_criteria)) {
        (Some(route), Some(own)) => Some(route.merged(&own)),
        (route, own) => own.or_else(|| route.cloned()),
    };
    let filters = per_filter_configs(at, typed_per_filter_config);
    Some(WeightedCluster { name: name.as_str().into(), metadata_match, weight, edits, host_rewrite, filters })
}
