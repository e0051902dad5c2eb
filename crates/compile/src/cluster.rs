//! Clusters.
//!
//! Source: `envoy.config.cluster.v3`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meltemi_envoy::config::cluster::v3 as proto;
use meltemi_envoy::config::cluster::v3::cluster::ClusterProtocolSelection;
use meltemi_envoy::config::core::v3::Metadata;
use prost_types::value::Kind;

use crate::ledger::{At, harmless, refuse};
use crate::peer_metadata::{told, upstream_filters};
use crate::program::{AutoSni, Cluster, ClusterService, Endpoints, Http1Codec, Underscores, UpstreamHttp};
use crate::protocol_options::{self, Common, Upstream};
use crate::scalar::digest;
use crate::transport_socket;

mod circuit_breakers;
mod connection;
mod discovery;
mod health_check;
mod load_balancing;
mod outlier;

/// `connect_timeout` when it is not set.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Compiles a cluster, with its inline endpoints when it is `STATIC`.
pub(crate) fn compile(at: &At<'_>, message: &proto::Cluster) -> Option<(Cluster, Option<Endpoints>)> {
    refuse_unsupported(at, message);
    at.required("name", &message.name);
    let transport_sockets = transport_socket::build::sockets(at, message);
    let protocol = Protocol::compile(at, message);
    let has_alpn = transport_sockets.all().all(|socket| socket.tls().is_some());
    if matches!(protocol.http, UpstreamHttp::Auto(_)) && !has_alpn {
        at.field("transport_socket").reject(format_args!(
            "ALPN configured for cluster {} which has a non-ALPN transport socket",
            message.name
        ));
    }
    let lb = load_balancing::compile(at, message);
    let outlier =
        message.outlier_detection.as_ref().map(|m| outlier::compile(&at.field("outlier_detection"), m));
    let breakers = circuit_breakers::compile(at, message.circuit_breakers.as_ref());
    let health_check = health_check::compile(at, &message.health_checks, protocol.http);
    let found = discovery::compile(at, message)?;
    let cluster = Cluster {
        name: message.name.as_str().into(),
        stat_name: match message.alt_stat_name.as_str() {
            "" => message.name.as_str().into(),
            name => name.into(),
        },
        discovery: found.discovery,
        initial_fetch_timeout: found.initial_fetch_timeout,
        lb: lb?,
        connect_timeout: at.positive("connect_timeout", &message.connect_timeout).unwrap_or(CONNECT_TIMEOUT),
        http: protocol.http,
        http1: protocol.http1,
        max_headers_count: protocol.common.max_headers_count,
        max_response_headers_bytes: protocol.common.max_response_headers_kb.saturating_mul(1024),
        idle_timeout: protocol.common.idle_timeout,
        max_requests_per_connection: protocol.common.max_requests_per_connection,
        max_connection_duration: protocol.common.max_connection_duration,
        connection: connection::compile(at, message),
        auto_sni: protocol.auto_sni,
        transport_sockets,
        circuit_breakers: breakers.thresholds,
        max_host_connections: breakers.max_host_connections,
        outlier,
        health_check: health_check.map(Arc::new),
        ignore_new_hosts_until_first_hc: message
            .common_lb_config
            .as_ref()
            .is_some_and(|config| config.ignore_new_hosts_until_first_hc),
        ignore_health_on_host_removal: message.ignore_health_on_host_removal,
        health_digest: health_digest(message),
        service: message.metadata.as_ref().and_then(service),
        peer_exchange: upstream_filters(at, &message.filters),
        peer_told: told(&message.name, message.metadata.as_ref().and_then(istio)),
        digest: digest(message),
    };
    Some((cluster, found.endpoints))
}

fn health_digest(message: &proto::Cluster) -> u64 {
    digest(&proto::Cluster {
        health_checks: message.health_checks.clone(),
        outlier_detection: message.outlier_detection.clone(),
        ..Default::default()
    })
}

/// Every field that the parts do not read.
fn refuse_unsupported(at: &At<'_>, message: &proto::Cluster) {
    let proto::Cluster {
        name: _,
        alt_stat_name: _,
        connect_timeout: _,
        transport_socket: _,
        transport_socket_matches: _,
        metadata: _,
        circuit_breakers: _,
        outlier_detection: _,
        // Read by `discovery`.
        cluster_discovery_type: _,
        eds_cluster_config: _,
        load_assignment: _,
        dns_refresh_rate: _,
        respect_dns_ttl: _,
        dns_lookup_family: _,
        dns_jitter: _,
        dns_failure_refresh_rate: _,
        dns_resolvers: _,
        use_tcp_for_dns_lookups: _,
        dns_resolution_config: _,
        typed_dns_resolver_config: _,
        // Read by `load_balancing`.
        lb_policy: _,
        lb_config: _,
        common_lb_config: _,
        load_balancing_policy: _,
        lb_subset_config: _,
        cleanup_interval: _,
        // Read by `connection`.
        upstream_bind_config: _,
        upstream_connection_options: _,
        // Read by `Protocol`.
        typed_extension_protocol_options: _,
        common_http_protocol_options: _,
        http_protocol_options: _,
        http2_protocol_options: _,
        upstream_http_protocol_options: _,
        max_requests_per_connection: _,
        protocol_selection: _,
        transport_socket_matcher,
        stats_matcher,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        // Read by `health_check`.
        health_checks: _,
        wait_for_warm_on_init,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal: _,
        // Read by `peer_metadata`.
        filters: _,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
    } = message;
    refuse!(at; transport_socket_matcher, stats_matcher);
    refuse!(at; per_connection_buffer_high_watermark_timeout);
    refuse!(at; lrs_server, lrs_report_endpoint_metrics, upstream_config, preconnect_policy);
    refuse!(at; connection_pool_per_downstream_connection, queuing_policies);
    at.refuse_false("wait_for_warm_on_init", *wait_for_warm_on_init);
    harmless!(ReadAhead; per_connection_buffer_limit_bytes);
    refuse!(at; close_connections_on_host_health_failure);
    harmless!(StatsOnly; track_timeout_budgets, track_cluster_stats);
}

