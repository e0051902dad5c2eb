//! An HTTP/2 connection to an upstream, shared by many exchanges.
//!
//! Owns the count of streams against the peer's limit, and telling refused requests from failed ones.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use ::h2::client::{Connection, ResponseFuture, SendRequest};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use tokio::sync::Notify;

use super::ClientExchange;
use crate::h1::encode::content_length;
use crate::h2::convert;
use crate::h2::keepalive::Pinger;
use crate::h2::outbound::{Deferred, Outbound, deferred};
use crate::h2::stream::{RecvHalf, SendHalf};
use crate::{ClientError, Frame, H2Options, Headers, Io, Reason, RequestHead, ResponseHead};

/// A handle on an HTTP/2 connection that many exchanges share.
#[derive(Clone)]
pub struct H2(Rc<Shared>);

/// Moves an HTTP/2 connection's bytes. Spawn [`Driver::run`] as a local task; it completes when the connection ends.
pub struct Driver {
    connection: Connection<Deferred, Bytes>,
    outbound: Outbound,
    pinger: Option<Pinger>,
    shared: Rc<Shared>,
}

struct Shared {
    send: RefCell<SendRequest<Bytes>>,
    active: Cell<usize>,
    max_streams: usize,
    closed: Cell<bool>,
    freed: Notify,
}

/// One of the peer's streams; freed on drop.
struct Permit(Rc<Shared>);

/// The request half.
pub(crate) struct Sender {
    exchange: Rc<Exchange>,
    half: Option<SendHalf>,
}

/// The response half.
pub(crate) struct Receiver {
    exchange: Rc<Exchange>,
    half: Option<RecvHalf>,
}

/// What both halves of an exchange share.
struct Exchange {
    permit: Permit,
    response: RefCell<Awaiting>,
    /// The protocol that the request asks for.
    upgrade: RefCell<Option<HeaderValue>>,
}

/// The response as far as its head.
enum Awaiting {
    /// The request was not sent; whoever waits is woken when it is.
    Request(Option<Waker>),
    Response(ResponseFuture),
    Received,
}

impl Driver {
    /// Runs until the connection ends.
    pub async fn run(mut self) -> Result<(), ClientError> {
        let result = poll_fn(|cx| self.poll(cx)).await;
        self.shared.closed.set(true);
        self.shared.freed.notify_waiters();
        result
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
            return Poll::Ready(ended.map_err(ClientError::from_h2));
        }
        if self.pinger.as_mut().is_some_and(|pinger| pinger.poll_dead(cx).is_ready()) {
            return Poll::Ready(Err(ClientError::Io(std::io::ErrorKind::TimedOut.into())));
        }
        match ready!(self.outbound.poll_settle(cx)) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(ClientError::Io(error))),
        }
    }
}

impl H2 {
    /// Starts HTTP/2 with prior knowledge. Does not wait for the peer's settings.
    pub async fn handshake(io: Io, options: &H2Options) -> Result<(H2, Driver), ClientError> {
        let (outbound, deferred) = deferred(io, BytesMut::new(), options.flood);
        let handshake = options.client().handshake(deferred).await;
        let (send, mut connection) = handshake.map_err(ClientError::from_h2)?;
        let pinger = Pinger::new(options.keepalive, connection.ping_pong());
        let shared = Rc::new(Shared {
            send: RefCell::new(send),
            active: Cell::new(0),
            max_streams: usize::try_from(options.max_concurrent_streams).unwrap_or(usize::MAX),
            closed: Cell::new(false),
            freed: Notify::new(),
        });
        let driver = Driver { connection, outbound, pinger, shared: Rc::clone(&shared) };
        Ok((H2(shared), driver))
    }

    /// Streams in use.
    pub fn active(&self) -> usize {
        self.0.active.get()
    }

    /// Streams that may be in use at once: the peer's limit, at most ours.
    pub fn max_streams(&self) -> usize {
        self.0.send.borrow().current_max_send_streams().min(self.0.max_streams)
    }

