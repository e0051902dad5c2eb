//! Answers that the proxy gives itself.
//!
//! Source: Envoy's `Utility::sendLocalReply`: text with `content-length` and `content-type`, or for gRPC requests a
//! trailers-only response with the mapped `grpc-status`; and `LocalReply`, which changes it as configured.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use meltemi_compile::local_reply::{BodyFormat, LocalReplyConfig, ResponseMapper};
use meltemi_compile::program::LogFormat;
use meltemi_http::{Headers, RequestHead, ResponseHead};

use super::{edits, names};
use crate::access_log;
use crate::access_log::format::{Missing, render, render_json};
use crate::record::{RecordView, RequestRecord, ResponseFlags};

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

    /// The answer as it begins: headers of its own, to be changed by whoever may.
    pub(crate) fn draft(self) -> Draft {
        Draft {
            status: self.status,
            headers: self.headers.into_iter().collect(),
            body: self.body,
            body_type: TEXT_PLAIN,
            replaces_type: false,
            grpc_status: self.grpc_status,
        }
    }
}

const TEXT_PLAIN: HeaderValue = HeaderValue::from_static("text/plain");

/// An answer of ours while it is made.
#[derive(Debug)]
pub(crate) struct Draft {
    status: StatusCode,
    pub(crate) headers: Headers,
    body: Bytes,
    /// What the body is, unless the headers say so.
    body_type: HeaderValue,
    /// `body_type` holds even if the headers say otherwise.
    replaces_type: bool,
    grpc_status: Option<u32>,
}

impl Draft {
    /// Changes the answer as `local_reply_config` says.
    pub(crate) fn rewrite(
        &mut self,
        config: &LocalReplyConfig,
        record: &mut RequestRecord,
        request: Option<&RequestHead>,
    ) {
        record.response_code = self.status.as_u16();
        let before = self.body.clone();
        let view = record.view(request, Some(&self.headers), None);
        let mapper = config.mappers.iter().find(|mapper| access_log::allows(&mapper.filter, &view));
        if let Some(mapper) = mapper {
            self.map(mapper, record, request);
        }
        let own_format = mapper.and_then(|mapper| mapper.body_format.as_ref());
        if let Some(format) = own_format.or(config.body_format.as_ref()) {
            let view = record.view(request, Some(&self.headers), None);
            self.body = formatted(format, &RecordView { local_body: &self.body, ..view });
            self.body_type = format.content_type.clone();
        }
        // The type that a route gave was that of the old body; a mapper knows the new one.
        let sets_type =
            |mapper: &ResponseMapper| mapper.headers.add.iter().any(|add| add.name == header::CONTENT_TYPE);
        self.replaces_type = self.body != before && !mapper.is_some_and(sets_type);
    }

    fn map(&mut self, mapper: &ResponseMapper, record: &mut RequestRecord, request: Option<&RequestHead>) {
        if let Some(body) = &mapper.body {
            self.body = body.clone();
        }
        edits::add(&mut self.headers, &mapper.headers, record, request);
        if let Some(status) = mapper.status {
            self.status = status;
            record.response_code = status.as_u16();
        }
    }

    /// The response for a request of this method and kind: head, and body to send.
    pub(crate) fn finish(mut self, method: &Method, is_grpc: bool) -> (ResponseHead, Bytes) {
        if is_grpc {
            return (self.grpc_head(), Bytes::new());
        }
        if self.body.is_empty() {
            // How an empty body is told is the codec's matter: HTTP/1 says `content-length: 0`, HTTP/2 ends the stream.
            self.headers.remove(&header::CONTENT_LENGTH);
            self.headers.remove(&header::CONTENT_TYPE);
        } else {
            self.headers.set(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            if self.replaces_type || !self.headers.contains(&header::CONTENT_TYPE) {
                self.headers.set(header::CONTENT_TYPE, self.body_type);
            }
        }
        let mut head = ResponseHead::new(self.status);
        head.headers = self.headers;
        let body = if *method == Method::HEAD { Bytes::new() } else { self.body };
        (head, body)
    }

    fn grpc_head(mut self) -> ResponseHead {
        self.headers.set(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let status = self.grpc_status.unwrap_or_else(|| grpc_status(self.status).into());
        self.headers.set(names::GRPC_STATUS.clone(), HeaderValue::from(status));
        // A JSON body ends its line, a message does not.
        let message = match self.body.strip_suffix(b"\n") {
            Some(line) if self.body_type == "application/json" => line,
            _ => &self.body,
        };
        if !message.is_empty() {
            self.headers.set(names::GRPC_MESSAGE.clone(), percent_encoded(message));
        }
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers = self.headers;
        head
    }
}

/// The body that the format makes of the view's.
fn formatted(body: &BodyFormat, view: &RecordView<'_>) -> Bytes {
    let missing = if body.omit_empty_values { Missing::Empty } else { Missing::Dash };
    let mut out = Vec::new();
    match &body.format {
        LogFormat::Text(format) => render(format, view, missing, &mut out),
        LogFormat::Json(format) => render_json(format, view, missing, &mut out),
    }
    out.into()
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
        let (head, body) = reply.clone().draft().finish(&Method::GET, false);
        assert_eq!(head.headers.get(&header::CONTENT_LENGTH).unwrap(), "19");
        assert_eq!(head.headers.get(&header::CONTENT_TYPE).unwrap(), "text/plain");
        assert_eq!(&body[..], b"no healthy upstream");
        let (head, body) = reply.draft().finish(&Method::HEAD, false);
        assert_eq!(
            (head.headers.get(&header::CONTENT_LENGTH).unwrap(), body.len()),
            (&HeaderValue::from(19), 0)
        );
    }

    #[test]
    fn a_grpc_answer_is_trailers_only() {
        let reply = LocalReply::new(StatusCode::NOT_FOUND, "route_not_found").body("100% ü");
        let (head, body) = reply.draft().finish(&Method::POST, true);
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers.get(&names::GRPC_STATUS).unwrap(), "12");
        assert_eq!(head.headers.get(&names::GRPC_MESSAGE).unwrap(), "100%25 %C3%BC");
        assert!(body.is_empty() && !head.headers.contains(&header::CONTENT_LENGTH));
    }
}
