//! Message heads from bytes.
//!
//! Owns the rules of RFC 9112 sections 2 to 6 on top of `httparse`, which checks the characters. Names, values and
//! targets share the memory of the buffer they came in.
//!
//! Answers are Envoy's, compared on the wire with 1.40. Differs: where Envoy's parser forgives (a bare LF, a folded line, a
//! CR inside a value, two spaces in the request line, a second `host`), two parsers on one path may read two different
//! messages, so these are 400 here.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::{BodyLength, H1Options, KeyFormat, Spelling, Underscores};
use crate::head::is_authority;
use crate::{Headers, ProtocolError, RequestHead, ResponseHead, Text, Version};

/// Fields for which there is room without an allocation.
const INLINE_FIELDS: usize = 128;

const fn bad(detail: &'static str) -> ProtocolError {
    ProtocolError { status: StatusCode::BAD_REQUEST, detail }
}

const CODEC_ERROR: ProtocolError = bad("http1.codec_error");
const INVALID_URL: ProtocolError = bad("http1.invalid_url");
const LENGTH_AND_CHUNKED: ProtocolError = bad("http1.content_length_and_chunked_not_allowed");
const BODY_DISALLOWED: ProtocolError = bad("http1.body_disallowed");
const INVALID_AUTHORITY: ProtocolError = bad("http.invalid_authority");
const INVALID_CHARACTERS: ProtocolError = bad("http1.invalid_characters");
const INVALID_SCHEME: ProtocolError = bad("http1.invalid_scheme");
const LENGTH_NOT_ALLOWED: ProtocolError = bad("http1.content_length_not_allowed");
const CODING_NOT_ALLOWED: ProtocolError = bad("http1.transfer_encoding_not_allowed");
const TRANSFER_ENCODING: ProtocolError =
    ProtocolError { status: StatusCode::NOT_IMPLEMENTED, detail: "http1.invalid_transfer_encoding" };
const UNDERSCORE: ProtocolError = bad("http1.unexpected_underscore");
const HEADERS_TOO_LARGE: ProtocolError =
    ProtocolError { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail: "http1.headers_too_large" };
const TOO_MANY_HEADERS: ProtocolError =
    ProtocolError { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail: "http1.too_many_headers" };

/// Any version but 1.1, unless 1.0 is accepted.
pub(crate) const LOW_VERSION: ProtocolError =
    ProtocolError { status: StatusCode::UPGRADE_REQUIRED, detail: "low_version" };

/// The methods that Envoy's parser takes, and `QUERY`. In the order of their frequency where that matters.
#[rustfmt::skip]
const METHODS: [&str; 35] = [
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "ACL", "BIND", "CHECKOUT", "COPY",
    "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "MSEARCH", "NOTIFY", "PROPFIND", "PROPPATCH",
    "PURGE", "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
];

/// A parsed request head with what the connection needs to know about it.
#[derive(Debug)]
pub struct RequestMessage {
    /// The head.
    pub head: RequestHead,
    /// The framing of the body; for CONNECT and upgrades, of what comes before the tunnel.
    pub body: BodyLength,
    /// Whether the client lets the connection stay open.
    pub keep_alive: bool,
}

/// A parsed response head with what the connection needs to know about it.
#[derive(Debug)]
pub struct ResponseMessage {
    /// The head.
    pub head: ResponseHead,
    /// The framing of the body.
    pub body: BodyLength,
    /// Whether the server lets the connection stay open.
    pub keep_alive: bool,
}

/// How far the search for the end of a head has come, so that no byte is looked at twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    scanned: usize,
}

impl HeadScan {
    /// Finds the empty line that ends a head; the result counts it. An LF without CR is an error.
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        for offset in memchr::memchr_iter(b'\n', &bytes[self.scanned..]) {
            let line_feed = self.scanned + offset;
            if line_feed == 0 || bytes[line_feed - 1] != b'\r' {
                return Err(CODEC_ERROR);
            }
            if bytes[..line_feed - 1].ends_with(b"\n") || line_feed == 1 {
                self.scanned = 0;
                return Ok(Some(line_feed + 1));
            }
        }
        self.scanned = bytes.len();
        Ok(None)
    }
}

/// Parses a request head off the front of `buffer`. `None`: more bytes are needed. Empty lines before the head are
/// skipped. A request without `host` is not refused here: [`RequestHead::authority`] is `None`, and whoever answers says
/// 400, with the request in its log.
pub fn parse_request(
    buffer: &mut BytesMut,
    scan: &mut HeadScan,
    limits: &H1Options,
) -> Result<Option<RequestMessage>, ProtocolError> {
    while scan.scanned == 0 && buffer.starts_with(b"\r\n") {
        buffer.advance(2);
    }
    // Half of an empty line.
    if buffer.as_ref() == b"\r" {
        return Ok(None);
    }
    let Some(head) = split_head(buffer, scan, limits)? else {
        if starts_wrong(buffer) {
            return Err(CODEC_ERROR);
        }
        return Ok(None);
    };
    with_fields(limits.max_headers, |fields| {
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(&head, fields);
        complete(status.map_err(|error| malformed_request(error, &head))?)?;
        request_message(&head, &request, limits).map(Some)
    })
}

