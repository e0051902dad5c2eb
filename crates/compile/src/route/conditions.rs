//! What a route asks of a request, its path aside: headers, parameters, cookies, TLS, metadata, a share of traffic.
//!
//! Source: `envoy.config.route.v3.RouteMatch`.

use http::header::CONTENT_TYPE;
use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::route_match::{
    ConnectMatcher, GrpcRouteMatchOptions, PathSpecifier, TlsContextMatchOptions,
};
use meltemi_envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use crate::extension::{unknown, unpack};
use crate::ledger::At;
use crate::matcher::{
    CookieMatcher, FilterStateMatcher, HeaderMatcher, MetadataMatcher, PathMatcher, QueryMatcher,
    RequestView, cookie_matcher, filter_state_matcher, header_matcher, metadata_matcher, query_matcher,
    regex_full_match,
};
use crate::scalar::{WHOLE_PPM, runtime_fraction_ppm};
use crate::uri_template::UriTemplate;

/// The conditions of a route; all must hold.
#[derive(Debug, Default)]
pub struct Conditions {
    /// `headers`.
    pub headers: Vec<HeaderMatcher>,
    /// `query_parameters`.
    pub query: Vec<QueryMatcher>,
    /// `grpc` is present.
    pub grpc: bool,
    /// `runtime_fraction` as parts per million; `None` matches always.
    pub fraction_ppm: Option<u32>,
    /// What few routes ask for.
    rare: Option<Box<RareConditions>>,
}

/// The conditions that few routes have.
#[derive(Debug, Default)]
struct RareConditions {
    cookies: Vec<CookieMatcher>,
    /// `tls_context.presented` and `validated`.
    presented: Option<bool>,
    validated: Option<bool>,
    metadata: Vec<MetadataMatcher>,
    filter_state: Vec<FilterStateMatcher>,
}

impl Conditions {
    /// Compiles what `match` says beside the path.
    pub(super) fn compile(at: &At<'_>, message: &proto::RouteMatch) -> Conditions {
        let proto::RouteMatch {
            case_sensitive: _,
            runtime_fraction,
            headers,
            query_parameters,
            cookies,
            grpc,
            tls_context,
            dynamic_metadata,
            filter_state,
            path_specifier: _,
        } = message;
        let tls = tls_context.unwrap_or_default();
        let TlsContextMatchOptions { presented, validated } = tls;
        let rare = RareConditions {
            cookies: at.each("cookies", cookies, cookie_matcher),
            presented,
            validated,
            metadata: at.each("dynamic_metadata", dynamic_metadata, metadata_matcher),
            filter_state: at.each("filter_state", filter_state, filter_state_matcher),
        };
        Conditions {
            headers: at.each("headers", headers, header_matcher),
            query: at.each("query_parameters", query_parameters, query_matcher),
            grpc: matches!(grpc, Some(GrpcRouteMatchOptions {})),
            fraction_ppm: runtime_fraction_ppm(&at.field("runtime_fraction"), runtime_fraction),
            rare: (!rare.is_empty()).then(|| Box::new(rare)),
        }
    }

    pub(super) fn cookies(&self) -> &[CookieMatcher] {
        self.rare.as_ref().map_or(&[], |rare| &rare.cookies)
    }

    /// Whether a request fulfils all.
    pub(super) fn hold(&self, view: &impl RequestView) -> bool {
        self.fraction_ppm.is_none_or(|ppm| view.random() % u64::from(WHOLE_PPM) < u64::from(ppm))
            && (!self.grpc || is_grpc(view))
            && self.headers.iter().all(|header| header.matches(view))
            && self.query.iter().all(|parameter| parameter.matches(view.path()))
            && self.rare.as_ref().is_none_or(|rare| rare.hold(view))
    }
}

impl RareConditions {
    fn is_empty(&self) -> bool {
        let tls = self.presented.or(self.validated);
        self.cookies.is_empty() && tls.is_none() && self.metadata.is_empty() && self.filter_state.is_empty()
    }

    fn hold(&self, view: &impl RequestView) -> bool {
        let tls = view.tls();
        self.presented.is_none_or(|wanted| tls.is_some_and(|tls| tls.presented) == wanted)
            && self.validated.is_none_or(|wanted| tls.is_some_and(|tls| tls.validated) == wanted)
            && self.cookies.iter().all(|cookie| cookie.matches(view))
            && self.metadata.iter().all(|metadata| metadata.matches(view))
            && self.filter_state.iter().all(|state| state.matches(view))
    }
}

pub(super) fn is_grpc(view: &impl RequestView) -> bool {
    let content_type = view.header(&CONTENT_TYPE);
    let rest = content_type.as_deref().and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// Compiles the path part of `match`.
pub(super) fn path_matcher(at: &At<'_>, message: &proto::RouteMatch) -> Option<PathMatcher> {
    let case_sensitive = message.case_sensitive.unwrap_or(true);
    let text = |text: &str| match case_sensitive {
        true => Box::from(text),
        false => text.to_ascii_lowercase().into(),
    };
    Some(match &message.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => PathMatcher::Prefix(text(prefix), case_sensitive),
        Some(PathSpecifier::Path(path)) => PathMatcher::Exact(text(path), case_sensitive),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            let at = at.field("path_separated_prefix");
            if prefix.contains(['?', '#']) {
                at.reject("must not hold ? or #: only the path is matched");
            }
            if prefix.len() < 2 || prefix.ends_with('/') {
                at.reject("must hold more than / and not end with it");
            }
            PathMatcher::Separated(text(prefix), case_sensitive)
        }
        Some(PathSpecifier::SafeRegex(regex)) => {
            PathMatcher::Regex(regex_full_match(&at.field("safe_regex"), regex)?)
        }
        Some(PathSpecifier::ConnectMatcher(ConnectMatcher {})) => PathMatcher::Connect,
        Some(PathSpecifier::PathMatchPolicy(extension)) => {
            let at = at.field("path_match_policy");
            let Some(any) = &extension.typed_config else {
                return at.field("typed_config").none("must be set");
            };
            if !any.is::<UriTemplateMatchConfig>() {
                return unknown(&at, &extension.name, any);
            }
            let UriTemplateMatchConfig { path_template } = unpack(&at, any)?;
            match UriTemplate::parse(&path_template) {
                Ok(template) => PathMatcher::Template(Box::new(template)),
                Err(reason) => return at.field("path_template").none(reason),
            }
        }
        None => return at.none("a path specifier must be set"),
    })
}
