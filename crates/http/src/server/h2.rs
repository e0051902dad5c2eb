//! The HTTP/2 server loop: one local task per stream.
//!
//! Owns GOAWAY: on drain, on age, after `max_requests`, after being idle. Streams that run then still finish.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, ready};

use ::h2::server::{Connection, SendResponse};
use ::h2::{Reason, RecvStream};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{Method, Request};
use tokio::time::{Instant, timeout};

use super::{Context, End, Service};
use crate::h1::Underscores;
use crate::h1::encode::content_length;
use crate::h2::keepalive::Pinger;
use crate::h2::outbound::{Deferred, Outbound, deferred};
use crate::h2::stream::{RecvHalf, SendHalf};
use crate::h2::{PREMATURE_RESET_AGE, PREMATURE_RESET_STREAMS, convert};
use crate::head::is_authority;
use crate::{DrainStage, Exchange, Headers, Io, RecvBody, Responder, ResponseHead, SendError};

const PREMATURE_RESETS: crate::ProtocolError =
    crate::ProtocolError { status: http::StatusCode::BAD_REQUEST, detail: "too_many_premature_resets" };

const VIOLATION: crate::ProtocolError = crate::ProtocolError {
    status: http::StatusCode::BAD_REQUEST,
    detail: "http2.violation.of.messaging.rule",
};

/// The response side of one stream.
pub(crate) struct Stream {
    respond: SendResponse<Bytes>,
    send: Option<SendHalf>,
    to_head: bool,
    reset: bool,
    started: Instant,
    activity: Rc<Activity>,
}

/// Requests of a connection.
struct Activity {
    /// In progress.
    streams: Cell<usize>,
    last: Cell<Instant>,
    finished: Cell<u64>,
    /// Reset by the client right after their start.
    premature_resets: Cell<u64>,
    /// A response asks the client to go.
    goes: Cell<bool>,
}

/// What a connection is watched for.
struct Watch {
    pinger: Option<Pinger>,
    /// The newest stream that a service has seen; one above it that was reset was malformed.
    newest: u32,
    /// Whether a malformed request ends its connection.
    ends: bool,
}

/// What happens next on a connection.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, consumed at once; a box per stream would cost more"
)]
enum Event {
    Stream(Request<RecvStream>, SendResponse<Bytes>),
    Drain,
    Deadline,
    /// A request that `h2` refused as malformed.
    Malformed,
    /// No answer to a PING.
    Dead,
    End(Result<(), ::h2::Error>),
    Io(io::Error),
}

type H2Connection = Connection<Deferred, Bytes>;

pub(super) async fn run<S: Service + 'static>(io: Io, prefix: BytesMut, mut context: Context<S>) -> End {
    let (outbound, deferred) = deferred(io, prefix, context.options.h2.flood);
    let handshake = context.options.h2.server().handshake(deferred);
    let patience = context.options.headers_timeout.or(context.options.idle_timeout);
    let connection = match patience {
        Some(patience) => timeout(patience, handshake).await,
        None => Ok(handshake.await),
    };
    let mut connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return end_of(Err(error)),
        Err(_) => return End::Idle,
    };
    let end = streams(&mut connection, &outbound, &mut context).await;
    // The last GOAWAY may still be pending.
    let close = timeout(context.options.delayed_close_timeout, poll_fn(|cx| outbound.poll_close(cx)));
    if !matches!(close.await, Ok(Ok(()))) {
        tracing::trace!("the client did not take the last bytes");
    }
    end
}

