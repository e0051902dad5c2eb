//! Codec settings of the program in the terms of `meltemi-http`.

use meltemi_compile::program::{self, Http1Codec, Http2Options};
use meltemi_http::client::H1Options;
use meltemi_http::{FloodLimits, H2Options, Keepalive, KeyFormat, Underscores};

/// Options of an HTTP/1 connection whose peer may send heads of this size.
pub(crate) fn h1_options(codec: &Http1Codec, max_head_bytes: u32, max_headers: u32) -> H1Options {
    H1Options {
        max_head_bytes: max_head_bytes as usize,
        max_headers: max_headers as usize,
        underscores: Underscores::Allow,
        key_format: match codec.key_format {
            program::KeyFormat::Lower => KeyFormat::Lower,
            program::KeyFormat::ProperCase => KeyFormat::ProperCase,
            program::KeyFormat::Preserve { reason_phrase, proper_case_ours } => {
                KeyFormat::Preserve { reason_phrase, proper_case_ours }
            }
        },
        trailers: codec.trailers,
        allow_chunked_length: codec.allow_chunked_length,
        allow_custom_methods: codec.allow_custom_methods,
        absolute_target: codec.send_fully_qualified_url,
    }
}

/// What is done with underscores in the names of fields.
pub(crate) fn underscores(action: program::Underscores) -> Underscores {
    match action {
        program::Underscores::Allow => Underscores::Allow,
        program::Underscores::Reject => Underscores::Reject,
        program::Underscores::Drop => Underscores::Drop,
    }
}

/// Options of an HTTP/2 connection whose peer may send heads of this size.
pub(crate) fn h2_options(options: &Http2Options, max_head_bytes: u32) -> H2Options {
    H2Options {
        max_concurrent_streams: options.max_concurrent_streams,
        initial_stream_window_bytes: options.initial_stream_window_bytes,
        initial_connection_window_bytes: options.initial_connection_window_bytes,
        max_header_list_bytes: max_head_bytes,
        allow_connect: options.allow_connect,
        stream_errors: options.stream_errors.unwrap_or(false),
        keepalive: options.keepalive.map(|(interval, timeout)| Keepalive { interval, timeout }),
        flood: FloodLimits {
            priorities_per_stream: options.max_priorities_per_stream,
            window_updates_per_data_frame: options.max_window_updates_per_data_frame,
        },
        ..H2Options::default()
    }
}
