//! The client side of a connection: requests out, responses in.
//!
//! Owns the exchange with an upstream, the same for both versions. Leaves out dialling, pooling and retries.

mod h1;
mod h2;

use std::borrow::Borrow;
use std::task::{Context, Poll};

use bytes::Bytes;

pub use self::h1::H1;
pub use self::h2::{Driver, H2};
pub use crate::h1::H1Options;
use crate::{ClientError, Frame, Headers, Reason, RequestHead, ResponseHead};

/// One request to an upstream and its response. The two halves can be used concurrently on one task. Dropping them before
/// both messages are complete breaks the exchange off: RST_STREAM on HTTP/2; on HTTP/1 the connection is not reusable.
pub struct ClientExchange<'c> {
    /// The request.
    pub send: RequestSender<'c>,
    /// The response.
    pub recv: ResponseReceiver<'c>,
}

/// The request half. As with [`crate::Responder`], what is sent is queued until the end or a flush.
pub struct RequestSender<'c>(Sending<'c>);

enum Sending<'c> {
    H1(&'c H1),
    H2(h2::Sender),
}

/// The response half.
pub struct ResponseReceiver<'c>(Receiving<'c>);

enum Receiving<'c> {
    H1(&'c H1),
    H2(h2::Receiver),
}

impl<'c> ClientExchange<'c> {
    fn h1(connection: &'c H1) -> ClientExchange<'c> {
        ClientExchange {
            send: RequestSender(Sending::H1(connection)),
            recv: ResponseReceiver(Receiving::H1(connection)),
        }
    }

    fn h2(send: h2::Sender, recv: h2::Receiver) -> ClientExchange<'static> {
        ClientExchange { send: RequestSender(Sending::H2(send)), recv: ResponseReceiver(Receiving::H2(recv)) }
    }
}

impl RequestSender<'_> {
    /// Queues the head; with `end` it is the whole request. An upgrade or CONNECT is sent with `end` false.
    pub async fn head(&mut self, head: impl Borrow<RequestHead>, end: bool) -> Result<(), ClientError> {
        match &mut self.0 {
            Sending::H1(connection) => connection.send_head(head.borrow(), end).await,
            Sending::H2(sender) => sender.head(head.borrow(), end),
        }
    }

    /// Queues body bytes; waits while too much is queued. Not cancel safe.
    pub async fn data(&mut self, data: Bytes, end: bool) -> Result<(), ClientError> {
        match &mut self.0 {
            Sending::H1(connection) => connection.send_data(data, end).await,
            Sending::H2(sender) => sender.data(data, end).await,
        }
    }

    /// Ends the request with trailers.
    pub async fn trailers(&mut self, trailers: Headers) -> Result<(), ClientError> {
        match &mut self.0 {
            Sending::H1(connection) => connection.send_trailers(&trailers).await,
            Sending::H2(sender) => sender.trailers(trailers),
        }
    }

    /// Hands everything queued to the kernel (HTTP/2: to the connection's next write). Cancel safe.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        match &mut self.0 {
            Sending::H1(connection) => connection.flush().await,
            Sending::H2(_) => Ok(()),
        }
    }

    /// Breaks the exchange off: RST_STREAM on HTTP/2; on HTTP/1 the connection is no longer reusable.
    pub fn reset(&mut self, reason: Reason) {
        match &mut self.0 {
            Sending::H1(connection) => connection.break_off(),
            Sending::H2(sender) => sender.reset(reason),
        }
    }

    /// Whether the request was sent to its end.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Sending::H1(connection) => connection.is_request_finished(),
            Sending::H2(sender) => sender.is_finished(),
        }
    }

    /// Body bytes sent so far.
    pub fn sent_bytes(&self) -> u64 {
        match &self.0 {
            Sending::H1(connection) => connection.sent_bytes(),
            Sending::H2(sender) => sender.sent_bytes(),
        }
    }
}

impl ResponseReceiver<'_> {
    /// The next head: informational ones first, then the final one. Cancel safe.
    pub async fn head(&mut self) -> Result<ResponseHead, ClientError> {
        std::future::poll_fn(|cx| self.poll_head(cx)).await
    }

    /// As [`ResponseReceiver::head`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, ClientError>> {
        match &mut self.0 {
            Receiving::H1(connection) => connection.poll_head(cx),
            Receiving::H2(receiver) => receiver.poll_head(cx),
        }
    }

    /// The next piece of the body; `None` once it is complete. Cancel safe. After 101, or 2xx to CONNECT, raw bytes.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`ResponseReceiver::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ClientError>> {
        match &mut self.0 {
            Receiving::H1(connection) => connection.poll_body(cx),
            Receiving::H2(receiver) => receiver.poll_body(cx),
        }
    }

    /// Whether the response is complete; right after the final head true for one without a body.
    pub fn is_end(&self) -> bool {
        match &self.0 {
            Receiving::H1(connection) => connection.is_response_end(),
            Receiving::H2(receiver) => receiver.is_end(),
        }
    }

    /// The announced length of the whole body; `None` when only its end will tell.
    pub fn content_length(&self) -> Option<u64> {
        match &self.0 {
            Receiving::H1(connection) => connection.announced(),
            Receiving::H2(receiver) => receiver.announced(),
        }
    }

    /// Body bytes received so far.
    pub fn received_bytes(&self) -> u64 {
        match &self.0 {
            Receiving::H1(connection) => connection.received_bytes(),
            Receiving::H2(receiver) => receiver.received_bytes(),
        }
    }
}
