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
use crate::router::{self, Fault, max_duration};
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

/// The earliest of the moments at which a wait is given up, with what it means.
fn earliest(limits: [(Option<Instant>, Fault); 2]) -> Option<(Instant, Fault)> {
    limits.into_iter().filter_map(|(at, fault)| Some((at?, fault))).min_by_key(|(at, _)| *at)
}

/// The answer to a request that waited for too long.
fn late(stream: &Stream<'_, '_>, fault: &Fault) -> LocalReply {
    fault.count(&stream.manager.stats.counts);
    fault.reply(false)
}

/// Waits, but not longer than a stream may be idle, or live.
pub(super) async fn delay(stream: &mut Stream<'_, '_>, delay: Duration) -> Result<(), Stop> {
    let now = Instant::now();
    let end = now + delay;
    let is_complete = stream.body.is_complete();
    let idle_at = stream.manager.settings.stream_idle_timeout.map(|idle| now + idle);
    let cut = earliest([
        (idle_at, Fault::StreamIdle(is_complete)),
        (max_duration::deadline(stream), Fault::MaxDuration(is_complete)),
    ]);
    let cut = cut.filter(|(at, _)| *at < end);
    let until = cut.as_ref().map_or(end, |(at, _)| *at);
    if let Err(Gone) = pause(&mut stream.respond, until.saturating_duration_since(now)).await {
        router::client_gone(stream);
        return Err(Stop::Done);
    }
    match cut {
        Some((_, fault)) => Err(Stop::Reply(Box::new(late(stream, &fault)))),
        None => Ok(()),
    }
}

/// Reads the whole body of the request, and keeps it if it is at most `limit` long; without a limit it is dropped.
pub(super) async fn read_body(stream: &mut Stream<'_, '_>, limit: Option<u32>) -> Result<(), Stop> {
    let settings = stream.manager.settings.clone();
    let start = Instant::from_std(stream.record.start);
    let cut = earliest([
        (settings.request_timeout.map(|timeout| start + timeout), Fault::RequestTimeout),
        (max_duration::deadline(stream), Fault::MaxDuration(false)),
    ]);
    let body = stream.body;
    let read = body.read_whole(limit, settings.stream_idle_timeout);
    let read = match cut {
        Some((end, fault)) => match tokio::time::timeout_at(end, read).await {
            Ok(read) => read,
            Err(_) => return Err(Stop::Reply(Box::new(late(stream, &fault)))),
        },
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
        Err(Buffering::Idle) => late(stream, &Fault::StreamIdle(false)),
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