/// How a cluster speaks HTTP.
struct Protocol {
    http: UpstreamHttp,
    common: Common,
    http1: Http1Codec,
    auto_sni: Option<AutoSni>,
}

impl Default for Protocol {
    fn default() -> Protocol {
        Protocol {
            http: UpstreamHttp::Http1,
            common: Common::default(),
            http1: Http1Codec::default(),
            auto_sni: None,
        }
    }
}

impl Protocol {
    /// From `typed_extension_protocol_options`, or else from the old fields of the cluster.
    fn compile(at: &At<'_>, message: &proto::Cluster) -> Protocol {
        let old = Protocol::from_old_fields(at, message);
        match protocol_options::upstream(at, &message.typed_extension_protocol_options) {
            Some(_) if old.is_some() => {
                at.field("typed_extension_protocol_options")
                    .reject("must not be set beside the deprecated options");
                Protocol::default()
            }
            Some(Upstream { common, http, http1, auto_sni }) => Protocol { http, common, http1, auto_sni },
            None => old.unwrap_or_default(),
        }
        .with_old_maximum(message.max_requests_per_connection)
        .checked(at)
    }

    /// `None` when none of them is set.
    fn from_old_fields(at: &At<'_>, message: &proto::Cluster) -> Option<Protocol> {
        let selection =
            at.choice::<ClusterProtocolSelection>("protocol_selection", message.protocol_selection)?;
        let use_downstream = selection == ClusterProtocolSelection::UseDownstreamProtocol;
        let is_default = message.common_http_protocol_options.is_none()
            && message.http_protocol_options.is_none()
            && message.http2_protocol_options.is_none()
            && message.upstream_http_protocol_options.is_none();
        if is_default && !use_downstream {
            return None;
        }
        let http1 = message.http_protocol_options.as_ref();
        let http1 = protocol_options::upstream_http1(&at.field("http_protocol_options"), http1);
        let http2 = message.http2_protocol_options.as_ref();
        let options = protocol_options::http2(&at.field("http2_protocol_options"), http2);
        let common = protocol_options::common(
            &at.field("common_http_protocol_options"),
            message.common_http_protocol_options.as_ref(),
        );
        let http = match (use_downstream, http2) {
            (true, _) => UpstreamHttp::UseDownstream(options),
            (false, Some(_)) => UpstreamHttp::Http2(options),
            (false, None) => UpstreamHttp::Http1,
        };
        let auto_sni = message.upstream_http_protocol_options.as_ref();
        let auto_sni = auto_sni.and_then(|message| {
            protocol_options::auto_sni(&at.field("upstream_http_protocol_options"), message)
        });
        Some(Protocol { http, common, http1, auto_sni })
    }

    fn with_old_maximum(mut self, maximum: Option<u32>) -> Protocol {
        let maximum = maximum.filter(|max| *max != 0);
        self.common.max_requests_per_connection = self.common.max_requests_per_connection.or(maximum);
        self
    }

    /// Upstream connections have no limit of headers yet.
    fn checked(self, at: &At<'_>) -> Protocol {
        let defaults = Common::default();
        let at = at.field("common_http_protocol_options");
        let is_http2 = !matches!(self.http, UpstreamHttp::Http1);
        if is_http2 && self.common.max_headers_count != defaults.max_headers_count {
            at.field("max_headers_count").reject("not supported yet in a cluster that speaks HTTP/2");
        }
        if self.common.max_stream_duration.is_some() {
            at.field("max_stream_duration").reject("not supported yet in a cluster");
        }
        if self.common.underscores != Underscores::Allow {
            at.field("headers_with_underscores_action").reject("not supported yet in a cluster");
        }
        self
    }
}

fn istio(metadata: &Metadata) -> Option<&prost_types::Struct> {
    metadata.filter_metadata.get("istio")
}

/// Reads `filter_metadata.istio.services[0]`.
fn service(metadata: &Metadata) -> Option<ClusterService> {
    let istio = istio(metadata)?;
    let Kind::ListValue(services) = istio.fields.get("services")?.kind.as_ref()? else { return None };
    let Kind::StructValue(service) = services.values.first()?.kind.as_ref()? else { return None };
    let text = |key| text_field(&service.fields, key);
    Some(ClusterService { host: text("host"), name: text("name"), namespace: text("namespace") })
}

fn text_field(fields: &BTreeMap<String, prost_types::Value>, key: &str) -> Box<str> {
    match fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.as_str().into(),
        _ => "".into(),
    }
}
