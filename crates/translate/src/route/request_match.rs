//! Conditions of a route.
//!
//! Source: Istio `TranslateRouteMatch`. A regex that matches everything, and an empty match, ask only for presence.

use meltemi_api::istio::{HttpMatchRequest, StringMatch};
use meltemi_envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use meltemi_envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use meltemi_envoy::config::route::v3::route_match::PathSpecifier;
use meltemi_envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use meltemi_envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};

/// Every request.
pub(super) fn everything() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

/// The requests of one condition.
pub(super) fn of(condition: &HttpMatchRequest) -> RouteMatch {
    let path_specifier = match &condition.uri {
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(prefix)) => PathSpecifier::Prefix(prefix.clone()),
        Some(StringMatch::Regex(regex)) => PathSpecifier::SafeRegex(safe_regex(regex)),
        Some(StringMatch::Present) | None => PathSpecifier::Prefix("/".to_owned()),
    };
    let parameters = condition.query_params.iter().map(|(name, value)| parameter(name, value));
    RouteMatch {
        path_specifier: Some(path_specifier),
        case_sensitive: Some(condition.ignore_uri_case != Some(true)),
        headers: headers(condition),
        query_parameters: parameters.collect(),
        ..Default::default()
    }
}

fn headers(condition: &HttpMatchRequest) -> Vec<HeaderMatcher> {
    let mut matchers: Vec<HeaderMatcher> = Vec::new();
    matchers.extend(condition.headers.iter().map(|(name, value)| header(name, value)));
    matchers.extend(condition.without_headers.iter().map(|(name, value)| without_header(name, value)));
    let pseudo = [
        (":method", &condition.method),
        (":authority", &condition.authority),
        (":scheme", &condition.scheme),
    ];
    for (name, value) in pseudo {
        matchers.extend(value.as_ref().map(|v| header(name, v)));
    }
    matchers
}

fn header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let specifier = match string_matcher(value) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

/// A header that is not there does not have the value either.
fn without_header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let treat_missing_header_as_empty = string_matcher(value).is_some();
    HeaderMatcher { invert_match: true, treat_missing_header_as_empty, ..header(name, value) }
}

fn parameter(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = match string_matcher(value) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}

/// `None` when any value will do.
fn string_matcher(value: &StringMatch) -> Option<StringMatcher> {
    let pattern = match value {
        StringMatch::Present => return None,
        StringMatch::Prefix(prefix) if prefix.is_empty() => return None,
        StringMatch::Regex(regex) if regex == "*" || regex == ".*" => return None,
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(prefix) => MatchPattern::Prefix(prefix.clone()),
        StringMatch::Regex(regex) => MatchPattern::SafeRegex(safe_regex(regex)),
    };
    Some(StringMatcher { match_pattern: Some(pattern), ..Default::default() })
}

fn safe_regex(regex: &str) -> RegexMatcher {
    RegexMatcher { regex: regex.to_owned(), ..Default::default() }
}
