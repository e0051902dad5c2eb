//! What filters wait for. Later effects (a check by another service, a quota, keys to fetch) have their place here.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderValue};
use meltemi_http::{BodyError, Responder};
use tokio::time::Instant;

use super::Stop;
use crate::record::ResponseFlags;
use crate::router::{self, Fault};
use crate::stream::{Buffering, LocalReply, Stream};

/// The client went away.
#[derive(Debug)]
pub(crate) struct Gone;

/// Waits, while the client does. What it sends meanwhile stays where it is.
pub(super) async fn pause(respond: &mut Responder<'_>, time: Duration) -> Result<(), Gone> {
    let mut over = pin!(tokio::time::sleep(time));
    std::future::poll_fn(|cx| {
        if over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        respond.poll_closed(cx).map(|()| Err(Gone))
    })
    .await
}

/// Waits, but not longer than a stream may be idle.
pub(super) async fn delay(stream: &mut Stream<'_, '_>, delay: Duration) -> Result<(), Stop> {
    let idle = stream.manager.settings.stream_idle_timeout;
    let time = idle.map_or(delay, |idle| idle.min(delay));
    if let Err(Gone) = pause(&mut stream.respond, time).await {
        router::client_gone(stream);
        return Err(Stop::Done);
    }
    if time < delay {
        return Err(Stop::Reply(Box::new(Fault::StreamIdle(stream.body.is_complete()).reply(false))));
    }
    Ok(())
}

/// Reads the whole body of the request, and keeps it if it is at most `limit` long; without a limit it is dropped.
pub(super) async fn read_body(stream: &mut Stream<'_, '_>, limit: Option<u32>) -> Result<(), Stop> {
    let settings = stream.manager.settings.clone();
    let start = Instant::from_std(stream.record.start);
    let whole = settings.request_timeout.map(|timeout| start + timeout);
    let body = stream.body;
    let read = body.read_whole(limit, settings.stream_idle_timeout);
    let read = match whole {
        Some(end) => tokio::time::timeout_at(end, read).await.unwrap_or(Err(Buffering::Late)),
        None => read.await,
    };
    let reply = match read {
        Ok(bytes) => {
            stream.record.request_end.get_or_insert_with(std::time::Instant::now);
            if limit.is_some() && !stream.request.headers.contains(&CONTENT_LENGTH) {
                stream.request.headers.append(CONTENT_LENGTH, HeaderValue::from(bytes));
            }
            return Ok(());
        }
        Err(Buffering::TooLarge) => {
            stream.manager.stats.counts.downstream_rq_too_large.inc();
            stream.respond.close_after();
            let reply = LocalReply::new(StatusCode::PAYLOAD_TOO_LARGE, "request_payload_too_large");
            reply.body("Payload Too Large")
        }
        Err(Buffering::Idle) => Fault::StreamIdle(false).reply(false),
        Err(Buffering::Late) => Fault::RequestTimeout.reply(false),
        Err(Buffering::Body(BodyError::Protocol(_))) => {
            let reply = LocalReply::new(StatusCode::BAD_REQUEST, "http1.codec_error").body("Bad Request");
            reply.flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
        }
        Err(Buffering::Body(_)) => {
            router::client_gone(stream);
            return Err(Stop::Done);
        }
    };
    Err(Stop::Reply(Box::new(reply)))
}
