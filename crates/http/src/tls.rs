//! TLS under a connection: a rustls session over TCP, without buffers while it waits.
//!
//! Owns the records on their way: bytes that came and make no record yet, plaintext that nobody has read yet, records
//! that the kernel has not taken yet. All three are pooled and go back when they are empty, so an idle connection holds
//! its session alone. Leaves out whom to trust and what to offer: the session is made with that.
//!
//! An end of the stream without `close_notify` is an end like any other, as in Envoy: HTTP tells by itself whether a
//! message came whole. Our end always says `close_notify`, also when the stream is only dropped.

mod session;

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use self::session::Session;
use self::session::{Progress, invalid};
use crate::buffers;
use crate::io::ByteCounts;

/// Room for one read when records come one by one.
const READ_BYTES: usize = 16 << 10;

/// Room for one read when the last one filled its room.
const BULK_READ_BYTES: usize = 64 << 10;

/// Encrypted bytes that the kernel did not take yet; above it a writer waits.
const OUTGOING_HIGH_BYTES: usize = 64 << 10;

/// Plaintext that is encrypted at once: four full records.
const ENCRYPT_BYTES: usize = 64 << 10;

/// A piece from this size on makes records of its own; smaller ones are gathered, since a record costs more than a copy.
const WHOLE_RECORD_BYTES: usize = 16 << 10;

/// A TLS session over a TCP connection.
pub struct TlsStream {
    tcp: TcpStream,
    session: Session,
    /// Bytes that came and were not understood yet.
    incoming: BytesMut,
    /// The session has nothing to say, and no whole record to read.
    is_starved: bool,
    /// The last read filled its room.
    is_bulk: bool,
    /// Plaintext that nobody has read yet.
    plaintext: BytesMut,
    /// Records that the kernel has not taken yet.
    outgoing: BytesMut,
    has_ended: bool,
    has_closed: bool,
    /// The session found something wrong.
    is_broken: bool,
    counts: Option<Arc<ByteCounts>>,
}

impl TlsStream {
    /// A session over a connection of which `read` was read before. [`TlsStream::handshake`] comes first.
    pub fn new(tcp: TcpStream, session: Session, read: BytesMut) -> TlsStream {
        TlsStream {
            tcp,
            session,
            incoming: read,
            is_starved: false,
            is_bulk: false,
            plaintext: BytesMut::new(),
            outgoing: BytesMut::new(),
            has_ended: false,
            has_closed: false,
            is_broken: false,
            counts: None,
        }
    }

