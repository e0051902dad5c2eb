//! Message heads and bodies to bytes.
//!
//! Owns the fields that belong to the connection (`host`, `connection`, `transfer-encoding`, `content-length: 0`): they
//! follow from the framing chosen here, never from a copied field. Order and spelling are Envoy's: `host` first, the
//! message's own fields in their order, lower-case, framing last.

use bytes::BytesMut;
use http::header::{self, HeaderName};
use http::{Method, StatusCode};

use super::spelling::put_header_name;
use super::{BodyLength, H1Options, KeyFormat, Spelling};
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
pub fn encode_request(out: &mut BytesMut, head: &RequestHead, end: bool, options: &H1Options) -> BodyLength {
    let names = Names::new(&head.headers, options);
    put(out, &[head.method.as_str(), " "]);
    put_target(out, head, options);
    put(out, &[" HTTP/1.1\r\n"]);
    if let Some(authority) = &head.authority {
        names.put_line(out, &header::HOST, authority.as_bytes());
    }
    let upgrade = head.upgrade().is_some();
    put_fields(out, &head.headers, upgrade, true, &names);
    let body = request_framing(out, head, end, upgrade, &names);
    put(out, &["\r\n"]);
    body
}

fn put_target(out: &mut BytesMut, head: &RequestHead, options: &H1Options) {
    match &head.authority {
        Some(authority) if head.method == Method::CONNECT => put(out, &[authority]),
        Some(authority) if options.absolute_target => {
            put(out, &[head.scheme.as_deref().unwrap_or("http"), "://", authority, &head.path]);
        }
        _ => put(out, &[&head.path]),
    }
}

/// Appends a response head; says how its body is framed. `end`: nothing follows. `close`: the connection ends after it.
pub fn encode_response(
    out: &mut BytesMut,
    head: &ResponseHead,
    answering: &Answering,
    end: bool,
    close: bool,
    options: &H1Options,
) -> BodyLength {
    let names = Names::new(&head.headers, options);
    put(out, &["HTTP/1.1 ", head.status.as_str(), " "]);
    out.extend_from_slice(names.reason(head.status));
    put(out, &["\r\n"]);
    let tunnel = is_tunnel(head, answering);
    let upgrade = head.status == StatusCode::SWITCHING_PROTOCOLS;
    // A length on 1xx, 204 or an accepted CONNECT has no meaning (RFC 9110, 8.6).
    let length_allowed = !is_lengthless(head.status) && !tunnel;
    put_fields(out, &head.headers, upgrade, length_allowed, &names);
    let (body, framing) =
        if tunnel { (BodyLength::Tunnel, None) } else { response_framing(head, answering, end) };
    let close = close || body == BodyLength::UntilClose;
    if upgrade && !head.headers.contains(&header::CONNECTION) {
        names.put_line(out, &header::CONNECTION, b"upgrade");
    } else if upgrade {
        // Its own field names the upgrade.
    } else if close && !tunnel && !head.status.is_informational() {
        names.put_line(out, &header::CONNECTION, b"close");
    } else if answering.http_10 && answering.keep_alive {
        names.put_line(out, &header::CONNECTION, b"keep-alive");
    }
    if let Some((name, value)) = framing {
        names.put_line(out, &name, value);
    }
    put(out, &["\r\n"]);
    body
}

/// Appends the last chunk of a body, with its trailers where they are sent.
pub fn encode_last_chunk(out: &mut BytesMut, trailers: &Headers, options: &H1Options) {
    put(out, &["0\r\n"]);
    let names = Names::new(trailers, options);
    for (name, value) in trailers.iter().filter(|_| options.trailers) {
        names.put_line(out, name, value.as_bytes());
    }
    put(out, &["\r\n"]);
}

fn request_framing(
    out: &mut BytesMut,
    head: &RequestHead,
    end: bool,
    upgrade: bool,
    names: &Names<'_>,
) -> BodyLength {
    if !end && (upgrade || head.method == Method::CONNECT) {
        return BodyLength::Tunnel;
    }
    if let Some(length) = content_length(&head.headers) {
        return if length == 0 { BodyLength::Empty } else { BodyLength::Fixed(length) };
    }
    if end {
        let bodiless = [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE, Method::CONNECT];
        if !bodiless.contains(&head.method) && !upgrade {
            names.put_line(out, &header::CONTENT_LENGTH, b"0");
        }
        return BodyLength::Empty;
    }
    names.put_line(out, &header::TRANSFER_ENCODING, b"chunked");
    BodyLength::Chunked
}

/// A field line that the framing asks for.
type FramingLine = Option<(HeaderName, &'static [u8])>;

/// As Envoy's `StreamEncoderImpl::encodeHeadersBase` decides; with the field line that says so, if one is missing.
fn response_framing(head: &ResponseHead, answering: &Answering, end: bool) -> (BodyLength, FramingLine) {
    let to_head = answering.method == Method::HEAD;
    if is_lengthless(head.status) || head.status == StatusCode::NOT_MODIFIED {
        return (BodyLength::Empty, None);
    }
    if let Some(length) = content_length(&head.headers) {
        return (if to_head || length == 0 { BodyLength::Empty } else { BodyLength::Fixed(length) }, None);
    }
    if end && !to_head {
        return (BodyLength::Empty, Some((header::CONTENT_LENGTH, b"0")));
    }
    if answering.http_10 {
        return (if to_head { BodyLength::Empty } else { BodyLength::UntilClose }, None);
    }
    let body = if to_head { BodyLength::Empty } else { BodyLength::Chunked };
    (body, Some((header::TRANSFER_ENCODING, b"chunked")))
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

fn put_fields(out: &mut BytesMut, headers: &Headers, upgrade: bool, length_allowed: bool, names: &Names<'_>) {
    for (name, value) in headers {
        if is_relayed(name, upgrade, length_allowed) {
            names.put_line(out, name, value.as_bytes());
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

/// How the names of one message are spelled.
struct Names<'h> {
    spelling: Option<&'h Spelling>,
    format: KeyFormat,
}

impl<'h> Names<'h> {
    fn new(headers: &'h Headers, options: &H1Options) -> Names<'h> {
        Names { spelling: headers.spelling(), format: options.key_format }
    }

    fn put_line(&self, out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
        out.reserve(name.as_str().len() + value.len() + 4);
        put_header_name(out, name, self.spelling, self.format);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }

    fn reason(&self, status: StatusCode) -> &'h [u8] {
        match self.spelling.and_then(|spelling| spelling.reason.as_ref()) {
            Some(reason) => reason,
            None => status.canonical_reason().unwrap_or("Unknown").as_bytes(),
        }
    }
}

fn put(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}
