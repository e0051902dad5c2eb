//! Routes from `Route`: the match, and the actions that answer by themselves.

use bytes::Bytes;
use http::StatusCode;
use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use meltemi_envoy::config::route::v3::route::Action;
use meltemi_envoy::config::route::v3::route_match::{ConnectMatcher, GrpcRouteMatchOptions, PathSpecifier};

use super::build::Inherited;
use super::forward::forward;
use super::{Redirect, RedirectPath, Route, RouteAction, RouteEdits};
use crate::filter::per_filter_configs;
use crate::header_edit::{Fields, header_edits};
use crate::ledger::{At, harmless, refuse};
use crate::matcher::{PathMatcher, header_matcher, query_matcher, regex_full_match, rewrite_pattern};
use crate::scalar::{inline_data, runtime_fraction_ppm};

/// Compiles a route.
pub(super) fn route(at: &At<'_>, message: &proto::Route, above: &Inherited) -> Option<Route> {
    let proto::Route {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action: chosen,
    } = message;
    refuse!(at; tracing, per_request_buffer_limit_bytes, request_body_buffer_limit, route_specifiers);
    harmless!(Metadata; metadata);
    harmless!(StatsOnly; stat_prefix);
    let edits = RouteEdits {
        request: header_edits(at, &Fields::REQUEST, request_headers_to_add, request_headers_to_remove),
        response: header_edits(at, &Fields::RESPONSE, response_headers_to_add, response_headers_to_remove),
    };
    let action = action(at, chosen.as_ref(), above);
    let Some(matched) = r#match else { return at.field("match").none("must be set") };
    let conditions = Conditions::compile(&at.field("match"), matched)?;
    Some(Route {
        name: name.as_str().into(),
        path: conditions.path,
        headers: conditions.headers,
        query: conditions.query,
        grpc: conditions.grpc,
        fraction_ppm: conditions.fraction_ppm,
        action: action?,
        edits,
        filters: per_filter_configs(at, typed_per_filter_config),
        operation: decorator.as_ref().and_then(|decorator| operation(&at.field("decorator"), decorator)),
    })
}

fn operation(at: &At<'_>, message: &proto::Decorator) -> Option<Box<str>> {
    let proto::Decorator { operation, propagate } = message;
    at.required("operation", operation);
    at.refuse_false("propagate", *propagate);
    Some(operation.as_str().into())
}

/// The compiled `match`.
struct Conditions {
    path: PathMatcher,
    headers: Vec<crate::matcher::HeaderMatcher>,
    query: Vec<crate::matcher::QueryMatcher>,
    grpc: bool,
    fraction_ppm: Option<u32>,
}

impl Conditions {
    fn compile(at: &At<'_>, message: &proto::RouteMatch) -> Option<Conditions> {
        let proto::RouteMatch {
            case_sensitive,
            runtime_fraction,
            headers,
            query_parameters,
            cookies,
            grpc,
            tls_context,
            dynamic_metadata,
            filter_state,
            path_specifier,
        } = message;
        refuse!(at; cookies, tls_context, dynamic_metadata, filter_state);
        let headers = at.each("headers", headers, header_matcher);
        let query = at.each("query_parameters", query_parameters, query_matcher);
        Some(Conditions {
            path: path_matcher(at, path_specifier.as_ref(), case_sensitive.unwrap_or(true))?,
            headers,
            query,
            grpc: matches!(grpc, Some(GrpcRouteMatchOptions {})),
            fraction_ppm: runtime_fraction_ppm(&at.field("runtime_fraction"), runtime_fraction),
        })
    }
}

