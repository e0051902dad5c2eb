//! The filter chains of a port of a workload: which connections are taken, by what they begin with.
//!
//! Source: Istio `pilot/pkg/networking/core/filterchain_options.go`.

use meltemi_envoy::Any;
use meltemi_envoy::config::listener::v3::{FilterChainMatch, ListenerFilter, listener_filter};
use meltemi_envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use meltemi_envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use meltemi_envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use meltemi_snapshot::{MtlsMode, Protocol};

use crate::message::packed;
use crate::tls::MESH_ALPN;

pub(crate) const TLS: &str = "tls";
pub(crate) const RAW_BUFFER: &str = "raw_buffer";

/// ALPN of HTTP that a sidecar sends over mutual TLS.
const MESH_HTTP_ALPN: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// ALPN of other bytes that a sidecar sends over mutual TLS.
const MESH_TCP_ALPN: &[&str] = &["istio-peer-exchange", "istio"];
/// What the HTTP inspector makes of plaintext.
pub(crate) const PLAIN_HTTP: &[&str] = &["http/1.1", "h2c"];

/// A filter chain to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    transport: &'static str,
    applications: &'static [&'static str],
    /// Whether what is in it is HTTP.
    pub(crate) is_http: bool,
    /// Whether mutual TLS is terminated.
    pub(crate) is_mutual: bool,
}

const fn mutual(is_http: bool, applications: &'static [&'static str]) -> Chain {
    Chain { transport: TLS, applications, is_http, is_mutual: true }
}

const fn plain(is_http: bool, applications: &'static [&'static str]) -> Chain {
    Chain { transport: RAW_BUFFER, applications, is_http, is_mutual: false }
}

/// TLS that is not of the mesh goes on as it came.
const OTHER_TLS: Chain = Chain { transport: TLS, applications: &[], is_http: false, is_mutual: false };

/// The chains of a port, in Istio's order.
pub(crate) fn of_port(mode: MtlsMode, protocol: Protocol) -> Vec<Chain> {
    let is_http = protocol.is_http();
    let is_unknown = protocol == Protocol::Unsupported;
    match mode {
        MtlsMode::Strict if is_unknown => vec![mutual(true, MESH_HTTP_ALPN), mutual(false, &[])],
        MtlsMode::Strict => vec![mutual(is_http, &[])],
        MtlsMode::Permissive if is_unknown => vec![
            mutual(true, MESH_HTTP_ALPN),
            plain(true, PLAIN_HTTP),
            mutual(false, MESH_TCP_ALPN),
            plain(false, &[]),
            OTHER_TLS,
        ],
        MtlsMode::Permissive if is_http => vec![mutual(true, &MESH_ALPN), plain(true, &[])],
        MtlsMode::Permissive => vec![mutual(false, &MESH_ALPN), OTHER_TLS, plain(false, &[])],
        MtlsMode::Disable if is_unknown => vec![plain(true, PLAIN_HTTP), plain(false, &[])],
        MtlsMode::Disable => vec![plain(is_http, &[])],
    }
}

/// The chain of a port whose TLS is the user's own.
pub(crate) const fn of_user_tls(is_http: bool) -> Chain {
    mutual(is_http, &[])
}

impl Chain {
    /// Its condition on a port, or on all of them for 0.
    pub(crate) fn filter_chain_match(&self, port: u16) -> FilterChainMatch {
        FilterChainMatch {
            destination_port: (port > 0).then(|| port.into()),
            transport_protocol: self.transport.to_owned(),
            application_protocols: self.applications.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        }
    }
}

/// Looks at the ClientHello.
pub(crate) fn tls_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.tls_inspector", packed::<TlsInspector>())
}

/// Looks at the first request.
pub(crate) fn http_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", packed::<HttpInspector>())
}

/// Takes the PROXY header off.
pub(crate) fn proxy_protocol() -> ListenerFilter {
    listener_filter("envoy.filters.listener.proxy_protocol", packed::<ProxyProtocol>())
}

/// A filter with its configuration.
pub(crate) fn listener_filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}