    /// What was agreed upon.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The connection below.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn count(&mut self, counts: Arc<ByteCounts>) {
        self.counts = Some(counts);
    }

    /// Does the handshake. The error of a peer that broke the protocol, or was not let in, holds the `rustls::Error`; the
    /// alert has been sent.
    pub async fn handshake(&mut self) -> io::Result<()> {
        let done = std::future::poll_fn(|cx| self.poll_handshake(cx)).await;
        self.release();
        done
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let understood = self.digest();
            if understood.is_err() {
                // The alert goes if it can; the error is what counts.
                let _gone = self.answer(cx);
            }
            understood?;
            if !self.session.is_handshaking() {
                return self.poll_send(cx);
            }
            if self.has_ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_send(cx))?;
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Ready when a read may make progress.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let has_record = !self.incoming.is_empty() && !self.is_starved;
        if has_record || self.has_ended || !self.plaintext.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.tcp.poll_read_ready(cx)
    }

    /// Whether all that was written is with the kernel.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Understands all records that came, and queues what the session answers; plaintext waits to be read.
    fn digest(&mut self) -> io::Result<()> {
        while !self.is_starved {
            self.understand(&mut ReadBuf::new(&mut []))?;
        }
        Ok(())
    }

    /// Understands what came up to the next plaintext, which goes into `room`, and behind it what does not fit.
    fn understand(&mut self, room: &mut ReadBuf<'_>) -> io::Result<()> {
        let plaintext = &mut self.plaintext;
        let take = |record: &[u8]| {
            let (now, later) = record.split_at(record.len().min(room.remaining()));
            room.put_slice(now);
            if !later.is_empty() && plaintext.capacity() == 0 {
                *plaintext = buffers::take();
            }
            plaintext.extend_from_slice(later);
        };
        let progress = self.session.advance(&mut self.incoming, &mut self.outgoing, take);
        self.is_starved = !matches!(progress, Ok(Progress::Plaintext));
        self.has_ended |= matches!(progress, Ok(Progress::Ended));
        // A broken session is asked for nothing any more, not even for an end.
        self.is_broken |= progress.is_err();
        self.has_closed |= self.is_broken;
        progress.map(|_| ()).map_err(invalid)
    }

    /// Sends what the session answers by itself, as much as goes; who waits for a reply flushes.
    fn answer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_send(cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    /// Reads bytes of records; 0 is the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.incoming.capacity() == 0 {
            ready!(self.tcp.poll_read_ready(cx))?;
            self.incoming = buffers::take();
        }
        let wanted = if self.is_bulk { BULK_READ_BYTES } else { READ_BYTES };
        if self.incoming.capacity() - self.incoming.len() < wanted / 4 {
            self.incoming.reserve(wanted);
        }
        let room = self.incoming.capacity() - self.incoming.len();
        let read = pin!(AsyncReadExt::read_buf(&mut self.tcp, &mut self.incoming)).poll(cx);
        if read.is_pending() {
            self.release();
        }
        let count = ready!(read)?;
        self.is_bulk = count == room;
        self.is_starved = false;
        Poll::Ready(Ok(count))
    }

    /// Gives buffers back that hold nothing.
    fn release(&mut self) {
        for buffer in [&mut self.incoming, &mut self.outgoing, &mut self.plaintext] {
            if buffer.is_empty() {
                buffers::release(buffer);
            }
        }
    }

    /// Writes the records that wait.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        buffers::release(&mut self.outgoing);
        Poll::Ready(Ok(()))
    }

    /// Encrypts, once there is room, and lets the kernel take what it will.
    fn poll_encrypt(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.outgoing.len() >= OUTGOING_HIGH_BYTES {
            ready!(self.poll_send(cx))?;
        }
        // A session writes only when it has nothing left to read.
        self.digest()?;
        if self.is_broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let bytes = &bytes[..bytes.len().min(ENCRYPT_BYTES)];
        if self.outgoing.capacity() == 0 {
            self.outgoing = buffers::take();
        }
        self.session.encrypt(bytes, &mut self.incoming, &mut self.outgoing)?;
        self.answer(cx)?;
        if let Some(counts) = &self.counts {
            counts.moved(0, bytes.len() as u64);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Queues `close_notify`, once.
    fn say_goodbye(&mut self) {
        if !std::mem::replace(&mut self.has_closed, true) && !self.session.is_handshaking() {
            // A session that cannot say it is broken, and the peer knows.
            let _understood = self.digest();
            let _broken = self.session.close(&mut self.incoming, &mut self.outgoing);
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if !this.plaintext.is_empty() {
                let count = this.plaintext.len().min(buf.remaining());
                buf.put_slice(&this.plaintext[..count]);
                this.plaintext.advance(count);
            }
            let mut understood = Ok(());
            while understood.is_ok() && buf.remaining() > 0 && !this.incoming.is_empty() && !this.is_starved {
                understood = this.understand(buf);
            }
            let sent = this.answer(cx);
            understood.and(sent)?;
            let count = buf.filled().len() - before;
            if count > 0 || this.has_ended {
                if this.plaintext.is_empty() {
                    buffers::release(&mut this.plaintext);
                }
                if let Some(counts) = &this.counts {
                    counts.moved(count as u64, 0);
                }
                return Poll::Ready(Ok(()));
            }
            this.has_ended = ready!(this.poll_receive(cx))? == 0;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut left = bufs.iter().filter(|piece| !piece.is_empty());
        match left.next() {
            None => return Poll::Ready(Ok(0)),
            Some(first) if first.len() >= WHOLE_RECORD_BYTES || left.next().is_none() => {
                return this.poll_encrypt(cx, first);
            }
            Some(_) => {}
        }
        let mut gathered = buffers::take();
        for piece in bufs {
            let room = ENCRYPT_BYTES - gathered.len();
            gathered.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let written = this.poll_encrypt(cx, &gathered);
        buffers::release(&mut gathered);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.say_goodbye();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.say_goodbye();
        if !self.outgoing.is_empty() {
            // As much as goes without waiting: the connection is over.
            let _gone = self.tcp.try_write(&self.outgoing);
        }
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
