//! New paths and locations: rewrites of forwarded requests, and redirects.
//!
//! Source: `envoy.config.route.v3.RouteAction` and `RedirectAction`.

use std::borrow::Cow;

use http::{HeaderName, StatusCode};

use crate::matcher::{PathMatcher, RequestView, RewritePattern, without_query};
use crate::route::{Forward, PathRewrite, Redirect, RedirectPath, Route};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl Forward {
    /// The new `:path` (with its query) of a request that matched `route`, or `None` when it stays. A
    /// [`PathRewrite::Format`] is the caller's to evaluate; [`with_new_path`] keeps the query.
    pub fn rewritten_path(&self, route: &Route, path: &str) -> Option<String> {
        match &self.path_rewrite {
            PathRewrite::Keep | PathRewrite::Format(_) => None,
            PathRewrite::Prefix(prefix) => Some(replace_matched(route, path, prefix)),
            PathRewrite::Regex(pattern) => Some(replace_by_regex(pattern, path)),
            PathRewrite::Template(rewrite) => {
                let PathMatcher::Template(template) = &route.path else { return None };
                let bare = without_query(path);
                let new = template.rewrite(bare, rewrite)?;
                Some([&*new, &path[bare.len()..]].concat())
            }
        }
    }
}

/// `path` with all but its query replaced.
pub fn with_new_path(path: &str, new: &str) -> String {
    [new, &path[without_query(path).len()..]].concat()
}

/// The path with the part that the route matched replaced: the prefix, or for other matchers the whole path.
fn replace_matched(route: &Route, path: &str, replacement: &str) -> String {
    let matched = match &route.path {
        PathMatcher::Exact(text, _) | PathMatcher::Prefix(text, _) | PathMatcher::Separated(text, _) => {
            text.len()
        }
        PathMatcher::Regex(_) | PathMatcher::Template(_) | PathMatcher::Connect => without_query(path).len(),
    };
    [replacement, path.get(matched..).unwrap_or_default()].concat()
}

fn replace_by_regex(pattern: &RewritePattern, path: &str) -> String {
    let bare = without_query(path);
    [&*pattern.apply(bare), &path[bare.len()..]].concat()
}

/// The `location` header of a direct response that `route` gives with `status`: Envoy says with 201 and all 3xx
/// where the request went.
pub fn direct_response_location(
    status: StatusCode,
    view: &impl RequestView,
    route: &Route,
) -> Option<String> {
    let has_location = status == StatusCode::CREATED || status.is_redirection();
    has_location.then(|| Redirect::to_itself().location(view, route, ""))
}

impl Redirect {
    /// The `location` header for a request that matched `route`; `formatted` is a [`RedirectPath::Format`], evaluated.
    pub fn location(&self, view: &impl RequestView, route: &Route, formatted: &str) -> String {
        let scheme = self.scheme.as_deref().unwrap_or_else(|| view.scheme());
        let host = self.host.as_deref().unwrap_or_else(|| self.request_host(view, scheme));
        let path = self.path(view.path(), route, formatted);
        match self.port {
            Some(port) => format!("{scheme}://{host}:{port}{path}"),
            None => format!("{scheme}://{host}{path}"),
        }
    }

    /// The request's authority, without its port when another is given, or when it was the default port of a
    /// scheme that changes.
    fn request_host<'v>(&self, view: &'v impl RequestView, scheme: &str) -> &'v str {
        let authority = view.authority();
        let colon = match authority.starts_with('[') {
            true => authority.rfind("]:").map(|bracket| bracket + 1),
            false => authority.rfind(':'),
        };
        let Some(colon) = colon.filter(|_| !self.keep_port) else { return authority };
        // What the client spoke, which behind a TLS-terminating proxy is not the scheme of the request.
        let forwarded = view.header(&X_FORWARDED_PROTO);
        let spoken = forwarded.as_deref().unwrap_or(view.scheme().as_bytes());
        let is_default = match &authority[colon..] {
            ":443" => spoken == b"https",
            ":80" => spoken == b"http",
            _ => false,
        };
        let drops_port = self.port.is_some() || (is_default && spoken != scheme.as_bytes());
        if drops_port { &authority[..colon] } else { authority }
    }

    /// A redirect that changes nothing.
    fn to_itself() -> Redirect {
        Redirect {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: None,
            host: None,
            port: None,
            path: RedirectPath::Keep,
            strip_query: false,
            keep_port: false,
        }
    }

    fn path<'p>(&'p self, path: &'p str, route: &Route, formatted: &'p str) -> Cow<'p, str> {
        let query = &path[path.find('?').unwrap_or(path.len())..];
        let new = match &self.path {
            // Its own query stays, whatever `strip_query` says.
            RedirectPath::Full(full) if full.contains('?') => return Cow::Borrowed(full),
            RedirectPath::Full(full) if query.is_empty() => Cow::Borrowed(&**full),
            RedirectPath::Full(full) => Cow::Owned([full, query].concat()),
            RedirectPath::Prefix(prefix) => Cow::Owned(replace_matched(route, path, prefix)),
            RedirectPath::Regex(pattern) => Cow::Owned(replace_by_regex(pattern, path)),
            RedirectPath::Format(_) => Cow::Owned([formatted, query].concat()),
            RedirectPath::Keep => Cow::Borrowed(path),
        };
        if !self.strip_query {
            return new;
        }
        let end = new.find('?').unwrap_or(new.len());
        match new {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
            Cow::Owned(mut text) => {
                text.truncate(end);
                Cow::Owned(text)
            }
        }
    }
}
