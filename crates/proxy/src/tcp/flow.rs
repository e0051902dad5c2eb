//! One direction of a relay: from one socket to the other, to the end of the stream.
//!
//! Begins with copies through a pooled buffer; once a transfer turned bulk, the kernel moves the bytes (`pipe`). A
//! buffer or pipe is held only while bytes are on their way: an idle connection holds neither.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use meltemi_http::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::pipe::Pipe;

/// Bytes of a copy buffer. 8 KiB, tokio's default, costs half the throughput of 64 KiB.
const BUFFER_BYTES: usize = 64 << 10;

/// Buffers that a worker keeps between uses.
const SPARE_BUFFERS: usize = 16;

/// Bytes that come in full buffers one after another before a transfer counts as bulk.
const BULK_BYTES: usize = 256 << 10;

/// Bytes below which what came between two waits is no bulk any more.
const SMALL_BYTES: usize = 32 << 10;

/// Reads before other connections of the worker get their turn.
const TURN: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Which end of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Upstream,
}

/// A connection that broke.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) side: Side,
    /// The peer reset it.
    pub(super) is_reset: bool,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Flow {
    from: Side,
    to: Side,
    /// Bytes that left towards `to`.
    pub(super) sent: u64,
    /// Bytes that came from `from`.
    pub(super) received: u64,
    phase: Phase,
    /// Bytes that came without a wait in between.
    burst: usize,
    /// The last burst was a large one.
    is_bulk: bool,
    /// `per_connection_buffer_limit_bytes`: the most that is read ahead.
    limit: usize,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is held.
    Waiting,
    /// Bytes `begin..end` of the buffer have to be written.
    Copying { buffer: Buffer, begin: usize, end: usize },
    /// Bytes are in the pipe.
    Splicing(Pipe),
    /// The end came; it has to be passed on.
    Closing,
    /// The end was passed on.
    Done,
}

impl Flow {
    pub(super) fn new(from: Side, to: Side, limit: usize) -> Flow {
        let limit = limit.clamp(1, BUFFER_BYTES);
        Flow { from, to, sent: 0, received: 0, phase: Phase::Waiting, burst: 0, is_bulk: false, limit }
    }

    /// Whether the end of the stream was passed on.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Moves what can be moved; ready at the end. Asks to be polled again when its turn is over.
    pub(super) fn poll(
        &mut self,
        from: &mut Io,
        to: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..TURN {
            self.phase = match std::mem::replace(&mut self.phase, Phase::Waiting) {
                Phase::Waiting => ready!(self.poll_read(from, to, cx))?,
                Phase::Copying { buffer, begin, end } => ready!(self.poll_write(to, buffer, begin, end, cx))?,
                Phase::Splicing(pipe) => ready!(self.poll_drain(from, to, pipe, cx))?,
                Phase::Closing => {
                    self.phase = Phase::Closing;
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|error| broken(self.to, &error))?;
                    Phase::Done
                }
                Phase::Done => {
                    self.phase = Phase::Done;
                    return Poll::Ready(Ok(()));
                }
            };
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, from: &mut Io, to: &Io, cx: &mut Context<'_>) -> Poll<Result<Phase, Broken>> {
        if from.poll_readable(cx).is_pending() {
            self.is_bulk = self.burst >= if self.is_bulk { SMALL_BYTES } else { BULK_BYTES };
            self.burst = 0;
            return Poll::Pending;
        }
        if (self.is_bulk || self.burst >= BULK_BYTES)
            && let (Io::Tcp(from), Io::Tcp(_)) = (&*from, to)
            && let Some(pipe) = Pipe::take()
        {
            return self.poll_fill(from, pipe, cx);
        }
        let mut buffer = Buffer::take();
        let mut room = ReadBuf::new(&mut buffer.bytes_mut()[..self.limit]);
        match Pin::new(from).poll_read(cx, &mut room) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(broken(self.from, &error))),
            Poll::Ready(Ok(())) => {
                let end = room.filled().len();
                self.came(end);
                Poll::Ready(Ok(match end {
                    0 => Phase::Closing,
                    end => Phase::Copying { buffer, begin: 0, end },
                }))
            }
        }
    }

    /// Bulk: the pipe is filled when the socket has something.
    fn poll_fill(
        &mut self,
        from: &TcpStream,
        mut pipe: Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Phase, Broken>> {
        loop {
            match pipe.fill(from) {
                Ok(0) => return Poll::Ready(Ok(Phase::Closing)),
                Ok(count) => {
                    self.came(count);
                    return Poll::Ready(Ok(Phase::Splicing(pipe)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Poll::Ready(Err(broken(self.from, &error))),
            }
            // Readiness was cleared by the attempt; this is where the task is put on the list again.
            if from.poll_read_ready(cx).is_pending() {
                self.is_bulk = self.burst >= SMALL_BYTES;
                self.burst = 0;
                return Poll::Pending;
            }
        }
    }

    fn poll_write(
        &mut self,
        to: &mut Io,
        buffer: Buffer,
        mut begin: usize,
        end: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Phase, Broken>> {
        while begin < end {
            match Pin::new(&mut *to).poll_write(cx, &buffer.bytes()[begin..end]) {
                Poll::Ready(Ok(count)) => {
                    self.sent += count as u64;
                    begin += count;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(self.to, &error))),
                Poll::Pending => {
                    self.phase = Phase::Copying { buffer, begin, end };
                    return Poll::Pending;
                }
            }
        }
        // Records of TLS may wait for the kernel.
        match Pin::new(to).poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(Phase::Waiting)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(broken(self.to, &error))),
            Poll::Pending => {
                self.phase = Phase::Copying { buffer, begin, end };
                Poll::Pending
            }
        }
    }

    /// While the other side takes no more, the pipe is topped up, so that neither socket runs dry: what comes meanwhile
    /// would fill the receive buffer and stop its sender.
    fn poll_drain(
        &mut self,
        from: &Io,
        to: &Io,
        mut pipe: Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Phase, Broken>> {
        let (Io::Tcp(from), Io::Tcp(to)) = (from, to) else { return Poll::Ready(Ok(Phase::Waiting)) };
        while !pipe.is_empty() {
            match pipe.drain(to) {
                Ok(count) => self.sent += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if to.poll_write_ready(cx).is_pending() {
                        match pipe.top_up(from) {
                            Ok(count) => self.came(count),
                            Err(error) => return Poll::Ready(Err(broken(self.from, &error))),
                        }
                        self.phase = Phase::Splicing(pipe);
                        return Poll::Pending;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(broken(self.to, &error))),
            }
        }
        Poll::Ready(Ok(Phase::Waiting))
    }

    fn came(&mut self, count: usize) {
        self.received += count as u64;
        self.burst = self.burst.saturating_add(count);
    }
}

fn broken(side: Side, error: &io::Error) -> Broken {
    Broken { side, is_reset: error.kind() == io::ErrorKind::ConnectionReset }
}

/// A copy buffer in use; goes back to the worker's spare ones when dropped.
#[derive(Debug)]
struct Buffer(Option<Box<[u8]>>);

impl Buffer {
    fn take() -> Buffer {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Buffer(Some(spare.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(buffer) = self.0.take() else { return };
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_BUFFERS {
                spare.push(buffer);
            }
        });
    }
}