async fn streams<S: Service + 'static>(
    connection: &mut H2Connection,
    outbound: &Outbound,
    context: &mut Context<S>,
) -> End {
    let activity = Rc::new(Activity::new());
    let mut served: u32 = 0;
    let mut leaving = None;
    let h2 = &context.options.h2;
    let pinger = Pinger::new(h2.keepalive, connection.ping_pong());
    let mut watch = Watch { pinger, newest: 0, ends: !h2.stream_errors };
    context.deadline.arm(context.idle_allowance());
    loop {
        let goes = &activity.goes;
        match next_event(connection, outbound, context, &mut watch, goes, leaving.is_some()).await {
            Event::Stream(_, mut respond) if activity.is_flood() => {
                respond.send_reset(Reason::REFUSED_STREAM);
                leaving = Some(End::Protocol(PREMATURE_RESETS));
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            Event::Stream(request, mut respond) if is_refused(&request, context.options.h1.underscores) => {
                respond.send_reset(Reason::PROTOCOL_ERROR);
                if watch.ends {
                    leaving = Some(malformed(connection, context));
                }
            }
            Event::Malformed => {
                watch.ends = false;
                leaving = Some(malformed(connection, context));
            }
            Event::Dead => return leaving.unwrap_or(End::Idle),
            Event::Stream(request, respond) => {
                watch.newest = respond.stream_id().into();
                served = served.saturating_add(1);
                spawn(request, respond, context, &activity);
                if leaving.is_none() && context.options.max_requests.is_some_and(|max| served >= max) {
                    leaving = Some(End::ClosedByUs);
                    connection.graceful_shutdown();
                }
            }
            Event::Drain => {
                leaving = Some(End::ClosedByUs);
                connection.graceful_shutdown();
            }
            Event::Deadline => match after_deadline(context, &activity, leaving.is_some()) {
                Lapse::NotYet => {}
                Lapse::Leave(end) => {
                    leaving = Some(end);
                    connection.graceful_shutdown();
                }
                Lapse::Cut => return leaving.unwrap_or(End::Idle),
            },
            Event::End(result) => return leaving.unwrap_or_else(|| end_of(result)),
            Event::Io(error) => return End::from_io(&error),
        }
    }
}

/// A malformed request ends its connection, as in Envoy: who speaks one wrongly speaks them all so.
fn malformed<S: Service>(connection: &mut H2Connection, context: &Context<S>) -> End {
    context.service.connection_error(VIOLATION.detail);
    connection.abrupt_shutdown(Reason::PROTOCOL_ERROR);
    End::Protocol(VIOLATION)
}

/// What a passed deadline means.
enum Lapse {
    /// There was activity meanwhile; the deadline moved on.
    NotYet,
    /// Time to say goodbye.
    Leave(End),
    /// The goodbye was not answered in time.
    Cut,
}

fn after_deadline<S: Service>(context: &mut Context<S>, activity: &Activity, leaving: bool) -> Lapse {
    let too_old = context.is_too_old();
    let busy = activity.streams.get() > 0;
    if leaving {
        context.deadline.arm(context.options.idle_timeout);
        return if busy { Lapse::NotYet } else { Lapse::Cut };
    }
    let idle_for = activity.last.get().elapsed();
    let idle_left = context.options.idle_timeout.map(|idle| idle.saturating_sub(idle_for));
    let is_idle = !busy && idle_left.is_some_and(|left| left.is_zero());
    if too_old || is_idle {
        context.deadline.arm(Some(context.options.delayed_close_timeout));
        return Lapse::Leave(if is_idle { End::Idle } else { End::TooOld });
    }
    let next = if busy { context.idle_allowance() } else { idle_left.or_else(|| context.idle_allowance()) };
    context.deadline.arm(next);
    Lapse::NotYet
}

async fn next_event<S>(
    connection: &mut H2Connection,
    outbound: &Outbound,
    context: &mut Context<S>,
    watch: &mut Watch,
    goes: &Cell<bool>,
    leaving: bool,
) -> Event {
    let Context { drain, deadline, .. } = context;
    let frames = poll_fn(|cx| {
        if goes.get() && !leaving {
            return Poll::Ready(Event::Drain);
        }
        let accepted = connection.poll_accept(cx);
        if let Poll::Ready(event) = accepted {
            return Poll::Ready(match event {
                Some(Ok((request, respond))) => Event::Stream(request, respond),
                Some(Err(error)) => Event::End(Err(error)),
                None => Event::End(Ok(())),
            });
        }
        if watch.ends && outbound.malformed() > watch.newest {
            return Poll::Ready(Event::Malformed);
        }
        if watch.pinger.as_mut().is_some_and(|pinger| pinger.poll_dead(cx).is_ready()) {
            return Poll::Ready(Event::Dead);
        }
        match ready!(outbound.poll_settle(cx)) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Event::Io(error)),
        }
    });
    tokio::select! {
        biased;
        event = frames => event,
        () = poll_fn(|cx| deadline.poll_passed(cx)) => Event::Deadline,
        () = drain.reached(DrainStage::Draining), if !leaving => Event::Drain,
    }
}

fn spawn<S: Service + 'static>(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    context: &Context<S>,
    activity: &Rc<Activity>,
) {
    let (parts, body) = request.into_parts();
    let mut head = convert::request_head(parts);
    if context.options.h1.underscores == Underscores::Drop {
        head.headers.retain(|name, _| !name.as_str().contains('_'));
    }
    let body = RecvHalf::new(body, content_length(&head.headers));
    let stream = Stream {
        respond,
        send: None,
        to_head: head.method == Method::HEAD,
        reset: false,
        started: Instant::now(),
        activity: Rc::clone(activity),
    };
    let exchange = Exchange { request: head, body: RecvBody::h2(body), respond: Responder::h2(stream) };
    let service = Rc::clone(&context.service);
    let activity = Activity::start(activity);
    // Detached: a stream outlives its connection only until it sees that its peer is gone.
    drop(tokio::task::spawn_local(async move {
        service.call(exchange).await;
        drop(activity);
    }));
}

fn end_of(result: Result<(), ::h2::Error>) -> End {
    match result {
        Ok(()) => End::ClosedByPeer,
        Err(error) if error.is_remote() || error.reason() == Some(Reason::NO_ERROR) => End::ClosedByPeer,
        Err(error) => match error.get_io() {
            Some(error) => End::from_io(error),
            None => End::Protocol(VIOLATION),
        },
    }
}

