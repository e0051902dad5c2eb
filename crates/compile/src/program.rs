//! The [`Program`]: what workers read. Plain data, shared by `Arc`, never changed once built.
//!
//! A resource becomes its value here whole or not at all. Names that travel are `Arc<str>`, so that keeping
//! one costs no allocation. Source of every field: the Envoy message of the same name.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use crate::endpoints::{Endpoints, Host, Locality};

pub use crate::outlier::{Ejection, OutlierDetection, RateDetection, SuccessRate};
/// A range of addresses.
pub use ipnet::IpNet;

use crate::filter::{DiscoveredFilter, HttpFilter, RouterOptions};
use crate::format::{Format, JsonFormat};
pub use crate::health_check::{
    CheckHeader, GrpcHealthCheck, HealthCheck, HealthCheckKind, HostCheck, HttpHealthCheck, Pace,
    TcpHealthCheck, Transition,
};
use crate::load_balancing::LoadBalancing;
use crate::local_reply::LocalReplyConfig;
use crate::log_filter::LogFilter;
use crate::matcher::StringMatcher;
use crate::route::RouteTable;

pub use crate::chain::ChainIndex;
pub use crate::listener::{
    Keepalive, ListenAddress, Listener, ListenerFilter, ListenerFilterKind, ListenerPredicate, PassThrough,
    ProxyProtocol, SocketSettings, TlsInspector, TlvRule,
};
pub use crate::network_filter::{ConnectionFilter, ConnectionLimit, NetworkFilter, Slot, TCP_PROXY_CLUSTER};
pub use crate::peer_metadata::{PeerMetadata, PeerTold, Propagation};
pub use crate::tcp_proxy::{
    Backoff, TUNNEL_RESPONSE_HEADERS, TUNNEL_RESPONSE_TRAILERS, TcpCluster, TcpHashPolicy, TcpLogOptions,
    TcpProxy, Tunneling,
};
pub use crate::transport_socket::{
    AddedTlv, ProxyProtocolSocket, TransportSocket, TransportSocketMatch, TransportSockets,
};

/// The name of a listener, cluster, route configuration or virtual host.
pub type Name = Arc<str>;

/// Everything that a proxy serves, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// Listeners by name.
    pub listeners: BTreeMap<Name, Arc<Listener>>,
    /// Clusters by name.
    pub clusters: BTreeMap<Name, Arc<Cluster>>,
    /// Endpoints of EDS clusters by cluster name; clusters with inline endpoints have theirs here too.
    /// A cluster without an entry is still warming (EDS) or has its hosts from DNS.
    pub endpoints: BTreeMap<Name, Arc<Endpoints>>,
    /// Route configurations of RDS by name; inline ones live in their connection manager.
    pub routes: BTreeMap<Name, Arc<RouteTable>>,
    /// HTTP filters of extension discovery (ECDS) by name.
    pub filters: BTreeMap<Name, Arc<DiscoveredFilter>>,
}

/// Where traffic of a listener comes from, relative to the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// Into the workload.
    Inbound,
    /// Out of the workload.
    Outbound,
}

/// Filters for the connections that match (`envoy.config.listener.v3.FilterChain`).
#[derive(Debug)]
pub struct FilterChain {
    /// `name`, may be empty.
    pub name: Name,
    /// `filter_chain_match`.
    pub matches: ChainMatch,
    /// The network filters before the terminal one, in order.
    pub before: Vec<ConnectionFilter>,
    /// The terminal network filter.
    pub filter: NetworkFilter,
    /// Digest of the encoded message: a chain that did not change keeps its connections.
    pub digest: u64,
    /// `transport_socket`; `None` is plaintext.
    pub tls: Option<Arc<crate::tls::DownstreamTls>>,
    /// `transport_socket_connect_timeout`.
    pub transport_socket_connect_timeout: Option<Duration>,
}

