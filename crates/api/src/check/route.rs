//! Rules inside one route of a VirtualService.

use super::{at_least_one, at_most_one, not_empty, text_match, weights};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{
    HeaderOperations, Headers, HttpBody, HttpMatchRequest, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute,
    RegexRewrite, StringMatch, TcpRoute, TlsRoute, claim_of_header,
};
use crate::limits::MAX_RESPONSE_BODY_BYTES;
use crate::syntax;

pub(crate) fn http_route(route: &HttpRoute, decoder: &mut Decoder) {
    let goes_on = ("route", !route.route.is_empty());
    let redirect = ("redirect", route.redirect.is_some());
    let response = ("directResponse", route.direct_response.is_some());
    let delegate = ("delegate", route.delegate.is_some());
    at_least_one(decoder, &[goes_on, redirect, response, delegate]);
    if route.delegate.is_some() {
        // An answer is left to a delegate that has none of its own.
        at_most_one(decoder, &[delegate, goes_on]);
        at_most_one(decoder, &[delegate, redirect]);
    } else {
        at_most_one(decoder, &[goes_on, redirect, response]);
        for (field, set) in [("rewrite", route.rewrite.is_some()), ("fault", route.fault.is_some())] {
            at_most_one(decoder, &[(field, set), redirect]);
            at_most_one(decoder, &[(field, set), response]);
        }
    }
    at_most_one(decoder, &[("mirror", route.mirror.is_some()), ("mirrors", !route.mirrors.is_empty())]);
    mirror_shares(route, decoder);
    one_authority(route, decoder);
    prefix_to_replace(route, decoder);
    weights(decoder, route.route.iter().map(|destination| destination.weight));
}

/// The newest spelling counts.
fn mirror_shares(route: &HttpRoute, decoder: &mut Decoder) {
    let spellings = [
        ("mirrorPercentage", route.mirror_percentage.is_some()),
        ("mirrorPercent", route.mirror_percent.is_some()),
        ("mirror_percent", route.old_mirror_percent.is_some()),
    ];
    let mut set = spellings.iter().filter(|(_, set)| *set);
    let Some((first, _)) = set.next() else { return };
    for (later, _) in set {
        let message = format!("`{first}` counts, so nothing looks at `{later}`");
        decoder.report_below(later, &codes::NO_USE, message, "remove it");
    }
}

/// A request has one authority, so only one place may replace it.
fn one_authority(route: &HttpRoute, decoder: &mut Decoder) {
    let by_rewrite = route.rewrite.as_ref().and_then(|rewrite| rewrite.authority.as_deref());
    let mut places = Vec::new();
    if by_rewrite.is_some_and(|authority| !authority.is_empty()) {
        places.push("rewrite.authority".to_owned());
    }
    if let Some(request) = route.headers.as_ref().and_then(|headers| headers.request.as_ref()) {
        for (field, headers) in [("headers.request.set", &request.set), ("headers.request.add", &request.add)]
        {
            let named = headers.keys().filter(|name| is_authority(name));
            places.extend(named.map(|name| below(field, name)));
        }
    }
    if let [first, second, ..] = places.as_slice() {
        let message = format!("the authority is already replaced by `{first}`");
        decoder.report_below(second, &codes::CONFLICTING_FIELDS, message, "keep one of them");
    }
}

/// What a redirect puts in place of a prefix needs one in every condition.
fn prefix_to_replace(route: &HttpRoute, decoder: &mut Decoder) {
    let replaces =
        |redirect: &HttpRedirect| redirect.prefix_rewrite.as_deref().is_some_and(|p| !p.is_empty());
    if !route.redirect.as_ref().is_some_and(replaces) {
        return;
    }
    let other =
        |m: &HttpMatchRequest| m.uri.as_ref().is_some_and(|uri| !matches!(uri, StringMatch::Prefix(_)));
    if let Some(index) = route.matches.iter().position(other) {
        let message = "`redirect.prefixRewrite` needs conditions that match a prefix".to_owned();
        let field = format!("match[{index}].uri");
        decoder.report_below(
            &field,
            &codes::CONFLICTING_FIELDS,
            message,
            "write `prefix`, or redirect by `uri`",
        );
    }
}

