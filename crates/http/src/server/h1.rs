//! The HTTP/1 server loop: one request after the other, the service called inline.
//!
//! Owns when a connection may carry another request and how it ends. Source of behaviour: RFC 9112 section 9, Envoy's
//! `ConnectionManagerImpl`.

use std::cell::Cell;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use tokio::time::Instant;

use super::{Context, End, Service};
use crate::h1::connection::Connection;
use crate::h1::encode::{Answering, encode_response};
use crate::h1::parse::{LOW_VERSION, RequestMessage, parse_request, tokens};
use crate::h1::{BodyLength, H1Options};
use crate::{
    DrainSignal, Exchange, Headers, ProtocolError, RecvBody, Responder, ResponseHead, SendError, Version,
};

const HEADER_TIMEOUT: ProtocolError =
    ProtocolError { status: StatusCode::REQUEST_TIMEOUT, detail: "request_header_timeout" };

/// A head that trickles in holds its connection no longer than this, whether or not `headers_timeout` is set. Envoy's
/// default `stream_idle_timeout`, which there begins with the first byte of a head.
const HEAD_MAX: Duration = Duration::from_secs(300);

const HEAD_TOO_SLOW: ProtocolError =
    ProtocolError { status: StatusCode::REQUEST_TIMEOUT, detail: "stream_idle_timeout" };

/// The response side of one exchange.
pub(crate) struct Turn {
    pub(crate) answering: Answering,
    drain: DrainSignal,
    /// From then on (`max_connection_duration`) responses end the connection.
    too_old_at: Option<Instant>,
    started: Cell<bool>,
    finished: Cell<bool>,
    broken: Cell<bool>,
    close: Cell<bool>,
    tunnel: Cell<bool>,
}

pub(super) async fn run<S: Service>(connection: Connection, mut context: Context<S>) -> End {
    let end = turns(&connection, &mut context).await;
    let linger = context.options.delayed_close_timeout;
    match end {
        End::ClosedByUs | End::TooOld | End::Protocol(_) => close(&connection, linger).await,
        End::Idle | End::ClosedByPeer | End::Io(_) => {}
    }
    end
}

async fn turns<S: Service>(connection: &Connection, context: &mut Context<S>) -> End {
    let mut served: u32 = 0;
    loop {
        let message = match next_request(connection, context).await {
            Ok(message) => message,
            Err(End::Protocol(error)) => {
                refuse(connection, context, error).await;
                return End::Protocol(error);
            }
            Err(end) => return end,
        };
        served = served.saturating_add(1);
        let turn = Turn::new(&message, context);
        if context.options.max_requests.is_some_and(|max| served >= max) {
            turn.close_after();
        }
        connection.begin();
        connection.reader().start_body(message.body);
        // Boxed: the future of a service is large, and an idle connection should not carry room for it.
        Box::pin(exchange(connection, context, message, &turn)).await;
        if !turn.allows_another(connection) {
            return if context.is_too_old() { End::TooOld } else { End::ClosedByUs };
        }
        connection.release_buffers();
    }
}

async fn exchange<S: Service>(
    connection: &Connection,
    context: &Context<S>,
    message: RequestMessage,
    turn: &Turn,
) {
    let body = RecvBody::h1(connection);
    let respond = Responder::h1(connection, turn);
    context.service.call(Exchange { request: message.head, body, respond }).await;
}

/// Waits for the next request head. Idle until its first byte, then under `headers_timeout`,
/// `stream_idle_timeout` or [`HEAD_MAX`], whichever is shortest.
async fn next_request<S: Service>(
    connection: &Connection,
    context: &mut Context<S>,
) -> Result<RequestMessage, End> {
    let head_max = context.options.stream_idle_timeout.unwrap_or(HEAD_MAX).min(HEAD_MAX);
    let (head_limit, overrun) = match context.options.headers_timeout {
        Some(timeout) if timeout <= head_max => (timeout, HEADER_TIMEOUT),
        _ => (head_max, HEAD_TOO_SLOW),
    };
    let mut in_head = false;
    context.deadline.arm(context.idle_allowance());
    loop {
        if !connection.reader().buffer.is_empty() {
            if let Some(message) = parse(connection, context.options.accept_http_10)? {
                return Ok(message);
            }
            if !in_head {
                context.deadline.arm(Some(head_limit));
            }
            in_head = true;
        }
        match context.fill(connection).await {
            Err(End::Idle | End::TooOld) if in_head => return Err(End::Protocol(overrun)),
            filled => filled?,
        }
    }
}

fn parse(connection: &Connection, accept_http_10: bool) -> Result<Option<RequestMessage>, End> {
    let mut reader = connection.reader();
    let reader = &mut *reader;
    let limits: H1Options = reader.limits;
    let parsed = parse_request(&mut reader.buffer, &mut reader.scan, &limits).map_err(End::Protocol)?;
    match &parsed {
        Some(message) if message.head.version == Version::Http10 && !accept_http_10 => {
            Err(End::Protocol(LOW_VERSION))
        }
        _ => Ok(parsed),
    }
}

/// Answers a request that cannot be understood.
async fn refuse<S: Service>(connection: &Connection, context: &Context<S>, error: ProtocolError) {
    let (head, body) = context.service.protocol_error(error);
    let queued = queue_refusal(connection, &head, body);
    let sent = async { queued.and(connection.flush().await) };
    if !matches!(tokio::time::timeout(context.options.delayed_close_timeout, sent).await, Ok(Ok(()))) {
        tracing::debug!(detail = error.detail, "the client did not take the refusal");
    }
}

