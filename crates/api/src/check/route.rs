//! Rules inside one route of a VirtualService.

use super::{at_least_one, at_most_one, not_empty, weights};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{
    HeaderOperations, Headers, HttpBody, HttpMatchRequest, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute,
    RegexRewrite, TcpRoute, TlsRoute,
};
use crate::syntax;

pub(crate) fn http_route(route: &HttpRoute, decoder: &mut Decoder) {
    let answers = [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
    ];
    at_least_one(decoder, &answers);
    at_most_one(decoder, &answers);
    at_most_one(decoder, &[("rewrite", route.rewrite.is_some()), ("redirect", route.redirect.is_some())]);
    at_most_one(decoder, &[("mirror", route.mirror.is_some()), ("mirrors", !route.mirrors.is_empty())]);
    at_most_one(
        decoder,
        &[
            ("mirrorPercent", route.mirror_percent.is_some()),
            ("mirrorPercentage", route.mirror_percentage.is_some()),
        ],
    );
    weights(decoder, route.route.iter().map(|destination| destination.weight));
}

pub(crate) fn http_match(condition: &HttpMatchRequest, decoder: &mut Decoder) {
    for (field, headers) in [("headers", &condition.headers), ("withoutHeaders", &condition.without_headers)]
    {
        headers.keys().for_each(|name| header_key(decoder, field, name));
    }
    for name in condition.query_params.keys().filter(|name| name.is_empty()) {
        let message = "the name of a query parameter is empty".to_owned();
        decoder.report_below(&format!("queryParams[\"{name}\"]"), &codes::EMPTY, message, "");
    }
}

/// Path of a map entry below the object that is being read.
fn below(field: &str, key: &str) -> String {
    let mut path = field.to_owned();
    crate::span::push_key(&mut path, key);
    path
}

fn header_key(decoder: &mut Decoder, field: &str, name: &str) {
    if name.starts_with("@request.auth.claims") {
        let message = "routing by the claims of a token is not supported yet".to_owned();
        decoder.report_below(&below(field, name), &codes::UNSUPPORTED_VALUE, message, "");
        return;
    }
    if let Err(flaw) = syntax::header_name(name) {
        decoder.report_below(&below(field, name), flaw.code, flaw.message, &flaw.help);
    }
}

/// The authority is replaced, and only in requests; it is no header to add to.
pub(crate) fn headers(headers: &Headers, decoder: &mut Decoder) {
    let is_authority =
        |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority");
    let (request, response) = (headers.request.as_ref(), headers.response.as_ref());
    let places = [
        ("request.add", request.map(|request| &request.add)),
        ("response.set", response.map(|response| &response.set)),
        ("response.add", response.map(|response| &response.add)),
    ];
    for (field, names) in places {
        for name in names.into_iter().flat_map(|names| names.keys()).filter(|name| is_authority(name)) {
            let message = format!("`{name}` can only be set, and only in requests");
            decoder.report_below(&below(field, name), &codes::BAD_NAME, message, "use `request.set`");
        }
    }
}

pub(crate) fn header_operations(operations: &HeaderOperations, decoder: &mut Decoder) {
    for (index, name) in operations.remove.iter().enumerate() {
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            let message = format!("the header `{name}` cannot be removed");
            decoder.report_below(&format!("remove[{index}]"), &codes::BAD_NAME, message, "");
        }
    }
    for (field, headers) in [("set", &operations.set), ("add", &operations.add)] {
        for name in headers.keys() {
            header_key(decoder, field, name);
            if name.starts_with(':') && name != ":authority" {
                let message = format!("the pseudo-header `{name}` cannot be changed");
                let help = "use `rewrite` for the path; only `:authority` can be set as a header";
                decoder.report_below(&below(field, name), &codes::BAD_NAME, message, help);
            }
        }
    }
}

/// A substitution may speak only of groups that its expression has.
pub(crate) fn regex_rewrite(rewrite: &RegexRewrite, decoder: &mut Decoder) {
    // One that does not compile has been reported as such.
    let Ok(pattern) = regex::Regex::new(&rewrite.pattern) else { return };
    let mut chars = rewrite.rewrite.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        let flaw = match chars.next() {
            Some('\\') => continue,
            Some(digit) => match digit.to_digit(10) {
                Some(group) if (group as usize) < pattern.captures_len() => continue,
                Some(group) => format!("the expression has no group `\\{group}`"),
                None => format!("`\\{digit}` is not a reference to a group"),
            },
            None => "the text ends with a single `\\`".to_owned(),
        };
        let help = "`\\1` is the first group, `\\0` all of the match, `\\\\` a backslash";
        decoder.report_below("rewrite", &codes::BAD_REGEX, flaw, help);
        return;
    }
}

pub(crate) fn http_redirect(redirect: &HttpRedirect, decoder: &mut Decoder) {
    at_most_one(
        decoder,
        &[("uri", redirect.uri.is_some()), ("prefixRewrite", redirect.prefix_rewrite.is_some())],
    );
    at_most_one(
        decoder,
        &[("port", redirect.port.is_some()), ("derivePort", redirect.derive_port.is_some())],
    );
    at_least_one(
        decoder,
        &[
            ("uri", redirect.uri.is_some()),
            ("prefixRewrite", redirect.prefix_rewrite.is_some()),
            ("authority", redirect.authority.is_some()),
            ("port", redirect.port.is_some()),
            ("derivePort", redirect.derive_port.is_some()),
            ("scheme", redirect.scheme.is_some()),
        ],
    );
    if let Some(scheme) = redirect.scheme.as_deref()
        && !matches!(scheme, "http" | "https")
    {
        let message = format!("`{scheme}` is not a scheme to redirect to");
        decoder.report_below("scheme", &codes::BAD_ENUM, message, "use `http` or `https`");
    }
}

pub(crate) fn http_body(body: &HttpBody, decoder: &mut Decoder) {
    let forms = [("string", body.string.is_some()), ("bytes", body.bytes.is_some())];
    at_least_one(decoder, &forms);
    at_most_one(decoder, &forms);
}

pub(crate) fn http_rewrite(rewrite: &HttpRewrite, decoder: &mut Decoder) {
    let uri = ("uri", rewrite.uri.is_some());
    let regex = ("uriRegexRewrite", rewrite.uri_regex_rewrite.is_some());
    at_least_one(decoder, &[uri, regex, ("authority", rewrite.authority.is_some())]);
    at_most_one(decoder, &[uri, regex]);
}

pub(crate) fn http_retry(retry: &HttpRetry, decoder: &mut Decoder) {
    let configured = retry.per_try_timeout.is_some() || retry.retry_on.is_some() || retry.backoff.is_some();
    if retry.attempts == Some(0) && configured {
        let message =
            "`attempts: 0` switches retries off, so the rest of the policy has no effect".to_owned();
        decoder.report_below(
            "attempts",
            &codes::CONFLICTING_FIELDS,
            message,
            "remove the rest, or raise `attempts`",
        );
    }
}

pub(crate) fn tcp_route(route: &TcpRoute, decoder: &mut Decoder) {
    not_empty(decoder, &route.route, "route", "");
    weights(decoder, route.route.iter().map(|destination| destination.weight));
}

pub(crate) fn tls_route(route: &TlsRoute, decoder: &mut Decoder) {
    not_empty(decoder, &route.route, "route", "");
    weights(decoder, route.route.iter().map(|destination| destination.weight));
}
