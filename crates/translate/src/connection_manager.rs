//! The HTTP connection manager and TCP proxy of every listener, with Istio's settings.
//!
//! Source: Istio `pilot/pkg/networking/core/listener.go` (`buildHTTPConnectionManager`) and
//! `networkfilter.go`.
//! Left out until there is TLS: `forward_client_cert_details` (Envoy's default, SANITIZE, is right for plaintext).

use meltemi_api::istio::TcpSettings;
use meltemi_envoy::Any;
use meltemi_envoy::config::listener::v3::{Filter, filter};
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::extensions::filters::http::{
    cors::v3::Cors, fault::v3::HttpFault, grpc_stats::v3::FilterConfig, grpc_stats::v3::filter_config, router,
};
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
    http_connection_manager::UpgradeConfig, http_filter::ConfigType,
};
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use meltemi_envoy::udpa::r#type::v1::TypedStruct;

use crate::access_log::access_logs;
use crate::message::{UNLIMITED, ads, duration, packed};
use crate::{ISTIO_STATS, Options, ProxyShape};

const SERVER_NAME: &str = "istio-envoy";
const STATS_CONFIG: &str = "type.googleapis.com/stats.PluginConfig";

/// Where the routes of a connection manager are.
pub(crate) enum Routes {
    /// In the listener.
    Inline(Box<RouteConfiguration>),
    /// In a resource of their own.
    Named(String),
}

/// Builds the filter that ends the chain of an HTTP listener.
pub(crate) struct Http<'a> {
    pub(crate) shape: &'a ProxyShape,
    pub(crate) options: &'a Options,
    pub(crate) stat_prefix: String,
    pub(crate) routes: Routes,
    /// Gateways stand at the edge: they believe the connection's address, not `x-forwarded-for`.
    pub(crate) at_edge: bool,
}

impl Http<'_> {
    pub(crate) fn filter(self) -> Filter {
        let manager = HttpConnectionManager {
            http_filters: http_filters(self.shape),
            stat_prefix: self.stat_prefix,
            route_specifier: Some(match self.routes {
                Routes::Inline(config) => RouteSpecifier::RouteConfig(*config),
                Routes::Named(name) => {
                    RouteSpecifier::Rds(Rds { config_source: Some(ads()), route_config_name: name })
                }
            }),
            use_remote_address: Some(self.at_edge),
            generate_request_id: Some(true),
            server_name: SERVER_NAME.to_owned(),
            stream_idle_timeout: Some(UNLIMITED),
            normalize_path: Some(true),
            upgrade_configs: vec![UpgradeConfig {
                upgrade_type: "websocket".to_owned(),
                ..Default::default()
            }],
            access_log: access_logs(self.options.access_log_file.as_deref()),
            ..Default::default()
        };
        network_filter("envoy.filters.network.http_connection_manager", Any::pack(&manager))
    }
}

fn http_filters(shape: &ProxyShape) -> Vec<HttpFilter> {
    let grpc_stats = FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(filter_config::PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..Default::default()
    };
    let mut filters = vec![
        http_filter("envoy.filters.http.grpc_stats", Any::pack(&grpc_stats)),
        http_filter("envoy.filters.http.fault", packed::<HttpFault>()),
        http_filter("envoy.filters.http.cors", packed::<Cors>()),
    ];
    if shape.has_extension(ISTIO_STATS) {
        filters.push(http_filter(ISTIO_STATS, istio_stats()));
    }
    filters.push(http_filter("envoy.filters.http.router", packed::<router::v3::Router>()));
    filters
}

fn http_filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn istio_stats() -> Any {
    Any::pack(&TypedStruct { type_url: STATS_CONFIG.to_owned(), value: Some(prost_types::Struct::default()) })
}

/// Builds the filters that end the chain of a TCP listener.
pub(crate) struct Tcp<'a> {
    pub(crate) shape: &'a ProxyShape,
    pub(crate) options: &'a Options,
    /// Name of the listener, which stands for the destination in statistics where that is not one cluster.
    pub(crate) listener: &'a str,
    pub(crate) destination: tcp_proxy::ClusterSpecifier,
    /// Limits of the destination's policy.
    pub(crate) limits: Option<&'a TcpSettings>,
}

impl Tcp<'_> {
    pub(crate) fn filters(self) -> Vec<Filter> {
        let stat_prefix = match &self.destination {
            tcp_proxy::ClusterSpecifier::Cluster(name) => name.clone(),
            tcp_proxy::ClusterSpecifier::WeightedClusters(_) => format!("outbound_{}", self.listener),
        };
        let proxy = TcpProxy {
            stat_prefix,
            access_log: access_logs(self.options.access_log_file.as_deref()),
            cluster_specifier: Some(self.destination),
            idle_timeout: self.limits.and_then(|l| l.idle_timeout).map(duration),
            ..Default::default()
        };
        let mut filters = Vec::new();
        if self.shape.has_extension(ISTIO_STATS) {
            filters.push(network_filter(ISTIO_STATS, istio_stats()));
        }
        filters.push(network_filter("envoy.filters.network.tcp_proxy", Any::pack(&proxy)));
        filters
    }
}

fn network_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}
