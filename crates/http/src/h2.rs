//! HTTP/2 (RFC 9113) on the `h2` crate.
//!
//! Owns our settings with their bounds, the conversion of heads, the two halves of a stream and the deferred flush. The
//! frames, HPACK and flow control are `h2`'s.

pub(crate) mod convert;
mod flood;
pub(crate) mod keepalive;
pub(crate) mod outbound;
pub(crate) mod stream;

use std::time::Duration;

pub use flood::FloodLimits;
pub use keepalive::Keepalive;

/// The error code of a reset stream.
pub use h2::Reason;

/// Streams that we reset and must still remember, so that late frames on them are no error.
const RESET_STREAMS_MAX: usize = 128;
/// How long they are remembered.
const RESET_STREAM_MEMORY: Duration = Duration::from_secs(10);
/// Streams reset by the peer before we accepted them; above it the peer is flooding (CVE-2023-44487).
const PENDING_ACCEPT_RESET_MAX: usize = 64;
/// Streams reset by us for the peer's errors; above it the peer is provoking them (CVE-2025-8671).
const LOCAL_ERROR_RESET_MAX: usize = 256;
/// Streams after which half of all may not have been reset by the peer right after their start; a connection above it is
/// closed (CVE-2023-44487). Envoy's `overload.premature_reset_total_stream_count`.
pub(crate) const PREMATURE_RESET_STREAMS: u64 = 500;
/// A reset without an answer is premature before this age. Envoy's `overload.premature_reset_min_stream_lifetime_seconds`.
pub(crate) const PREMATURE_RESET_AGE: Duration = Duration::from_secs(1);
/// Bytes that a stream may queue for sending; the sender waits above it. All streams of a connection whose peer does not
/// read may hold that much.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// `Http2ProtocolOptions`: what we announce and where we stop. Both ends.
#[derive(Clone, Debug)]
pub struct H2Options {
    /// `max_concurrent_streams`, default 1024.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size` in bytes, default 16 MiB.
    pub initial_stream_window_bytes: u32,
    /// `initial_connection_window_size` in bytes, default 24 MiB.
    pub initial_connection_window_bytes: u32,
    /// `max_frame_size`, 16 KiB to 16 MiB - 1, default 16 KiB.
    pub max_frame_bytes: u32,
    /// Limit of one decoded header block, default 60 KiB.
    pub max_header_list_bytes: u32,
    /// `allow_connect`: extended CONNECT (RFC 8441), default off.
    pub allow_connect: bool,
    /// `override_stream_error_on_invalid_http_message`, default off: a malformed request ends its connection, not only its
    /// stream. Servers only.
    pub stream_errors: bool,
    /// `connection_keepalive`, default none.
    pub keepalive: Option<Keepalive>,
    /// Limits of frames that cost their sender nothing.
    pub flood: FloodLimits,
}

impl Default for H2Options {
    fn default() -> H2Options {
        H2Options {
            max_concurrent_streams: 1024,
            initial_stream_window_bytes: 16 << 20,
            initial_connection_window_bytes: 24 << 20,
            max_frame_bytes: 16 << 10,
            max_header_list_bytes: 60 << 10,
            allow_connect: false,
            stream_errors: false,
            keepalive: None,
            flood: FloodLimits::default(),
        }
    }
}

impl H2Options {
    pub(crate) fn server(&self) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(self.max_concurrent_streams)
            .initial_window_size(self.initial_stream_window_bytes)
            .initial_connection_window_size(self.initial_connection_window_bytes)
            .max_frame_size(self.max_frame_bytes)
            .max_header_list_size(self.max_header_list_bytes)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            .reset_stream_duration(RESET_STREAM_MEMORY)
            .max_pending_accept_reset_streams(PENDING_ACCEPT_RESET_MAX)
            .max_local_error_reset_streams(Some(LOCAL_ERROR_RESET_MAX))
            .max_send_buffer_size(SEND_BUFFER_BYTES);
        if self.allow_connect {
            builder.enable_connect_protocol();
        }
        builder
    }

    pub(crate) fn client(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(self.initial_stream_window_bytes)
            .initial_connection_window_size(self.initial_connection_window_bytes)
            .max_frame_size(self.max_frame_bytes)
            .max_header_list_size(self.max_header_list_bytes)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            .reset_stream_duration(RESET_STREAM_MEMORY)
            .max_local_error_reset_streams(Some(LOCAL_ERROR_RESET_MAX))
            .max_send_buffer_size(SEND_BUFFER_BYTES);
        builder
    }
}