pub(crate) fn http_match(condition: &HttpMatchRequest, decoder: &mut Decoder) {
    super::label_keys(&condition.source_labels, "sourceLabels", decoder);
    for (field, headers) in [("headers", &condition.headers), ("withoutHeaders", &condition.without_headers)]
    {
        for (name, value) in headers {
            if claim_of_header(name).is_none() {
                header_key(decoder, field, name);
            }
            text_match::no_empty_prefix(decoder, &below(field, name), value);
        }
    }
    for (name, value) in &condition.query_params {
        let field = below("queryParams", name);
        if name.is_empty() {
            let message = "the name of a query parameter is empty".to_owned();
            decoder.report_below(&field, &codes::EMPTY, message, "");
        }
        text_match::no_empty_prefix(decoder, &field, value);
        text_match::is_expression(decoder, &field, value);
    }
    condition
        .headers
        .iter()
        .for_each(|(name, v)| text_match::is_expression(decoder, &below("headers", name), v));
    let texts =
        [("scheme", &condition.scheme), ("method", &condition.method), ("authority", &condition.authority)];
    for (field, value) in texts.into_iter().filter_map(|(field, value)| Some((field, value.as_ref()?))) {
        text_match::no_empty_prefix(decoder, field, value);
        text_match::is_expression(decoder, field, value);
    }
    if let Some(uri) = &condition.uri {
        text_match::is_expression(decoder, "uri", uri);
    }
}

/// Path of a map entry below the object that is being read.
fn below(field: &str, key: &str) -> String {
    let mut path = field.to_owned();
    crate::span::push_key(&mut path, key);
    path
}

fn header_key(decoder: &mut Decoder, field: &str, name: &str) {
    if let Err(flaw) = syntax::header_name(name) {
        decoder.report_below(&below(field, name), flaw.code, flaw.message, &flaw.help);
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// Responses have no authority.
pub(crate) fn headers(headers: &Headers, decoder: &mut Decoder) {
    let response = headers.response.as_ref();
    let places = [
        ("response.set", response.map(|response| &response.set)),
        ("response.add", response.map(|response| &response.add)),
    ];
    for (field, names) in places {
        for name in names.into_iter().flat_map(|names| names.keys()).filter(|name| is_authority(name)) {
            let message = format!("`{name}` can only be set in requests");
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
    let text = body.string.as_ref().map(|text| ("string", text.len()));
    // Four letters of base64 are three bytes.
    let bytes = body.bytes.as_ref().map(|text| ("bytes", text.trim_end_matches('=').len() / 4 * 3));
    for (field, length) in text.into_iter().chain(bytes) {
        if length > MAX_RESPONSE_BODY_BYTES {
            let message = format!("the body has {length} bytes, more than {MAX_RESPONSE_BODY_BYTES}");
            decoder.report_below(field, &codes::OUT_OF_RANGE, message, "serve it from a workload");
        }
    }
}

pub(crate) fn http_rewrite(rewrite: &HttpRewrite, decoder: &mut Decoder) {
    let uri = ("uri", rewrite.uri.is_some());
    let regex = ("uriRegexRewrite", rewrite.uri_regex_rewrite.is_some());
    at_least_one(decoder, &[uri, regex, ("authority", rewrite.authority.is_some())]);
    at_most_one(decoder, &[uri, regex]);
}

pub(crate) fn http_retry(retry: &HttpRetry, decoder: &mut Decoder) {
    if retry.attempts.unwrap_or(0) != 0 {
        return;
    }
    let message = "without `attempts` there are no retries, so the rest of the policy has no effect";
    let help = "remove the rest, or raise `attempts`";
    let configured = retry.per_try_timeout.is_some()
        || retry.retry_on.is_some()
        || retry.retry_remote_localities.is_some();
    if configured {
        decoder.report_below("attempts", &codes::CONFLICTING_FIELDS, message.to_owned(), help);
    } else if retry.backoff.is_some() {
        decoder.report_below("backoff", &codes::NO_USE, message.to_owned(), help);
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
