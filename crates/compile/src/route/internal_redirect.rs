//! Which redirects of an upstream the proxy follows itself, from `InternalRedirectPolicy`.
//!
//! Following them is the router's.

use http::header::HOST;
use http::{HeaderName, StatusCode};
use meltemi_envoy::config::core::v3::TypedExtensionConfig;
use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use meltemi_envoy::extensions::internal_redirect::previous_routes::v3::PreviousRoutesConfig;
use meltemi_envoy::extensions::internal_redirect::safe_cross_scheme::v3::SafeCrossSchemeConfig;

use crate::extension::{unknown, unpack};
use crate::ledger::At;

/// `envoy.config.route.v3.InternalRedirectPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalRedirectPolicy {
    /// `max_internal_redirects`, default 1.
    pub max_redirects: u32,
    /// `redirect_response_codes`, default 302; those that are no redirects are left out, as Envoy does.
    pub codes: Vec<StatusCode>,
    /// `predicates`; all must agree.
    pub predicates: Vec<InternalRedirectPredicate>,
    /// `allow_cross_scheme_redirect`.
    pub allow_cross_scheme: bool,
    /// `response_headers_to_copy`: from the redirect into the new request.
    pub response_headers_to_copy: Vec<HeaderName>,
}

/// A predicate of an internal redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InternalRedirectPredicate {
    /// `envoy.internal_redirect_predicates.previous_routes`: to no route that was taken from this one before.
    PreviousRoutes,
    /// `envoy.internal_redirect_predicates.allow_listed_routes`: only to routes of these names.
    AllowListedRoutes(Vec<Box<str>>),
    /// `envoy.internal_redirect_predicates.safe_cross_scheme`: not from http to https.
    SafeCrossScheme,
}

/// The codes that may be followed.
const REDIRECTS: [u32; 5] = [301, 302, 303, 307, 308];

/// Compiles a policy.
pub(super) fn internal_redirect(
    at: &At<'_>,
    message: &proto::InternalRedirectPolicy,
) -> InternalRedirectPolicy {
    let proto::InternalRedirectPolicy {
        max_internal_redirects,
        redirect_response_codes,
        predicates,
        allow_cross_scheme_redirect,
        response_headers_to_copy,
    } = message;
    if redirect_response_codes.len() > REDIRECTS.len() {
        at.field("redirect_response_codes").reject("more than 5 codes");
    }
    let is_redirect = |code: &&u32| REDIRECTS.contains(code);
    let codes = redirect_response_codes.iter().filter(is_redirect);
    let codes = codes.filter_map(|code| StatusCode::from_u16(*code as u16).ok()).collect();
    InternalRedirectPolicy {
        max_redirects: max_internal_redirects.unwrap_or(1),
        codes: if redirect_response_codes.is_empty() { vec![StatusCode::FOUND] } else { codes },
        predicates: at.each("predicates", predicates, predicate),
        allow_cross_scheme: *allow_cross_scheme_redirect,
        response_headers_to_copy: at.each(
            "response_headers_to_copy",
            response_headers_to_copy,
            |at, name| match HeaderName::try_from(name) {
                Ok(name) if name != HOST => Some(name),
                _ => at.none(":-prefixed headers or Hosts may not be specified here"),
            },
        ),
    }
}

fn predicate(at: &At<'_>, message: &TypedExtensionConfig) -> Option<InternalRedirectPredicate> {
    let TypedExtensionConfig { name, typed_config } = message;
    let Some(any) = typed_config else { return at.field("typed_config").none("must be set") };
    if any.is::<PreviousRoutesConfig>() {
        let PreviousRoutesConfig {} = unpack(at, any)?;
        return Some(InternalRedirectPredicate::PreviousRoutes);
    }
    if any.is::<SafeCrossSchemeConfig>() {
        let SafeCrossSchemeConfig {} = unpack(at, any)?;
        return Some(InternalRedirectPredicate::SafeCrossScheme);
    }
    if any.is::<AllowListedRoutesConfig>() {
        let AllowListedRoutesConfig { allowed_route_names } = unpack(at, any)?;
        let names = allowed_route_names.iter().map(|name| name.as_str().into()).collect();
        return Some(InternalRedirectPredicate::AllowListedRoutes(names));
    }
    unknown(at, name, any)
}
