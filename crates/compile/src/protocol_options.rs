//! Options of HTTP/1 and HTTP/2, downstream and upstream.
//!
//! Source: `envoy.config.core.v3` protocol options, `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`.

use std::collections::BTreeMap;
use std::time::Duration;

use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3 as core;
use meltemi_envoy::extensions::upstreams::http::v3::HttpProtocolOptions as UpstreamOptions;
use meltemi_envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use meltemi_envoy::extensions::upstreams::http::v3::http_protocol_options::{
    AutoHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};

use meltemi_envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use meltemi_envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use meltemi_envoy::config::core::v3::http1_protocol_options::header_key_format::{
    HeaderFormat, ProperCaseWords,
};
use meltemi_envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use meltemi_envoy::extensions::http::header_formatters::preserve_case::v3::preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders;

use crate::extension::{unknown, unpack};
use crate::ledger::{At, harmless, refuse};
use crate::matcher::{StringMatcher, string_matcher};
use crate::program::{AutoSni, Http1Codec, Http2Options, KeyFormat, Underscores, UpstreamHttp};

/// `idle_timeout` when it is not set.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// `max_headers_count` when it is not set.
const MAX_HEADERS_COUNT: u32 = 100;
/// `max_response_headers_kb` when it is not set, and its bounds.
const MAX_RESPONSE_HEADERS_KB: u32 = 60;
const MAX_RESPONSE_HEADERS_KB_BOUNDS: (u32, u32) = (1, 8192);

/// The compiled `core.v3.HttpProtocolOptions`.
pub(crate) struct Common {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_connection_duration: Option<Duration>,
    pub(crate) max_headers_count: u32,
    pub(crate) max_requests_per_connection: Option<u32>,
    pub(crate) max_response_headers_kb: u32,
    pub(crate) max_stream_duration: Option<Duration>,
    pub(crate) underscores: Underscores,
}

impl Default for Common {
    fn default() -> Self {
        Common {
            idle_timeout: Some(IDLE_TIMEOUT),
            max_connection_duration: None,
            max_headers_count: MAX_HEADERS_COUNT,
            max_requests_per_connection: None,
            max_response_headers_kb: MAX_RESPONSE_HEADERS_KB,
            max_stream_duration: None,
            underscores: Underscores::Allow,
        }
    }
}

/// Compiles what both protocols share.
pub(crate) fn common(at: &At<'_>, message: Option<&core::HttpProtocolOptions>) -> Common {
    let Some(message) = message else { return Common::default() };
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = message;
    refuse!(at; max_connection_duration_jitter);
    let underscores = match at.choice("headers_with_underscores_action", *headers_with_underscores_action) {
        Some(HeadersWithUnderscoresAction::RejectRequest) => Underscores::Reject,
        Some(HeadersWithUnderscoresAction::DropHeader) => Underscores::Drop,
        Some(HeadersWithUnderscoresAction::Allow) | None => Underscores::Allow,
    };
    Common {
        idle_timeout: at.timeout("idle_timeout", idle_timeout, Some(IDLE_TIMEOUT)),
        max_connection_duration: at.timeout("max_connection_duration", max_connection_duration, None),
        max_headers_count: at.bounded(
            "max_headers_count",
            *max_headers_count,
            MAX_HEADERS_COUNT,
            (1, u32::MAX),
        ),
        max_requests_per_connection: max_requests_per_connection.filter(|max| *max != 0),
        max_response_headers_kb: at.bounded(
            "max_response_headers_kb",
            *max_response_headers_kb,
            MAX_RESPONSE_HEADERS_KB,
            MAX_RESPONSE_HEADERS_KB_BOUNDS,
        ),
        max_stream_duration: at.timeout("max_stream_duration", max_stream_duration, None),
        underscores,
    }
}

/// The compiled `core.v3.Http1ProtocolOptions`.
pub(crate) struct Http1 {
    pub(crate) codec: Http1Codec,
    pub(crate) allow_absolute_url: bool,
    pub(crate) accept_http_10: bool,
    /// `default_host_for_http_10`.
    pub(crate) default_host: Option<Box<str>>,
    pub(crate) ignored_upgrades: Vec<StringMatcher>,
    /// `override_stream_error_on_invalid_http_message`.
    pub(crate) stream_error: Option<bool>,
}

impl Default for Http1 {
    fn default() -> Self {
        Http1 {
            codec: Http1Codec::default(),
            allow_absolute_url: true,
            accept_http_10: false,
            default_host: None,
            ignored_upgrades: Vec::new(),
            stream_error: None,
        }
    }
}

