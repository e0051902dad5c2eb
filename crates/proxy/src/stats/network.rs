//! The statistics of listener and network filters. Those of listener filters are not told apart by listener, as in Envoy.

use meltemi_http::proxy_protocol::ProxyVersion;

use super::scope::{Cell, counts};
use super::value::{Counter, Gauge, Histogram};

counts! {
    /// `tls_inspector.*`.
    TlsInspectorCounts {
        Counter client_hello_too_large "Hellos that were too long.";
        Counter tls_found "TLS connections.";
        Counter tls_not_found "Other connections.";
        Counter alpn_found "Hellos with ALPN.";
        Counter alpn_not_found "Hellos without.";
        Counter sni_found "Hellos with a server name.";
        Counter sni_not_found "Hellos without.";
        Histogram bytes_processed "Bytes that were looked at.";
    }
}

counts! {
    /// `http_inspector.*`.
    HttpInspectorCounts {
        Counter read_error "Connections that broke.";
        Counter http10_found "HTTP/1.0 connections.";
        Counter http11_found "HTTP/1.1 connections.";
        Counter http2_found "HTTP/2 connections.";
        Counter http_not_found "Other connections.";
    }
}

/// `proxy_proto.[<stat_prefix>.]*`.
#[derive(Debug, Default)]
pub struct ProxyProtocolCounts {
    /// Connections without a header that may be.
    pub not_found_allowed: Counter,
    /// Connections that were closed for want of a header.
    pub not_found_disallowed: Counter,
    v1: VersionCounts,
    v2: VersionCounts,
}

/// `versions.v1.*` and `versions.v2.*`.
#[derive(Debug, Default)]
struct VersionCounts {
    found: Counter,
    disallowed: Counter,
    error: Counter,
}

impl ProxyProtocolCounts {
    /// Headers of a version: found, disallowed, not valid.
    pub fn of(&self, version: ProxyVersion) -> (&Counter, &Counter, &Counter) {
        let counts = match version {
            ProxyVersion::V1 => &self.v1,
            ProxyVersion::V2 => &self.v2,
        };
        (&counts.found, &counts.disallowed, &counts.error)
    }

    /// Shows every cell with its name.
    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'static str, Cell<'a>)) {
        visit("not_found_allowed", Cell::Counter(&self.not_found_allowed));
        visit("not_found_disallowed", Cell::Counter(&self.not_found_disallowed));
        visit("versions.v1.found", Cell::Counter(&self.v1.found));
        visit("versions.v1.disallowed", Cell::Counter(&self.v1.disallowed));
        visit("versions.v1.error", Cell::Counter(&self.v1.error));
        visit("versions.v2.found", Cell::Counter(&self.v2.found));
        visit("versions.v2.disallowed", Cell::Counter(&self.v2.disallowed));
        visit("versions.v2.error", Cell::Counter(&self.v2.error));
    }
}

counts! {
    /// `connection_limit.<stat_prefix>.*`.
    ConnectionLimitCounts {
        Counter limited_connections "Connections refused.";
        Gauge active_connections "Connections that count.";
    }
}
