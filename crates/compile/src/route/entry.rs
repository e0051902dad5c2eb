//! Routes from `Route`: the match, and the actions that answer by themselves.

use bytes::Bytes;
use http::StatusCode;
use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use meltemi_envoy::config::route::v3::route::Action;

use super::build::Inherited;
use super::conditions::{Conditions, path_matcher};
use super::forward::{forward, nowhere};
use super::rewrite::format;
use super::{Redirect, RedirectPath, Route, RouteAction, RouteEdits};
use crate::filter::per_filter_configs;
use crate::header_edit::{Fields, header_edits};
use crate::ledger::{At, harmless, refuse};
use crate::matcher::{PathMatcher, rewrite_pattern};
use crate::scalar::inline_data;

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
    refuse!(at; route_specifiers);
    harmless!(NoTracing; tracing);
    let buffer_limit = request_body_buffer_limit.or(per_request_buffer_limit_bytes.map(u64::from));
    harmless!(Metadata; metadata);
    harmless!(StatsOnly; stat_prefix);
    let edits = RouteEdits {
        request: header_edits(at, &Fields::REQUEST, request_headers_to_add, request_headers_to_remove),
        response: header_edits(at, &Fields::RESPONSE, response_headers_to_add, response_headers_to_remove),
    };
    let at_match = at.field("match");
    let (path, conditions) = match r#match {
        Some(matched) => (path_matcher(&at_match, matched), Conditions::compile(&at_match, matched)),
        None => (at_match.none("must be set"), Conditions::default()),
    };
    let above = &Inherited { buffer_limit: buffer_limit.or(above.buffer_limit), ..above.clone() };
    let action = action(at, chosen.as_ref(), path.as_ref(), above);
    Some(Route {
        name: name.as_str().into(),
        path: path?,
        conditions,
        action: action?,
        edits,
        filters: per_filter_configs(at, typed_per_filter_config),
        operation: decorator.as_ref().and_then(|decorator| operation(&at.field("decorator"), decorator)),
    })
}

fn operation(at: &At<'_>, message: &proto::Decorator) -> Option<Box<str>> {
    let proto::Decorator { operation, propagate } = message;
    at.required("operation", operation);
    harmless!(NoTracing; propagate);
    Some(operation.as_str().into())
}

fn action(
    at: &At<'_>,
    chosen: Option<&Action>,
    path: Option<&PathMatcher>,
    above: &Inherited,
) -> Option<RouteAction> {
    match chosen {
        Some(Action::Route(message)) => {
            forward(&at.field("route"), message, path, above).map(Box::new).map(RouteAction::Forward)
        }
        Some(Action::Redirect(message)) => {
            redirect(&at.field("redirect"), message).map(Box::new).map(RouteAction::Redirect)
        }
        Some(Action::DirectResponse(message)) => {
            direct_response(&at.field("direct_response"), message, above.max_direct_response_body_bytes)
        }
        Some(Action::FilterAction(_)) => at.field("filter_action").none("not supported yet"),
        Some(Action::NonForwardingAction(proto::NonForwardingAction {})) => {
            Some(RouteAction::Forward(Box::new(nowhere(above))))
        }
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
        Some(PathRewriteSpecifier::PathRewrite(path)) if !path.is_empty() => {
            RedirectPath::Format(format(&at.field("path_rewrite"), path)?)
        }
        Some(
            PathRewriteSpecifier::PathRedirect(_)
            | PathRewriteSpecifier::PrefixRewrite(_)
            | PathRewriteSpecifier::PathRewrite(_),
        )
        | None => RedirectPath::Keep,
    })
}
