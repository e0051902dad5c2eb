//! One request and its response, as a service sees them.
//!
//! Owns the seam between codecs and whoever answers: the same three parts for both versions.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::h1::connection::Connection;
use crate::h2::stream::RecvHalf;
use crate::server::{h1::Turn, h2::Stream};
use crate::{BodyError, Frame, Headers, Reason, RequestHead, ResponseHead, SendError};

/// One request with its body and the way to answer it. The parts can be used concurrently on one task.
pub struct Exchange<'c> {
    /// The head.
    pub request: RequestHead,
    /// The request body.
    pub body: RecvBody<'c>,
    /// The response.
    pub respond: Responder<'c>,
}

/// A request body, read as it arrives. After an accepted upgrade or CONNECT on HTTP/1 it yields the raw bytes of the
/// tunnel as [`Frame::Data`].
pub struct RecvBody<'c>(Receiving<'c>);

enum Receiving<'c> {
    H1(&'c Connection),
    H2(RecvHalf),
}

/// The way to answer. What is sent is queued; it leaves when the response ends, when a good deal has gathered, or on
/// [`Responder::flush`]: call that before waiting for anything else.
pub struct Responder<'c>(Sending<'c>);

enum Sending<'c> {
    H1(&'c Connection, &'c Turn),
    H2(Stream),
}

impl<'c> RecvBody<'c> {
    pub(crate) fn h1(connection: &'c Connection) -> RecvBody<'c> {
        RecvBody(Receiving::H1(connection))
    }

    pub(crate) fn h2(half: RecvHalf) -> RecvBody<'c> {
        RecvBody(Receiving::H2(half))
    }

    /// The next piece; `None` once the body is complete, and again after that. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Frame>, BodyError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`RecvBody::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        match &mut self.0 {
            Receiving::H1(connection) => connection.poll_body(cx),
            Receiving::H2(half) => half.poll_next(cx),
        }
    }

    /// Whether nothing more will come; true from the start for a request without a body, and on HTTP/1 for an upgrade or
    /// CONNECT until it is accepted.
    pub fn is_end(&self) -> bool {
        match &self.0 {
            Receiving::H1(connection) => connection.reader().is_body_end(),
            Receiving::H2(half) => half.is_end(),
        }
    }

    /// The announced length of the whole body; `None` when only its end will tell.
    pub fn content_length(&self) -> Option<u64> {
        match &self.0 {
            Receiving::H1(connection) => connection.reader().announced(),
            Receiving::H2(half) => half.announced(),
        }
    }

    /// Body bytes received so far (`%BYTES_RECEIVED%`).
    pub fn received_bytes(&self) -> u64 {
        match &self.0 {
            Receiving::H1(connection) => connection.reader().body_bytes(),
            Receiving::H2(half) => half.body_bytes(),
        }
    }
}

