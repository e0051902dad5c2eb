//! The HTTP connection manager.
//!
//! Source: `envoy.extensions.filters.network.http_connection_manager.v3`.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderValue;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as parts;
use meltemi_envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use parts::{PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation, StripPortMode};

use crate::access_log::access_logs;
use crate::config_source::ads;
use crate::extension::{unknown, unpack};
use crate::filter::http_filters;
use crate::ledger::{At, harmless, refuse};
use crate::local_reply::local_reply;
use crate::program::{
    CodecType, Direction, EscapedSlashes, Http2Options, HttpConnectionManager, Name, Reporter, RouteSource,
    ServerHeader, StripPort,
};
use crate::protocol_options::{Http1, common, http1, http2};
use crate::route;

mod forwarding;

use forwarding::forwarding;

const DEFAULT_SERVER_NAME: &str = "envoy";
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_REQUEST_HEADERS_KB: u32 = 60;
/// The most that Envoy lets one ask for.
const MAX_REQUEST_HEADERS_KB_BOUNDS: (u32, u32) = (1, 8192);

/// Compiles a connection manager. `direction` is the listener's: it decides who reports.
pub(crate) fn connection_manager(
    at: &At<'_>,
    message: &proto::HttpConnectionManager,
    direction: Direction,
) -> Option<HttpConnectionManager> {
    refuse_unsupported(at, message);
    check_request_id_extension(at, message.request_id_extension.as_ref());
    at.required("stat_prefix", &message.stat_prefix);
    let filters = http_filters(at, &message.http_filters);
    let common =
        common(&at.field("common_http_protocol_options"), message.common_http_protocol_options.as_ref());
    let Http1 { codec, allow_absolute_url, accept_http_10, default_host, ignored_upgrades, stream_error } =
        http1(&at.field("http_protocol_options"), message.http_protocol_options.as_ref());
    let all_stream_errors = message.stream_error_on_invalid_http_message.unwrap_or(false);
    let http2 = http2(&at.field("http2_protocol_options"), message.http2_protocol_options.as_ref());
    let max_headers_kb = at.bounded(
        "max_request_headers_kb",
        message.max_request_headers_kb,
        MAX_REQUEST_HEADERS_KB,
        MAX_REQUEST_HEADERS_KB_BOUNDS,
    );
    let access_log = access_logs(at, &message.access_log);
    let upgrades = upgrades(at, &message.upgrade_configs);
    let (routes, initial_fetch_timeout) = route_source(at, message.route_specifier.as_ref())?;
    Some(HttpConnectionManager {
        codec: codec_type_of(at, message.codec_type)?,
        stat_prefix: message.stat_prefix.as_str().into(),
        routes,
        initial_fetch_timeout,
        filters: filters.filters,
        router: filters.router,
        server_name: at
            .header_value("server_name", &message.server_name)
            .unwrap_or(HeaderValue::from_static(DEFAULT_SERVER_NAME)),
        server_header: server_header(at, message.server_header_transformation)?,
        forwarding: forwarding(at, message),
        normalize_path: message.normalize_path.unwrap_or(false),
        merge_slashes: message.merge_slashes,
        escaped_slashes: escaped_slashes(at, message.path_with_escaped_slashes_action)?,
        strip_port: strip_port(at, message.strip_matching_host_port, message.strip_port_mode.as_ref())?,
        strip_trailing_host_dot: message.strip_trailing_host_dot,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        max_headers_count: common.max_headers_count,
        max_request_headers_bytes: max_headers_kb.saturating_mul(1024),
        request_timeout: at.timeout("request_timeout", &message.request_timeout, None),
        request_headers_timeout: at.timeout(
            "request_headers_timeout",
            &message.request_headers_timeout,
            None,
        ),
        stream_idle_timeout: at.timeout(
            "stream_idle_timeout",
            &message.stream_idle_timeout,
            Some(STREAM_IDLE_TIMEOUT),
        ),
        delayed_close_timeout: at
            .duration("delayed_close_timeout", &message.delayed_close_timeout)
            .unwrap_or(DELAYED_CLOSE_TIMEOUT),
        accept_http_10,
        default_host_for_http_10: default_host,
        allow_absolute_url,
        http1: codec,
        ignored_upgrades,
        underscores: common.underscores,
        max_stream_duration: common.max_stream_duration,
        proxies_100_continue: message.proxy_100_continue,
        outlives_bad_request: stream_error.unwrap_or(all_stream_errors),
        upgrades,
        http2: Http2Options { stream_errors: http2.stream_errors.or(Some(all_stream_errors)), ..http2 },
        access_log,
        local_reply: local_reply(at, message.local_reply_config.as_ref()).map(Box::new),
        istio_stats: filters.istio_stats.then_some(reporter(direction)),
        peer_metadata: filters.peer_metadata,
    })
}

