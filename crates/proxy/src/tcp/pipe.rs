//! Pipes through which the kernel moves bytes from socket to socket without copying them here (`splice(2)`).
//!
//! Only bulk transfers are worth one: for small messages two system calls more cost what the copy saves. A worker
//! keeps a few for later; how many are in use is bounded, since each holds kernel memory and two descriptors.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that a pipe holds: as much as moves in one call. Half of it costs a quarter of the speed; twice as much is slower
/// again.
const PIPE_BYTES: usize = 512 << 10;

/// Pipes that a worker keeps between uses.
const SPARE_PIPES: usize = 16;

/// Pipes that the connections of a worker use at once; further bulk transfers copy.
const MAX_PIPES: usize = 256;

thread_local! {
    static SPARE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
    static IN_USE: Cell<usize> = const { Cell::new(0) };
}

/// A pipe in use. Goes back to the worker's spare ones when it is dropped empty.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Read and write end, there until dropped.
    ends: Option<(OwnedFd, OwnedFd)>,
    /// Bytes in it.
    filled: usize,
    /// It took no more, or the socket had no more: which of the two it does not say.
    is_topped: bool,
}

impl Pipe {
    /// A pipe, unless too many are in use or the process has no descriptors left.
    pub(super) fn take() -> Option<Pipe> {
        if IN_USE.get() >= MAX_PIPES {
            return None;
        }
        let ends = match SPARE.with_borrow_mut(Vec::pop) {
            Some(ends) => ends,
            None => made().ok()?,
        };
        IN_USE.set(IN_USE.get() + 1);
        Some(Pipe { ends: Some(ends), filled: 0, is_topped: false })
    }

    /// Whether nothing waits in it.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Moves what the socket has into the pipe; 0 is the end of the stream. Call it on an empty pipe only: then an
    /// error of the kind `WouldBlock` says that the socket has nothing, and readiness is waited for.
    pub(super) fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        let Some((_, write)) = &self.ends else { return Ok(0) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let count =
            from.try_io(Interest::READABLE, || Ok(splice(from, None, write, None, PIPE_BYTES, flags)?))?;
        self.filled += count;
        Ok(count)
    }

    /// Moves more into a pipe that holds something, once until bytes have left it. The socket's readiness is not
    /// touched: whether the socket is empty or the pipe full is known again when the pipe is empty. A reset is told here
    /// or never: the kernel tells it once, and what follows looks like the end of the stream.
    pub(super) fn top_up(&mut self, from: &TcpStream) -> io::Result<usize> {
        let Some((_, write)) = self.ends.as_ref().filter(|_| !self.is_topped) else { return Ok(0) };
        let room = PIPE_BYTES.saturating_sub(self.filled);
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let count = match splice(from, None, write, None, room, flags) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        // The end of the stream comes again with the next `fill`.
        self.is_topped = count < room;
        self.filled += count;
        Ok(count)
    }

    /// Moves what is in the pipe to the socket, as much as it takes.
    pub(super) fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let Some((read, _)) = &self.ends else { return Ok(0) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let filled = self.filled;
        let count = to.try_io(Interest::WRITABLE, || Ok(splice(read, None, to, None, filled, flags)?))?;
        self.filled -= count;
        self.is_topped = false;
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        IN_USE.set(IN_USE.get() - 1);
        let Some(ends) = self.ends.take().filter(|_| self.filled == 0) else { return };
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_PIPES {
                spare.push(ends);
            }
        });
    }
}

fn made() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Refused to users with many pipes; a smaller one still works.
    let _smaller = fcntl_setpipe_size(&write, PIPE_BYTES);
    Ok((read, write))
}
