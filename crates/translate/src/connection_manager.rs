//! The HTTP connection manager and TCP proxy of every listener, with Istio's settings.
//!
//! Source: Istio `pilot/pkg/networking/core/listener.go` (`buildHTTPConnectionManager`) and
//! `networkfilter.go`.

use meltemi_api::istio::ForwardClientCertDetails as Wanted;
use meltemi_envoy::Any;
use meltemi_envoy::config::listener::v3::{Filter, filter};
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::extensions::filters::http::{
    cors::v3::Cors, fault::v3::HttpFault, grpc_stats::v3::FilterConfig, grpc_stats::v3::filter_config, router,
};
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
    http_connection_manager::{
        ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails, UpgradeConfig,
    },
    http_filter::ConfigType,
};
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use meltemi_envoy::udpa::r#type::v1::TypedStruct;
use meltemi_snapshot::{DestinationRule, GatewayTopology};

use crate::access_log::access_logs;
use crate::message::{UNLIMITED, ads, fields, list, packed, structure, text};
use crate::peer_metadata;
use crate::serving::Serving;
use crate::tcp_rule;
use crate::{ISTIO_ALPN, ISTIO_STATS, METADATA_EXCHANGE, Options, ProxyShape};

const SERVER_NAME: &str = "istio-envoy";
const ALPN_CONFIG: &str = "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
const STATS_CONFIG: &str = "type.googleapis.com/stats.PluginConfig";

/// Where the routes of a connection manager are.
pub(crate) enum Routes {
    /// In the listener.
    Inline(Box<RouteConfiguration>),
    /// In a resource of their own.
    Named(String),
}

/// Builds the filters of the chain of an HTTP listener.
pub(crate) struct Http<'a> {
    pub(crate) shape: &'a ProxyShape,
    pub(crate) options: &'a Options,
    pub(crate) stat_prefix: String,
    pub(crate) routes: Routes,
    /// Where it stands.
    pub(crate) place: Place,
}

/// Where a connection manager stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before a workload. One with an identity adds its caller's to those that the caller passes on.
    Inbound { has_identity: bool },
    /// Behind a workload.
    Outbound,
    /// On a gateway: it believes the connection's address and certificate, not what headers say of others.
    Edge { topology: GatewayTopology },
}

impl Place {
    /// What becomes of `x-forwarded-client-cert`, and what of the client's certificate goes into it. On a connection
    /// without a certificate each of these removes it.
    fn client_certificate(self) -> (ForwardClientCertDetails, Option<SetCurrentClientCertDetails>) {
        let details = |cert| SetCurrentClientCertDetails {
            subject: Some(true),
            dns: true,
            uri: true,
            cert,
            ..Default::default()
        };
        match self {
            Place::Inbound { has_identity: true } => {
                (ForwardClientCertDetails::AppendForward, Some(details(false)))
            }
            Place::Edge { topology } => {
                let forward = of_edge(topology.client_certificates);
                let is_told = matches!(
                    forward,
                    ForwardClientCertDetails::SanitizeSet | ForwardClientCertDetails::AppendForward
                );
                (forward, is_told.then(|| details(true)))
            }
            Place::Inbound { .. } | Place::Outbound => (ForwardClientCertDetails::Sanitize, None),
        }
    }
}

/// What a gateway does with `x-forwarded-client-cert`.
fn of_edge(wanted: Wanted) -> ForwardClientCertDetails {
    match wanted {
        Wanted::Undefined | Wanted::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
        Wanted::Sanitize => ForwardClientCertDetails::Sanitize,
        Wanted::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
        Wanted::AppendForward => ForwardClientCertDetails::AppendForward,
        Wanted::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
    }
}

impl Http<'_> {
    pub(crate) fn filters(self) -> Vec<Filter> {
        let is_inbound = matches!(self.place, Place::Inbound { .. });
        let mut filters = exchange(self.shape, is_inbound);
        filters.push(self.filter());
        filters
    }

    fn filter(self) -> Filter {
        let (forward, current) = self.place.client_certificate();
        let mut manager = HttpConnectionManager {
            http_filters: http_filters(self.shape, self.place, &self.options.serving),
            forward_client_cert_details: forward as i32,
            set_current_client_cert_details: current,
            stat_prefix: self.stat_prefix,
            route_specifier: Some(match self.routes {
                Routes::Inline(config) => RouteSpecifier::RouteConfig(*config),
                Routes::Named(name) => {
                    RouteSpecifier::Rds(Rds { config_source: Some(ads()), route_config_name: name })
                }
            }),
            use_remote_address: Some(matches!(self.place, Place::Edge { .. })),
            xff_num_trusted_hops: match self.place {
                Place::Edge { topology } => topology.trusted_proxies,
                Place::Inbound { .. } | Place::Outbound => 0,
            },
            generate_request_id: Some(true),
            server_name: SERVER_NAME.to_owned(),
            stream_idle_timeout: Some(UNLIMITED),
            normalize_path: Some(true),
            upgrade_configs: vec![UpgradeConfig {
                upgrade_type: "websocket".to_owned(),
                ..Default::default()
            }],
            access_log: access_logs(self.options),
            ..Default::default()
        };
        self.options.serving.apply(self.place, &mut manager);
        network_filter("envoy.filters.network.http_connection_manager", Any::pack(&manager))
    }
}

