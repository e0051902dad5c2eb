//! Answers that the proxy gives itself.
//!
//! Source: Envoy's `Utility::sendLocalReply`: text with `content-length` and `content-type`, or for gRPC requests a
//! trailers-only response with the mapped `grpc-status`.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use meltemi_http::ResponseHead;

use super::names;
use crate::record::ResponseFlags;

/// An answer of ours, before it is put into the form that the client understands.
#[derive(Debug, Clone)]
pub(crate) struct LocalReply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: Cow<'static, str>,
    pub(crate) flags: ResponseFlags,
    /// Further headers.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// `grpc-status` in place of the one that the status maps to.
    pub(crate) grpc_status: Option<u32>,
}

impl LocalReply {
    /// An answer without a body.
    pub(crate) fn new(status: StatusCode, details: impl Into<Cow<'static, str>>) -> LocalReply {
        LocalReply {
            status,
            body: Bytes::new(),
            details: details.into(),
            flags: ResponseFlags::NONE,
            headers: Vec::new(),
            grpc_status: None,
        }
    }

    pub(crate) fn flags(mut self, flags: ResponseFlags) -> LocalReply {
        self.flags.insert(flags);
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> LocalReply {
        self.body = body.into();
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> LocalReply {
        self.headers.push((name, value));
        self
    }

    /// The response for a request of this method and kind: head, and body to send.
    pub(crate) fn into_response(self, method: &Method, is_grpc: bool) -> (ResponseHead, Bytes) {
        if is_grpc {
            return (self.grpc_head(), Bytes::new());
        }
        let mut head = ResponseHead::new(self.status);
        // How an empty body is told is the codec's matter: HTTP/1 says `content-length: 0`, HTTP/2 ends the stream.
        if !self.body.is_empty() {
            head.headers.append(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            head.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        self.headers.into_iter().for_each(|(name, value)| head.headers.append(name, value));
        let body = if *method == Method::HEAD { Bytes::new() } else { self.body };
        (head, body)
    }

    fn grpc_head(self) -> ResponseHead {
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let status = self.grpc_status.unwrap_or_else(|| grpc_status(self.status).into());
        head.headers.append(names::GRPC_STATUS.clone(), HeaderValue::from(status));
        if !self.body.is_empty() {
            head.headers.append(names::GRPC_MESSAGE.clone(), percent_encoded(&self.body));
        }
        self.headers.into_iter().for_each(|(name, value)| head.headers.append(name, value));
        head
    }
}

/// The gRPC status that stands for an HTTP status (gRPC over HTTP/2, "HTTP to gRPC Status Code Mapping").
fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `grpc-message`: printable ASCII as it is, all else and `%` escaped.
fn percent_encoded(text: &[u8]) -> HeaderValue {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    HeaderValue::try_from(out).expect("invariant: every other byte was escaped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_answer_has_length_and_type() {
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "no_healthy_upstream")
            .body("no healthy upstream");
        let (head, body) = reply.clone().into_response(&Method::GET, false);
        assert_eq!(head.headers.get(&header::CONTENT_LENGTH).unwrap(), "19");
        assert_eq!(head.headers.get(&header::CONTENT_TYPE).unwrap(), "text/plain");
        assert_eq!(&body[..], b"no healthy upstream");
        let (head, body) = reply.into_response(&Method::HEAD, false);
        assert_eq!(
            (head.headers.get(&header::CONTENT_LENGTH).unwrap(), body.len()),
            (&HeaderValue::from(19), 0)
        );
    }

    #[test]
    fn a_grpc_answer_is_trailers_only() {
        let reply = LocalReply::new(StatusCode::NOT_FOUND, "route_not_found").body("100% ü");
        let (head, body) = reply.into_response(&Method::POST, true);
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers.get(&names::GRPC_STATUS).unwrap(), "12");
        assert_eq!(head.headers.get(&names::GRPC_MESSAGE).unwrap(), "100%25 %C3%BC");
        assert!(body.is_empty() && !head.headers.contains(&header::CONTENT_LENGTH));
    }
}