/// Parses a response head off the front of `buffer`. `None`: more bytes are needed. `method` is the request's.
pub fn parse_response(
    buffer: &mut BytesMut,
    scan: &mut HeadScan,
    limits: &H1Options,
    method: &Method,
) -> Result<Option<ResponseMessage>, ProtocolError> {
    let Some(head) = split_head(buffer, scan, limits)? else { return Ok(None) };
    with_fields(limits.max_headers, |fields| {
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let status = config.parse_response_with_uninit_headers(&mut response, &head, fields);
        complete(status.map_err(malformed)?)?;
        response_message(&head, &response, method, limits).map(Some)
    })
}

/// Parses the fields of trailers; `block` ends with the empty line.
pub(crate) fn parse_trailers(block: &Bytes, limits: &H1Options) -> Result<Headers, ProtocolError> {
    let mut fields = vec![httparse::EMPTY_HEADER; limits.max_headers];
    match httparse::parse_headers(block, &mut fields).map_err(malformed)? {
        httparse::Status::Complete((_, fields)) => {
            let mut trailers = Headers::with_capacity(fields.len());
            trailers.set_spelling(Spelling::for_format(limits.key_format));
            for field in fields {
                let (name, value) = shared_field(block, field)?;
                note_spelling(&mut trailers, block, field);
                trailers.append(name, value);
            }
            Ok(trailers)
        }
        httparse::Status::Partial => Err(CODEC_ERROR),
    }
}

/// The head was cut at its empty line, so anything left over means that the lines before make no head.
fn complete(status: httparse::Status<usize>) -> Result<(), ProtocolError> {
    if status.is_complete() { Ok(()) } else { Err(CODEC_ERROR) }
}

/// A request line without a version is HTTP/0.9; one with a further word is none.
fn malformed_request(error: httparse::Error, head: &[u8]) -> ProtocolError {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let spaces = line.iter().filter(|byte| **byte == b' ').count();
    let is_http_09 = spaces == 1;
    match error {
        httparse::Error::Version if spaces == 2 => LOW_VERSION,
        _ if is_http_09 && !starts_wrong(line) => LOW_VERSION,
        error => malformed(error),
    }
}

fn malformed(error: httparse::Error) -> ProtocolError {
    match error {
        httparse::Error::TooManyHeaders => TOO_MANY_HEADERS,
        httparse::Error::HeaderValue => INVALID_CHARACTERS,
        _ => CODEC_ERROR,
    }
}

/// Runs `parse` with room for `count` fields, on the stack as a rule.
fn with_fields<'h, T>(count: usize, parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'h>>]) -> T) -> T {
    if count <= INLINE_FIELDS {
        parse(&mut [const { MaybeUninit::uninit() }; INLINE_FIELDS][..count])
    } else {
        parse(&mut vec![MaybeUninit::uninit(); count])
    }
}

/// Takes a whole head off the buffer.
fn split_head(
    buffer: &mut BytesMut,
    scan: &mut HeadScan,
    limits: &H1Options,
) -> Result<Option<Bytes>, ProtocolError> {
    match scan.find_end(buffer)? {
        Some(end) if end > limits.max_head_bytes => Err(HEADERS_TOO_LARGE),
        None if buffer.len() > limits.max_head_bytes => Err(HEADERS_TOO_LARGE),
        Some(end) => Ok(Some(buffer.split_to(end).freeze())),
        None => Ok(None),
    }
}

/// Whether bytes without a complete head can be no method: TLS or binary garbage is refused at once, not at a time-out.
fn starts_wrong(bytes: &[u8]) -> bool {
    let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~\r".contains(byte);
    !method.iter().take(32).all(is_token)
}

