//! The byte stream under an HTTP/2 connection, with deferred flushes.
//!
//! Owns the write buffer. `h2` writes and flushes frame by frame, one system call each. Here a flush only promises: the
//! connection's task goes once to the back of the run queue, the streams that are ready by then add their frames, and
//! everything leaves in one write. The promise is kept by [`Outbound::poll_settle`], which every driver calls after
//! polling its connection.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flood::{FloodGuard, FloodLimits};
use crate::{Io, buffers};

/// Pending bytes above which a write goes to the kernel at once.
const PENDING_HIGH_BYTES: usize = 64 << 10;

/// The driver's end: it decides when the bytes leave.
#[derive(Clone)]
pub(crate) struct Outbound(Rc<RefCell<State>>);

/// The end that `h2` reads and writes.
pub(crate) struct Deferred(Rc<RefCell<State>>);

struct State {
    io: Io,
    /// Bytes read before it was clear that this is HTTP/2.
    prefix: BytesMut,
    pending: BytesMut,
    guard: FloodGuard,
    /// The task already went to the back of the run queue for what is pending.
    yielded: bool,
}

/// Both ends over `io`; `prefix` was read from it before.
pub(crate) fn deferred(io: Io, prefix: BytesMut, limits: FloodLimits) -> (Outbound, Deferred) {
    let (pending, guard) = (BytesMut::new(), FloodGuard::new(limits));
    let state = State { io, prefix, pending, guard, yielded: false };
    let state = Rc::new(RefCell::new(state));
    (Outbound(Rc::clone(&state)), Deferred(state))
}

impl Outbound {
    /// Writes what is pending, but on the first call only asks to be polled again after the other ready tasks. Pending
    /// means that the task will be woken for the rest.
    pub(crate) fn poll_settle(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if state.pending.is_empty() && state.io.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        if !std::mem::replace(&mut state.yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        state.poll_write_pending(cx, 0)
    }

    /// The highest stream that was reset as malformed.
    pub(crate) fn malformed(&self) -> u32 {
        self.0.borrow().guard.malformed()
    }

    /// Writes everything and closes the sending direction.
    pub(crate) fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        ready!(state.poll_write_pending(cx, 0))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}

impl State {
    /// Writes until no more than `keep` bytes are pending.
    fn poll_write_pending(&mut self, cx: &mut Context<'_>, keep: usize) -> Poll<io::Result<()>> {
        while self.pending.len() > keep {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(written);
        }
        if self.pending.is_empty() {
            buffers::release(&mut self.pending);
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.yielded &= !self.pending.is_empty();
        Poll::Ready(Ok(()))
    }

    fn queue(&mut self, bytes: &[u8]) {
        self.guard.sent(bytes);
        self.pending.extend_from_slice(bytes);
    }

    /// A flood ends the connection as if its stream had failed: it deserves no answer.
    fn check_received(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.guard.received(bytes) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a flood of HTTP/2 control frames"))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pending.capacity() == 0 {
            self.pending = buffers::take();
        }
        if self.pending.len() < PENDING_HIGH_BYTES {
            return Poll::Ready(Ok(()));
        }
        self.poll_write_pending(cx, PENDING_HIGH_BYTES / 2)
    }
}

impl AsyncRead for Deferred {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if !state.prefix.is_empty() {
            let count = state.prefix.len().min(buf.remaining());
            let early = state.prefix.split_to(count);
            buf.put_slice(&early);
            return Poll::Ready(state.check_received(&early));
        }
        if state.prefix.capacity() > 0 {
            buffers::release(&mut state.prefix);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut state.io).poll_read(cx, buf))?;
        Poll::Ready(state.check_received(&buf.filled()[before..]))
    }
}

impl AsyncWrite for Deferred {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        ready!(state.poll_room(cx))?;
        state.queue(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        ready!(state.poll_room(cx))?;
        for slice in slices {
            state.queue(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        ready!(state.poll_write_pending(cx, 0))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_flush_waits_for_the_frames_of_one_more_turn() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let (outbound, mut deferred) =
            deferred(Io::Memory(near), BytesMut::from("early"), FloodLimits::default());
        let mut early = [0; 5];
        deferred.read_exact(&mut early).await.unwrap();
        assert_eq!(&early, b"early");
        let mut context = Context::from_waker(Waker::noop());
        assert!(outbound.poll_settle(&mut context).is_ready());
        deferred.write_all(b"one").await.unwrap();
        deferred.flush().await.unwrap();
        assert!(outbound.poll_settle(&mut context).is_pending());
        deferred.write_all(b"two").await.unwrap();
        assert!(outbound.poll_settle(&mut context).is_ready());
        let mut written = [0; 16];
        assert_eq!(far.read(&mut written).await.unwrap(), 6);
        assert_eq!(&written[..6], b"onetwo");
        assert_eq!(outbound.0.borrow().pending.capacity(), 0);
    }
}
