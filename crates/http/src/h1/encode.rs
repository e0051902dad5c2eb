//! Message heads and bodies to bytes.
//!
//! Owns the fields that belong to the connection (`host`, `connection`, `transfer-encoding`, `content-length: 0`): they
//! follow from the framing chosen here, never from a copied field. Order and spelling are Envoy's: `host` first, the
//! message's own fields in their order, lower-case, framing last.

use bytes::BytesMut;
use http::header::{self, HeaderName};
use http::{Method, StatusCode};

use super::BodyLength;
use crate::headers::is_hop_by_hop;
use crate::{Headers, RequestHead, ResponseHead};

/// What a response answers, as far as its framing depends on it.
#[derive(Clone, Debug)]
pub struct Answering {
    /// The method of the request.
    pub method: Method,
    /// The client speaks HTTP/1.0: it knows no chunks.
    pub http_10: bool,
    /// The client asked to keep an HTTP/1.0 connection.
    pub keep_alive: bool,
}

/// Appends a request head; says how its body is framed. `end`: there is no body. An upgrade or CONNECT that is not at its
/// end becomes [`BodyLength::Tunnel`].
pub fn encode_request(out: &mut BytesMut, head: &RequestHead, end: bool) -> BodyLength {
    let target = match &head.authority {
        Some(authority) if head.method == Method::CONNECT => authority,
        _ => &head.path,
    };
    put(out, &[head.method.as_str(), " ", target, " HTTP/1.1\r\n"]);
    if let Some(authority) = &head.authority {
        put(out, &["host: ", authority, "\r\n"]);
    }
    let upgrade = head.upgrade().is_some();
    put_fields(out, &head.headers, upgrade, true);
    let body = request_framing(out, head, end, upgrade);
    put(out, &["\r\n"]);
    body
}

/// Appends a response head; says how its body is framed. `end`: nothing follows. `close`: the connection ends after it.
pub fn encode_response(
    out: &mut BytesMut,
    head: &ResponseHead,
    answering: &Answering,
    end: bool,
    close: bool,
) -> BodyLength {
    put(
        out,
        &[
            "HTTP/1.1 ",
            head.status.as_str(),
            " ",
            head.status.canonical_reason().unwrap_or("Unknown"),
            "\r\n",
        ],
    );
    let tunnel = is_tunnel(head, answering);
    let upgrade = head.status == StatusCode::SWITCHING_PROTOCOLS;
    // A length on 1xx, 204 or an accepted CONNECT has no meaning (RFC 9110, 8.6).
    let length_allowed = !is_lengthless(head.status) && !tunnel;
    put_fields(out, &head.headers, upgrade, length_allowed);
    let (body, framing) =
        if tunnel { (BodyLength::Tunnel, "") } else { response_framing(head, answering, end) };
    let close = close || body == BodyLength::UntilClose;
    if upgrade && !head.headers.contains(&header::CONNECTION) {
        put(out, &["connection: upgrade\r\n"]);
    } else if upgrade {
        // Its own field names the upgrade.
    } else if close && !tunnel && !head.status.is_informational() {
        put(out, &["connection: close\r\n"]);
    } else if answering.http_10 && answering.keep_alive {
        put(out, &["connection: keep-alive\r\n"]);
    }
    put(out, &[framing, "\r\n"]);
    body
}

/// Appends the last chunk of a body with its trailers.
pub fn encode_last_chunk(out: &mut BytesMut, trailers: &Headers) {
    put(out, &["0\r\n"]);
    for (name, value) in trailers {
        put_field(out, name, value.as_bytes());
    }
    put(out, &["\r\n"]);
}

fn request_framing(out: &mut BytesMut, head: &RequestHead, end: bool, upgrade: bool) -> BodyLength {
    if !end && (upgrade || head.method == Method::CONNECT) {
        return BodyLength::Tunnel;
    }
    if let Some(length) = content_length(&head.headers) {
        return if length == 0 { BodyLength::Empty } else { BodyLength::Fixed(length) };
    }
    if end {
        let bodiless = [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE, Method::CONNECT];
        if !bodiless.contains(&head.method) && !upgrade {
            put(out, &["content-length: 0\r\n"]);
        }
        return BodyLength::Empty;
    }
    put(out, &["transfer-encoding: chunked\r\n"]);
    BodyLength::Chunked
}

/// As Envoy's `StreamEncoderImpl::encodeHeadersBase` decides; with the field line that says so, if one is missing.
fn response_framing(head: &ResponseHead, answering: &Answering, end: bool) -> (BodyLength, &'static str) {
    let to_head = answering.method == Method::HEAD;
    if is_lengthless(head.status) || head.status == StatusCode::NOT_MODIFIED {
        return (BodyLength::Empty, "");
    }
    if let Some(length) = content_length(&head.headers) {
        return (if to_head || length == 0 { BodyLength::Empty } else { BodyLength::Fixed(length) }, "");
    }
    if end && !to_head {
        return (BodyLength::Empty, "content-length: 0\r\n");
    }
    if answering.http_10 {
        return (if to_head { BodyLength::Empty } else { BodyLength::UntilClose }, "");
    }
    let body = if to_head { BodyLength::Empty } else { BodyLength::Chunked };
    (body, "transfer-encoding: chunked\r\n")
}

fn is_tunnel(head: &ResponseHead, answering: &Answering) -> bool {
    head.status == StatusCode::SWITCHING_PROTOCOLS
        || (answering.method == Method::CONNECT && head.status.is_success())
}

fn is_lengthless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

pub(crate) fn content_length(headers: &Headers) -> Option<u64> {
    headers.get_str(&header::CONTENT_LENGTH)?.parse().ok()
}

fn put_fields(out: &mut BytesMut, headers: &Headers, upgrade: bool, length_allowed: bool) {
    for (name, value) in headers {
        if is_relayed(name, upgrade, length_allowed) {
            put_field(out, name, value.as_bytes());
        }
    }
}

fn is_relayed(name: &HeaderName, upgrade: bool, length_allowed: bool) -> bool {
    if *name == header::UPGRADE || *name == header::CONNECTION {
        return upgrade;
    }
    if *name == header::CONTENT_LENGTH {
        return length_allowed;
    }
    *name == header::TE || (*name != header::HOST && !is_hop_by_hop(name))
}

fn put_field(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    out.reserve(name.as_str().len() + value.len() + 4);
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn put(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}