fn request_message(
    head: &Bytes,
    parsed: &httparse::Request<'_, '_>,
    options: &H1Options,
) -> Result<RequestMessage, ProtocolError> {
    let version = version(parsed.version)?;
    let is_known = |method: &&str| METHODS.contains(method) || options.allow_custom_methods;
    let method = parsed.method.filter(is_known).ok_or(CODEC_ERROR)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| CODEC_ERROR)?;
    let target = shared_text(head, parsed.path.unwrap_or_default().as_bytes())?;
    let mut message =
        RequestMessage { head: request_target(method, target)?, body: BodyLength::Empty, keep_alive: false };
    message.head.version = version;
    let mut framing = Framing { allows_both: options.allow_chunked_length, ..Framing::default() };
    let mut host = None;
    let headers = &mut message.head.headers;
    *headers = Headers::with_capacity(parsed.headers.len());
    headers.set_spelling(Spelling::for_format(options.key_format));
    for field in parsed.headers.iter() {
        let (name, value) = shared_field(head, field)?;
        if options.underscores != Underscores::Allow && field.name.contains('_') {
            match options.underscores {
                Underscores::Reject => return Err(UNDERSCORE),
                _ => continue,
            }
        }
        note_spelling(headers, head, field);
        if name == header::HOST {
            let value = shared_text(head, field.value)?;
            if host.replace(value).is_some() {
                return Err(CODEC_ERROR);
            }
            continue;
        }
        framing.note(&name, &value)?;
        headers.append(name, value);
    }
    if framing.has_both() {
        headers.remove(&header::CONTENT_LENGTH);
    }
    message.head.authority = message.head.authority.take().or(host);
    if message.head.authority.as_deref().is_some_and(|authority| !is_authority(authority)) {
        return Err(INVALID_AUTHORITY);
    }
    message.keep_alive = framing.keep_alive(version);
    if framing.upgrade {
        drop_h2c_upgrade(&mut message.head.headers);
    }
    message.body = framing.request_body(&message.head)?;
    Ok(message)
}

fn response_message(
    head: &Bytes,
    parsed: &httparse::Response<'_, '_>,
    method: &Method,
    options: &H1Options,
) -> Result<ResponseMessage, ProtocolError> {
    let version = version(parsed.version)?;
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(|_| CODEC_ERROR)?;
    let mut framing = Framing { allows_both: options.allow_chunked_length, ..Framing::default() };
    let mut headers = Headers::with_capacity(parsed.headers.len());
    headers.set_spelling(Spelling::for_format(options.key_format));
    note_reason(&mut headers, head, parsed.reason, options);
    for field in parsed.headers.iter() {
        let (name, value) = shared_field(head, field)?;
        framing.note(&name, &value)?;
        note_spelling(&mut headers, head, field);
        headers.append(name, value);
    }
    if framing.has_both() {
        headers.remove(&header::CONTENT_LENGTH);
    }
    let body = framing.response_body(method, status)?;
    let keep_alive = framing.keep_alive(version) && body != BodyLength::UntilClose;
    Ok(ResponseMessage { head: ResponseHead { status, headers, version }, body, keep_alive })
}

fn version(minor: Option<u8>) -> Result<Version, ProtocolError> {
    match minor {
        Some(0) => Ok(Version::Http10),
        Some(1) => Ok(Version::Http11),
        _ => Err(CODEC_ERROR),
    }
}

/// `httparse` hands out slices of the head; this shares the memory instead of copying.
fn shared_text(head: &Bytes, part: &[u8]) -> Result<Text, ProtocolError> {
    let bytes = if part.is_empty() { Bytes::new() } else { head.slice_ref(part) };
    Text::from_utf8(bytes).map_err(|_| CODEC_ERROR)
}

fn shared_field(
    head: &Bytes,
    field: &httparse::Header<'_>,
) -> Result<(HeaderName, HeaderValue), ProtocolError> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| CODEC_ERROR)?;
    let value = if field.value.is_empty() { Bytes::new() } else { head.slice_ref(field.value) };
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| CODEC_ERROR)?;
    Ok((name, value))
}

fn note_spelling(headers: &mut Headers, head: &Bytes, field: &httparse::Header<'_>) {
    if let Some(spelling) = headers.spelling_mut().filter(|_| !field.name.is_empty()) {
        spelling.note(head.slice_ref(field.name.as_bytes()));
    }
}

fn note_reason(headers: &mut Headers, head: &Bytes, reason: Option<&str>, options: &H1Options) {
    let KeyFormat::Preserve { reason_phrase: true, .. } = options.key_format else { return };
    let reason = reason.filter(|reason| !reason.is_empty());
    if let (Some(spelling), Some(reason)) = (headers.spelling_mut(), reason) {
        spelling.reason = Some(head.slice_ref(reason.as_bytes()));
    }
}