/// `envoy.config.listener.v3.FilterChainMatch`; an empty list or `None` matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainMatch {
    /// `destination_port`.
    pub destination_port: Option<u16>,
    /// `prefix_ranges`.
    pub prefix_ranges: Vec<ipnet::IpNet>,
    /// `server_names`, lower case; `*.a.b` matches by suffix.
    pub server_names: Vec<Box<str>>,
    /// `transport_protocol`: `tls` or `raw_buffer`.
    pub transport_protocol: Option<Box<str>>,
    /// `application_protocols` (ALPN, or `http/1.0`, `http/1.1`, `h2c` from the HTTP inspector).
    pub application_protocols: Vec<Box<str>>,
    /// `source_prefix_ranges`.
    pub source_prefix_ranges: Vec<ipnet::IpNet>,
    /// `source_ports`.
    pub source_ports: Vec<u16>,
    /// `direct_source_prefix_ranges`.
    pub direct_source_prefix_ranges: Vec<ipnet::IpNet>,
    /// `source_type`.
    pub source_type: SourceType,
}

/// `source_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceType {
    /// From anywhere.
    #[default]
    Any,
    /// From a loopback address or the destination address itself.
    SameIpOrLoopback,
    /// From anywhere else.
    External,
}

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Debug)]
pub struct HttpConnectionManager {
    /// `codec_type`.
    pub codec: CodecType,
    /// `stat_prefix`.
    pub stat_prefix: Name,
    /// Where routes come from.
    pub routes: RouteSource,
    /// How long the listener waits for RDS before it serves without (`initial_fetch_timeout` of the config
    /// source); `None` waits for ever (0).
    pub initial_fetch_timeout: Option<Duration>,
    /// `http_filters` in order, without the router, which always ends the list.
    pub filters: Vec<HttpFilter>,
    /// What the router at the end of the filters is told.
    pub router: RouterOptions,
    /// `server_name`, default `envoy`.
    pub server_name: http::HeaderValue,
    /// `server_header_transformation`.
    pub server_header: ServerHeader,
    /// `add_user_agent`, `use_remote_address`, `xff_num_trusted_hops`, `skip_xff_append`, `via`, `generate_request_id`,
    /// `preserve_external_request_id`, `always_set_request_id_in_response`, `append_x_forwarded_port`.
    pub forwarding: Forwarding,
    /// `normalize_path`.
    pub normalize_path: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `strip_any_host_port` / `strip_matching_host_port`.
    pub strip_port: StripPort,
    /// `strip_trailing_host_dot`.
    pub strip_trailing_host_dot: bool,
    /// `common_http_protocol_options.idle_timeout`, default 1 h; `None` is off.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_requests_per_connection`; `None` is unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// `common_http_protocol_options.max_headers_count`, default 100.
    pub max_headers_count: u32,
    /// `max_request_headers_kb` in bytes, default 60 KiB.
    pub max_request_headers_bytes: u32,
    /// `request_timeout`; `None` is off.
    pub request_timeout: Option<Duration>,
    /// `request_headers_timeout`; `None` is off.
    pub request_headers_timeout: Option<Duration>,
    /// `stream_idle_timeout`, default 5 min; `None` is off.
    pub stream_idle_timeout: Option<Duration>,
    /// `delayed_close_timeout`, default 1 s.
    pub delayed_close_timeout: Duration,
    /// `http_protocol_options.accept_http_10`.
    pub accept_http_10: bool,
    /// `http_protocol_options.default_host_for_http_10`.
    pub default_host_for_http_10: Option<Box<str>>,
    /// `http_protocol_options.allow_absolute_url`, default true.
    pub allow_absolute_url: bool,
    /// `http_protocol_options` of the codec.
    pub http1: Http1Codec,
    /// `http_protocol_options.ignore_http_11_upgrade`.
    pub ignored_upgrades: Vec<StringMatcher>,
    /// `common_http_protocol_options.headers_with_underscores_action`.
    pub underscores: Underscores,
    /// `common_http_protocol_options.max_stream_duration`; `None` is off.
    pub max_stream_duration: Option<Duration>,
    /// `proxy_100_continue`: informational responses of the upstream reach the client.
    pub proxies_100_continue: bool,
    /// `stream_error_on_invalid_http_message`, as HTTP/1 has it: the connection outlives a request that is
    /// answered with 400.
    pub outlives_bad_request: bool,
    /// `upgrade_configs` names, lower case (`websocket`, `connect`).
    pub upgrades: Vec<Box<str>>,
    /// `http2_protocol_options` of the downstream side.
    pub http2: Http2Options,
    /// `access_log`.
    pub access_log: Vec<Arc<AccessLog>>,
    /// `local_reply_config`.
    pub local_reply: Option<Box<LocalReplyConfig>>,
    /// The `istio.stats` filter is in the chain: report `istio_requests_total` and its kin.
    pub istio_stats: Option<Reporter>,
    /// What `istio.metadata_exchange` does in the chain.
    pub peer_metadata: PeerMetadata,
}