fn queue_refusal(connection: &Connection, head: &ResponseHead, body: Bytes) -> Result<(), SendError> {
    let answering = Answering { method: Method::GET, http_10: false, keep_alive: false };
    let mut writer = connection.writer();
    let options = writer.options;
    let framing = encode_response(writer.head_buffer(), head, &answering, body.is_empty(), true, &options);
    writer.start_body(framing, false);
    writer.body(body, true)
}

/// Closes our direction, then reads on for a while: a close with unread input would reset the connection, and the reset
/// may destroy the last response before the client has read it.
async fn close(connection: &Connection, linger: Duration) {
    if poll_fn(|cx| connection.poll_shutdown(cx)).await.is_err() {
        return;
    }
    let drained = async {
        loop {
            connection.reader().buffer.clear();
            if !matches!(poll_fn(|cx| connection.poll_fill(cx)).await, Ok(1..)) {
                return;
            }
        }
    };
    if tokio::time::timeout(linger, drained).await.is_err() {
        tracing::trace!("the client kept its side open after our close");
    }
}

impl Turn {
    fn new<S>(message: &RequestMessage, context: &Context<S>) -> Turn {
        let head = &message.head;
        let http_10 = head.version == Version::Http10;
        let answering = Answering { method: head.method.clone(), http_10, keep_alive: message.keep_alive };
        Turn {
            answering,
            drain: context.drain.clone(),
            too_old_at: context.options.max_connection_duration.map(|max| context.started + max),
            started: Cell::new(false),
            finished: Cell::new(false),
            broken: Cell::new(false),
            close: Cell::new(!message.keep_alive),
            tunnel: Cell::new(false),
        }
    }

    /// Encodes an informational head; says whether there is something to send.
    pub(crate) fn informational(
        &self,
        connection: &Connection,
        head: &ResponseHead,
    ) -> Result<bool, SendError> {
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if self.started.get() || switches || !head.status.is_informational() {
            return Err(SendError::Misuse("no informational response fits here"));
        }
        if !self.answering.http_10 {
            let mut writer = connection.writer();
            let options = writer.options;
            encode_response(writer.head_buffer(), head, &self.answering, true, false, &options);
        }
        Ok(!self.answering.http_10)
    }

    /// Encodes the final head.
    pub(crate) fn start(
        &self,
        connection: &Connection,
        head: &ResponseHead,
        end: bool,
    ) -> Result<(), SendError> {
        let upgrades = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if self.started.replace(true) || (head.status.is_informational() && !upgrades) {
            return Err(SendError::Misuse("a second or informational final head"));
        }
        // A response that overtakes its request ends the connection, as in Envoy: the rest of the request is not awaited.
        let overtakes = !connection.reader().is_body_end();
        let is_too_old = self.too_old_at.is_some_and(|at| at <= Instant::now());
        if overtakes || is_too_old || self.drain.is_draining() || says_close(&head.headers) {
            self.close.set(true);
        }
        let mut writer = connection.writer();
        let close = self.close.get();
        let options = writer.options;
        let framing = encode_response(writer.head_buffer(), head, &self.answering, end, close, &options);
        self.tunnel.set(framing == BodyLength::Tunnel);
        if matches!(framing, BodyLength::UntilClose | BodyLength::Tunnel) {
            self.close.set(true);
        }
        if end && matches!(framing, BodyLength::Fixed(_)) {
            self.broken.set(true);
            return Err(SendError::Misuse("a length is announced but no body follows"));
        }
        let bodiless = framing == BodyLength::Empty;
        writer.start_body(framing, bodiless);
        self.finished.set(end && framing != BodyLength::Tunnel);
        Ok(())
    }

    pub(crate) fn body(&self, connection: &Connection, data: Bytes, end: bool) -> Result<(), SendError> {
        self.check_open()?;
        self.noted(connection.writer().body(data, end), end)
    }

    pub(crate) fn trailers(&self, connection: &Connection, trailers: &Headers) -> Result<(), SendError> {
        self.check_open()?;
        self.noted(connection.writer().body_end(trailers), true)
    }

    pub(crate) async fn close_tunnel(&self, connection: &Connection) -> Result<(), SendError> {
        poll_fn(|cx| connection.poll_shutdown(cx)).await.map_err(SendError::from_io)
    }

    pub(crate) fn break_off(&self) {
        self.broken.set(true);
    }

    pub(crate) fn close_after(&self) {
        self.close.set(true);
    }

    pub(crate) fn ask_to_go(&self) -> bool {
        !self.close.replace(true)
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started.get()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.get()
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.get()
    }

    fn check_open(&self) -> Result<(), SendError> {
        if !self.started.get() || self.finished.get() {
            return Err(SendError::Misuse("data outside of the body"));
        }
        Ok(())
    }

    fn noted(&self, queued: Result<(), SendError>, end: bool) -> Result<(), SendError> {
        match &queued {
            Ok(()) if end => self.finished.set(true),
            Ok(()) => {}
            Err(_) => self.broken.set(true),
        }
        queued
    }

    /// Whether both messages are complete and nobody asked for the end of the connection.
    fn allows_another(&self, connection: &Connection) -> bool {
        self.finished.get()
            && !self.broken.get()
            && !self.close.get()
            && connection.reader().is_body_end()
            && connection.writer().is_empty()
    }
}

fn says_close(headers: &Headers) -> bool {
    headers.get_all(&header::CONNECTION).flat_map(tokens).any(|token| token.eq_ignore_ascii_case(b"close"))
}
