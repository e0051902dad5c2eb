//! HTTP/1 codec (RFC 9112): pure functions over bytes, and the connection built on them.
//!
//! Owns framing: what a head says about the body after it, chunked coding, keep-alive. Strict where leniency lets two
//! parsers disagree (request smuggling), with the answers Envoy gives. Leaves out what the other fields mean.

pub mod chunk;
pub(crate) mod connection;
pub mod encode;
pub mod parse;

pub use chunk::{Chunk, ChunkDecoder};
pub use encode::{encode_request, encode_response};
pub use parse::{HeadScan, RequestMessage, ResponseMessage, parse_request, parse_response};

/// Limits of one message head, trailers included.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a head (`max_request_headers_kb`), default 60 KiB.
    pub max_head_bytes: usize,
    /// Fields of a head (`max_headers_count`), default 100.
    pub max_headers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_head_bytes: 60 << 10, max_headers: 100 }
    }
}

/// How the end of a body is found (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    Empty,
    /// `content-length`.
    Fixed(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// The end of the connection.
    UntilClose,
    /// No longer HTTP: an accepted upgrade or CONNECT.
    Tunnel,
}