/// `codec_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecType {
    /// By the HTTP/2 preface.
    Auto,
    /// HTTP/1.x only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// `route_specifier`.
#[derive(Debug)]
pub enum RouteSource {
    /// `route_config`.
    Inline(Arc<RouteTable>),
    /// `rds.route_config_name`; looked up in [`Program::routes`] for each request. Until it is there Envoy
    /// answers 404.
    Rds(Name),
}

/// `initial_fetch_timeout` of a config source, when it is not set.
pub const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Which side of a call a proxy reports, the `reporter` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// Outbound sidecars and gateways.
    Source,
    /// Inbound sidecars.
    Destination,
}

/// `server_header_transformation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerHeader {
    /// Replace it.
    Overwrite,
    /// Add it when the upstream sent none.
    AppendIfAbsent,
    /// Leave it.
    PassThrough,
}

/// How the proxy writes itself into the request.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// `use_remote_address`, default false.
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`.
    pub xff_num_trusted_hops: u32,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// `append_x_forwarded_port`.
    pub append_x_forwarded_port: bool,
    /// `internal_address_config.cidr_ranges`: whose requests are internal.
    pub internal_addresses: Vec<IpNet>,
    /// `original_ip_detection_extensions`.
    pub ip_detections: Vec<IpDetection>,
    /// `scheme_header_transformation.scheme_to_overwrite`.
    pub scheme: Option<http::HeaderValue>,
    /// `forward_client_cert_details`.
    pub client_cert: ForwardClientCert,
    /// `set_current_client_cert_details`.
    pub cert_details: CertDetails,
    /// `via`.
    pub via: Option<http::HeaderValue>,
    /// `generate_request_id`, default true.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`.
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`.
    pub always_set_request_id_in_response: bool,
}

/// `forward_client_cert_details`: what becomes of `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardClientCert {
    /// It is taken away.
    #[default]
    Sanitize,
    /// It passes if the client showed a certificate.
    ForwardOnly,
    /// The client's certificate is added to it.
    AppendForward,
    /// The client's certificate replaces it.
    SanitizeSet,
    /// It passes.
    AlwaysForwardOnly,
}

/// `set_current_client_cert_details`: what is said of the client's certificate beside its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "named as in the message")]
pub struct CertDetails {
    pub subject: bool,
    pub issuer: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

/// One of `original_ip_detection_extensions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpDetection {
    /// `XffConfig` with `xff_num_trusted_hops`.
    ForwardedHops {
        /// The number.
        hops: u32,
        /// `skip_xff_append`, default true.
        skips_append: bool,
    },
    /// `XffConfig` with `xff_trusted_cidrs`: the last address that is in none of them.
    ForwardedOutside {
        /// The ranges.
        trusted: Vec<IpNet>,
        /// `skip_xff_append`, default true.
        skips_append: bool,
    },
    /// `CustomHeaderConfig`.
    Header {
        /// `header_name`.
        name: http::HeaderName,
        /// `allow_extension_to_set_address_as_trusted`: the address may make a request internal.
        is_trusted: bool,
        /// `reject_with_status`: what a request without a valid address is answered with.
        reject: Option<http::StatusCode>,
    },
}

/// `path_with_escaped_slashes_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Leave them.
    Keep,
    /// Answer 400.
    Reject,
    /// Unescape and redirect (307).
    UnescapeAndRedirect,
    /// Unescape and go on.
    UnescapeAndForward,
}