fn path_matcher(at: &At<'_>, specifier: Option<&PathSpecifier>, case_sensitive: bool) -> Option<PathMatcher> {
    let fixed = |field, text: &str| {
        if text.contains(['?', '#']) {
            at.field(field).reject("must not hold ? or #: only the path is matched");
        }
        Box::from(text)
    };
    Some(match specifier {
        Some(PathSpecifier::Prefix(prefix)) => PathMatcher::Prefix(prefix.as_str().into(), case_sensitive),
        Some(PathSpecifier::Path(path)) => PathMatcher::Exact(path.as_str().into(), case_sensitive),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            if prefix.len() < 2 || prefix.ends_with('/') {
                at.field("path_separated_prefix").reject("must hold more than / and not end with it");
            }
            PathMatcher::Separated(fixed("path_separated_prefix", prefix), case_sensitive)
        }
        Some(PathSpecifier::SafeRegex(regex)) => {
            PathMatcher::Regex(regex_full_match(&at.field("safe_regex"), regex)?)
        }
        Some(PathSpecifier::ConnectMatcher(ConnectMatcher {})) => PathMatcher::Connect,
        Some(PathSpecifier::PathMatchPolicy(_)) => {
            return at.field("path_match_policy").none("not supported yet");
        }
        None => return at.none("a path specifier must be set"),
    })
}

fn action(at: &At<'_>, chosen: Option<&Action>, above: &Inherited) -> Option<RouteAction> {
    match chosen {
        Some(Action::Route(message)) => {
            forward(&at.field("route"), message, above).map(Box::new).map(RouteAction::Forward)
        }
        Some(Action::Redirect(message)) => {
            redirect(&at.field("redirect"), message).map(Box::new).map(RouteAction::Redirect)
        }
        Some(Action::DirectResponse(message)) => {
            direct_response(&at.field("direct_response"), message, above.max_direct_response_body_bytes)
        }
        Some(Action::FilterAction(_)) => at.field("filter_action").none("not supported yet"),
        Some(Action::NonForwardingAction(_)) => at.field("non_forwarding_action").none("not supported yet"),
        None => at.none("an action must be set"),
    }
}

fn direct_response(
    at: &At<'_>,
    message: &proto::DirectResponseAction,
    max_body_bytes: usize,
) -> Option<RouteAction> {
    let proto::DirectResponseAction { status, body, body_format } = message;
    refuse!(at; body_format);
    let body = match body {
        Some(source) => inline_data(&at.field("body"), source)?,
        None => &[],
    };
    if body.len() > max_body_bytes {
        at.field("body")
            .reject(format_args!("response body size is {} bytes; maximum is {max_body_bytes}", body.len()));
    }
    let code = u16::try_from(*status).ok().filter(|code| (200..600).contains(code));
    let Some(status) = code.and_then(|code| StatusCode::from_u16(code).ok()) else {
        return at.field("status").none(format_args!("{status} is not between 200 and 599"));
    };
    Some(RouteAction::Respond { status, body: Bytes::copy_from_slice(body) })
}

fn redirect(at: &At<'_>, message: &proto::RedirectAction) -> Option<Redirect> {
    let proto::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = message;
    let scheme = match scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
            Some(scheme.as_str().into())
        }
        _ => None,
    };
    at.header_value("host_redirect", host_redirect);
    Some(Redirect {
        status: redirect_status(at.choice("response_code", *response_code)?),
        scheme,
        host: (!host_redirect.is_empty()).then(|| host_redirect.as_str().into()),
        port: at.port("port_redirect", *port_redirect).filter(|port| *port != 0),
        path: redirect_path(at, path_rewrite_specifier.as_ref())?,
        strip_query: *strip_query,
        keep_port: false,
    })
}

fn redirect_status(code: RedirectResponseCode) -> StatusCode {
    match code {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    }
}

fn redirect_path(at: &At<'_>, specifier: Option<&PathRewriteSpecifier>) -> Option<RedirectPath> {
    Some(match specifier {
        Some(PathRewriteSpecifier::PathRedirect(path)) if !path.is_empty() => {
            at.header_value("path_redirect", path);
            RedirectPath::Full(path.as_str().into())
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) if !prefix.is_empty() => {
            at.header_value("prefix_rewrite", prefix);
            RedirectPath::Prefix(prefix.as_str().into())
        }
        Some(PathRewriteSpecifier::RegexRewrite(pattern)) => {
            RedirectPath::Regex(rewrite_pattern(&at.field("regex_rewrite"), pattern)?)
        }
        Some(PathRewriteSpecifier::PathRewrite(path)) => {
            at.refuse("path_rewrite", path);
            RedirectPath::Keep
        }
        Some(PathRewriteSpecifier::PathRedirect(_) | PathRewriteSpecifier::PrefixRewrite(_)) | None => {
            RedirectPath::Keep
        }
    })
}
