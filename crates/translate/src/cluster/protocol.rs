//! The HTTP version of a cluster's connections.
//!
//! Source: Istio `pilot/pkg/networking/core/cluster_builder.go` (`setH2Options`, `setUseDownstreamProtocol`).

use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::core::v3::{Http1ProtocolOptions, Http2ProtocolOptions};
use meltemi_envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
        explicit_http_config::ProtocolConfig,
    },
};

const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The HTTP version of upstream connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upstream {
    Http1,
    Http2 { max_concurrent_streams: Option<u32> },
    AsDownstream { max_concurrent_streams: Option<u32> },
}

/// Sets the HTTP version; `options` carries what else the cluster has to say.
pub(crate) fn set_protocol(cluster: &mut Cluster, upstream: Upstream, options: HttpProtocolOptions) {
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let http2 =
        |max_concurrent_streams| Http2ProtocolOptions { max_concurrent_streams, ..Default::default() };
    let protocol = match upstream {
        Upstream::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())),
        Upstream::Http2 { max_concurrent_streams } => {
            explicit(ProtocolConfig::Http2ProtocolOptions(http2(max_concurrent_streams)))
        }
        Upstream::AsDownstream { max_concurrent_streams } => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2(max_concurrent_streams)),
                ..Default::default()
            })
        }
    };
    let options = HttpProtocolOptions { upstream_protocol_options: Some(protocol), ..options };
    cluster.typed_extension_protocol_options.insert(HTTP_PROTOCOL_OPTIONS.to_owned(), Any::pack(&options));
}