fn http_filters(shape: &ProxyShape, place: Place, serving: &Serving) -> Vec<HttpFilter> {
    let grpc_stats = FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(filter_config::PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..Default::default()
    };
    let mut filters = Vec::new();
    if shape.has_extension(METADATA_EXCHANGE) {
        filters.push(http_filter(METADATA_EXCHANGE, peer_metadata::http(place, serving.keeps_peers_in_mesh)));
    }
    filters.push(http_filter("envoy.filters.http.grpc_stats", Any::pack(&grpc_stats)));
    if shape.has_extension(ISTIO_ALPN) && !matches!(place, Place::Inbound { .. }) {
        filters.push(http_filter(ISTIO_ALPN, istio_alpn()));
    }
    filters.push(http_filter("envoy.filters.http.fault", packed::<HttpFault>()));
    filters.push(http_filter("envoy.filters.http.cors", packed::<Cors>()));
    if shape.has_extension(ISTIO_STATS) {
        filters.push(http_filter(ISTIO_STATS, istio_stats()));
    }
    let router =
        router::v3::Router { suppress_envoy_headers: serving.omits_debug_headers, ..Default::default() };
    filters.push(http_filter("envoy.filters.http.router", Any::pack(&router)));
    filters
}

/// A filter with its configuration.
pub(crate) fn http_filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// What ALPN says of the requests in mutual TLS, by the version that they go on with.
fn istio_alpn() -> Any {
    let entry = |protocol: &str, version: &str, alpn: &str| {
        let names = list([alpn, "istio", version].map(text));
        structure([("upstream_protocol", text(protocol)), ("alpn_override", names)])
    };
    let overrides = [
        entry("HTTP10", "http/1.0", "istio-http/1.0"),
        entry("HTTP11", "http/1.1", "istio-http/1.1"),
        entry("HTTP2", "h2", "istio-h2"),
    ];
    let value = fields([("alpn_override", list(overrides))]);
    Any::pack(&TypedStruct { type_url: ALPN_CONFIG.to_owned(), value: Some(value) })
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
    /// The rule in force for the service.
    pub(crate) rule: Option<&'a DestinationRule>,
    /// Whether clients may tell who they are.
    pub(crate) exchanges: bool,
}

impl Tcp<'_> {
    pub(crate) fn filters(self) -> Vec<Filter> {
        let stat_prefix = match &self.destination {
            tcp_proxy::ClusterSpecifier::Cluster(name) => name.clone(),
            tcp_proxy::ClusterSpecifier::WeightedClusters(_) => format!("outbound_{}", self.listener),
        };
        let mut proxy =
            TcpProxy { stat_prefix, cluster_specifier: Some(self.destination), ..Default::default() };
        tcp_rule::apply(self.rule, &mut proxy);
        tcp_filters((self.shape, self.options), proxy, self.exchanges)
    }
}

/// The filters that end the chain of a TCP listener, the last of which is `proxy`. `exchanges` says whether clients may
/// tell who they are.
pub(crate) fn tcp_filters(
    (shape, options): (&ProxyShape, &Options),
    proxy: TcpProxy,
    exchanges: bool,
) -> Vec<Filter> {
    let proxy = TcpProxy { access_log: access_logs(options), ..proxy };
    let mut filters = exchange(shape, exchanges);
    if shape.has_extension(ISTIO_STATS) {
        filters.push(network_filter(ISTIO_STATS, istio_stats()));
    }
    filters.push(network_filter("envoy.filters.network.tcp_proxy", Any::pack(&proxy)));
    filters
}

/// What stands before all others where clients may tell who they are.
fn exchange(shape: &ProxyShape, exchanges: bool) -> Vec<Filter> {
    let filter = || network_filter(METADATA_EXCHANGE, peer_metadata::network());
    (exchanges && shape.has_extension(METADATA_EXCHANGE)).then(filter).into_iter().collect()
}

fn network_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}