/// Compiles the options of HTTP/1.
pub(crate) fn http1(at: &At<'_>, message: Option<&core::Http1ProtocolOptions>) -> Http1 {
    let Some(message) = message else { return Http1::default() };
    let core::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = message;
    harmless!(ParserChoice; use_balsa_parser);
    at.header_value("default_host_for_http_10", default_host_for_http_10);
    Http1 {
        codec: Http1Codec {
            key_format: key_format(&at.field("header_key_format"), header_key_format.as_ref()),
            trailers: *enable_trailers,
            allow_chunked_length: *allow_chunked_length,
            allow_custom_methods: *allow_custom_methods,
            send_fully_qualified_url: *send_fully_qualified_url,
        },
        allow_absolute_url: allow_absolute_url.unwrap_or(true),
        accept_http_10: *accept_http_10,
        default_host: (!default_host_for_http_10.is_empty())
            .then(|| default_host_for_http_10.as_str().into()),
        ignored_upgrades: at.each("ignore_http_11_upgrade", ignore_http_11_upgrade, string_matcher),
        stream_error: *override_stream_error_on_invalid_http_message,
    }
}

fn key_format(at: &At<'_>, message: Option<&HeaderKeyFormat>) -> KeyFormat {
    let Some(HeaderKeyFormat { header_format }) = message else { return KeyFormat::Lower };
    let formatter = match header_format {
        Some(HeaderFormat::ProperCaseWords(ProperCaseWords {})) => return KeyFormat::ProperCase,
        Some(HeaderFormat::StatefulFormatter(formatter)) => formatter,
        None => {
            at.reject("a format must be set");
            return KeyFormat::Lower;
        }
    };
    let at = at.field("stateful_formatter");
    let any = formatter.typed_config.as_ref();
    preserve_case(&at.field("typed_config"), &formatter.name, any).unwrap_or_default()
}

fn preserve_case(at: &At<'_>, name: &str, any: Option<&Any>) -> Option<KeyFormat> {
    let Some(any) = any else { return at.none("must be set") };
    if !any.is::<PreserveCaseFormatterConfig>() {
        return unknown(at, name, any);
    }
    let PreserveCaseFormatterConfig { forward_reason_phrase, formatter_type_on_envoy_headers } =
        unpack(at, any)?;
    let ours: FormatterTypeOnEnvoyHeaders =
        at.choice("formatter_type_on_envoy_headers", formatter_type_on_envoy_headers)?;
    Some(KeyFormat::Preserve {
        reason_phrase: forward_reason_phrase,
        proper_case_ours: ours == FormatterTypeOnEnvoyHeaders::ProperCase,
    })
}

/// Bounds of the HTTP/2 windows, and of `max_concurrent_streams`.
const HTTP2_WINDOW: (u32, u32) = (65_535, i32::MAX as u32);
const HTTP2_STREAMS: (u32, u32) = (1, i32::MAX as u32);
/// `hpack_table_size` when it is not set.
const HPACK_TABLE_SIZE: u32 = 4096;

/// Compiles the options of HTTP/2.
pub(crate) fn http2(at: &At<'_>, message: Option<&core::Http2ProtocolOptions>) -> Http2Options {
    let defaults = Http2Options::default();
    let Some(message) = message else { return defaults };
    let core::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = message;
    refuse!(at; allow_metadata, max_outbound_frames, max_outbound_control_frames, max_metadata_size);
    refuse!(at; max_consecutive_inbound_frames_with_empty_payload, custom_settings_parameters);
    refuse!(at; max_header_field_size_kb, stream_reset_burst, stream_reset_rate);
    let old_stream_errors = Some(true).filter(|_| *stream_error_on_invalid_http_messaging);
    at.refuse_true("disallow_obs_text", *disallow_obs_text);
    at.refuse_false("enable_huffman_encoding", *enable_huffman_encoding);
    harmless!(ParserChoice; use_oghttp2_codec);
    if hpack_table_size.is_some_and(|size| size != HPACK_TABLE_SIZE) {
        at.field("hpack_table_size").reject(format_args!("not supported yet: only {HPACK_TABLE_SIZE}"));
    }
    let window = |field, value, default| at.bounded(field, value, default, HTTP2_WINDOW);
    Http2Options {
        max_concurrent_streams: at.bounded(
            "max_concurrent_streams",
            *max_concurrent_streams,
            defaults.max_concurrent_streams,
            HTTP2_STREAMS,
        ),
        initial_stream_window_bytes: window(
            "initial_stream_window_size",
            *initial_stream_window_size,
            defaults.initial_stream_window_bytes,
        ),
        initial_connection_window_bytes: window(
            "initial_connection_window_size",
            *initial_connection_window_size,
            defaults.initial_connection_window_bytes,
        ),
        allow_connect: *allow_connect,
        stream_errors: override_stream_error_on_invalid_http_message.or(old_stream_errors),
        keepalive: keepalive(&at.field("connection_keepalive"), connection_keepalive.as_ref()),
        max_priorities_per_stream: max_inbound_priority_frames_per_stream
            .unwrap_or(defaults.max_priorities_per_stream),
        max_window_updates_per_data_frame: at.bounded(
            "max_inbound_window_update_frames_per_data_frame_sent",
            *max_inbound_window_update_frames_per_data_frame_sent,
            defaults.max_window_updates_per_data_frame,
            (1, u32::MAX),
        ),
    }
}