/// What of the port in `:authority` is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripPort {
    /// Nothing.
    Keep,
    /// A port equal to the listener's.
    Matching,
    /// Any port.
    Any,
}

/// `envoy.config.core.v3.Http1ProtocolOptions`, as far as both ends of a connection have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Http1Codec {
    /// `header_key_format`.
    pub key_format: KeyFormat,
    /// `enable_trailers`.
    pub trailers: bool,
    /// `allow_chunked_length`.
    pub allow_chunked_length: bool,
    /// `allow_custom_methods`.
    pub allow_custom_methods: bool,
    /// `send_fully_qualified_url`.
    pub send_fully_qualified_url: bool,
}

/// `header_key_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyFormat {
    /// Not set: lower case.
    #[default]
    Lower,
    /// `proper_case_words`.
    ProperCase,
    /// The preserve_case formatter.
    Preserve {
        /// `forward_reason_phrase`.
        reason_phrase: bool,
        /// `formatter_type_on_envoy_headers` is PROPER_CASE.
        proper_case_ours: bool,
    },
}

/// `headers_with_underscores_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    /// `ALLOW`.
    #[default]
    Allow,
    /// `REJECT_REQUEST`.
    Reject,
    /// `DROP_HEADER`.
    Drop,
}

/// `envoy.config.core.v3.Http2ProtocolOptions`, with Envoy's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Options {
    /// `max_concurrent_streams`, default 1024.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size` in bytes, default 16 MiB.
    pub initial_stream_window_bytes: u32,
    /// `initial_connection_window_size` in bytes, default 24 MiB.
    pub initial_connection_window_bytes: u32,
    /// `allow_connect`.
    pub allow_connect: bool,
    /// `override_stream_error_on_invalid_http_message`; `None` leaves it to the connection manager.
    pub stream_errors: Option<bool>,
    /// `connection_keepalive.interval` and `timeout`.
    pub keepalive: Option<(Duration, Duration)>,
    /// `max_inbound_priority_frames_per_stream`, default 100.
    pub max_priorities_per_stream: u32,
    /// `max_inbound_window_update_frames_per_data_frame_sent`, default 10.
    pub max_window_updates_per_data_frame: u32,
}

impl Default for Http2Options {
    fn default() -> Self {
        Http2Options {
            max_concurrent_streams: 1024,
            initial_stream_window_bytes: 16 << 20,
            initial_connection_window_bytes: 24 << 20,
            allow_connect: false,
            stream_errors: None,
            keepalive: None,
            max_priorities_per_stream: 100,
            max_window_updates_per_data_frame: 10,
        }
    }
}

/// An access log sink with its format (`envoy.config.accesslog.v3.AccessLog`).
#[derive(Debug)]
pub struct AccessLog {
    /// File path; `/dev/stdout` and `/dev/stderr` are those streams.
    pub path: Box<str>,
    /// The line.
    pub format: LogFormat,
    /// `omit_empty_values`: what is missing leaves nothing, not `-` or null.
    pub omit_empty_values: bool,
    /// `filter`; `None` writes every line.
    pub filter: Option<Arc<LogFilter>>,
}

/// How a line of an access log looks.
#[derive(Debug)]
pub enum LogFormat {
    /// `text_format_source` or Envoy's default; holds its own line end.
    Text(Format),
    /// `json_format`.
    Json(JsonFormat),
}

