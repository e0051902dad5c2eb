//! `Forward` from `RouteAction`: where a request goes, and how it changes on the way.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use meltemi_envoy::config::core::v3::RoutingPriority;
use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::route_action::{ClusterNotFoundResponseCode, MaxStreamDuration};

use super::build::Inherited;
use super::cluster::cluster_choice;
use super::internal_redirect::internal_redirect;
use super::mirror::mirrors;
use super::retry_policy::retry_policy;
use super::rewrite::{HostRewrite, PathFields, PathRewrite, host_rewrite};
use super::upgrade::upgrades;
use super::{Forward, StreamDuration, Upgrades};
use crate::choice::{ClusterChoice, ClusterName};
use crate::hash_policy::{HashPolicies, hash_policies};
use crate::ledger::{At, refuse};
use crate::matcher::PathMatcher;
use crate::metadata_match::metadata_match;

/// `timeout` when it is not set.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);

/// What `non_forwarding_action` does at the end of the filters: Envoy's router finds no cluster.
pub(super) fn nowhere(above: &Inherited) -> Forward {
    Forward {
        cluster: ClusterChoice::One(ClusterName::Fixed("".into())),
        cluster_not_found: StatusCode::SERVICE_UNAVAILABLE,
        timeout: Some(ROUTE_TIMEOUT),
        idle_timeout: None,
        max_grpc_timeout: None,
        grpc_timeout_offset: None,
        stream_duration: None,
        retry: above.retry.clone(),
        path_rewrite: PathRewrite::Keep,
        host_rewrite: HostRewrite::None,
        append_x_forwarded_host: false,
        hash: HashPolicies::default(),
        metadata_match: None,
        mirrors: Vec::new(),
        high_priority: false,
        upgrades: Upgrades::default(),
        internal_redirect: None,
        buffer_limit: None,
    }
}

/// Compiles the route action of a route that matches `path`.
pub(super) fn forward(
    at: &At<'_>,
    message: &proto::RouteAction,
    path: Option<&PathMatcher>,
    above: &Inherited,
) -> Option<Forward> {
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
    refuse!(at; flush_timeout, early_data_policy, retry_policy_typed_config, rate_limits, cors);
    refuse!(at; internal_redirect_action, max_internal_redirects, hedge_policy);
    at.refuse_true("include_vh_rate_limits", *include_vh_rate_limits);
    let path_fields = PathFields {
        prefix_rewrite,
        regex_rewrite: regex_rewrite.as_ref(),
        path_rewrite_policy: path_rewrite_policy.as_ref(),
        path_rewrite,
    };
    let path_rewrite = path_fields.compile(at, path);
    let own_retry = retry.as_ref().and_then(|policy| retry_policy(&at.field("retry_policy"), policy));
    let mirrors = mirrors(at, request_mirror_policies);
    let host_rewrite = host_rewrite(at, host_rewrite_specifier.as_ref());
    let metadata_match = metadata_match(at, criteria);
    let redirects = internal_redirect_policy.as_ref();
    Some(Forward {
        cluster: cluster_choice(at, cluster_specifier.as_ref(), metadata_match.as_ref())?,
        cluster_not_found: not_found_status(at, *cluster_not_found_response_code)?,
        // Read in any case, so that a bad value is refused.
        timeout: at
            .timeout("timeout", timeout, Some(ROUTE_TIMEOUT))
            .filter(|_| max_stream_duration.is_none()),
        idle_timeout: at.duration("idle_timeout", idle_timeout),
        max_grpc_timeout: at.duration("max_grpc_timeout", max_grpc_timeout),
        grpc_timeout_offset: at.duration("grpc_timeout_offset", grpc_timeout_offset),
        stream_duration: max_stream_duration
            .as_ref()
            .map(|duration| Box::new(stream_duration(&at.field("max_stream_duration"), duration))),
        retry: own_retry.map(Arc::new).or_else(|| above.retry.clone()),
        path_rewrite: path_rewrite?,
        host_rewrite: host_rewrite?,
        append_x_forwarded_host: *append_x_forwarded_host,
        hash: hash_policies(at, hash_policy),
        metadata_match,
        mirrors: if mirrors.is_empty() { above.mirrors.clone() } else { mirrors },
        high_priority: at.choice::<RoutingPriority>("priority", *priority)? == RoutingPriority::High,
        upgrades: upgrades(at, upgrade_configs),
        internal_redirect: redirects
            .map(|policy| Box::new(internal_redirect(&at.field("internal_redirect_policy"), policy))),
        buffer_limit: above.buffer_limit,
    })
}

fn not_found_status(at: &At<'_>, code: i32) -> Option<StatusCode> {
    Some(match at.choice("cluster_not_found_response_code", code)? {
        ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
        ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

fn stream_duration(at: &At<'_>, message: &MaxStreamDuration) -> StreamDuration {
    let MaxStreamDuration { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset } =
        message;
    StreamDuration {
        limit: at.duration("max_stream_duration", max_stream_duration),
        grpc_max: at.duration("grpc_timeout_header_max", grpc_timeout_header_max),
        grpc_offset: at
            .duration("grpc_timeout_header_offset", grpc_timeout_header_offset)
            .unwrap_or_default(),
    }
}
