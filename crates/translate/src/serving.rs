//! What MeshConfig says of how proxies serve requests: headers, paths, the access log.
//!
//! Source: Istio `pilot/pkg/networking/util/proxy_headers.go`, `pilot/pkg/networking/core/listener_builder.go`
//! (`buildHTTPConnectionManager`), `gateway.go` (`buildGatewayConnectionManager`), `listener_inbound.go`.
//! Differs: `forwardedClientCert` changes nothing where a sidecar has no certificate; there the header is always removed.

use meltemi_api::istio::{
    AccessLogEncoding, ForwardClientCertDetails as Forward, MeshProxyConfig, MetadataExchangeMode,
    NormalizationType, ProxyHeaders,
};
use meltemi_envoy::config::core::v3::Http1ProtocolOptions;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, ServerHeaderTransformation,
    SetCurrentClientCertDetails,
};
use meltemi_snapshot::MeshConfig;
use prost_types::Struct;

use crate::access_log;
use crate::cluster::preserving_case;
use crate::connection_manager::Place;
use crate::message::text;

/// What holds for every connection manager of a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    pub(crate) log_format: LogFormat,
    normalization: NormalizationType,
    forwarded_inbound: Option<Forward>,
    current: Current,
    server: Server,
    omits_request_id: bool,
    pub(crate) omits_attempt_count: bool,
    pub(crate) omits_debug_headers: bool,
    /// Headers of peers go to services of the mesh only.
    pub(crate) keeps_peers_in_mesh: bool,
    pub(crate) preserves_case: bool,
    forwards_port: bool,
}

/// A line of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text(String),
    Json(Vec<(String, String)>),
}

impl Default for LogFormat {
    fn default() -> LogFormat {
        LogFormat::Text(access_log::FORMAT.to_owned())
    }
}

/// Parts of the client's certificate; `None` for what Istio does by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Current {
    subject: Option<bool>,
    cert: Option<bool>,
    chain: Option<bool>,
    dns: Option<bool>,
    uri: Option<bool>,
}

/// The header `server`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Server {
    #[default]
    Own,
    Named(String),
    /// The workload's.
    Untouched,
}

impl Serving {
    pub(crate) fn of(mesh: &MeshConfig) -> Serving {
        let Some(wire) = mesh.wire() else { return Serving::default() };
        let empty = MeshProxyConfig::default();
        let config = wire.default_config.as_ref().unwrap_or(&empty);
        let serving = Serving {
            log_format: LogFormat::of(wire),
            normalization: wire.path_normalization.as_ref().and_then(|p| p.normalization).unwrap_or_default(),
            ..Serving::default()
        };
        match &config.proxy_headers {
            Some(headers) => serving.with_headers(headers),
            None => serving,
        }
    }

    fn with_headers(self, headers: &ProxyHeaders) -> Serving {
        let is_off = |header: &Option<meltemi_api::istio::Disabled>| {
            header.as_ref().is_some_and(|header| header.disabled == Some(true))
        };
        let current = headers.set_current_client_cert_details.clone().unwrap_or_default();
        Serving {
            forwarded_inbound: headers.forwarded_client_cert,
            current: Current {
                subject: current.subject,
                cert: current.cert,
                chain: current.chain,
                dns: current.dns,
                uri: current.uri,
            },
            server: match &headers.server {
                Some(server) if server.disabled == Some(true) => Server::Untouched,
                Some(server) => {
                    server.value.clone().filter(|v| !v.is_empty()).map_or(Server::Own, Server::Named)
                }
                None => Server::Own,
            },
            omits_request_id: is_off(&headers.request_id),
            omits_attempt_count: is_off(&headers.attempt_count),
            omits_debug_headers: is_off(&headers.envoy_debug_headers),
            keeps_peers_in_mesh: headers
                .metadata_exchange_headers
                .as_ref()
                .is_some_and(|headers| headers.mode == Some(MetadataExchangeMode::InMesh)),
            preserves_case: headers.preserve_http1_header_case == Some(true),
            forwards_port: headers.x_forwarded_port.as_ref().is_some_and(|port| port.enabled == Some(true)),
            ..self
        }
    }

    /// Writes it into a connection manager that has what Istio does by itself.
    pub(crate) fn apply(&self, place: Place, manager: &mut HttpConnectionManager) {
        self.paths(manager);
        self.certificate(place, manager);
        match &self.server {
            Server::Own => {}
            Server::Named(name) => manager.server_name.clone_from(name),
            Server::Untouched => {
                manager.server_name.clear();
                manager.server_header_transformation = ServerHeaderTransformation::PassThrough as i32;
            }
        }
        if self.omits_request_id {
            manager.generate_request_id = Some(false);
        }
        manager.append_x_forwarded_port = self.forwards_port;
        if self.preserves_case {
            manager.http_protocol_options = Some(Http1ProtocolOptions {
                header_key_format: Some(preserving_case()),
                ..Default::default()
            });
        }
    }

    fn paths(&self, manager: &mut HttpConnectionManager) {
        use NormalizationType::{Base, DecodeAndMergeSlashes, Default, MergeSlashes, None};
        manager.normalize_path = Some(self.normalization != None);
        manager.merge_slashes = match self.normalization {
            Default | None | Base => false,
            MergeSlashes | DecodeAndMergeSlashes => true,
        };
        if self.normalization == DecodeAndMergeSlashes {
            manager.path_with_escaped_slashes_action =
                PathWithEscapedSlashesAction::UnescapeAndForward as i32;
        }
    }

    /// What becomes of certificates at the edge is for the gateway to say.
    fn certificate(&self, place: Place, manager: &mut HttpConnectionManager) {
        if !matches!(place, Place::Inbound { has_identity: true }) {
            return;
        }
        if let Some(forward) = self.forwarded_inbound.and_then(envoy_word) {
            manager.forward_client_cert_details = forward as i32;
            manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
                subject: Some(true),
                dns: true,
                uri: true,
                ..Default::default()
            });
        }
        if let Some(current) = manager.set_current_client_cert_details.as_mut() {
            let Current { subject, cert, chain, dns, uri } = self.current;
            current.subject = subject.or(current.subject);
            current.cert = cert.unwrap_or(current.cert);
            current.chain = chain.unwrap_or(current.chain);
            current.dns = dns.unwrap_or(current.dns);
            current.uri = uri.unwrap_or(current.uri);
        }
    }
}

/// `None` for the default.
fn envoy_word(forward: Forward) -> Option<ForwardClientCertDetails> {
    Some(match forward {
        Forward::Undefined => return None,
        Forward::Sanitize => ForwardClientCertDetails::Sanitize,
        Forward::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
        Forward::AppendForward => ForwardClientCertDetails::AppendForward,
        Forward::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
        Forward::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
    })
}

impl LogFormat {
    fn of(wire: &meltemi_api::istio::MeshConfig) -> LogFormat {
        if wire.access_log_encoding == Some(AccessLogEncoding::Json) {
            let own = wire.access_log_fields().filter(|fields| !fields.is_empty());
            return LogFormat::Json(
                own.map_or_else(access_log::fields, |fields| fields.into_iter().collect()),
            );
        }
        match wire.access_log_format.as_deref().filter(|format| !format.is_empty()) {
            Some(format) if format.ends_with('\n') => LogFormat::Text(format.to_owned()),
            Some(format) => LogFormat::Text(format!("{format}\n")),
            None => LogFormat::default(),
        }
    }

    pub(crate) fn json(fields: &[(String, String)]) -> Struct {
        Struct { fields: fields.iter().map(|(key, value)| (key.clone(), text(value))).collect() }
    }
}
