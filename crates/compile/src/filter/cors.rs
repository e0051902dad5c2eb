//! Cross-origin requests: preflights are answered, responses say which origin may read them.
//!
//! The filter has no configuration of its own. A policy at a more specific level wins field by field over the
//! ones above it; whether it is in force is said by the most specific one alone.
//! Source: `envoy.extensions.filters.http.cors.v3`.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderName, HeaderValue, StatusCode};
use meltemi_envoy::extensions::filters::http::cors::v3 as proto;

use super::{Answer, Event, FilterState, FilterView, HeadEdit, Levels, RouteFilterConfig, Verdict};
use crate::ledger::At;
use crate::matcher::{StringMatcher, string_matcher};
use crate::scalar::{WHOLE_PPM, runtime_fraction_ppm};

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// A compiled `CorsPolicy`.
#[derive(Debug)]
pub struct CorsPolicy {
    /// `allow_origin_string_match`.
    pub allow_origins: Vec<StringMatcher>,
    /// `allow_methods`; `*` is what the preflight asks for.
    pub allow_methods: Option<HeaderValue>,
    /// `allow_headers`; `*` is what the preflight asks for.
    pub allow_headers: Option<HeaderValue>,
    /// `expose_headers`.
    pub expose_headers: Option<HeaderValue>,
    /// `max_age`.
    pub max_age: Option<HeaderValue>,
    /// `allow_credentials`.
    pub allow_credentials: Option<bool>,
    /// `allow_private_network_access`.
    pub allow_private_network_access: Option<bool>,
    /// `forward_not_matching_preflights`, default true.
    pub forward_not_matching_preflights: Option<bool>,
    /// `filter_enabled` in parts per million, default all.
    pub enabled_ppm: u32,
    /// `shadow_enabled` in parts per million, default none: only counts.
    pub shadow_ppm: u32,
}

/// Compiles a policy.
pub(super) fn compile(at: &At<'_>, message: &proto::CorsPolicy) -> CorsPolicy {
    let proto::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = message;
    CorsPolicy {
        allow_origins: at.each("allow_origin_string_match", allow_origin_string_match, string_matcher),
        allow_methods: at.header_value("allow_methods", allow_methods),
        allow_headers: at.header_value("allow_headers", allow_headers),
        expose_headers: at.header_value("expose_headers", expose_headers),
        max_age: at.header_value("max_age", max_age),
        allow_credentials: *allow_credentials,
        allow_private_network_access: *allow_private_network_access,
        forward_not_matching_preflights: *forward_not_matching_preflights,
        enabled_ppm: runtime_fraction_ppm(&at.field("filter_enabled"), filter_enabled).unwrap_or(WHOLE_PPM),
        shadow_ppm: runtime_fraction_ppm(&at.field("shadow_enabled"), shadow_enabled).unwrap_or(0),
    }
}

/// The policies of a request, most specific first.
struct Policies<'r> {
    filter: &'r str,
    levels: Levels<'r>,
}

impl<'r> Policies<'r> {
    fn all(&self) -> impl Iterator<Item = &'r CorsPolicy> + use<'r> {
        self.levels.all(self.filter).filter_map(|config| match config {
            RouteFilterConfig::Cors(policy) => Some(&**policy),
            _ => None,
        })
    }

    fn text(&self, field: impl Fn(&'r CorsPolicy) -> Option<&'r HeaderValue>) -> Option<&'r HeaderValue> {
        self.all().find_map(field)
    }

    fn flag(&self, default: bool, field: impl Fn(&CorsPolicy) -> Option<bool>) -> bool {
        self.all().find_map(field).unwrap_or(default)
    }

    fn allows(&self, origin: &[u8]) -> bool {
        let allowed = self.all().map(|policy| &policy.allow_origins).find(|origins| !origins.is_empty());
        allowed.is_some_and(|all| all.iter().any(|one| one.matches(b"*") || one.matches(origin)))
    }
}

/// Counts the origin; answers a preflight.
pub(super) fn decode(
    name: &str,
    view: &impl FilterView,
    levels: &Levels<'_>,
    state: &mut FilterState,
) -> Verdict {
    if levels.is_empty() || !view.forwards() {
        return Verdict::Continue;
    }
    let policies = Policies { filter: name, levels: *levels };
    let Some(first) = policies.all().next() else { return Verdict::Continue };
    let drawn = |ppm: u32| ppm > 0 && view.draw() % u64::from(WHOLE_PPM) < u64::from(ppm);
    let is_enabled = drawn(first.enabled_ppm);
    if !is_enabled && !drawn(first.shadow_ppm) {
        return Verdict::Continue;
    }
    let Some(origin) = header(view, &ORIGIN) else { return Verdict::Continue };
    let is_allowed = policies.allows(origin.as_bytes());
    view.count(if is_allowed { Event::OriginValid } else { Event::OriginInvalid });
    if !is_enabled {
        return Verdict::Continue;
    }
    if is_allowed {
        *state = FilterState::Cors(origin.clone());
    }
    let asked_method = header(view, &ACCESS_CONTROL_REQUEST_METHOD);
    let Some(method) = asked_method.filter(|_| view.method() == "OPTIONS") else { return Verdict::Continue };
    if !is_allowed && policies.flag(true, |policy| policy.forward_not_matching_preflights) {
        return Verdict::Continue;
    }
    Verdict::Respond(Box::new(preflight(&policies, view, is_allowed.then_some(origin), method)))
}

fn preflight(
    policies: &Policies<'_>,
    view: &impl FilterView,
    origin: Option<HeaderValue>,
    method: HeaderValue,
) -> Answer {
    let mut headers = Vec::new();
    headers.extend(origin.map(|origin| (ACCESS_CONTROL_ALLOW_ORIGIN, origin)));
    if policies.flag(false, |policy| policy.allow_credentials) {
        headers.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
    }
    if let Some(methods) = policies.text(|policy| policy.allow_methods.as_ref()) {
        let value = if methods == "*" { method } else { methods.clone() };
        headers.push((ACCESS_CONTROL_ALLOW_METHODS, value));
    }
    if let Some(allowed) = policies.text(|policy| policy.allow_headers.as_ref()) {
        let asked = || header(view, &ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or(HeaderValue::from_static(""));
        let value = if allowed == "*" { asked() } else { allowed.clone() };
        headers.push((ACCESS_CONTROL_ALLOW_HEADERS, value));
    }
    if let Some(age) = policies.text(|policy| policy.max_age.as_ref()) {
        headers.push((ACCESS_CONTROL_MAX_AGE, age.clone()));
    }
    let asks_private = header(view, &REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true");
    if asks_private && policies.flag(false, |policy| policy.allow_private_network_access) {
        headers.push((ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true")));
    }
    Answer { headers, verbatim: true, ..Answer::new(StatusCode::OK, "cors_response") }
}

/// Says who may read the response.
pub(super) fn encode(name: &str, levels: &Levels<'_>, state: &FilterState) -> HeadEdit {
    let FilterState::Cors(origin) = state else { return HeadEdit::Nothing };
    let policies = Policies { filter: name, levels: *levels };
    let mut headers = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())];
    if policies.flag(false, |policy| policy.allow_credentials) {
        headers.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
    }
    if let Some(exposed) = policies.text(|policy| policy.expose_headers.as_ref()) {
        headers.push((ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone()));
    }
    HeadEdit::Set(headers)
}

/// A header that is not empty.
fn header(view: &impl FilterView, name: &HeaderName) -> Option<HeaderValue> {
    let value = view.header(name).filter(|value| !value.is_empty())?;
    HeaderValue::from_bytes(&value).ok()
}