/// `envoy.config.cluster.v3.Cluster`.
#[derive(Debug)]
pub struct Cluster {
    /// `name`.
    pub name: Name,
    /// `alt_stat_name`, else the name.
    pub stat_name: Name,
    /// `type` and what belongs to it.
    pub discovery: Discovery,
    /// How long the cluster waits for EDS before it is used without hosts (`initial_fetch_timeout` of the config
    /// source); `None` waits for ever (0).
    pub initial_fetch_timeout: Option<Duration>,
    /// How a host is picked.
    pub lb: LoadBalancing,
    /// `connect_timeout`, default 5 s.
    pub connect_timeout: Duration,
    /// Which HTTP version to speak upstream.
    pub http: UpstreamHttp,
    /// The HTTP/1 options.
    pub http1: Http1Codec,
    /// `common_http_protocol_options.max_headers_count` of responses, default 100.
    pub max_headers_count: u32,
    /// `common_http_protocol_options.max_response_headers_kb` in bytes, default 60 KiB.
    pub max_response_headers_bytes: u32,
    /// `common_http_protocol_options.idle_timeout`, default 1 h; `None` is off.
    pub idle_timeout: Option<Duration>,
    /// `max_requests_per_connection`; `None` is unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// `common_http_protocol_options.max_connection_duration`; `None` is unlimited.
    pub max_connection_duration: Option<Duration>,
    /// `upstream_connection_options`, `upstream_bind_config`.
    pub connection: ConnectionOptions,
    /// `upstream_http_protocol_options`.
    pub auto_sni: Option<AutoSni>,
    /// `transport_socket` and `transport_socket_matches`.
    pub transport_sockets: TransportSockets,
    /// `circuit_breakers.thresholds` for default and high priority.
    pub circuit_breakers: [CircuitBreaker; 2],
    /// `circuit_breakers.per_host_thresholds[].max_connections` by priority, default unlimited.
    pub max_host_connections: [u32; 2],
    /// `outlier_detection`, `None` when absent.
    pub outlier: Option<OutlierDetection>,
    /// `health_checks`, `None` when there is none.
    pub health_check: Option<Arc<HealthCheck>>,
    /// `common_lb_config.ignore_new_hosts_until_first_hc`.
    pub ignore_new_hosts_until_first_hc: bool,
    /// `ignore_health_on_host_removal`.
    pub ignore_health_on_host_removal: bool,
    /// Digest of `health_checks` and `outlier_detection`: what judges the hosts.
    pub health_digest: u64,
    /// `metadata.filter_metadata.istio.services[0]`: whom the cluster stands for, for metrics.
    pub service: Option<ClusterService>,
    /// `filters`, of which there is one: where TLS agreed upon this protocol, both ends say who they are first.
    pub peer_exchange: Option<Box<str>>,
    /// Whether requests to this cluster say who we are.
    pub peer_told: PeerTold,
    /// Digest of the encoded message.
    pub digest: u64,
}

/// How connections to the hosts of a cluster are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `upstream_connection_options.tcp_keepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `upstream_bind_config`: the addresses that connections may come from, in order.
    pub sources: Vec<SocketAddr>,
    /// `upstream_bind_config.freebind`.
    pub freebind: bool,
}

impl ConnectionOptions {
    /// The address that a connection to this host comes from: the first of its family, or else the first, which the
    /// kernel will not take; `None` leaves it to the kernel.
    pub fn source_for(&self, host: SocketAddr) -> Option<SocketAddr> {
        let same_family = self.sources.iter().find(|source| source.is_ipv4() == host.is_ipv4());
        same_family.or(self.sources.first()).copied()
    }
}

/// `envoy.config.core.v3.TcpKeepalive`; what is not set is the kernel's matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// `keepalive_probes`.
    pub probes: Option<u32>,
    /// `keepalive_time`.
    pub time: Option<Duration>,
    /// `keepalive_interval`.
    pub interval: Option<Duration>,
}

/// What Istio says of the service behind a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterService {
    /// `host`, such as `reviews.default.svc.cluster.local`.
    pub host: Box<str>,
    /// `name`, such as `reviews`.
    pub name: Box<str>,
    /// `namespace`.
    pub namespace: Box<str>,
}

/// How a cluster gets its hosts.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// `STATIC`: in [`Program::endpoints`].
    Static,
    /// `EDS` under this service name (the cluster name unless `eds_cluster_config.service_name`).
    Eds(Name),
    /// `STRICT_DNS`: every address of every name is a host.
    StrictDns(Arc<DnsTargets>),
    /// `LOGICAL_DNS`: the first address of the one name, for new connections.
    LogicalDns(Arc<DnsTargets>),
    /// `ORIGINAL_DST`: where the client wanted to go; no host when that is not known.
    OriginalDst,
}

