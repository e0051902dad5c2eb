//! What a route does: forward, redirect or answer.
//!
//! Source: Istio `applyHTTPRouteDestination`, `ApplyRedirect`, `ApplyDirectResponse`, `GetDestinationCluster`.

use meltemi_api::istio::{
    DerivePort, Destination, HttpDirectResponse, HttpRedirect, HttpRewrite, HttpRoute, HttpRouteDestination,
    Percent,
};
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
use meltemi_snapshot::Host;

use crate::context::Context;
use crate::message::{UNLIMITED, duration};
use crate::names::{BLACK_HOLE_CLUSTER, outbound_cluster};
use crate::route::headers::Edits;
use crate::route::{Binding, retry};

/// Writes the action of a rule, and the header changes that go with it, into the route.
pub(super) fn apply(binding: &Binding<'_>, rule: &HttpRoute, route: &mut Route) {
    let edits = Edits::of(rule.headers.as_ref());
    let authority = edits.authority.clone();
    route.request_headers_to_add = edits.request_add;
    route.request_headers_to_remove = edits.request_remove;
    route.response_headers_to_add = edits.response_add;
    route.response_headers_to_remove = edits.response_remove;
    route.action = Some(if let Some(redirect) = &rule.redirect {
        Action::Redirect(redirection(redirect, binding.port))
    } else if let Some(response) = &rule.direct_response {
        Action::DirectResponse(direct_response(response))
    } else {
        Action::Route(forward(binding, rule, authority, route))
    });
}

#[expect(deprecated, reason = "Istio bounds grpc-timeout with max_grpc_timeout")]
fn forward(
    binding: &Binding<'_>,
    rule: &HttpRoute,
    authority: Option<String>,
    route: &mut Route,
) -> RouteAction {
    let timeout = rule.timeout.map_or(UNLIMITED, duration);
    let mut action = RouteAction {
        timeout: Some(timeout),
        max_grpc_timeout: Some(timeout),
        retry_policy: retry::policy(rule.retries.as_ref()),
        request_mirror_policies: mirrors(binding, rule),
        host_rewrite_specifier: authority.map(HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    };
    if let Some(rewriting) = &rule.rewrite {
        rewrite(rewriting, &mut action);
    }
    action.cluster_specifier = Some(match rule.route.as_slice() {
        [only] => ClusterSpecifier::Cluster(single(binding, only, route, &mut action)),
        several => weighted(binding, several),
    });
    action
}

/// The header changes of an only destination are those of the route.
fn single(
    binding: &Binding<'_>,
    only: &HttpRouteDestination,
    route: &mut Route,
    action: &mut RouteAction,
) -> String {
    let edits = Edits::of(only.headers.as_ref());
    route.request_headers_to_add.extend(edits.request_add);
    route.request_headers_to_remove.extend(edits.request_remove);
    route.response_headers_to_add.extend(edits.response_add);
    route.response_headers_to_remove.extend(edits.response_remove);
    if let Some(authority) = edits.authority {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority));
    }
    cluster_of(binding, &only.destination)
}

/// Destinations without weight are left out. Envoy refuses a sum of zero, so such a route leads nowhere, which the
/// snapshot has reported.
fn weighted(binding: &Binding<'_>, destinations: &[HttpRouteDestination]) -> ClusterSpecifier {
    let clusters: Vec<ClusterWeight> = destinations
        .iter()
        .filter(|d| d.weight.unwrap_or(0) > 0)
        .map(|d| cluster_weight(binding, d))
        .collect();
    if clusters.is_empty() {
        return ClusterSpecifier::Cluster(BLACK_HOLE_CLUSTER.to_owned());
    }
    ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..Default::default() })
}

fn cluster_weight(binding: &Binding<'_>, destination: &HttpRouteDestination) -> ClusterWeight {
    let edits = Edits::of(destination.headers.as_ref());
    ClusterWeight {
        name: cluster_of(binding, &destination.destination),
        weight: destination.weight.and_then(|w| u32::try_from(w).ok()),
        request_headers_to_add: edits.request_add,
        request_headers_to_remove: edits.request_remove,
        response_headers_to_add: edits.response_add,
        response_headers_to_remove: edits.response_remove,
        host_rewrite_specifier: edits.authority.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    }
}

fn cluster_of(binding: &Binding<'_>, destination: &Destination) -> String {
    destination_cluster(binding.context, binding.virtual_service.namespace(), destination, binding.port)
}

