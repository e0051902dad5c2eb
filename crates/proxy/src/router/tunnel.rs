//! Upgrades and CONNECT: what differs from a request with a body.
//!
//! Until the upstream accepts, only a body of known length goes up: what comes after it may be meant for nobody but a
//! server that switched, and one that did not would read it as its next request. Source: Envoy's router and HTTP/1 codec.

use http::{StatusCode, header};
use meltemi_http::client::RequestSender;
use meltemi_http::{BodyError, ResponseHead, Version};

use super::timers::Timers;
use super::upload::{UploadError, upload};
use crate::record::ResponseFlags;
use crate::stream::{RequestBody, Stream};

/// Details of a WebSocket handshake that ended with neither 101 nor an error.
const HANDSHAKE_UNSUCCESSFUL: &str = "websocket_handshake_unsuccessful";

/// Details of a tunnel that an HTTP/1 upstream closed: in HTTP/1 its end is the connection's.
const CLOSED_BY_UPSTREAM: &str = "upstream_reset_after_response_started{connection_termination}";

/// Sends the body that comes before the tunnel.
pub(super) async fn prologue(
    body: &RequestBody<'_>,
    send: &mut RequestSender<'_>,
    timers: &Timers,
) -> Result<(), UploadError> {
    let mut number = 0;
    while let Some(frame) =
        std::future::poll_fn(|cx| body.poll_frame(number, cx)).await.map_err(UploadError::Client)?
    {
        number += 1;
        timers.touch();
        if let meltemi_http::Frame::Data(bytes) = frame {
            send.data(bytes, false).await.map_err(UploadError::Upstream)?;
        }
        send.flush().await.map_err(UploadError::Upstream)?;
    }
    Ok(())
}

/// Sends what comes through the tunnel. The end of an HTTP/1 client is the end of its connection, and so of the tunnel.
pub(super) async fn ascend(
    body: &RequestBody<'_>,
    send: &mut RequestSender<'_>,
    timers: &Timers,
    version: Version,
) -> Result<(), UploadError> {
    upload(body, body.next_number(), send, timers).await?;
    match version {
        Version::Http2 => Ok(()),
        Version::Http10 | Version::Http11 => Err(UploadError::Client(BodyError::Closed)),
    }
}

/// Whether a WebSocket handshake failed without an error: the client gets the head alone.
pub(super) fn is_failed_handshake(stream: &Stream<'_, '_>, head: &ResponseHead) -> bool {
    stream.traits.is_websocket()
        && head.status != StatusCode::SWITCHING_PROTOCOLS
        && head.status.as_u16() < StatusCode::BAD_REQUEST.as_u16()
}

/// Takes the body off the answer to a failed handshake.
pub(super) fn fail_handshake(stream: &mut Stream<'_, '_>, head: &mut ResponseHead) {
    head.headers.remove(&header::CONTENT_LENGTH);
    stream.record.details = Some(HANDSHAKE_UNSUCCESSFUL.into());
}

/// Notes that the upstream closed a tunnel.
pub(super) fn closed_by_upstream(stream: &mut Stream<'_, '_>) {
    stream.record.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
    stream.record.details = Some(CLOSED_BY_UPSTREAM.into());
}