/// The four forms of a request target (RFC 9112, 3.2).
fn request_target(method: Method, target: Text) -> Result<RequestHead, ProtocolError> {
    if method == Method::CONNECT {
        let mut head = RequestHead::new(method, Text::new());
        head.authority = Some(target);
        return Ok(head);
    }
    if target.starts_with('/') || (target == "*" && method == Method::OPTIONS) {
        return Ok(RequestHead::new(method, target));
    }
    if target == "*" {
        return Err(INVALID_URL);
    }
    let scheme_end = target.find("://").ok_or(CODEC_ERROR)?;
    let scheme = target.slice(..scheme_end).to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(INVALID_SCHEME);
    }
    let rest = target.slice(scheme_end + 3..);
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if authority_end == 0 {
        return Err(INVALID_URL);
    }
    let path = rest.slice(authority_end..);
    let path = if path.starts_with('/') { path } else { Text::from(format!("/{path}")) };
    let mut head = RequestHead::new(method, path);
    head.scheme = Some(Text::from_static(if scheme == "http" { "http" } else { "https" }));
    head.authority = Some(rest.slice(..authority_end));
    Ok(head)
}

/// What the fields of a head say about its body and the connection.
#[derive(Default)]
struct Framing {
    content_length: Option<u64>,
    transfer_encoding: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// A length beside chunks is overlooked.
    allows_both: bool,
}

impl Framing {
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), ProtocolError> {
        if *name == header::CONTENT_LENGTH {
            let length = decimal(value.as_bytes()).ok_or(CODEC_ERROR)?;
            if self.content_length.replace(length).is_some() {
                return Err(CODEC_ERROR);
            }
        } else if *name == header::TRANSFER_ENCODING {
            // A second coding, or `chunked` twice, has no meaning that two parsers share.
            if self.transfer_encoding || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(TRANSFER_ENCODING);
            }
            self.transfer_encoding = true;
        } else if *name == header::CONNECTION {
            for token in tokens(value) {
                self.close |= token.eq_ignore_ascii_case(b"close");
                self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if *name == header::UPGRADE {
            self.upgrade = true;
        }
        if self.has_both() && !self.allows_both {
            return Err(LENGTH_AND_CHUNKED);
        }
        Ok(())
    }

    fn has_both(&self) -> bool {
        self.transfer_encoding && self.content_length.is_some()
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version != Version::Http10 || self.keep_alive)
    }

    fn request_body(&self, head: &RequestHead) -> Result<BodyLength, ProtocolError> {
        if head.method == Method::CONNECT {
            return match (self.transfer_encoding, self.content_length) {
                (true, _) => Err(TRANSFER_ENCODING),
                (false, Some(1..)) => Err(BODY_DISALLOWED),
                (false, _) => Ok(BodyLength::Empty),
            };
        }
        if self.transfer_encoding && self.upgrade && head.upgrade().is_some() {
            // Where the chunks end and the other protocol begins, no two parsers agree on.
            return Err(TRANSFER_ENCODING);
        }
        if self.transfer_encoding && head.version == Version::Http10 {
            return Err(CODEC_ERROR);
        }
        Ok(match (self.transfer_encoding, self.content_length) {
            (true, _) => BodyLength::Chunked,
            (false, Some(length)) if length > 0 => BodyLength::Fixed(length),
            (false, _) => BodyLength::Empty,
        })
    }

    fn response_body(&self, method: &Method, status: StatusCode) -> Result<BodyLength, ProtocolError> {
        let tunnel =
            status == StatusCode::SWITCHING_PROTOCOLS || (*method == Method::CONNECT && status.is_success());
        if tunnel {
            return Ok(BodyLength::Tunnel);
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            self.check_lengthless()?;
        }
        let bodiless = *method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        Ok(match (self.transfer_encoding, self.content_length) {
            _ if bodiless => BodyLength::Empty,
            (true, _) => BodyLength::Chunked,
            (false, Some(0)) => BodyLength::Empty,
            (false, Some(length)) => BodyLength::Fixed(length),
            (false, None) => BodyLength::UntilClose,
        })
    }
}

impl Framing {
    /// 1xx and 204 have no length; a length of 0 does no harm.
    fn check_lengthless(&self) -> Result<(), ProtocolError> {
        if self.transfer_encoding {
            return Err(CODING_NOT_ALLOWED);
        }
        if self.content_length.is_some_and(|length| length > 0) { Err(LENGTH_NOT_ALLOWED) } else { Ok(()) }
    }
}

/// The comma-separated tokens of a field value.
pub(crate) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// `1*DIGIT`, nothing else: no sign, no space, no list.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// An offer to switch to h2c is declined by not seeing it, as Envoy does; curl sends it with every `--http2` request.
fn drop_h2c_upgrade(headers: &mut Headers) {
    let is_h2c = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"h2c");
    if headers.get(&header::UPGRADE).is_some_and(is_h2c) {
        headers.remove(&header::UPGRADE);
        headers.remove(&header::CONNECTION);
        headers.retain(|name, _| name.as_str() != "http2-settings");
    }
}

#[cfg(test)]
mod tests;
