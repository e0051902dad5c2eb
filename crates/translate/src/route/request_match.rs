//! Conditions of a route.
//!
//! Source: Istio `TranslateRouteMatch`; claims as `MetadataMatcherForJWTClaims`.

use meltemi_envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use meltemi_envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use meltemi_envoy::config::route::v3::route_match::PathSpecifier;
use meltemi_envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use meltemi_envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment::Segment};
use meltemi_envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher, list_matcher,
    string_matcher, value_matcher,
};
use meltemi_snapshot::route::{ClaimMatch, HeaderMatch, HttpCondition, PathMatch, QueryMatch, TextMatch};

/// The filter that leaves the claims of a token in the request's metadata, and the key that it leaves them under.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
const JWT_PAYLOAD: &str = "payload";

/// Every request.
pub(super) fn everything() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

/// The requests of one condition.
pub(super) fn of(condition: &HttpCondition) -> RouteMatch {
    let path_specifier = match &condition.path {
        PathMatch::Any => PathSpecifier::Prefix("/".to_owned()),
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        PathMatch::Regex(regex) => PathSpecifier::SafeRegex(safe_regex(regex)),
    };
    RouteMatch {
        path_specifier: Some(path_specifier),
        case_sensitive: Some(!condition.ignores_path_case),
        headers: headers(condition),
        query_parameters: condition.query.iter().map(parameter).collect(),
        dynamic_metadata: condition.claims.iter().map(claim).collect(),
        ..Default::default()
    }
}

fn headers(condition: &HttpCondition) -> Vec<HeaderMatcher> {
    let mut matchers: Vec<HeaderMatcher> = condition.headers.iter().map(named_header).collect();
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

fn header(name: &str, value: &TextMatch) -> HeaderMatcher {
    let specifier = match string_matcher(value) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

/// A header that is not there does not have the value either.
fn named_header(wanted: &HeaderMatch) -> HeaderMatcher {
    let matcher = header(&wanted.name, &wanted.value);
    if !wanted.is_inverted {
        return matcher;
    }
    let treat_missing_header_as_empty = wanted.value != TextMatch::Present;
    HeaderMatcher { invert_match: true, treat_missing_header_as_empty, ..matcher }
}

fn parameter(wanted: &QueryMatch) -> QueryParameterMatcher {
    let specifier = match string_matcher(&wanted.value) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: wanted.name.clone(), query_parameter_match_specifier: Some(specifier) }
}

/// The claim itself, or one of the texts in it.
fn claim(wanted: &ClaimMatch) -> MetadataMatcher {
    let value = ValueMatcher {
        match_pattern: Some(match string_matcher(&wanted.value) {
            Some(matcher) => value_matcher::MatchPattern::StringMatch(matcher),
            None => value_matcher::MatchPattern::PresentMatch(true),
        }),
    };
    let one_of =
        ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(value.clone()))) };
    let in_list =
        ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(one_of))) };
    let either = OrMatcher { value_matchers: vec![in_list, value] };
    let keys = std::iter::once(JWT_PAYLOAD).chain(wanted.path.iter().map(String::as_str));
    MetadataMatcher {
        filter: JWT_FILTER.to_owned(),
        path: keys.map(|key| PathSegment { segment: Some(Segment::Key(key.to_owned())) }).collect(),
        value: Some(ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::OrMatch(either)) }),
        invert: wanted.is_inverted,
    }
}

/// `None` when any value will do.
pub(super) fn string_matcher(value: &TextMatch) -> Option<StringMatcher> {
    let pattern = match value {
        TextMatch::Present => return None,
        TextMatch::Exact(text) => string_matcher::MatchPattern::Exact(text.clone()),
        TextMatch::Prefix(prefix) => string_matcher::MatchPattern::Prefix(prefix.clone()),
        TextMatch::Regex(regex) => string_matcher::MatchPattern::SafeRegex(safe_regex(regex)),
    };
    Some(StringMatcher { match_pattern: Some(pattern), ..Default::default() })
}

fn safe_regex(regex: &str) -> RegexMatcher {
    RegexMatcher { regex: regex.to_owned(), ..Default::default() }
}