/// Every field that the parts do not read.
fn refuse_unsupported(at: &At<'_>, message: &proto::HttpConnectionManager) {
    let proto::HttpConnectionManager {
        codec_type: _,
        stat_prefix: _,
        http_filters: _,
        add_user_agent,
        tracing,
        common_http_protocol_options: _,
        http1_safe_max_connection_duration,
        http_protocol_options: _,
        http2_protocol_options: _,
        http3_protocol_options,
        server_name: _,
        server_header_transformation: _,
        scheme_header_transformation: _,
        max_request_headers_kb: _,
        stream_idle_timeout: _,
        stream_flush_timeout,
        request_timeout: _,
        request_headers_timeout: _,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout: _,
        access_log: _,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address: _,
        xff_num_trusted_hops: _,
        original_ip_detection_extensions: _,
        early_header_mutation_extensions,
        internal_address_config: _,
        skip_xff_append: _,
        via: _,
        generate_request_id: _,
        preserve_external_request_id: _,
        always_set_request_id_in_response: _,
        forward_client_cert_details: _,
        set_current_client_cert_details: _,
        forward_client_cert_matcher,
        proxy_100_continue: _,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs: _,
        normalize_path: _,
        merge_slashes: _,
        path_with_escaped_slashes_action: _,
        request_id_extension: _,
        local_reply_config: _,
        strip_matching_host_port: _,
        stream_error_on_invalid_http_message: _,
        path_normalization_options,
        strip_trailing_host_dot: _,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port: _,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier: _,
        strip_port_mode: _,
    } = message;
    refuse!(at; tracing, http1_safe_max_connection_duration, http3_protocol_options);
    refuse!(at; stream_flush_timeout, drain_timeout_jitter, access_log_flush_interval, access_log_options);
    refuse!(at; flush_access_log_on_new_request, early_header_mutation_extensions, forward_client_cert_matcher);
    refuse!(at; represent_ipv4_remote_address_as_ipv4_mapped_ipv6, proxy_status_config);
    refuse!(at; path_normalization_options, typed_header_validation_config, append_local_overload);
    refuse!(at; forward_proto_config);
    at.refuse_true("add_user_agent", *add_user_agent);
    harmless!(GoawayAfterPing; drain_timeout);
    harmless!(PlaintextOnly; add_proxy_protocol_connection_state);
}

fn reporter(direction: Direction) -> Reporter {
    match direction {
        Direction::Inbound => Reporter::Destination,
        Direction::Outbound | Direction::Unspecified => Reporter::Source,
    }
}

fn codec_type_of(at: &At<'_>, value: i32) -> Option<CodecType> {
    match at.choice("codec_type", value)? {
        parts::CodecType::Auto => Some(CodecType::Auto),
        parts::CodecType::Http1 => Some(CodecType::Http1),
        parts::CodecType::Http2 => Some(CodecType::Http2),
        parts::CodecType::Http3 => at.field("codec_type").none("not supported yet: HTTP3"),
    }
}

/// The one extension is Envoy's default, which is what the proxy does.
fn check_request_id_extension(at: &At<'_>, message: Option<&proto::RequestIdExtension>) {
    let Some(any) = message.and_then(|extension| extension.typed_config.as_ref()) else { return };
    let at_extension = at.field("request_id_extension");
    let at = &at_extension.field("typed_config");
    if !any.is::<UuidRequestIdConfig>() {
        unknown::<()>(at, "request_id_extension", any);
        return;
    }
    let Some(UuidRequestIdConfig { pack_trace_reason, use_request_id_for_trace_sampling }) = unpack(at, any)
    else {
        return;
    };
    at.refuse_false("pack_trace_reason", pack_trace_reason);
    harmless!(NoTracing; use_request_id_for_trace_sampling);
}

fn server_header(at: &At<'_>, value: i32) -> Option<ServerHeader> {
    Some(match at.choice("server_header_transformation", value)? {
        ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
        ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
    })
}

fn escaped_slashes(at: &At<'_>, value: i32) -> Option<EscapedSlashes> {
    Some(match at.choice("path_with_escaped_slashes_action", value)? {
        PathWithEscapedSlashesAction::ImplementationSpecificDefault
        | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
        PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
        PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    })
}

fn strip_port(at: &At<'_>, matching: bool, mode: Option<&StripPortMode>) -> Option<StripPort> {
    match (matching, mode) {
        (true, Some(StripPortMode::StripAnyHostPort(true))) => {
            at.field("strip_any_host_port").none("must not be set beside strip_matching_host_port")
        }
        (false, Some(StripPortMode::StripAnyHostPort(true))) => Some(StripPort::Any),
        (true, _) => Some(StripPort::Matching),
        (false, _) => Some(StripPort::Keep),
    }
}

/// The names of the upgrades that are on.
fn upgrades(at: &At<'_>, messages: &[parts::UpgradeConfig]) -> Vec<Box<str>> {
    let mut seen = BTreeSet::new();
    let named = at.each("upgrade_configs", messages, |at, message| {
        let parts::UpgradeConfig { upgrade_type, filters, enabled } = message;
        refuse!(at; filters);
        at.required("upgrade_type", upgrade_type);
        let name = upgrade_type.to_ascii_lowercase();
        if !seen.insert(name.clone()) {
            at.field("upgrade_type")
                .reject(format_args!("multiple upgrade configs with the same name: {name}"));
        }
        Some((enabled.unwrap_or(true), name.into()))
    });
    named.into_iter().filter_map(|(is_on, name)| is_on.then_some(name)).collect()
}

fn route_source(at: &At<'_>, specifier: Option<&RouteSpecifier>) -> Option<(RouteSource, Option<Duration>)> {
    match specifier {
        Some(RouteSpecifier::RouteConfig(config)) => {
            let table = route::compile(&at.field("route_config"), config)?;
            Some((RouteSource::Inline(table.into()), None))
        }
        Some(RouteSpecifier::Rds(message)) => {
            let proto::Rds { config_source, route_config_name } = message;
            let at = at.field("rds");
            at.required("route_config_name", route_config_name);
            let timeout = ads(&at.field("config_source"), config_source.as_ref());
            Some((RouteSource::Rds(Name::from(route_config_name.as_str())), timeout))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => at.field("scoped_routes").none("not supported yet"),
        None => at.none("a route specifier must be set"),
    }
}
