//! Heads to and from the types of `h2`.
//!
//! Owns what RFC 9113 section 8 says differently from HTTP/1: pseudo-fields, no connection-specific fields, cookie crumbs.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, StatusCode};

use crate::headers::is_hop_by_hop;
use crate::{Headers, RequestHead, ResponseHead, Text, Version};

/// The head of a received request.
pub(crate) fn request_head(parts: http::request::Parts) -> RequestHead {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let is_plain_connect = parts.method == Method::CONNECT && protocol.is_none();
    let mut headers = headers(parts.headers);
    let mut method = parts.method;
    if let Some(protocol) = protocol.and_then(|protocol| HeaderValue::from_str(protocol.as_str()).ok()) {
        method = Method::GET;
        put_upgrade(&mut headers, protocol);
    }
    let host = headers.get(&header::HOST).and_then(|host| Text::from_utf8(shared(host)).ok());
    if host.is_some() {
        headers.remove(&header::HOST);
    }
    let authority = parts.uri.authority().map(|authority| Text::from(authority.as_str())).or(host);
    let path = match parts.uri.path_and_query() {
        Some(path) if !is_plain_connect => Text::from(path.as_str()),
        _ => Text::new(),
    };
    let scheme = parts.uri.scheme().map(|scheme| match scheme.as_str() {
        "http" => Text::from_static("http"),
        "https" => Text::from_static("https"),
        other => Text::from(other),
    });
    RequestHead { method, scheme, authority, path, headers, version: Version::Http2 }
}

/// The head of a received response. `upgrade` is what the request asked for; 200 accepts it.
pub(crate) fn response_head(parts: http::response::Parts, upgrade: Option<HeaderValue>) -> ResponseHead {
    let mut headers = headers(parts.headers);
    let mut status = parts.status;
    if let Some(protocol) = upgrade.filter(|_| status == StatusCode::OK) {
        status = StatusCode::SWITCHING_PROTOCOLS;
        put_upgrade(&mut headers, protocol);
    }
    ResponseHead { status, headers, version: Version::Http2 }
}

fn put_upgrade(headers: &mut Headers, protocol: HeaderValue) {
    headers.set(header::UPGRADE, protocol);
    headers.set(header::CONNECTION, HeaderValue::from_static("upgrade"));
}

/// A request to send. `None`: the authority or path has characters that HTTP/2 cannot carry.
pub(crate) fn request(head: &RequestHead) -> Option<Request<()>> {
    let is_plain_connect = head.method == Method::CONNECT;
    let protocol = head.upgrade().filter(|_| !is_plain_connect);
    let mut parts = http::uri::Parts::default();
    let authority = head.authority.clone().filter(|authority| !authority.is_empty());
    let has_authority = authority.is_some();
    parts.authority = match authority {
        Some(authority) => Some(Authority::from_maybe_shared(authority.into_bytes()).ok()?),
        None => None,
    };
    if !is_plain_connect {
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(head.path.clone().into_bytes()).ok()?);
        let https = head.scheme.as_deref() == Some("https");
        parts.scheme = has_authority.then_some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    }
    let mut request = Request::new(());
    *request.method_mut() = if protocol.is_some() { Method::CONNECT } else { head.method.clone() };
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    // Without an authority `h2` only takes what claims to come from HTTP/1; the wire is the same.
    *request.version_mut() = if has_authority { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
    *request.headers_mut() = header_map(head.headers.iter().cloned());
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    Some(request)
}

/// A response to send. The answer that accepts an upgrade is 200 here (RFC 8441, 5).
pub(crate) fn response(head: ResponseHead) -> Response<()> {
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut response = Response::new(());
    *response.status_mut() = if switching { StatusCode::OK } else { head.status };
    *response.headers_mut() = header_map(head.headers.into_iter());
    response
}

/// Fields to send, without those of the connection.
pub(crate) fn header_map(fields: impl ExactSizeIterator<Item = (HeaderName, HeaderValue)>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        if is_carried(&name, &value) {
            map.append(name, value);
        }
    }
    map
}

fn is_carried(name: &HeaderName, value: &HeaderValue) -> bool {
    if *name == header::TE {
        return value.as_bytes().eq_ignore_ascii_case(b"trailers");
    }
    *name != header::HOST && !is_hop_by_hop(name)
}

/// Received fields. Cookie crumbs are put together again (RFC 9113, 8.2.3): HTTP/1 and applications know one field.
pub(crate) fn headers(map: HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(map.len());
    let mut last: Option<HeaderName> = None;
    for (name, value) in map {
        // The map names a field once and yields its further values without a name.
        let Some(name) = name.or_else(|| last.clone()) else { continue };
        last = Some(name.clone());
        headers.append(name, value);
    }
    if headers.get_all(&header::COOKIE).nth(1).is_some() {
        join_cookies(&mut headers);
    }
    headers
}

fn join_cookies(headers: &mut Headers) {
    let crumbs: Vec<&[u8]> = headers.get_all(&header::COOKIE).map(HeaderValue::as_bytes).collect();
    let joined = crumbs.join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.set(header::COOKIE, value);
    }
}

fn shared(value: &HeaderValue) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}
