//! Clients on gRPC's C core (Python, Ruby, PHP, C++) name a Unix socket by its escaped path in `:authority`:
//! `%2Frun%2Fsds.sock`. The HTTP/2 library of our server takes that for no authority and resets the call, so that a
//! standard SPIFFE client would not work unchanged. [`Lenient`] is the socket with such names put right on their way in:
//! each `%` of an `:authority` becomes a `.`, which means nothing to anybody on a Unix socket.
//!
//! The two characters have codes of the same length, plain and in Huffman coding. So no length changes, neither of frames
//! nor of what HPACK's tables hold; nothing is buffered, and what cannot be followed passes as it is, for the server to
//! judge. Not followed: an `:authority` whose name is a reference to the dynamic table; encoders refer to the static one
//! or write it out.
//!
//! Source: RFC 9113, sections 4.1, 6.2 and 6.10; RFC 7541, sections 5 and 6 and appendix B; gRPC's naming document.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

mod fields;

use fields::Fields;

/// Octets of the client's preface.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Octets of a priority in HEADERS.
const PRIORITY_LENGTH: usize = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lenient<S> {
    stream: S,
    frames: Frames,
}

impl<S> Lenient<S> {
    /// The server's end of a connection that has just been accepted.
    pub(crate) fn new(stream: S) -> Lenient<S> {
        Lenient { stream, frames: Frames::default() }
    }
}

/// Where in the client's bytes we are.
#[derive(Debug)]
struct Frames {
    place: Place,
    fields: Fields,
}

#[derive(Debug)]
enum Place {
    /// In what is passed over: the preface, and frames without fields.
    Skip(usize),
    /// In a frame's head, of which so much is known.
    Head([u8; FRAME_HEAD], usize),
    /// In a frame with fields.
    Block(Block),
}

/// What is left of a frame with fields.
#[derive(Debug)]
struct Block {
    left: usize,
    /// The octet that says how long the padding is, is next.
    has_pad_length: bool,
    priority: usize,
    padding: usize,
    ends_fields: bool,
}

impl Default for Frames {
    fn default() -> Frames {
        Frames { place: Place::Skip(PREFACE), fields: Fields::default() }
    }
}

impl Frames {
    /// Follows these bytes, and puts authorities in them right.
    fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.place {
                Place::Skip(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    taken
                }
                Place::Head(head, known) => {
                    head[*known] = bytes[0];
                    *known += 1;
                    1
                }
                Place::Block(block) => {
                    block.pass(&mut bytes[0], &mut self.fields);
                    1
                }
            };
            self.advance();
            bytes = &mut bytes[taken..];
        }
    }

    /// What follows what has ended.
    fn advance(&mut self) {
        match &self.place {
            Place::Head(head, FRAME_HEAD) => self.place = after(head),
            Place::Block(Block { left: 0, ends_fields, .. }) => {
                if *ends_fields {
                    self.fields = Fields::default();
                }
                self.place = Place::Head([0; FRAME_HEAD], 0);
            }
            Place::Skip(0) => self.place = Place::Head([0; FRAME_HEAD], 0),
            Place::Head(..) | Place::Block(_) | Place::Skip(_) => {}
        }
    }
}

/// The payload of a frame with this head.
fn after(head: &[u8; FRAME_HEAD]) -> Place {
    let [a, b, c, kind, flags, ..] = *head;
    let left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let has = |flag| kind == HEADERS && flags & flag != 0;
    match kind {
        HEADERS | CONTINUATION if left > 0 => Place::Block(Block {
            left,
            has_pad_length: has(PADDED),
            priority: if has(PRIORITY) { PRIORITY_LENGTH } else { 0 },
            padding: 0,
            ends_fields: flags & END_HEADERS != 0,
        }),
        _ if left == 0 => Place::Head([0; FRAME_HEAD], 0),
        _ => Place::Skip(left),
    }
}

impl Block {
    fn pass(&mut self, byte: &mut u8, fields: &mut Fields) {
        self.left -= 1;
        if self.has_pad_length {
            self.has_pad_length = false;
            self.padding = usize::from(*byte);
        } else if self.priority > 0 {
            self.priority -= 1;
        } else if self.left >= self.padding {
            fields.pass(byte);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.frames.pass(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for Lenient<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests;
