//! Active health checks as configured.
//!
//! Source: `envoy.config.core.v3.HealthCheck`. Checks over TLS and by custom checkers are refused.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};
use meltemi_envoy::config::core::v3 as proto;
use meltemi_envoy::config::core::v3::ProxyProtocolConfig;
use meltemi_envoy::config::core::v3::health_check::{self, HealthChecker, payload};
use meltemi_envoy::config::core::v3::proxy_protocol_config::Version;
use meltemi_envoy::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
use meltemi_envoy::r#type::v3::{CodecClientType, Int64Range};

use crate::extension::unpack;
use crate::format::Op;
use crate::header_edit::{Fields, header_edits};
use crate::health_check::{
    CheckHeader, GrpcHealthCheck, HealthCheck, HealthCheckKind, HttpHealthCheck, Pace, TcpHealthCheck,
};
use crate::ledger::{At, harmless, refuse};
use crate::matcher::string_matcher;
use crate::program::UpstreamHttp;

const NO_TRAFFIC_INTERVAL: Duration = Duration::from_secs(60);
const RESPONSE_BUFFER_BYTES: u64 = 1024;
const STATUSES: (i64, i64) = (100, 600);

/// Compiles the health check of a cluster; Envoy takes one.
pub(super) fn compile(
    at: &At<'_>,
    messages: &[proto::HealthCheck],
    http: UpstreamHttp,
) -> Option<HealthCheck> {
    let [message] = messages else {
        if !messages.is_empty() {
            at.field("health_checks").reject("multiple health checks not supported");
        }
        return None;
    };
    health_check(&at.item("health_checks", 0), message, http)
}

#[expect(deprecated, reason = "event_log_path still works")]
fn health_check(at: &At<'_>, message: &proto::HealthCheck, http: UpstreamHttp) -> Option<HealthCheck> {
    let proto::HealthCheck {
        timeout,
        interval: _,
        initial_jitter: _,
        interval_jitter: _,
        interval_jitter_percent: _,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        no_traffic_interval: _,
        no_traffic_healthy_interval: _,
        unhealthy_interval: _,
        unhealthy_edge_interval: _,
        healthy_edge_interval: _,
        event_log_path,
        event_logger,
        event_service,
        always_log_health_check_failures,
        always_log_health_check_success,
        tls_options,
        transport_socket_match_criteria,
        health_checker,
    } = message;
    refuse!(at; event_service);
    harmless!(NoEffectInEnvoy; alt_port);
    harmless!(PlaintextOnly; tls_options);
    let mut event_logs: Vec<Box<str>> = at.each("event_logger", event_logger, event_sink);
    if !event_log_path.is_empty() {
        event_logs.push(event_log_path.as_str().into());
    }
    let threshold = |field, value: Option<u32>| match value {
        Some(value) => Some(value),
        None => at.field(field).none("must be set"),
    };
    let timeout = match timeout {
        Some(_) => at.positive("timeout", timeout),
        None => at.field("timeout").none("must be set"),
    };
    let unhealthy_threshold = threshold("unhealthy_threshold", *unhealthy_threshold);
    let healthy_threshold = threshold("healthy_threshold", *healthy_threshold);
    let pace = pace(at, message);
    let kind = kind(at, health_checker.as_ref(), http);
    Some(HealthCheck {
        unhealthy_threshold: unhealthy_threshold?,
        healthy_threshold: healthy_threshold?,
        timeout: timeout?,
        pace: pace?,
        reuse_connection: reuse_connection.unwrap_or(true),
        event_logs,
        always_log_failures: *always_log_health_check_failures,
        always_log_success: *always_log_health_check_success,
        transport_socket_match_criteria: transport_socket_match_criteria
            .as_ref()
            .filter(|criteria| !criteria.fields.is_empty())
            .cloned(),
        kind: kind?,
    })
}

