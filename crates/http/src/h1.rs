//! HTTP/1 codec (RFC 9112): pure functions over bytes, and the connection built on them.
//!
//! Owns framing: what a head says about the body after it, chunked coding, keep-alive. Strict where leniency lets two
//! parsers disagree (request smuggling), with the answers Envoy gives. Leaves out what the other fields mean.

pub mod chunk;
pub(crate) mod connection;
pub mod encode;
pub mod parse;
mod spelling;

pub use chunk::{Chunk, ChunkDecoder};
pub use encode::{encode_request, encode_response};
pub use parse::{HeadScan, RequestMessage, ResponseMessage, parse_request, parse_response};
pub(crate) use spelling::Spelling;

/// `Http1ProtocolOptions` and the limits of one message head, trailers included. Both ends.
#[derive(Clone, Copy, Debug)]
pub struct H1Options {
    /// Bytes of a head (`max_request_headers_kb`), default 60 KiB.
    pub max_head_bytes: usize,
    /// Fields of a head (`max_headers_count`), default 100.
    pub max_headers: usize,
    /// `headers_with_underscores_action`, default allow.
    pub underscores: Underscores,
    /// `header_key_format`, default lower case.
    pub key_format: KeyFormat,
    /// `enable_trailers`, default on, which is not Envoy's: off, trailers are neither told nor sent.
    pub trailers: bool,
    /// `allow_chunked_length`, default off: a length beside chunks is an error. On, the chunks count.
    pub allow_chunked_length: bool,
    /// `allow_custom_methods`, default off.
    pub allow_custom_methods: bool,
    /// `send_fully_qualified_url`, default off: requests go out in origin form.
    pub absolute_target: bool,
}

/// What is done with fields that have an underscore in their name, which some servers read as a hyphen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// Like any other.
    #[default]
    Allow,
    /// The request is refused.
    Reject,
    /// The field is dropped.
    Drop,
}

/// How names of fields are spelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    /// In lower case.
    #[default]
    Lower,
    /// `proper_case_words`: every word with a capital.
    ProperCase,
    /// The preserve_case formatter: as the peer spelled them, wherever the message goes.
    Preserve {
        /// `forward_reason_phrase`.
        reason_phrase: bool,
        /// `formatter_type_on_envoy_headers: PROPER_CASE`: names that the peer did not send.
        proper_case_ours: bool,
    },
}

impl Default for H1Options {
    fn default() -> H1Options {
        H1Options {
            max_head_bytes: 60 << 10,
            max_headers: 100,
            underscores: Underscores::Allow,
            key_format: KeyFormat::Lower,
            trailers: true,
            allow_chunked_length: false,
            allow_custom_methods: false,
            absolute_target: false,
        }
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
