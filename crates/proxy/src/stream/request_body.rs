//! The client's body on its way upstream, kept while it may have to be sent again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use meltemi_http::{BodyError, Frame, RecvBody};

use crate::filter::{GrpcRun, TrailerEdits};

/// A request body that several attempts can read from its beginning.
pub(crate) struct RequestBody<'c> {
    recv: RefCell<RecvBody<'c>>,
    kept: RefCell<Vec<Frame>>,
    kept_bytes: Cell<usize>,
    limit: Cell<usize>,
    /// All of it is kept, whatever the limit.
    keeps_all: Cell<bool>,
    keeps: Cell<bool>,
    /// It grew beyond `limit` while it was kept.
    outgrew: Cell<bool>,
    complete: Cell<bool>,
    tap: RefCell<Option<Box<RequestTap>>>,
}

/// What filters do with a request body.
#[derive(Default)]
struct RequestTap {
    grpc: Option<Rc<GrpcRun>>,
    trailer_edits: Vec<TrailerEdits>,
}

/// Why a body could not be kept whole.
#[derive(Debug)]
pub(crate) enum Buffering {
    /// There is more than allowed.
    TooLarge,
    /// The client was idle for too long.
    Idle,
    /// The client did not deliver.
    Body(BodyError),
}

impl<'c> RequestBody<'c> {
    /// A body of which up to `limit` bytes may be kept.
    pub(crate) fn new(recv: RecvBody<'c>, limit: usize) -> RequestBody<'c> {
        let complete = Cell::new(recv.is_end());
        RequestBody {
            recv: RefCell::new(recv),
            kept: RefCell::default(),
            kept_bytes: Cell::new(0),
            limit: Cell::new(limit),
            keeps_all: Cell::new(false),
            tap: RefCell::default(),
            keeps: Cell::new(false),
            outgrew: Cell::new(false),
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
    pub(crate) fn keep(&self) {
        self.keeps.set(true);
    }

    /// Another limit, before anything is kept.
    pub(crate) fn limit_kept(&self, limit: u64) {
        self.limit.set(usize::try_from(limit).unwrap_or(usize::MAX));
    }

    /// No further attempt: nothing more is kept.
    pub(crate) fn stop_keeping(&self) {
        self.keeps.set(false);
    }

    /// Whether another attempt could have the whole body.
    pub(crate) fn can_replay(&self) -> bool {
        self.keeps.get()
    }

    /// The number of the first frame that was not kept.
    pub(crate) fn next_number(&self) -> usize {
        self.kept.borrow().len()
    }

    /// Takes in what of the body is already here, when no attempt reads it any more: a request that turns out to be
    /// complete leaves its connection fit for the next one.
    pub(crate) fn take_ready(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        while !self.complete.get() && taken <= self.limit.get() {
            let Poll::Ready(Ok(Some(frame))) = self.poll_frame(usize::MAX, &mut cx) else { return };
            if let Frame::Data(bytes) = frame {
                taken += bytes.len();
            }
        }
    }

    /// Whether it was too large to be kept.
    pub(crate) fn outgrew(&self) -> bool {
        self.outgrew.get()
    }

    /// How much data was kept.
    pub(crate) fn kept_data_bytes(&self) -> u64 {
        let kept = self.kept.borrow();
        kept.iter().map(|frame| if let Frame::Data(bytes) = frame { bytes.len() as u64 } else { 0 }).sum()
    }

    /// The request goes on without the body that was kept.
    pub(crate) fn forget(&self) {
        self.kept.borrow_mut().clear();
        self.kept_bytes.set(0);
    }

    /// The whole body, if it was kept.
    pub(crate) fn kept(&self) -> Option<Vec<Frame>> {
        (self.keeps.get() && self.complete.get()).then(|| self.kept.borrow().clone())
    }

    /// Whether there is no body at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.complete.get() && self.kept.borrow().is_empty()
    }

    /// The frame with this number, from what was kept or from the client.
    pub(crate) fn poll_frame(
        &self,
        number: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame>, BodyError>> {
        if let Some(frame) = self.kept.borrow().get(number) {
            return Poll::Ready(Ok(Some(frame.clone())));
        }
        let mut recv = self.recv.borrow_mut();
        let mut frame = std::task::ready!(recv.poll_next(cx));
        self.complete.set(recv.is_end() || matches!(frame, Ok(None)));
        if let Ok(Some(frame)) = &mut frame {
            self.pass_tap(frame);
            self.remember(frame);
        }
        Poll::Ready(frame)
    }

    /// Counts the gRPC messages in it.
    pub(crate) fn count_messages(&self, grpc: &Rc<GrpcRun>) {
        self.tap.borrow_mut().get_or_insert_default().grpc = Some(grpc.clone());
    }

    /// Changes its trailers when they come.
    pub(crate) fn edit_trailers(&self, edits: TrailerEdits) {
        self.tap.borrow_mut().get_or_insert_default().trailer_edits.push(edits);
    }

    fn pass_tap(&self, frame: &mut Frame) {
        let tap = self.tap.borrow();
        let Some(tap) = &*tap else { return };
        match frame {
            Frame::Data(bytes) => {
                if let Some(grpc) = &tap.grpc {
                    grpc.request_bytes(bytes);
                }
            }
            Frame::Trailers(fields) => tap.trailer_edits.iter().for_each(|edits| edits.apply(fields)),
        }
    }

    /// Reads everything before anything is sent on; gives its size. Without a limit it is not kept. A client may be
    /// `idle` for so long.
    pub(crate) async fn read_whole(
        &self,
        limit: Option<u32>,
        idle: Option<Duration>,
    ) -> Result<u64, Buffering> {
        self.keeps.set(limit.is_some());
        self.keeps_all.set(true);
        let read = self.read_on(limit, idle).await;
        self.keeps_all.set(false);
        if read.is_err() {
            self.keeps.set(false);
        }
        read.map(|()| self.received_bytes())
    }

    async fn read_on(&self, limit: Option<u32>, idle: Option<Duration>) -> Result<(), Buffering> {
        while !self.complete.get() {
            let number = self.next_number();
            let frame = std::future::poll_fn(|cx| self.poll_frame(number, cx));
            let frame = match idle {
                Some(idle) => tokio::time::timeout(idle, frame).await.map_err(|_| Buffering::Idle)?,
                None => frame.await,
            };
            if frame.map_err(Buffering::Body)?.is_none() {
                break;
            }
            if limit.is_some_and(|limit| self.received_bytes() > u64::from(limit)) {
                return Err(Buffering::TooLarge);
            }
        }
        Ok(())
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
        if total > self.limit.get() && !self.keeps_all.get() {
            // Everything kept was sent in this attempt; a further one is no longer possible.
            self.keeps.set(false);
            self.outgrew.set(true);
            self.kept.borrow_mut().clear();
        } else {
            self.kept.borrow_mut().push(frame.clone());
        }
    }

    /// Whether the frame before `number` was the last.
    pub(crate) fn ends_before(&self, number: usize) -> bool {
        self.complete.get() && number >= self.kept.borrow().len()
    }
}