fn pace(at: &At<'_>, message: &proto::HealthCheck) -> Option<Pace> {
    let interval = match &message.interval {
        Some(_) => at.positive("interval", &message.interval)?,
        None => return at.field("interval").none("must be set"),
    };
    let or = |field, value, default| at.positive(field, value).unwrap_or(default);
    let unhealthy_interval = or("unhealthy_interval", &message.unhealthy_interval, interval);
    let no_traffic_interval = or("no_traffic_interval", &message.no_traffic_interval, NO_TRAFFIC_INTERVAL);
    let jitter = |field, value| at.duration(field, value).unwrap_or_default();
    Some(Pace {
        interval,
        unhealthy_interval,
        unhealthy_edge_interval: or(
            "unhealthy_edge_interval",
            &message.unhealthy_edge_interval,
            unhealthy_interval,
        ),
        healthy_edge_interval: or("healthy_edge_interval", &message.healthy_edge_interval, interval),
        no_traffic_interval,
        no_traffic_healthy_interval: or(
            "no_traffic_healthy_interval",
            &message.no_traffic_healthy_interval,
            no_traffic_interval,
        ),
        initial_jitter: jitter("initial_jitter", &message.initial_jitter),
        interval_jitter: jitter("interval_jitter", &message.interval_jitter),
        interval_jitter_percent: message.interval_jitter_percent,
    })
}

fn event_sink(at: &At<'_>, message: &proto::TypedExtensionConfig) -> Option<Box<str>> {
    let at = at.field("typed_config");
    let Some(any) = &message.typed_config else { return at.none("must be set") };
    if !any.is::<HealthCheckEventFileSink>() {
        return at.none(format_args!("not supported yet: {}", any.message_name()));
    }
    let HealthCheckEventFileSink { event_log_path } = unpack(&at, any)?;
    at.required("event_log_path", &event_log_path);
    Some(event_log_path.into())
}

fn kind(at: &At<'_>, message: Option<&HealthChecker>, http: UpstreamHttp) -> Option<HealthCheckKind> {
    match message {
        Some(HealthChecker::HttpHealthCheck(message)) => {
            let at = at.field("http_health_check");
            Some(HealthCheckKind::Http(Box::new(http_check(&at, message)?)))
        }
        Some(HealthChecker::TcpHealthCheck(message)) => {
            Some(HealthCheckKind::Tcp(tcp_check(&at.field("tcp_health_check"), message)?))
        }
        Some(HealthChecker::GrpcHealthCheck(message)) => {
            let at = at.field("grpc_health_check");
            if matches!(http, UpstreamHttp::Http1) {
                at.reject("the cluster must support HTTP/2 for gRPC healthchecking");
            }
            Some(HealthCheckKind::Grpc(grpc_check(&at, message)))
        }
        Some(HealthChecker::CustomHealthCheck(message)) => {
            at.field("custom_health_check").none(format_args!("not supported yet: {}", message.name))
        }
        None => at.field("health_checker").none("must be set"),
    }
}

fn http_check(at: &At<'_>, message: &health_check::HttpHealthCheck) -> Option<HttpHealthCheck> {
    let health_check::HttpHealthCheck {
        host,
        path,
        send,
        receive,
        response_buffer_size,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        codec_client_type,
        service_name_matcher,
        method,
    } = message;
    at.required("path", path);
    let limit = response_buffer_size.unwrap_or(RESPONSE_BUFFER_BYTES);
    let method = method_of(&at.field("method"), *method)?;
    let send = send.as_ref().and_then(|send| sent_body(&at.field("send"), send, &method));
    let receive = at.each("receive", receive, bytes_of);
    let wanted: usize = receive.iter().map(Bytes::len).sum();
    if limit > 0 && wanted as u64 > limit {
        at.field("receive").reject("is longer than response_buffer_size");
    }
    let http2 = match at.choice("codec_client_type", *codec_client_type)? {
        CodecClientType::Http1 => false,
        CodecClientType::Http2 => true,
        CodecClientType::Http3 => return at.field("codec_client_type").none("not supported yet: HTTP3"),
    };
    let mut expected = at.each("expected_statuses", expected_statuses, statuses);
    if expected_statuses.is_empty() {
        expected.push(200..201);
    }
    let edits = header_edits(at, &Fields::REQUEST, request_headers_to_add, request_headers_to_remove);
    let matcher = service_name_matcher.as_ref();
    Some(HttpHealthCheck {
        host: host.as_str().into(),
        path: path.as_str().into(),
        method,
        send: send.unwrap_or_default(),
        receive,
        response_buffer_size: usize::try_from(limit).ok().filter(|limit| *limit > 0),
        add: literal(at, Fields::REQUEST, edits.add),
        remove: edits.remove,
        expected_statuses: expected,
        retriable_statuses: at.each("retriable_statuses", retriable_statuses, statuses),
        http2,
        service_name: matcher.and_then(|m| string_matcher(&at.field("service_name_matcher"), m)),
    })
}

