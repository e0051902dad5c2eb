//! The pieces of a body, whatever version carries it.

use bytes::Bytes;

use crate::Headers;

/// One piece of a message after its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Some body bytes; never empty when received.
    Data(Bytes),
    /// Trailer fields; nothing follows them.
    Trailers(Headers),
}