/// The cluster of a destination. Without a port it is the service's only one, else the port that was called. An unknown
/// service has a name all the same: no cluster, so 503.
pub(crate) fn destination_cluster(
    context: &Context<'_>,
    namespace: &str,
    destination: &Destination,
    called_port: u16,
) -> String {
    let host = Host::resolve(&destination.host, namespace);
    let subset = destination.subset.as_deref().unwrap_or_default();
    let only_port = || match context.scope.service(&host)?.ports.as_slice() {
        [only] => Some(only.number),
        _ => None,
    };
    let named = destination.port.as_ref().and_then(|p| u16::try_from(p.number).ok()).filter(|p| *p > 0);
    outbound_cluster(named.or_else(only_port).unwrap_or(called_port), subset, host)
}

fn rewrite(rewriting: &HttpRewrite, action: &mut RouteAction) {
    if let Some(regex) = &rewriting.uri_regex_rewrite {
        action.regex_rewrite = Some(RegexMatchAndSubstitute {
            pattern: Some(RegexMatcher { regex: regex.pattern.clone(), ..Default::default() }),
            substitution: regex.rewrite.clone(),
        });
    } else if let Some(uri) = &rewriting.uri {
        action.prefix_rewrite.clone_from(uri);
    }
    if let Some(authority) = rewriting.authority.as_ref().filter(|a| !a.is_empty()) {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority.clone()));
    }
}

fn mirrors(binding: &Binding<'_>, rule: &HttpRoute) -> Vec<RequestMirrorPolicy> {
    let old_share =
        rule.mirror_percentage.as_ref().map_or(rule.mirror_percent.map(f64::from), |p| Some(p.value));
    let old = rule.mirror.iter().map(|destination| (destination, old_share));
    let new = rule.mirrors.iter().map(|m| (&m.destination, m.percentage.as_ref().map(|p: &Percent| p.value)));
    old.chain(new)
        .filter(|(_, share)| share.is_none_or(|s| s > 0.0))
        .map(|(destination, share)| RequestMirrorPolicy {
            cluster: cluster_of(binding, destination),
            runtime_fraction: Some(RuntimeFractionalPercent {
                default_value: Some(fraction(share.unwrap_or(100.0))),
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
fn fraction(percent: f64) -> FractionalPercent {
    FractionalPercent {
        numerator: (percent * 10_000.0).round() as u32,
        denominator: DenominatorType::Million as i32,
    }
}

/// Envoy derives default ports by itself; the port of the request is known here.
fn redirection(redirect: &HttpRedirect, called_port: u16) -> RedirectAction {
    let path = match (&redirect.uri, &redirect.prefix_rewrite) {
        (Some(uri), _) if !uri.is_empty() => Some(PathRewriteSpecifier::PathRedirect(uri.clone())),
        (_, Some(prefix)) => Some(PathRewriteSpecifier::PrefixRewrite(prefix.clone())),
        _ => None,
    };
    let derived = match redirect.derive_port {
        Some(DerivePort::FromRequestPort) => u32::from(called_port),
        Some(DerivePort::FromProtocolDefault) | None => 0,
    };
    RedirectAction {
        host_redirect: redirect.authority.clone().unwrap_or_default(),
        path_rewrite_specifier: path,
        scheme_rewrite_specifier: redirect
            .scheme
            .as_ref()
            .filter(|s| !s.is_empty())
            .map(|s| SchemeRewriteSpecifier::SchemeRedirect(s.clone())),
        port_redirect: redirect.port.unwrap_or(derived),
        response_code: redirect_code(redirect.redirect_code) as i32,
        ..Default::default()
    }
}

/// Codes that Envoy has none for were refused by `api`.
fn redirect_code(code: Option<u32>) -> RedirectResponseCode {
    match code {
        Some(302) => RedirectResponseCode::Found,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    }
}

fn direct_response(response: &HttpDirectResponse) -> DirectResponseAction {
    let specifier = response.body.as_ref().and_then(|body| match (&body.string, &body.bytes) {
        (Some(text), _) => Some(Specifier::InlineString(text.clone())),
        (None, Some(encoded)) => Some(Specifier::InlineBytes(decode_base64(encoded).into())),
        (None, None) => None,
    });
    DirectResponseAction {
        status: response.status,
        body: specifier.map(|s| DataSource { specifier: Some(s), ..Default::default() }),
        ..Default::default()
    }
}

/// Base64 that `api` has checked; padding and anything outside the alphabet is skipped.
fn decode_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for sextet in text.bytes().filter_map(value) {
        bits = bits << 6 | u32::from(sextet);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::decode_base64;

    #[test]
    fn base64() {
        assert_eq!(decode_base64("aGVsbG8="), b"hello");
        assert_eq!(decode_base64("aGVsbG8h"), b"hello!");
        assert_eq!(decode_base64("aA=="), b"h");
        assert_eq!(decode_base64(""), b"");
    }
}