    /// Whether no further exchange can be opened: closed, or the peer sent GOAWAY.
    pub fn is_closed(&self) -> bool {
        // Ready at once: this handle never has a stream of its own pending.
        let ready = self.0.send.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()));
        self.0.closed.get() || matches!(ready, Poll::Ready(Err(_)))
    }

    /// Starts an exchange; waits while the peer's stream limit is reached. Cancel safe.
    pub async fn open(&self) -> Result<ClientExchange<'static>, ClientError> {
        loop {
            if self.is_closed() {
                return Err(ClientError::Refused);
            }
            if self.active() < self.max_streams() {
                break;
            }
            self.0.freed.notified().await;
        }
        self.0.active.set(self.0.active.get() + 1);
        let permit = Permit(Rc::clone(&self.0));
        let response = RefCell::new(Awaiting::Request(None));
        let exchange = Rc::new(Exchange { permit, response, upgrade: RefCell::default() });
        let sender = Sender { exchange: Rc::clone(&exchange), half: None };
        Ok(ClientExchange::h2(sender, Receiver { exchange, half: None }))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.freed.notify_one();
    }
}

impl Sender {
    pub(super) fn head(&mut self, head: &RequestHead, end: bool) -> Result<(), ClientError> {
        if self.half.is_some() {
            return Err(ClientError::Misuse("a second head"));
        }
        let request =
            convert::request(head).ok_or(ClientError::Misuse("a target that HTTP/2 cannot carry"))?;
        // A clone: `h2` ties a stream that waits for its turn to the handle that sent it.
        let mut send = self.exchange.permit.0.send.borrow().clone();
        let (response, stream) = send.send_request(request, end).map_err(unsent)?;
        self.half = Some(SendHalf::new(stream, end, false));
        if head.upgrade().is_some() {
            *self.exchange.upgrade.borrow_mut() = head.headers.get(&header::UPGRADE).cloned();
        }
        let before = self.exchange.response.replace(Awaiting::Response(response));
        if let Awaiting::Request(Some(waker)) = before {
            waker.wake();
        }
        Ok(())
    }

    pub(super) async fn data(&mut self, data: Bytes, end: bool) -> Result<(), ClientError> {
        self.half()?.data(data, end).await.map_err(ClientError::from_send)
    }

    pub(super) fn trailers(&mut self, trailers: Headers) -> Result<(), ClientError> {
        self.half()?.trailers(trailers).map_err(ClientError::from_send)
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        if let Some(half) = &mut self.half {
            half.reset(reason);
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.half.as_ref().is_some_and(SendHalf::is_finished)
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.half.as_ref().map_or(0, SendHalf::body_bytes)
    }

    fn half(&mut self) -> Result<&mut SendHalf, ClientError> {
        self.half.as_mut().ok_or(ClientError::Misuse("data before the head"))
    }
}

impl Receiver {
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, ClientError>> {
        let mut awaiting = self.exchange.response.borrow_mut();
        let response = match &mut *awaiting {
            Awaiting::Request(waker) => {
                *waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Awaiting::Received => {
                return Poll::Ready(Err(ClientError::Misuse("the final head was received")));
            }
            Awaiting::Response(response) => response,
        };
        if let Poll::Ready(Some(Ok(informational))) = response.poll_informational(cx) {
            return Poll::Ready(Ok(convert::response_head(informational.into_parts().0, None)));
        }
        let received = ready!(Pin::new(response).poll(cx));
        *awaiting = Awaiting::Received;
        let (parts, body) = received.map_err(ClientError::from_h2)?.into_parts();
        let head = convert::response_head(parts, self.exchange.upgrade.take());
        self.half = Some(RecvHalf::new(body, content_length(&head.headers)));
        Poll::Ready(Ok(head))
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ClientError>> {
        match &mut self.half {
            Some(half) => half.poll_next(cx).map_err(ClientError::from_body),
            None => Poll::Ready(Err(ClientError::Misuse("the head was not received"))),
        }
    }

    pub(super) fn is_end(&self) -> bool {
        self.half.as_ref().is_some_and(RecvHalf::is_end)
    }

    pub(super) fn announced(&self) -> Option<u64> {
        self.half.as_ref().and_then(RecvHalf::announced)
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.half.as_ref().map_or(0, RecvHalf::body_bytes)
    }
}

/// A failure of sending the head: nothing has left, so whatever the connection's error is, the request is unprocessed.
fn unsent(error: ::h2::Error) -> ClientError {
    if error.is_io() || error.is_go_away() || error.is_reset() || error.is_library() {
        return ClientError::Refused;
    }
    ClientError::Misuse("a request that HTTP/2 cannot carry")
}