/// Names to resolve.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsTargets {
    /// The hosts as the message names them. In place of an address each has the index of its name in
    /// [`DnsTargets::names`], as an IPv4 address, and its port.
    pub template: Endpoints,
    /// What to resolve; addresses stand for themselves.
    pub names: Vec<Box<str>>,
    /// `dns_refresh_rate`, default 5 s.
    pub refresh: Duration,
    /// `respect_dns_ttl`.
    pub respect_ttl: bool,
    /// `dns_failure_refresh_rate`: the first and the longest pause after failures; `None` is `refresh`.
    pub failure_refresh: Option<(Duration, Duration)>,
    /// `dns_jitter`: the longest time by which a pause is lengthened.
    pub jitter: Duration,
    /// `dns_lookup_family`.
    pub family: DnsFamily,
    /// Whom to ask, and how.
    pub resolver: DnsResolver,
}

/// `typed_dns_resolver_config` and its forerunners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsResolver {
    /// `resolvers`; empty for those of the system.
    pub servers: Vec<SocketAddr>,
    /// `use_resolvers_as_fallback`: the servers only stand in when the system has none.
    pub servers_are_fallback: bool,
    /// `dns_resolver_options.use_tcp_for_dns_lookups`.
    pub tcp: bool,
    /// `dns_resolver_options.no_default_search_domain`.
    pub no_search_domain: bool,
    /// `query_timeout_seconds`; `None` is 5 s.
    pub timeout: Option<Duration>,
    /// `query_tries`; `None` is 4.
    pub tries: Option<u32>,
}

/// `dns_lookup_family`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsFamily {
    /// IPv6 when there is one, else IPv4.
    Auto,
    /// Only IPv4.
    V4Only,
    /// Only IPv6.
    V6Only,
    /// IPv4 when there is one, else IPv6.
    V4Preferred,
    /// Both.
    All,
}

/// `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamHttp {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2(Http2Options),
    /// What the client spoke.
    UseDownstream(Http2Options),
    /// HTTP/2 where the host agrees by ALPN, else HTTP/1.1.
    Auto(Http2Options),
}

/// `envoy.config.core.v3.UpstreamHttpProtocolOptions`: what of a request becomes a part of the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoSni {
    /// `auto_sni`: the host of the request is the server name that is asked for.
    pub sets_name: bool,
    /// `auto_san_validation`: the certificate must be for it.
    pub validates: bool,
    /// `override_auto_sni_header`: takes its place where a request has it.
    pub header: Option<http::HeaderName>,
}

/// `envoy.config.cluster.v3.CircuitBreakers.Thresholds`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CircuitBreaker {
    /// Default 1024.
    pub max_connections: u32,
    /// Default 1024.
    pub max_pending_requests: u32,
    /// Default 1024.
    pub max_requests: u32,
    /// Default 3; does not hold beside a budget.
    pub max_retries: u32,
    /// `retry_budget`.
    pub retry_budget: Option<RetryBudget>,
    /// `track_remaining`: the statistics say how much is left of each.
    pub track_remaining: bool,
}

/// `Thresholds.RetryBudget`: how many retries may be under way, as a part of the requests that are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// `budget_percent`, default 20.
    pub percent: f64,
    /// `min_retry_concurrency`, default 3.
    pub min_concurrency: u32,
}

impl RetryBudget {
    /// The limit while so many requests are under way or wait for a connection.
    pub fn max_retries(self, requests: u32) -> u32 {
        let part = self.percent / 100.0 * f64::from(requests);
        (part as u32).max(self.min_concurrency)
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// What is known of a connection when a chain is chosen.
#[derive(Debug, Clone)]
pub struct ConnectionFacts<'a> {
    /// Destination address, the original one when it was restored.
    pub destination: SocketAddr,
    /// Source address (after PROXY protocol).
    pub source: SocketAddr,
    /// Direct peer address.
    pub direct_source: IpAddr,
    /// SNI, lower case.
    pub server_name: &'a str,
    /// `tls`, `raw_buffer`, or empty when nothing looked.
    pub transport_protocol: &'a str,
    /// ALPN offers, or what the HTTP inspector saw.
    pub application_protocols: &'a [&'a str],
}
