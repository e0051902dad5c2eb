//! What a route does: forward, redirect or answer.
//!
//! Source: Istio `applyHTTPRouteDestination`, `ApplyRedirect`, `ApplyDirectResponse`, `GetDestinationCluster`.

use meltemi_api::istio::ConsistentHashLb;
use meltemi_envoy::config::core::v3::{DataSource, RuntimeFractionalPercent, data_source::Specifier};
use meltemi_envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use meltemi_envoy::config::route::v3::route::Action;
use meltemi_envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
};
use meltemi_envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use meltemi_envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteAction, WeightedCluster,
};
use meltemi_envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use meltemi_envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use meltemi_snapshot::route::{
    Body, Destination, DirectResponse, Forward, HttpAction, HttpRule, PathRewrite, Redirect, RedirectPath,
    RedirectPort, Rewrite, Weighted,
};

use crate::message::{UNLIMITED, duration};
use crate::names::{BLACK_HOLE_CLUSTER, outbound_cluster};
use crate::route::headers::Edits;
use crate::route::{Binding, hash, retry};

/// Writes the action of a rule, and the header changes that go with it, into the route.
pub(super) fn apply(binding: &Binding<'_>, rule: &HttpRule, route: &mut Route) {
    let edits = Edits::of(&rule.headers);
    let authority = edits.authority.clone();
    route.request_headers_to_add = edits.request_add;
    route.request_headers_to_remove = edits.request_remove;
    route.response_headers_to_add = edits.response_add;
    route.response_headers_to_remove = edits.response_remove;
    route.action = Some(match &rule.action {
        HttpAction::Redirect(redirect) => Action::Redirect(redirection(binding, redirect)),
        HttpAction::Respond(response) => Action::DirectResponse(direct_response(response)),
        HttpAction::Forward(onward) => Action::Route(forward(binding, onward, authority, route)),
    });
}

#[expect(deprecated, reason = "Istio bounds grpc-timeout with max_grpc_timeout")]
fn forward(
    binding: &Binding<'_>,
    onward: &Forward,
    authority: Option<String>,
    route: &mut Route,
) -> RouteAction {
    let timeout = onward.timeout.map_or(UNLIMITED, duration);
    let retries = onward.retries.as_ref().or(binding.context.snapshot.config.mesh.retries.as_ref());
    let hashes = hashes(binding, onward);
    let is_hashed = onward.destinations.len() == 1 && !hashes.is_empty();
    let mut action = RouteAction {
        timeout: Some(timeout),
        max_grpc_timeout: Some(timeout),
        retry_policy: retry::policy(retries, is_hashed),
        hash_policy: hashes.into_iter().filter_map(hash::policy).collect(),
        request_mirror_policies: mirrors(binding, onward),
        host_rewrite_specifier: authority.map(HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    };
    rewrite(&onward.rewrite, &mut action);
    action.cluster_specifier = Some(match onward.destinations.as_slice() {
        [only] => ClusterSpecifier::Cluster(single(binding, only, route, &mut action)),
        several => weighted(binding, several),
    });
    action
}

/// What requests are known by, for each destination that gets any.
fn hashes<'a>(binding: &Binding<'a>, onward: &Forward) -> Vec<&'a ConsistentHashLb> {
    let is_only = onward.destinations.len() == 1;
    let chosen = onward.destinations.iter().filter(|weighted| is_only || weighted.weight > 0);
    chosen.filter_map(|weighted| hash::of_destination(binding.context, &weighted.destination)).collect()
}

/// The header changes of an only destination are those of the route. Its authority counts where the route has none, as
/// it would among several.
fn single(binding: &Binding<'_>, only: &Weighted, route: &mut Route, action: &mut RouteAction) -> String {
    let edits = Edits::of(&only.headers);
    route.request_headers_to_add.extend(edits.request_add);
    route.request_headers_to_remove.extend(edits.request_remove);
    route.response_headers_to_add.extend(edits.response_add);
    route.response_headers_to_remove.extend(edits.response_remove);
    if action.host_rewrite_specifier.is_none() {
        action.host_rewrite_specifier = edits.authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    }
    destination_cluster(binding, &only.destination)
}

/// Destinations without weight are left out. Envoy refuses a sum of zero, so such a route leads nowhere, which the
/// snapshot has reported.
fn weighted(binding: &Binding<'_>, destinations: &[Weighted]) -> ClusterSpecifier {
    let clusters: Vec<ClusterWeight> =
        destinations.iter().filter(|d| d.weight > 0).map(|d| cluster_weight(binding, d)).collect();
    if clusters.is_empty() {
        return ClusterSpecifier::Cluster(BLACK_HOLE_CLUSTER.to_owned());
    }
    ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..Default::default() })
}

