//! The HTTP version of a cluster's connections.
//!
//! Source: Istio `pilot/pkg/networking/core/cluster_builder.go` (`setUpstreamProtocol`, `setUseDownstreamProtocol`).

use std::time::Duration;

use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::core::v3::http1_protocol_options::{
    HeaderKeyFormat, header_key_format::HeaderFormat,
};
use meltemi_envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, KeepaliveSettings, TypedExtensionConfig,
};
use meltemi_envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use meltemi_envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
        explicit_http_config::ProtocolConfig,
    },
};

use crate::message::{duration, packed};

const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// How upstream connections speak HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) version: Version,
    pub(crate) http2: Http2,
    /// Names of headers go on as they were written.
    pub(crate) preserves_case: bool,
}

/// The version of upstream connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Version {
    #[default]
    Http1,
    Http2,
    AsDownstream,
}

/// What holds for HTTP/2 connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Http2 {
    pub(crate) max_concurrent_streams: Option<u32>,
    /// Time between PINGs, and the time that their answer has.
    pub(crate) keepalive: Option<(Duration, Duration)>,
}

impl From<Version> for Upstream {
    fn from(version: Version) -> Upstream {
        Upstream { version, ..Upstream::default() }
    }
}

impl Http2 {
    fn options(self) -> Http2ProtocolOptions {
        let keepalive = |(interval, timeout)| KeepaliveSettings {
            interval: Some(duration(interval)),
            timeout: Some(duration(timeout)),
            ..Default::default()
        };
        Http2ProtocolOptions {
            max_concurrent_streams: self.max_concurrent_streams,
            connection_keepalive: self.keepalive.map(keepalive),
            ..Default::default()
        }
    }
}

/// Names of headers go on as they were written.
pub(crate) fn preserving_case() -> HeaderKeyFormat {
    HeaderKeyFormat {
        header_format: Some(HeaderFormat::StatefulFormatter(TypedExtensionConfig {
            name: "preserve_case".to_owned(),
            typed_config: Some(packed::<PreserveCaseFormatterConfig>()),
        })),
    }
}

fn http1(preserves_case: bool) -> Http1ProtocolOptions {
    Http1ProtocolOptions { header_key_format: preserves_case.then(preserving_case), ..Default::default() }
}

/// Sets the HTTP version; `options` carries what else the cluster has to say.
pub(crate) fn set_protocol(cluster: &mut Cluster, upstream: Upstream, options: HttpProtocolOptions) {
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let Upstream { version, http2, preserves_case } = upstream;
    let protocol = match version {
        Version::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1(preserves_case))),
        Version::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2.options())),
        Version::AsDownstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(http1(preserves_case)),
                http2_protocol_options: Some(http2.options()),
                ..Default::default()
            })
        }
    };
    let options = HttpProtocolOptions { upstream_protocol_options: Some(protocol), ..options };
    cluster.typed_extension_protocol_options.insert(HTTP_PROTOCOL_OPTIONS.to_owned(), Any::pack(&options));
}