fn method_of(at: &At<'_>, method: i32) -> Option<Method> {
    use proto::RequestMethod;
    match RequestMethod::try_from(method) {
        Ok(RequestMethod::MethodUnspecified | RequestMethod::Get) => Some(Method::GET),
        Ok(RequestMethod::Connect) => at.none("must not be CONNECT"),
        Ok(method) => Method::from_bytes(method.as_str_name().as_bytes()).ok(),
        Err(_) => at.none("unknown value"),
    }
}

fn sent_body(at: &At<'_>, message: &health_check::Payload, method: &Method) -> Option<Bytes> {
    if [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE].contains(method) {
        return at.none(format_args!("cannot be sent with method {method}"));
    }
    bytes_of(at, message)
}

/// Text is hexadecimal.
fn bytes_of(at: &At<'_>, message: &health_check::Payload) -> Option<Bytes> {
    match &message.payload {
        Some(payload::Payload::Text(text)) => {
            let pairs = text.as_bytes().chunks(2);
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let valid = text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
            let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
            match bytes.filter(|_| valid && !text.is_empty()) {
                Some(bytes) => Some(bytes.into()),
                None => at.field("text").none(format_args!("invalid hex string '{text}'")),
            }
        }
        Some(payload::Payload::Binary(bytes)) => Some(bytes.clone()),
        None => at.field("payload").none("must be set"),
    }
}

fn statuses(at: &At<'_>, message: &Int64Range) -> Option<Range<u16>> {
    let Int64Range { start, end } = *message;
    if start >= end || start < STATUSES.0 || end > STATUSES.1 {
        return at.none(format_args!("invalid status range: {start} to {end}"));
    }
    Some(u16::try_from(start).ok()?..u16::try_from(end).ok()?)
}

/// A check has no request whose values operators could show.
fn literal(at: &At<'_>, fields: Fields, adds: Vec<crate::header_edit::HeaderAdd>) -> Vec<CheckHeader> {
    at.each(fields.add, &adds, |at, add| {
        let value = match &*add.value.ops {
            [] => HeaderValue::from_static(""),
            [Op::Literal(text)] => HeaderValue::try_from(&**text).ok()?,
            _ => return at.field("header").field("value").none("not supported yet: operators in a check"),
        };
        Some(CheckHeader { name: add.name.clone(), value, action: add.action })
    })
}

fn tcp_check(at: &At<'_>, message: &health_check::TcpHealthCheck) -> Option<TcpHealthCheck> {
    let health_check::TcpHealthCheck { send, receive, proxy_protocol_config } = message;
    let proxy_header = proxy_protocol_config.as_ref().map(|message| {
        let at = at.field("proxy_protocol_config");
        let ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } = message;
        harmless!(NoEffectInEnvoy; pass_through_tlvs, added_tlvs);
        at.choice("version", *version).unwrap_or(Version::V1) == Version::V2
    });
    let send = match send {
        Some(send) => bytes_of(&at.field("send"), send)?,
        None => Bytes::new(),
    };
    Some(TcpHealthCheck { proxy_v2: proxy_header, send, receive: at.each("receive", receive, bytes_of) })
}

fn grpc_check(at: &At<'_>, message: &health_check::GrpcHealthCheck) -> GrpcHealthCheck {
    let health_check::GrpcHealthCheck { service_name, authority, initial_metadata } = message;
    let edits = header_edits(at, &Fields::METADATA, initial_metadata, &[]);
    GrpcHealthCheck {
        service_name: service_name.as_str().into(),
        authority: authority.as_str().into(),
        metadata: literal(at, Fields::METADATA, edits.add),
    }
}
