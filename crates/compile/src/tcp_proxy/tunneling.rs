//! A TCP proxy whose bytes go through an HTTP tunnel: CONNECT or POST.
//!
//! Source: `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig`.

use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::TunnelingConfig;

use crate::format::Format;
use crate::header_edit::{Fields, HeaderEdits, header_edits};
use crate::ledger::{At, refuse};

/// The filter state that holds the head of the response, when it is propagated.
pub const TUNNEL_RESPONSE_HEADERS: &str = "envoy.tcp_proxy.propagate_response_headers";

/// The filter state that holds the trailers of the response, when they are propagated.
pub const TUNNEL_RESPONSE_TRAILERS: &str = "envoy.tcp_proxy.propagate_response_trailers";

/// See the module.
#[derive(Debug)]
pub struct Tunneling {
    /// `hostname`: the authority of the request.
    pub hostname: Format,
    /// `use_post`, with `post_path` (default `/`); CONNECT without.
    pub post_path: Option<Box<str>>,
    /// `headers_to_add`.
    pub headers: HeaderEdits,
    /// `propagate_response_headers`.
    pub propagates_headers: bool,
    /// `propagate_response_trailers`.
    pub propagates_trailers: bool,
}

pub(super) fn tunneling(at: &At<'_>, message: &TunnelingConfig) -> Option<Tunneling> {
    let TunnelingConfig {
        hostname,
        use_post,
        headers_to_add,
        propagate_response_headers,
        post_path,
        propagate_response_trailers,
        request_id_extension,
        request_id_header,
        request_id_metadata_key,
        formatters,
    } = message;
    refuse!(at; request_id_extension, request_id_header, request_id_metadata_key, formatters);
    at.required("hostname", hostname);
    if !use_post && !post_path.is_empty() {
        at.field("post_path").reject("Can't set a post path when POST method isn't used");
    }
    let path = if post_path.is_empty() { "/" } else { post_path };
    let headers = header_edits(at, &Fields::LOCAL_REPLY, headers_to_add, &[]);
    let hostname = match Format::parse(hostname) {
        Ok(format) => format,
        Err(error) => return at.field("hostname").none(error),
    };
    Some(Tunneling {
        hostname,
        post_path: use_post.then(|| path.into()),
        headers,
        propagates_headers: *propagate_response_headers,
        propagates_trailers: *propagate_response_trailers,
    })
}
