//! The byte stream under a connection.
//!
//! A closed set instead of a type parameter: one instance of the codecs is compiled.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use crate::peer_exchange::PeerExchange;
use crate::tls::TlsStream;

/// Bytes that streams have moved, for whoever shows them. One thread writes, so an update is a load and a store.
#[derive(Debug, Default)]
pub struct ByteCounts {
    received: AtomicU64,
    sent: AtomicU64,
    /// What these are a part of.
    whole: Option<Arc<ByteCounts>>,
}

impl ByteCounts {
    /// Counts that are a part of others, which grow with them.
    pub fn part_of(whole: &Arc<ByteCounts>) -> ByteCounts {
        ByteCounts { whole: Some(whole.clone()), ..ByteCounts::default() }
    }

    /// Bytes read so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes written so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Counts what was moved without an [`Io`].
    pub fn moved(&self, received: u64, sent: u64) {
        self.read(usize::try_from(received).unwrap_or(usize::MAX));
        self.wrote(usize::try_from(sent).unwrap_or(usize::MAX));
    }

    fn read(&self, bytes: usize) {
        ByteCounts::add(&self.received, bytes);
        if let Some(whole) = &self.whole {
            ByteCounts::add(&whole.received, bytes);
        }
    }

    fn wrote(&self, bytes: usize) {
        ByteCounts::add(&self.sent, bytes);
        if let Some(whole) = &self.whole {
            ByteCounts::add(&whole.sent, bytes);
        }
    }

    fn add(cell: &AtomicU64, bytes: usize) {
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
    }

    fn tried(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = result {
            self.wrote(bytes);
        }
        result
    }
}

/// A byte stream.
#[derive(Debug)]
pub enum Io {
    /// A TCP connection whose bytes are counted.
    Counted(TcpStream, Arc<ByteCounts>),
    /// A TCP connection.
    Tcp(TcpStream),
    /// TLS over a TCP connection; what is counted is the plaintext, as in Envoy.
    Tls(Box<TlsStream>),
    /// The same, where both ends say who they are before anything else.
    Exchange(Box<PeerExchange>),
    /// An in-memory pipe, for tests and dry runs.
    Memory(DuplexStream),
}

impl Io {
    /// The same stream, its bytes counted; a memory pipe is not.
    pub fn counted(self, counts: Arc<ByteCounts>) -> Io {
        match self {
            Io::Tcp(stream) | Io::Counted(stream, _) => Io::Counted(stream, counts),
            Io::Tls(mut stream) => {
                stream.count(counts);
                Io::Tls(stream)
            }
            Io::Exchange(mut stream) => {
                stream.stream_mut().count(counts);
                Io::Exchange(stream)
            }
            Io::Memory(stream) => Io::Memory(stream),
        }
    }

    /// The TCP connection at the bottom, if there is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Io::Tcp(stream) | Io::Counted(stream, _) => Some(stream),
            Io::Tls(stream) => Some(stream.tcp()),
            Io::Exchange(stream) => Some(stream.stream().tcp()),
            Io::Memory(_) => None,
        }
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Io::Tls(stream) => Some(stream),
            Io::Exchange(stream) => Some(stream.stream()),
            Io::Tcp(_) | Io::Counted(..) | Io::Memory(_) => None,
        }
    }

    /// Whether everything written has left for the kernel; what has not goes with the next flush.
    pub(crate) fn is_flushed(&self) -> bool {
        self.tls().is_none_or(TlsStream::is_flushed)
    }

    /// Ready when a read may make progress (bytes, end or error). Takes no buffer, so an idle connection can wait with
    /// this. A memory pipe cannot tell and is always ready; bytes of TLS may turn out to be no plaintext yet.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Tcp(stream) | Io::Counted(stream, _) => stream.poll_read_ready(cx),
            Io::Tls(stream) => stream.poll_readable(cx),
            Io::Exchange(stream) => stream.poll_readable(cx),
            Io::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    /// Reads into the spare room of `buffer`; 0 is the end of the stream.
    pub(crate) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        // The future holds no state between polls: it tries one read and is dropped.
        pin!(AsyncReadExt::read_buf(self, buffer)).poll(cx)
    }

    /// Waits until a read may make progress. Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_readable(cx)).await
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Counted(stream, counts) => {
                let before = buf.filled().len();
                let result = Pin::new(stream).poll_read(cx, buf);
                counts.read(buf.filled().len() - before);
                result
            }
            Io::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            Io::Exchange(stream) => stream.poll_read(cx, buf),
            Io::Memory(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Counted(stream, counts) => counts.tried(Pin::new(stream).poll_write(cx, buf)),
            Io::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
            Io::Exchange(stream) => Pin::new(stream.stream_mut()).poll_write(cx, buf),
            Io::Memory(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Counted(stream, counts) => counts.tried(Pin::new(stream).poll_write_vectored(cx, bufs)),
            Io::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
            Io::Exchange(stream) => Pin::new(stream.stream_mut()).poll_write_vectored(cx, bufs),
            Io::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(stream) | Io::Counted(stream, _) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Io::Exchange(stream) => Pin::new(stream.stream_mut()).poll_flush(cx),
            Io::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(stream) | Io::Counted(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Io::Exchange(stream) => Pin::new(stream.stream_mut()).poll_shutdown(cx),
            Io::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