fn is_refused(request: &Request<RecvStream>, underscores: Underscores) -> bool {
    let has_underscore = || request.headers().keys().any(|name| name.as_str().contains('_'));
    // Equal or not, two lengths are one too many.
    let has_two_lengths = request.headers().get_all(header::CONTENT_LENGTH).iter().nth(1).is_some();
    let no_authority = request.uri().authority().is_none() && !request.headers().contains_key(header::HOST);
    has_two_lengths
        || no_authority
        || has_wrong_host(request)
        || (underscores == Underscores::Reject && has_underscore())
}

/// `h2` checks `:authority`, but `host` may stand for it, and there is only one.
fn has_wrong_host(request: &Request<RecvStream>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_wrong = |host: &HeaderValue| !host.to_str().is_ok_and(is_authority);
    hosts.next().is_some_and(is_wrong) || hosts.next().is_some()
}

/// One request in progress.
struct ActiveStream(Rc<Activity>);

impl Activity {
    fn new() -> Activity {
        Activity {
            streams: Cell::new(0),
            last: Cell::new(Instant::now()),
            finished: Cell::new(0),
            premature_resets: Cell::new(0),
            goes: Cell::new(false),
        }
    }

    /// Whether the client opens streams mainly to reset them. As Envoy counts it: at least half of what is finished.
    fn is_flood(&self) -> bool {
        self.premature_resets.get() * 2 >= self.finished.get().max(PREMATURE_RESET_STREAMS)
    }

    fn start(activity: &Rc<Activity>) -> ActiveStream {
        activity.streams.set(activity.streams.get() + 1);
        ActiveStream(Rc::clone(activity))
    }
}

impl Drop for ActiveStream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.last.set(Instant::now());
        self.0.finished.set(self.0.finished.get() + 1);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let is_early = self.send.is_none() && self.started.elapsed() <= PREMATURE_RESET_AGE;
        if is_early && self.is_reset_by_peer() {
            let resets = &self.activity.premature_resets;
            resets.set(resets.get() + 1);
        }
    }
}

impl Stream {
    pub(crate) fn informational(&mut self, head: ResponseHead) -> Result<(), SendError> {
        // 101 has no meaning in HTTP/2 (RFC 9113, 8.6).
        if head.status == http::StatusCode::SWITCHING_PROTOCOLS || self.send.is_some() {
            return Err(SendError::Misuse("no informational response fits here"));
        }
        self.respond.send_informational(convert::response(head)).map_err(SendError::from_h2)
    }

    pub(crate) fn head(&mut self, head: ResponseHead, end: bool) -> Result<(), SendError> {
        if self.send.is_some() {
            return Err(SendError::Misuse("a second final head"));
        }
        let sent = self.respond.send_response(convert::response(head), end);
        let stream = sent.map_err(SendError::from_h2)?;
        self.send = Some(SendHalf::new(stream, end, self.to_head));
        Ok(())
    }

    pub(crate) async fn data(&mut self, data: Bytes, end: bool) -> Result<(), SendError> {
        self.half()?.data(data, end).await
    }

    pub(crate) fn trailers(&mut self, trailers: Headers) -> Result<(), SendError> {
        self.half()?.trailers(trailers)
    }

    pub(crate) fn reset(&mut self, reason: Reason) {
        self.reset = true;
        match &mut self.send {
            Some(half) => half.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    /// Breaks off a response of which something was queued: `h2` forgets what is queued when a stream is reset, so its
    /// connection gets a turn first.
    pub(crate) async fn break_off(&mut self, reason: Reason) {
        if self.send.is_some() {
            tokio::task::yield_now().await;
        }
        self.reset(reason);
    }

    pub(crate) fn poll_closed(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        match &mut self.send {
            Some(half) => half.poll_reset(cx).map(|_| ()),
            None => self.respond.poll_reset(cx).map(|_| ()),
        }
    }

    pub(crate) fn is_reset_by_peer(&mut self) -> bool {
        let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let reset = match &mut self.send {
            Some(half) => half.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        // The end of the connection comes as an error.
        !self.reset && matches!(reset, Poll::Ready(Ok(_)))
    }

    /// The connection sees it when it is polled for the response that follows.
    pub(crate) fn ask_to_go(&self) -> bool {
        !self.activity.goes.replace(true)
    }

    pub(crate) fn is_started(&self) -> bool {
        self.send.is_some()
    }

    pub(crate) fn is_finished(&self) -> bool {
        !self.reset && self.send.as_ref().is_some_and(SendHalf::is_finished)
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.send.as_ref().map_or(0, SendHalf::body_bytes)
    }

    fn half(&mut self) -> Result<&mut SendHalf, SendError> {
        self.send.as_mut().ok_or(SendError::Misuse("data before the head"))
    }
}
