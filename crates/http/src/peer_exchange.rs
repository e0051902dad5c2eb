//! `istio-peer-exchange`: both ends of a TLS connection begin with a frame in which they say who they are.
//!
//! Owns the frame and a stream that sends ours and takes theirs away; what is in a frame is for others. Nobody waits for
//! the other's frame: bytes follow ours at once. Source: Istio's `metadata_exchange` network filter.
//! Differs: bytes that cannot begin a frame are known as soon as they come, Istio waits for eight of them. A frame that is
//! too large breaks the connection, Istio waits for its end.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::tls::TlsStream;

/// What a frame begins with.
const MAGIC: u32 = 0x3D23_0467;

/// Bytes of the magic number and of the length.
const HEAD_BYTES: usize = 8;

/// The largest body. What Istio's proxies say of themselves has some hundred bytes; a workload with unusually many labels,
/// a few thousand.
pub const MAX_BODY_BYTES: usize = 64 << 10;

/// Bytes that are read of a frame at once.
const READ_BYTES: usize = 4 << 10;

/// Makes a frame; `None` for a body that nobody would take.
pub fn frame(body: &[u8]) -> Option<Bytes> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BODY_BYTES)?;
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + body.len());
    frame.put_u32(MAGIC);
    frame.put_u32(length);
    frame.put_slice(body);
    Some(frame.freeze())
}

/// What the other end said, for whoever asks.
#[derive(Debug, Default)]
pub struct PeerFrame(RefCell<Told>);

#[derive(Debug, Default)]
enum Told {
    #[default]
    Awaited,
    Nothing,
    Body(Bytes),
}

impl PeerFrame {
    /// Whether nothing more is to come.
    pub fn is_settled(&self) -> bool {
        !matches!(*self.0.borrow(), Told::Awaited)
    }

    /// The body of the frame, once.
    pub fn take(&self) -> Option<Bytes> {
        let mut told = self.0.borrow_mut();
        match std::mem::replace(&mut *told, Told::Nothing) {
            Told::Body(body) => Some(body),
            Told::Awaited => {
                *told = Told::Awaited;
                None
            }
            Told::Nothing => None,
        }
    }

    fn settle(&self, told: Told) {
        *self.0.borrow_mut() = told;
    }
}

/// What the first bytes of a stream turn out to be.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// A part of a frame; so many bytes are missing that are surely of it.
    Part(usize),
    Frame,
    /// A frame that nobody waits for.
    TooLarge,
    /// Nothing of the kind.
    Other,
}

impl Beginning {
    fn of(bytes: &[u8]) -> Beginning {
        let magic = MAGIC.to_be_bytes();
        let seen = bytes.len().min(magic.len());
        if bytes[..seen] != magic[..seen] {
            return Beginning::Other;
        }
        let Some(Ok(length)) = bytes.get(magic.len()..HEAD_BYTES).map(<[u8; 4]>::try_from) else {
            return Beginning::Part(HEAD_BYTES - bytes.len());
        };
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        match length {
            MAX_BODY_BYTES.. if length > MAX_BODY_BYTES => Beginning::TooLarge,
            _ if bytes.len() < HEAD_BYTES + length => Beginning::Part(HEAD_BYTES + length - bytes.len()),
            _ => Beginning::Frame,
        }
    }
}

/// A TLS connection that began with our frame, and from which the other's is taken away.
pub struct PeerExchange {
    stream: TlsStream,
    incoming: Incoming,
}

/// The state of the direction towards us.
enum Incoming {
    /// Bytes so far.
    Awaited(BytesMut, Rc<PeerFrame>),
    /// Bytes that were no frame.
    Held(BytesMut),
    Passed,
}

impl PeerExchange {
    /// Sends our frame.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn begin(mut stream: TlsStream, frame: &[u8]) -> io::Result<(PeerExchange, Rc<PeerFrame>)> {
        stream.write_all(frame).await?;
        let told = Rc::new(PeerFrame::default());
        let incoming = Incoming::Awaited(BytesMut::new(), told.clone());
        Ok((PeerExchange { stream, incoming }, told))
    }

    pub(crate) fn stream(&self) -> &TlsStream {
        &self.stream
    }

    pub(crate) fn stream_mut(&mut self) -> &mut TlsStream {
        &mut self.stream
    }

    /// Ready when a read may make progress.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.incoming {
            Incoming::Held(_) => Poll::Ready(Ok(())),
            Incoming::Awaited(..) | Incoming::Passed => self.stream.poll_readable(cx),
        }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if matches!(self.incoming, Incoming::Awaited(..)) {
            ready!(self.poll_frame(cx))?;
        }
        let Incoming::Held(held) = &mut self.incoming else {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        };
        let count = held.len().min(buf.remaining());
        buf.put_slice(&held[..count]);
        held.advance(count);
        if held.is_empty() {
            self.incoming = Incoming::Passed;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until it is known what the stream begins with. No byte behind a frame is read.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Incoming::Awaited(held, told) = &mut self.incoming else { return Poll::Ready(Ok(())) };
        let told_now = loop {
            match Beginning::of(held) {
                Beginning::Part(missing) => {
                    let missing = missing.min(READ_BYTES);
                    held.reserve(missing);
                    let mut limited = (&mut self.stream).take(missing as u64);
                    if ready!(pin!(limited.read_buf(held)).poll(cx))? == 0 {
                        break Told::Nothing;
                    }
                }
                Beginning::Frame => {
                    held.advance(HEAD_BYTES);
                    break Told::Body(held.split().freeze());
                }
                Beginning::Other => break Told::Nothing,
                Beginning::TooLarge => {
                    told.settle(Told::Nothing);
                    let error = "a frame of istio-peer-exchange is too large";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            }
        };
        told.settle(told_now);
        let held = std::mem::take(held);
        self.incoming = if held.is_empty() { Incoming::Passed } else { Incoming::Held(held) };
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for PeerExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerExchange").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
