//! What can go wrong on a connection, told in terms that the caller acts on.
//!
//! Owns the kinds; what they mean for a request (status, response flag, retry) is the proxy's.

use std::io::{self, ErrorKind};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use crate::{Reason, ResponseHead};

/// The client's side of an exchange failed while its body was read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer went away before the body was complete.
    #[error("the peer closed the connection before the body was complete")]
    Closed,
    /// The peer reset the stream (HTTP/2).
    #[error("the peer reset the stream: {0}")]
    Reset(Reason),
    /// The bytes are not HTTP.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// Reading failed.
    #[error("reading failed")]
    Io(#[source] io::Error),
}

/// Sending failed; nothing more can be sent on this exchange.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The peer went away.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer reset the stream (HTTP/2).
    #[error("the peer reset the stream: {0}")]
    Reset(Reason),
    /// The caller broke the order of a message: a second head, data after the end, more or less body than announced.
    #[error("message out of order: {0}")]
    Misuse(&'static str),
    /// Writing failed.
    #[error("writing failed")]
    Io(#[source] io::Error),
}

/// An exchange with an upstream failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The peer said that it has not processed the request (REFUSED_STREAM, GOAWAY below this stream, or an HTTP/2
    /// connection that was already closed): safe to send again elsewhere, whatever the method.
    #[error("the peer refused the request unprocessed")]
    Refused,
    /// The connection ended before any byte of the response.
    #[error("the connection ended before the response")]
    ClosedBeforeResponse,
    /// The connection ended in the middle of the response.
    #[error("the connection ended inside the response")]
    Truncated,
    /// The peer reset the stream (HTTP/2).
    #[error("the peer reset the stream: {0}")]
    Reset(Reason),
    /// The response is not HTTP.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The caller broke the order of a message.
    #[error("message out of order: {0}")]
    Misuse(&'static str),
    /// Reading or writing failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// A request that the codec answered itself and that no service saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {detail}")]
pub struct ProtocolError {
    /// The status answered.
    pub status: StatusCode,
    /// Envoy's response code detail, such as `http1.codec_error`.
    pub detail: &'static str,
}

impl ProtocolError {
    /// The answer, as Envoy words it.
    pub fn answer(self) -> (ResponseHead, Bytes) {
        let body = self.body();
        let mut head = ResponseHead::new(self.status);
        head.headers.append(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if !body.is_empty() {
            head.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        (head, Bytes::from_static(body.as_bytes()))
    }

    /// The body of the answer, as Envoy words it.
    pub fn body(self) -> &'static str {
        match self.detail {
            "request_header_timeout" => "request header timeout",
            "stream_idle_timeout" => "stream timeout",
            _ => self.status.canonical_reason().unwrap_or(""),
        }
    }
}

impl BodyError {
    pub(crate) fn from_h2(error: h2::Error) -> BodyError {
        match error.reason() {
            Some(reason) if error.is_reset() && error.is_remote() => BodyError::Reset(reason),
            Some(_) if error.is_go_away() && error.is_remote() => BodyError::Closed,
            Some(_) => BodyError::Protocol("http2.violation.of.messaging.rule"),
            None => error.into_io().map_or(BodyError::Closed, BodyError::Io),
        }
    }
}

impl SendError {
    pub(crate) fn from_io(error: io::Error) -> SendError {
        match error.kind() {
            kind if is_disconnect(kind) => SendError::Closed,
            _ => SendError::Io(error),
        }
    }

    pub(crate) fn from_h2(error: h2::Error) -> SendError {
        match error.reason() {
            Some(reason) if error.is_reset() => SendError::Reset(reason),
            _ => error.into_io().map_or(SendError::Closed, SendError::from_io),
        }
    }
}

impl ClientError {
    /// A failure to send. The response may still come: a server may answer and close before it has read everything.
    pub(crate) fn from_send(error: SendError) -> ClientError {
        match error {
            SendError::Closed => ClientError::ClosedBeforeResponse,
            SendError::Reset(Reason::REFUSED_STREAM) => ClientError::Refused,
            SendError::Reset(reason) => ClientError::Reset(reason),
            SendError::Misuse(detail) => ClientError::Misuse(detail),
            SendError::Io(error) => ClientError::Io(error),
        }
    }

    /// A failure inside the response.
    pub(crate) fn from_body(error: BodyError) -> ClientError {
        match error {
            BodyError::Closed => ClientError::Truncated,
            BodyError::Reset(reason) => ClientError::Reset(reason),
            BodyError::Protocol(detail) => ClientError::Protocol(detail),
            BodyError::Io(error) => ClientError::Io(error),
        }
    }

    /// A failure before the head of the response.
    pub(crate) fn from_h2(error: h2::Error) -> ClientError {
        let remote = error.is_remote();
        match error.reason() {
            // After GOAWAY `h2` fails the streams above the last one processed with it, and no others.
            Some(_) if remote && error.is_go_away() => ClientError::Refused,
            Some(Reason::REFUSED_STREAM) if remote => ClientError::Refused,
            Some(reason) if remote => ClientError::Reset(reason),
            Some(_) => ClientError::Protocol("http2.violation.of.messaging.rule"),
            None => match error.into_io() {
                Some(error) if !is_disconnect(error.kind()) => ClientError::Io(error),
                _ => ClientError::ClosedBeforeResponse,
            },
        }
    }
}

pub(crate) fn is_disconnect(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::UnexpectedEof
            | ErrorKind::NotConnected
    )
}