fn keepalive(at: &At<'_>, message: Option<&core::KeepaliveSettings>) -> Option<(Duration, Duration)> {
    let core::KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = message?;
    refuse!(at; connection_idle_interval);
    harmless!(PingPacing; interval_jitter);
    let timeout = at.positive("timeout", timeout);
    let interval = at.positive("interval", interval)?;
    match timeout {
        Some(timeout) => Some((interval, timeout)),
        None => at.field("timeout").none("must be set"),
    }
}

/// Key of the upstream options in `typed_extension_protocol_options`.
const UPSTREAM_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The compiled `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`.
pub(crate) struct Upstream {
    pub(crate) common: Common,
    pub(crate) http: UpstreamHttp,
    pub(crate) http1: Http1Codec,
    pub(crate) auto_sni: Option<AutoSni>,
}

/// Reads `typed_extension_protocol_options`; `None` when there is none.
pub(crate) fn upstream(at: &At<'_>, options: &BTreeMap<String, Any>) -> Option<Upstream> {
    let mut compiled = None;
    for (key, any) in options {
        let at = &at.key("typed_extension_protocol_options", key);
        if key == UPSTREAM_OPTIONS {
            compiled = upstream_options(at, &unpack(at, any)?);
        } else {
            unknown::<()>(at, key, any);
        }
    }
    compiled
}

fn upstream_options(at: &At<'_>, message: &UpstreamOptions) -> Option<Upstream> {
    let UpstreamOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = message;
    refuse!(at; http_filters, header_validation_config, outlier_detection, request_mirror_policies);
    refuse!(at; hash_policy, retry_policy);
    let at_sni = at.field("upstream_http_protocol_options");
    let auto_sni = upstream_http_protocol_options.as_ref().and_then(|message| auto_sni(&at_sni, message));
    let common = common(&at.field("common_http_protocol_options"), common_http_protocol_options.as_ref());
    let (protocol, codec) = match upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
            explicit(&at.field("explicit_http_config"), config.protocol_config.as_ref())?
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            use_downstream(&at.field("use_downstream_protocol_config"), config)
        }
        Some(UpstreamProtocolOptions::AutoConfig(config)) => by_alpn(&at.field("auto_config"), config),
        None => return at.none("upstream protocol options must be set"),
    };
    Some(Upstream { common, http: protocol, http1: codec, auto_sni })
}

/// Compiles what of a request becomes the server name and the name that a certificate must have.
pub(crate) fn auto_sni(at: &At<'_>, message: &core::UpstreamHttpProtocolOptions) -> Option<AutoSni> {
    let core::UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } =
        message;
    let header = match override_auto_sni_header.as_str() {
        "" => None,
        name => at.header_name("override_auto_sni_header", name),
    };
    (*auto_sni || *auto_san_validation).then_some(AutoSni {
        sets_name: *auto_sni,
        validates: *auto_san_validation,
        header,
    })
}

fn by_alpn(at: &At<'_>, config: &AutoHttpConfig) -> (UpstreamHttp, Http1Codec) {
    let AutoHttpConfig {
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        alternate_protocols_cache_options,
    } = config;
    refuse!(at; http3_protocol_options, alternate_protocols_cache_options);
    let codec = upstream_http1(&at.field("http_protocol_options"), http_protocol_options.as_ref());
    let options = http2(&at.field("http2_protocol_options"), http2_protocol_options.as_ref());
    (UpstreamHttp::Auto(options), codec)
}

/// The options of HTTP/1 that an upstream connection has; the others speak of requests that are received.
pub(crate) fn upstream_http1(at: &At<'_>, message: Option<&core::Http1ProtocolOptions>) -> Http1Codec {
    http1(at, message).codec
}

fn explicit(at: &At<'_>, config: Option<&ProtocolConfig>) -> Option<(UpstreamHttp, Http1Codec)> {
    match config {
        Some(ProtocolConfig::HttpProtocolOptions(options)) => {
            Some((UpstreamHttp::Http1, upstream_http1(&at.field("http_protocol_options"), Some(options))))
        }
        Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
            let options = http2(&at.field("http2_protocol_options"), Some(options));
            Some((UpstreamHttp::Http2(options), Http1Codec::default()))
        }
        Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
            at.field("http3_protocol_options").none("not supported yet")
        }
        None => at.none("a protocol must be set"),
    }
}

fn use_downstream(at: &At<'_>, config: &UseDownstreamHttpConfig) -> (UpstreamHttp, Http1Codec) {
    let UseDownstreamHttpConfig { http_protocol_options, http2_protocol_options, http3_protocol_options } =
        config;
    refuse!(at; http3_protocol_options);
    let codec = upstream_http1(&at.field("http_protocol_options"), http_protocol_options.as_ref());
    let options = http2(&at.field("http2_protocol_options"), http2_protocol_options.as_ref());
    (UpstreamHttp::UseDownstream(options), codec)
}
