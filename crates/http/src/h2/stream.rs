//! The two halves of an HTTP/2 stream, for server and client alike.
//!
//! Owns flow control as seen by a relay: bytes received are given back to the peer's window when the next piece is asked
//! for, and sending waits for window.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::convert;
use crate::{BodyError, Frame, Headers, SendError};

/// The receiving half.
pub(crate) struct RecvHalf {
    stream: RecvStream,
    /// Handed out, not yet given back to the window.
    unreleased: usize,
    data_ended: bool,
    ended: bool,
    body_bytes: u64,
    announced: Option<u64>,
}

/// The sending half.
pub(crate) struct SendHalf {
    stream: SendStream<Bytes>,
    /// The message must not carry a body (the answer to HEAD).
    discards: bool,
    finished: bool,
    body_bytes: u64,
}

impl RecvHalf {
    pub(crate) fn new(stream: RecvStream, announced: Option<u64>) -> RecvHalf {
        let ended = stream.is_end_stream();
        let announced = if ended { Some(0) } else { announced };
        RecvHalf { stream, unreleased: 0, data_ended: false, ended, body_bytes: 0, announced }
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        self.release();
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        while !self.data_ended {
            let Some(data) = ready!(self.stream.poll_data(cx)) else {
                self.data_ended = true;
                break;
            };
            let data = data.map_err(BodyError::from_h2)?;
            self.ended = self.stream.is_end_stream();
            // The empty frame that only ends a stream is nothing to relay.
            if data.is_empty() && self.ended {
                return Poll::Ready(Ok(None));
            }
            if !data.is_empty() {
                self.unreleased = data.len();
                self.body_bytes += data.len() as u64;
                return Poll::Ready(Ok(Some(Frame::Data(data))));
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(BodyError::from_h2)?;
        self.ended = true;
        Poll::Ready(Ok(trailers.map(|trailers| Frame::Trailers(convert::headers(trailers)))))
    }

    pub(crate) fn is_end(&self) -> bool {
        self.ended
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    pub(crate) fn announced(&self) -> Option<u64> {
        self.announced
    }

    fn release(&mut self) {
        let count = std::mem::take(&mut self.unreleased);
        if count > 0 && self.stream.flow_control().release_capacity(count).is_err() {
            tracing::trace!("the stream ended before its window was given back");
        }
    }
}

impl Drop for RecvHalf {
    /// The connection's window is shared by all streams: a stream that is dropped gives its part back.
    fn drop(&mut self) {
        self.release();
    }
}

impl SendHalf {
    pub(crate) fn new(stream: SendStream<Bytes>, finished: bool, discards: bool) -> SendHalf {
        SendHalf { stream, discards, finished, body_bytes: 0 }
    }

    pub(crate) async fn data(&mut self, mut data: Bytes, end: bool) -> Result<(), SendError> {
        if self.finished {
            return Err(SendError::Misuse("data after the end"));
        }
        if self.discards {
            data = Bytes::new();
        }
        while !data.is_empty() {
            let window = self.window(data.len()).await?;
            let piece = data.split_to(window.min(data.len()));
            self.body_bytes += piece.len() as u64;
            self.finished = end && data.is_empty();
            self.send(piece, self.finished)?;
        }
        if end && !self.finished {
            self.finished = true;
            self.send(Bytes::new(), true)?;
        }
        Ok(())
    }

    pub(crate) fn trailers(&mut self, trailers: Headers) -> Result<(), SendError> {
        if std::mem::replace(&mut self.finished, true) {
            return Err(SendError::Misuse("trailers after the end"));
        }
        let sent = self.stream.send_trailers(convert::header_map(trailers.into_iter()));
        sent.map_err(|error| self.failure(error))
    }

    pub(crate) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
        self.finished = true;
    }

    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        self.stream.poll_reset(cx)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Waits for room for up to `wanted` bytes, at least one.
    async fn window(&mut self, wanted: usize) -> Result<usize, SendError> {
        self.stream.reserve_capacity(wanted);
        loop {
            let capacity = self.stream.capacity();
            if capacity > 0 {
                return Ok(capacity);
            }
            match poll_fn(|cx| self.stream.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.failure(error)),
                None => return Err(self.gone()),
            }
        }
    }

    fn send(&mut self, data: Bytes, end: bool) -> Result<(), SendError> {
        let sent = self.stream.send_data(data, end);
        sent.map_err(|error| self.failure(error))
    }

    /// `h2` only says that a stream is inactive; why is asked for separately.
    fn failure(&mut self, error: h2::Error) -> SendError {
        match SendError::from_h2(error) {
            SendError::Closed => self.gone(),
            known => known,
        }
    }

    fn gone(&mut self) -> SendError {
        match self.stream.poll_reset(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(reason)) => SendError::Reset(reason),
            _ => SendError::Closed,
        }
    }
}
