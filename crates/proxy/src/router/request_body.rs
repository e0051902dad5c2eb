//! The client's body on its way upstream, kept while it may have to be sent again.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll};

use bytes::Bytes;
use meltemi_http::client::RequestSender;
use meltemi_http::{BodyError, ClientError, Frame, RecvBody};

use super::timers::Timers;

/// A request body that several attempts can read from its beginning.
pub(crate) struct RequestBody<'c> {
    recv: RefCell<RecvBody<'c>>,
    kept: RefCell<Vec<Frame>>,
    kept_bytes: Cell<usize>,
    limit: usize,
    keeps: Cell<bool>,
    complete: Cell<bool>,
}

/// Why an upload stopped.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The client did not deliver.
    Client(BodyError),
    /// The upstream takes no more; its response or the end of its connection says why.
    Upstream(ClientError),
}

impl<'c> RequestBody<'c> {
    /// A body of which up to `limit` bytes may be kept.
    pub(crate) fn new(recv: RecvBody<'c>, limit: usize) -> RequestBody<'c> {
        let complete = Cell::new(recv.is_end());
        RequestBody {
            recv: RefCell::new(recv),
            kept: RefCell::default(),
            kept_bytes: Cell::new(0),
            limit,
            keeps: Cell::new(false),
            complete,
        }
    }

    /// Whether the client has sent everything.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// Body bytes that came so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.recv.borrow().received_bytes()
    }

    /// Keeps what is read from now on, for another attempt.
    pub(super) fn keep(&self) {
        self.keeps.set(true);
    }

    /// No further attempt: nothing more is kept.
    pub(super) fn stop_keeping(&self) {
        self.keeps.set(false);
    }

    /// Whether another attempt could have the whole body.
    pub(super) fn can_replay(&self) -> bool {
        self.keeps.get()
    }

    /// Whether there is no body at all.
    pub(super) fn is_empty(&self) -> bool {
        self.complete.get() && self.kept.borrow().is_empty()
    }

    /// The frame with this number, from what was kept or from the client.
    fn poll_frame(&self, number: usize, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        if let Some(frame) = self.kept.borrow().get(number) {
            return Poll::Ready(Ok(Some(frame.clone())));
        }
        let mut recv = self.recv.borrow_mut();
        let frame = std::task::ready!(recv.poll_next(cx));
        self.complete.set(recv.is_end() || matches!(frame, Ok(None)));
        if let Ok(Some(frame)) = &frame {
            self.remember(frame);
        }
        Poll::Ready(frame)
    }

    fn remember(&self, frame: &Frame) {
        if !self.keeps.get() {
            return;
        }
        let size = match frame {
            Frame::Data(bytes) => bytes.len(),
            Frame::Trailers(fields) => fields.byte_size(),
        };
        let total = self.kept_bytes.get() + size;
        self.kept_bytes.set(total);
        if total > self.limit {
            // Everything kept was sent in this attempt; a further one is no longer possible.
            self.keeps.set(false);
            self.kept.borrow_mut().clear();
        } else {
            self.kept.borrow_mut().push(frame.clone());
        }
    }

    /// Whether the frame before `number` was the last.
    fn ends_before(&self, number: usize) -> bool {
        self.complete.get() && number >= self.kept.borrow().len()
    }

    /// Sends the whole body. Trailers go only where both sides may have them (`trailers`).
    pub(super) async fn upload(
        &self,
        send: &mut RequestSender<'_>,
        timers: &Timers,
        trailers: bool,
    ) -> Result<(), UploadError> {
        let mut number = 0;
        loop {
            let first = std::future::poll_fn(|cx| Poll::Ready(self.poll_frame(number, cx))).await;
            let frame = match first {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    send.flush().await.map_err(UploadError::Upstream)?;
                    std::future::poll_fn(|cx| self.poll_frame(number, cx)).await
                }
            };
            number += 1;
            timers.touch();
            let sent = match frame.map_err(UploadError::Client)? {
                None => return send.data(Bytes::new(), true).await.map_err(UploadError::Upstream),
                Some(Frame::Trailers(fields)) if trailers => {
                    return send.trailers(fields).await.map_err(UploadError::Upstream);
                }
                Some(Frame::Trailers(_)) => {
                    return send.data(Bytes::new(), true).await.map_err(UploadError::Upstream);
                }
                Some(Frame::Data(bytes)) => {
                    let end = self.ends_before(number);
                    send.data(bytes, end).await.map(|()| end)
                }
            };
            if sent.map_err(UploadError::Upstream)? {
                return Ok(());
            }
        }
    }
}
