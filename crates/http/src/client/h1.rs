//! An HTTP/1 connection to an upstream: one exchange at a time.
//!
//! Owns when the connection may carry another exchange.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use super::ClientExchange;
use crate::h1::connection::Connection;
use crate::h1::encode::encode_request;
use crate::h1::parse::parse_response;
use crate::h1::{BodyLength, H1Options};
use crate::{ClientError, Frame, Headers, Io, RequestHead, ResponseHead, SendError};

/// An HTTP/1 connection: one exchange at a time, no buffers while idle.
pub struct H1 {
    connection: Connection,
    method: RefCell<Method>,
    request: Cell<Progress>,
    response: Cell<Progress>,
    /// Bytes of the response have arrived: a failure now is no longer one before the response.
    answered: Cell<bool>,
    keep_alive: Cell<bool>,
    upgrading: Cell<bool>,
    /// The bytes of a terminated CONNECT: no heads on the wire.
    raw: bool,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Head,
    Body,
    Done,
}

impl H1 {
    /// A connection over a connected stream.
    pub fn new(io: Io, options: H1Options) -> H1 {
        H1 {
            connection: Connection::new(io, BytesMut::new(), options),
            method: RefCell::new(Method::GET),
            request: Cell::new(Progress::Done),
            response: Cell::new(Progress::Done),
            answered: Cell::new(false),
            keep_alive: Cell::new(true),
            upgrading: Cell::new(false),
            raw: false,
        }
    }

    /// A connection that carries the bytes of one CONNECT that ends here: its head is not sent, and answered with 200 as
    /// soon as someone asks for the answer. Never reusable.
    pub fn raw(io: Io) -> H1 {
        let connection = H1::new(io, H1Options::default());
        connection.break_off();
        H1 { raw: true, ..connection }
    }