impl<'c> Responder<'c> {
    pub(crate) fn h1(connection: &'c Connection, turn: &'c Turn) -> Responder<'c> {
        Responder(Sending::H1(connection, turn))
    }

    pub(crate) fn h2(stream: Stream) -> Responder<'c> {
        Responder(Sending::H2(stream))
    }

    /// Sends an informational response (100, 103, …) at once. Dropped for HTTP/1.0 clients, which know none.
    pub async fn informational(&mut self, head: ResponseHead) -> Result<(), SendError> {
        match &mut self.0 {
            Sending::H1(connection, turn) => {
                if turn.informational(connection, &head)? {
                    connection.flush().await
                } else {
                    Ok(())
                }
            }
            Sending::H2(stream) => stream.informational(head),
        }
    }

    /// Queues the final head; with `end` it is the whole response.
    pub async fn head(&mut self, head: ResponseHead, end: bool) -> Result<(), SendError> {
        match &mut self.0 {
            Sending::H1(connection, turn) => {
                turn.start(connection, &head, end)?;
                connection.settle(end).await
            }
            Sending::H2(stream) => stream.head(head, end),
        }
    }

    /// Accepts an upgrade (101, or 2xx to CONNECT): from here [`RecvBody`] yields and [`Responder::data`] sends raw bytes.
    /// For a refused upgrade use [`Responder::head`].
    pub async fn upgrade(&mut self, head: ResponseHead) -> Result<(), SendError> {
        match &mut self.0 {
            Sending::H1(connection, turn) => {
                turn.start(connection, &head, false)?;
                if !turn.is_tunnel() {
                    return Err(SendError::Misuse("this response accepts no upgrade"));
                }
                connection.reader().open_tunnel();
                connection.flush().await
            }
            Sending::H2(stream) => stream.head(head, false),
        }
    }

    /// Queues body bytes; waits while too much is queued. Not cancel safe: the bytes may or may not be queued.
    pub async fn data(&mut self, data: Bytes, end: bool) -> Result<(), SendError> {
        match &mut self.0 {
            Sending::H1(connection, turn) => {
                turn.body(connection, data, end)?;
                connection.settle(end).await?;
                if end && turn.is_tunnel() { turn.close_tunnel(connection).await } else { Ok(()) }
            }
            Sending::H2(stream) => stream.data(data, end).await,
        }
    }

    /// Ends the response with trailers.
    pub async fn trailers(&mut self, trailers: Headers) -> Result<(), SendError> {
        match &mut self.0 {
            Sending::H1(connection, turn) if turn.is_tunnel() => turn.close_tunnel(connection).await,
            Sending::H1(connection, turn) => {
                turn.trailers(connection, &trailers)?;
                connection.settle(true).await
            }
            Sending::H2(stream) => stream.trailers(trailers),
        }
    }

    /// Hands everything queued to the kernel (HTTP/2: to the connection's next write). Cancel safe.
    pub async fn flush(&mut self) -> Result<(), SendError> {
        match &mut self.0 {
            Sending::H1(connection, _) => connection.flush().await,
            Sending::H2(_) => Ok(()),
        }
    }

    /// Breaks the exchange off: RST_STREAM on HTTP/2, closing the connection on HTTP/1.
    pub fn reset(&mut self, reason: Reason) {
        match &mut self.0 {
            Sending::H1(_, turn) => turn.break_off(),
            Sending::H2(stream) => stream.reset(reason),
        }
    }

    /// As [`Responder::reset`] after a response has begun: what was queued of it leaves first.
    pub async fn break_off(&mut self, reason: Reason) {
        match &mut self.0 {
            Sending::H1(_, turn) => turn.break_off(),
            Sending::H2(stream) => stream.break_off(reason).await,
        }
    }

    /// Completes when the client has gone away or reset the stream. Cancel safe.
    pub async fn closed(&mut self) {
        std::future::poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// As [`Responder::closed`]. A tunnel on HTTP/1 never completes it: there the end of the body says the same.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Sending::H1(_, turn) if turn.is_tunnel() => Poll::Pending,
            Sending::H1(connection, _) => connection.poll_peer_closed(cx),
            Sending::H2(stream) => stream.poll_closed(cx),
        }
    }

    /// Whether the client reset this exchange by itself, instead of going away with the whole connection.
    pub fn is_reset(&mut self) -> bool {
        match &mut self.0 {
            Sending::H1(..) => false,
            Sending::H2(stream) => stream.is_reset_by_peer(),
        }
    }

    /// Whether a final head was queued.
    pub fn is_started(&self) -> bool {
        match &self.0 {
            Sending::H1(_, turn) => turn.is_started(),
            Sending::H2(stream) => stream.is_started(),
        }
    }

    /// Whether the response was sent to its end.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Sending::H1(_, turn) => turn.is_finished(),
            Sending::H2(stream) => stream.is_finished(),
        }
    }

    /// After this response the connection closes (`connection: close` on HTTP/1; nothing on HTTP/2). Call before `head`.
    pub fn close_after(&mut self) {
        if let Sending::H1(_, turn) = &self.0 {
            turn.close_after();
        }
    }

    /// Asks the client to use another connection: `connection: close` on HTTP/1, GOAWAY on HTTP/2. Says whether this is
    /// news to it. Call before `head`.
    pub fn ask_to_go(&mut self) -> bool {
        match &mut self.0 {
            Sending::H1(_, turn) => turn.ask_to_go(),
            Sending::H2(stream) => stream.ask_to_go(),
        }
    }

    /// Body bytes sent so far (`%BYTES_SENT%`).
    pub fn sent_bytes(&self) -> u64 {
        match &self.0 {
            Sending::H1(connection, _) => connection.writer().body_bytes(),
            Sending::H2(stream) => stream.sent_bytes(),
        }
    }
}