fn cluster_weight(binding: &Binding<'_>, weighted: &Weighted) -> ClusterWeight {
    let edits = Edits::of(&weighted.headers);
    ClusterWeight {
        name: destination_cluster(binding, &weighted.destination),
        weight: Some(weighted.weight),
        request_headers_to_add: edits.request_add,
        request_headers_to_remove: edits.request_remove,
        response_headers_to_add: edits.response_add,
        response_headers_to_remove: edits.response_remove,
        host_rewrite_specifier: edits.authority.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    }
}

/// The cluster of a destination. Without a port it is the service's only one, else the port that was called. An unknown
/// service has a name all the same: no cluster, so 503.
pub(crate) fn destination_cluster(binding: &Binding<'_>, destination: &Destination) -> String {
    let only_port = || match binding.context.scope.service(&destination.host)?.ports.as_slice() {
        [only] if !binding.is_of_one_port => Some(only.number),
        _ => None,
    };
    let port = destination.port.or_else(only_port).unwrap_or(binding.port);
    outbound_cluster(port, &destination.subset, &destination.host)
}

fn rewrite(rewriting: &Rewrite, action: &mut RouteAction) {
    match &rewriting.path {
        Some(PathRewrite::Prefix(prefix)) => action.prefix_rewrite.clone_from(prefix),
        Some(PathRewrite::Regex { pattern, substitution }) => {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(RegexMatcher { regex: pattern.clone(), ..Default::default() }),
                substitution: substitution.clone(),
            });
        }
        None => {}
    }
    if let Some(authority) = &rewriting.authority {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority.clone()));
    }
}

/// A mirror without share gets nothing.
fn mirrors(binding: &Binding<'_>, onward: &Forward) -> Vec<RequestMirrorPolicy> {
    let mirrors = onward.mirrors.iter().filter(|mirror| mirror.percent > 0.0);
    mirrors
        .map(|mirror| RequestMirrorPolicy {
            cluster: destination_cluster(binding, &mirror.destination),
            runtime_fraction: Some(RuntimeFractionalPercent {
                default_value: Some(fraction(mirror.percent)),
                ..Default::default()
            }),
            trace_sampled: Some(false),
            disable_shadow_host_suffix_append: true,
            ..Default::default()
        })
        .collect()
}

/// Percent to parts per million.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 100 percent was checked by api"
)]
pub(super) fn fraction(percent: f64) -> FractionalPercent {
    FractionalPercent {
        numerator: (percent * 10_000.0).round() as u32,
        denominator: DenominatorType::Million as i32,
    }
}

/// Envoy derives default ports by itself; the port of the request is known here. A port that the scheme implies is not
/// written out.
fn redirection(binding: &Binding<'_>, redirect: &Redirect) -> RedirectAction {
    let path = redirect.path.as_ref().map(|path| match path {
        RedirectPath::Whole(path) => PathRewriteSpecifier::PathRedirect(path.clone()),
        RedirectPath::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix.clone()),
    });
    let port = match redirect.port {
        Some(RedirectPort::Number(port)) => port,
        Some(RedirectPort::OfRequest) => binding.port,
        Some(RedirectPort::OfScheme) | None => 0,
    };
    let scheme = match redirect.scheme.as_str() {
        "" if binding.terminates_tls() => "https",
        "" => "http",
        scheme => scheme,
    };
    let is_implied = matches!((port, scheme), (80, "http") | (443, "https"));
    let scheme = Some(&redirect.scheme).filter(|scheme| !scheme.is_empty());
    RedirectAction {
        host_redirect: redirect.authority.clone(),
        path_rewrite_specifier: path,
        scheme_rewrite_specifier: scheme.map(|s| SchemeRewriteSpecifier::SchemeRedirect(s.clone())),
        port_redirect: if is_implied { 0 } else { port.into() },
        response_code: redirect_code(redirect.code) as i32,
        ..Default::default()
    }
}

/// Codes that Envoy has none for were refused by `api`.
fn redirect_code(code: u16) -> RedirectResponseCode {
    match code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    }
}

fn direct_response(response: &DirectResponse) -> DirectResponseAction {
    let specifier = response.body.as_ref().map(|body| match body {
        Body::Text(text) => Specifier::InlineString(text.clone()),
        Body::Bytes(bytes) => Specifier::InlineBytes(bytes.clone().into()),
    });
    DirectResponseAction {
        status: response.status,
        body: specifier.map(|s| DataSource { specifier: Some(s), ..Default::default() }),
        ..Default::default()
    }
}