    /// Starts the next exchange. Only after [`H1::is_reusable`] said yes.
    pub fn exchange(&mut self) -> ClientExchange<'_> {
        self.connection.begin();
        self.request.set(Progress::Head);
        self.response.set(Progress::Head);
        self.answered.set(false);
        self.upgrading.set(false);
        ClientExchange::h1(self)
    }

    /// Whether the last exchange left the connection fit for another one. Gives its buffers back when it did: call it
    /// before the connection goes idle.
    pub fn is_reusable(&self) -> bool {
        let reader = self.connection.reader();
        let fit = self.keep_alive.get()
            && self.request.get() == Progress::Done
            && self.response.get() == Progress::Done
            && reader.buffer.is_empty()
            && !reader.is_eof()
            && self.connection.writer().is_empty();
        drop(reader);
        if fit {
            self.connection.release_buffers();
        }
        fit
    }

    /// Ready when an idle connection can no longer be used: the peer closed it, or sent bytes nobody asked for. Costs a
    /// system call only when the reactor has seen something.
    pub fn poll_idle_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closed = self.connection.poll_fill(cx).map(|_| ());
        if closed.is_ready() {
            self.keep_alive.set(false);
        }
        closed
    }

    pub(super) async fn send_head(&self, head: &RequestHead, end: bool) -> Result<(), ClientError> {
        self.queue_head(head, end)?;
        self.settle(end).await
    }

    fn queue_head(&self, head: &RequestHead, end: bool) -> Result<(), ClientError> {
        if self.request.get() != Progress::Head {
            return Err(ClientError::Misuse("a second head"));
        }
        *self.method.borrow_mut() = head.method.clone();
        let mut writer = self.connection.writer();
        if self.raw {
            writer.start_body(BodyLength::Tunnel, false);
            self.upgrading.set(true);
            self.request.set(Progress::Body);
            return Ok(());
        }
        let options = writer.options;
        let framing = encode_request(writer.head_buffer(), head, end, &options);
        self.upgrading.set(framing == BodyLength::Tunnel);
        if end && framing != BodyLength::Empty {
            self.break_off();
            return Err(ClientError::Misuse("a length is announced but no body follows"));
        }
        writer.start_body(framing, !end && framing == BodyLength::Empty);
        self.request.set(if end { Progress::Done } else { Progress::Body });
        Ok(())
    }

    pub(super) async fn send_data(&self, data: Bytes, end: bool) -> Result<(), ClientError> {
        self.check_body()?;
        let queued = self.connection.writer().body(data, end);
        self.queued(queued, end)?;
        self.settle(end).await?;
        if end && self.upgrading.get() {
            let shut = poll_fn(|cx| self.connection.poll_shutdown(cx)).await;
            shut.map_err(|error| self.send_failed(SendError::from_io(error)))?;
        }
        Ok(())
    }

    pub(super) async fn send_trailers(&self, trailers: &Headers) -> Result<(), ClientError> {
        if self.upgrading.get() {
            return self.send_data(Bytes::new(), true).await;
        }
        self.check_body()?;
        let queued = self.connection.writer().body_end(trailers);
        self.queued(queued, true)?;
        self.settle(true).await
    }

    pub(super) async fn flush(&self) -> Result<(), ClientError> {
        self.connection.flush().await.map_err(|error| self.send_failed(error))
    }

    pub(super) fn break_off(&self) {
        self.keep_alive.set(false);
    }

    pub(super) fn is_request_finished(&self) -> bool {
        self.request.get() == Progress::Done
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.connection.writer().body_bytes()
    }

    pub(super) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, ClientError>> {
        if self.response.get() != Progress::Head {
            return Poll::Ready(Err(ClientError::Misuse("the final head was received")));
        }
        if self.raw {
            self.connection.reader().start_body(BodyLength::Tunnel);
            self.response.set(Progress::Body);
            return Poll::Ready(Ok(ResponseHead::new(StatusCode::OK)));
        }
        loop {
            if let Some(head) = self.parse_head()? {
                return Poll::Ready(Ok(head));
            }
            let filled = ready!(self.connection.poll_fill(cx));
            match filled {
                Ok(1..) => self.answered.set(true),
                Ok(0) => return Poll::Ready(Err(self.closed_early())),
                Err(error) if crate::error::is_disconnect(error.kind()) => {
                    return Poll::Ready(Err(self.closed_early()));
                }
                Err(error) => {
                    self.break_off();
                    return Poll::Ready(Err(ClientError::Io(error)));
                }
            }
        }
    }

    pub(super) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ClientError>> {
        match self.response.get() {
            Progress::Head => return Poll::Ready(Err(ClientError::Misuse("the head was not received"))),
            Progress::Done => return Poll::Ready(Ok(None)),
            Progress::Body => {}
        }
        let frame = ready!(self.connection.poll_body(cx));
        if self.connection.reader().is_body_end() {
            self.response.set(Progress::Done);
        }
        Poll::Ready(frame.map_err(|error| {
            self.break_off();
            ClientError::from_body(error)
        }))
    }

    pub(super) fn is_response_end(&self) -> bool {
        self.response.get() == Progress::Done
    }

    pub(super) fn announced(&self) -> Option<u64> {
        self.connection.reader().announced()
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.connection.reader().body_bytes()
    }

    fn parse_head(&self) -> Result<Option<ResponseHead>, ClientError> {
        let mut reader = self.connection.reader();
        let reader = &mut *reader;
        let limits = reader.limits;
        let method = self.method.borrow();
        let parsed = parse_response(&mut reader.buffer, &mut reader.scan, &limits, &method);
        let message = parsed.map_err(|error| {
            self.break_off();
            ClientError::Protocol(error.detail)
        })?;
        let Some(message) = message else { return Ok(None) };
        let status = message.head.status;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Some(message.head));
        }
        if message.body == BodyLength::Tunnel && !self.upgrading.get() {
            self.break_off();
            return Err(ClientError::Protocol("http1.unexpected_upgrade"));
        }
        if self.upgrading.get() && message.body != BodyLength::Tunnel {
            // The upgrade was refused: the request is complete, unless its body was on the way.
            let mut writer = self.connection.writer();
            if writer.body_bytes() > 0 {
                self.break_off();
            }
            writer.start_body(BodyLength::Empty, true);
            self.upgrading.set(false);
            self.request.set(Progress::Done);
        }
        if !message.keep_alive || message.body == BodyLength::Tunnel {
            self.break_off();
        }
        reader.start_body(message.body);
        self.response.set(if reader.is_body_end() { Progress::Done } else { Progress::Body });
        Ok(Some(message.head))
    }

    fn closed_early(&self) -> ClientError {
        self.break_off();
        if self.answered.get() { ClientError::Truncated } else { ClientError::ClosedBeforeResponse }
    }

    fn check_body(&self) -> Result<(), ClientError> {
        match self.request.get() {
            Progress::Body => Ok(()),
            _ => Err(ClientError::Misuse("data outside of the body")),
        }
    }

    fn queued(&self, queued: Result<(), SendError>, end: bool) -> Result<(), ClientError> {
        queued.map_err(|error| self.send_failed(error))?;
        if end {
            self.request.set(Progress::Done);
        }
        Ok(())
    }

    async fn settle(&self, end: bool) -> Result<(), ClientError> {
        self.connection.settle(end).await.map_err(|error| self.send_failed(error))
    }

    fn send_failed(&self, error: SendError) -> ClientError {
        self.break_off();
        ClientError::from_send(error)
    }
}
