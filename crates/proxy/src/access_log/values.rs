//! The operators that need more than a look into the record.
//!
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use http::HeaderName;
use meltemi_compile::format::{GrpcStatusStyle, Op, PathSource, Precision, ServerNameSource, TimePoint};
use meltemi_compile::log_filter::LogType;
use meltemi_http::Headers;
use prost_types::Value;
use prost_types::value::Kind;

use super::format::{put, write_address, write_bytes, write_ip, write_number, write_op, write_text};
use crate::record::RecordView;

static ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Writes the value of an operator; says whether there was one.
pub(super) fn write(op: &Op, view: &RecordView<'_>, out: &mut Vec<u8>) -> bool {
    let record = view.record;
    match op {
        Op::ReqWithoutQuery(op) => {
            let Some(head) = view.request else { return false };
            let value = head.headers.get(&op.name).or_else(|| head.headers.get(op.alternative.as_ref()?));
            value.is_some_and(|value| write_bytes(before_query(value.as_bytes()), op.max_len, out))
        }
        Op::PathWithoutQuery(source) => {
            write_bytes(before_query(path(*source, view).unwrap_or_default()), None, out)
        }
        Op::Path(source, with_query) => {
            let path = path(*source, view).unwrap_or_default();
            write_bytes(if *with_query { path } else { before_query(path) }, None, out)
        }
        Op::QueryParam(name) => {
            // A parameter without a value is there, and empty.
            query_parameter(path(PathSource::Path, view), name).is_some_and(|value| {
                write_bytes(value, None, out);
                true
            })
        }
        Op::QueryParams(source) => {
            let query = path(*source, view).and_then(query).unwrap_or_default();
            write_bytes(query, None, out)
        }
        Op::RequestHeadersBytes => write_number(request_bytes(view), out),
        Op::ResponseHeadersBytes => {
            // `:status` and its three digits stand among Envoy's headers.
            let bytes = view.response.map_or(0, |headers| header_bytes(headers) + 10);
            write_number(bytes, out)
        }
        Op::ResponseTrailersBytes => write_number(view.trailers.map_or(0, header_bytes), out),
        Op::CommonDuration(from, to, precision) => duration(view, *from, *to, *precision, out),
        Op::UpstreamHostName(with_port) => host_name(view, *with_port, out),
        Op::UpstreamHostWithoutPort => address(reached(view), write_ip, out),
        Op::UpstreamHostPort => address(reached(view), write_port, out),
        Op::UpstreamLocalAddressWithoutPort => address(record.upstream_local, write_ip, out),
        Op::UpstreamLocalPort => address(record.upstream_local, write_port, out),
        Op::DownstreamDirectLocalAddress => write_address(record.connection.direct_local, out),
        Op::DownstreamDirectLocalAddressWithoutPort => write_ip(record.connection.direct_local, out),
        Op::DownstreamDirectLocalPort => write_port(record.connection.direct_local, out),
        Op::DownstreamDirectRemotePort => write_port(record.connection.direct_remote, out),
        Op::RequestedServerNameOrHost(first) => {
            let sni = record.connection.server_name.as_deref();
            let host = view.request.and_then(|head| head.authority.as_deref());
            write_text(if *first == ServerNameSource::SniFirst { sni.or(host) } else { host.or(sni) }, out)
        }
        Op::AccessLogType => write_text(Some(type_text(view.log_type)), out),
        Op::UniqueId => write_bytes(&crate::random::uuid(), None, out),
        Op::GrpcStatus(style) => write_grpc_status(view, *style, out),
        Op::Environment(name) => write_bytes(&environment(name), None, out),
        Op::DynamicMetadata(namespace, keys) => write_metadata(view, namespace, keys, out),
        Op::FilterState(key) => write_text(record.filter_state(key).map(|object| &*object.text), out),
        Op::Either(first, second) => write_op(first, view, out) || write_op(second, view, out),
        Op::Cut(op, max_len) => cut(op, *max_len, view, out),
        Op::LocalReplyBody => {
            out.extend_from_slice(view.local_body);
            true
        }
        // An empty text, not a missing one.
        Op::Empty => true,
        Op::Zero => write_number(0, out),
        _ => false,
    }
}

fn cut(op: &Op, max_len: usize, view: &RecordView<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let there = write_op(op, view, out);
    out.truncate(start + max_len.min(out.len() - start));
    there
}

fn path<'v>(source: PathSource, view: &RecordView<'v>) -> Option<&'v [u8]> {
    let head = view.request?;
    let original =
        || head.headers.get(&ORIGINAL_PATH).map(|value| value.as_bytes()).filter(|p| !p.is_empty());
    let path = || head.path.as_bytes();
    match source {
        PathSource::Path => Some(path()),
        PathSource::Orig => original(),
        PathSource::OrigOrPath => original().or_else(|| Some(path())),
    }
}

fn before_query(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'?').next().unwrap_or(path)
}

fn query(path: &[u8]) -> Option<&[u8]> {
    let start = path.iter().position(|byte| *byte == b'?')?;
    Some(&path[start + 1..])
}

fn query_parameter<'p>(path: Option<&'p [u8]>, name: &str) -> Option<&'p [u8]> {
    query(path?)?.split(|byte| *byte == b'&').find_map(|pair| {
        let (key, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        (key == name.as_bytes()).then_some(value)
    })
}

fn header_bytes(headers: &Headers) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}

/// As Envoy counts: names and values, the pseudo headers too.
fn request_bytes(view: &RecordView<'_>) -> u64 {
    let Some(head) = view.request else { return 0 };
    let pseudo = [
        (":method", head.method.as_str()),
        (":path", &*head.path),
        (":authority", head.authority.as_deref().unwrap_or_default()),
        (":scheme", head.scheme.as_deref().unwrap_or_default()),
    ];
    let there = pseudo.iter().filter(|(_, value)| !value.is_empty());
    header_bytes(&head.headers) + there.map(|(name, value)| (name.len() + value.len()) as u64).sum::<u64>()
}

fn duration(
    view: &RecordView<'_>,
    from: TimePoint,
    to: TimePoint,
    precision: Precision,
    out: &mut Vec<u8>,
) -> bool {
    let (Some(from), Some(to)) = (moment(view, from), moment(view, to)) else { return false };
    let time = to.saturating_duration_since(from);
    match precision {
        Precision::Millis => put(out, format_args!("{}", time.as_millis())),
        Precision::Micros => put(out, format_args!("{}", time.as_micros())),
        Precision::Nanos => put(out, format_args!("{}", time.as_nanos())),
    }
    true
}

fn moment(view: &RecordView<'_>, point: TimePoint) -> Option<Instant> {
    match point {
        TimePoint::DownstreamRxBegin => Some(view.record.start),
        TimePoint::DownstreamRxEnd => view.record.request_end,
        TimePoint::UpstreamRxBegin => view.record.response_start,
        TimePoint::DownstreamTxEnd => view.record.end,
    }
}

/// The host, once there is a connection to it.
fn reached(view: &RecordView<'_>) -> Option<SocketAddr> {
    host(view).filter(|_| view.record.upstream_local.is_some())
}

fn host(view: &RecordView<'_>) -> Option<SocketAddr> {
    view.record.host.as_deref().map(|host| host.address)
}

/// The name that discovery gave the host, else its address.
fn host_name(view: &RecordView<'_>, with_port: bool, out: &mut Vec<u8>) -> bool {
    let Some(host) = view.record.host.as_deref() else { return false };
    match (host.hostname.as_ref(), with_port) {
        ("", true) => write_address(host.address, out),
        ("", false) => write_ip(host.address, out),
        (name, true) => write_text(Some(name), out),
        (name, false) => write_text(Some(name.split_once(':').map_or(name, |(name, _)| name)), out),
    }
}

fn write_port(address: SocketAddr, out: &mut Vec<u8>) -> bool {
    write_number(u64::from(address.port()), out)
}

fn address(
    address: Option<SocketAddr>,
    write: fn(SocketAddr, &mut Vec<u8>) -> bool,
    out: &mut Vec<u8>,
) -> bool {
    address.is_some_and(|address| write(address, out))
}

fn type_text(kind: LogType) -> &'static str {
    match kind {
        LogType::NotSet => "NotSet",
        LogType::TcpConnectionStart => "TcpConnectionStart",
        LogType::TcpUpstreamConnected => "TcpUpstreamConnected",
        LogType::TcpPeriodic => "TcpPeriodic",
        LogType::TcpConnectionEnd => "TcpConnectionEnd",
        LogType::DownstreamEnd => "DownstreamEnd",
    }
}

/// The status of the response's trailers or headers, else the one that its HTTP status stands for.
pub(super) fn grpc_status(view: &RecordView<'_>) -> u32 {
    let of = |headers: Option<&Headers>| {
        let value = headers?.get(&GRPC_STATUS)?;
        std::str::from_utf8(value.as_bytes()).ok()?.parse().ok()
    };
    of(view.trailers).or_else(|| of(view.response)).unwrap_or(match view.record.response_code {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    })
}

/// The names of <https://grpc.io/docs/guides/status-codes/>, as Envoy writes them.
const GRPC_NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// Only of gRPC requests.
fn write_grpc_status(view: &RecordView<'_>, style: GrpcStatusStyle, out: &mut Vec<u8>) -> bool {
    let content_type = view.request.and_then(|head| head.headers.get(&http::header::CONTENT_TYPE));
    let is_grpc = |value: &[u8]| {
        value.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
    };
    if !content_type.is_some_and(|value| is_grpc(value.as_bytes())) {
        return false;
    }
    let status = grpc_status(view);
    let names = usize::try_from(status).ok().and_then(|status| GRPC_NAMES.get(status));
    match (style, names) {
        (GrpcStatusStyle::Camel, Some((camel, _))) => write_text(Some(camel), out),
        (GrpcStatusStyle::Snake, Some((_, snake))) => write_text(Some(snake), out),
        _ => write_number(u64::from(status), out),
    }
}

/// A variable of the process; `-` when it has no such.
fn environment(name: &str) -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt as _;
    std::env::var_os(name).map_or_else(|| b"-".to_vec(), std::ffi::OsString::into_vec)
}

/// Texts as they are, anything else as JSON.
fn write_metadata(view: &RecordView<'_>, namespace: &str, keys: &[Box<str>], out: &mut Vec<u8>) -> bool {
    let state = view.record.metadata();
    let value = match keys {
        [] => state.namespace(namespace).map(struct_json),
        _ => match state.metadata(namespace, keys) {
            Some(Value { kind: Some(Kind::StringValue(text)) }) => return write_text(Some(text), out),
            value => value.map(json),
        },
    };
    let Some(value) = value else { return false };
    put(out, format_args!("{value}"));
    true
}

/// The metadata that an operator reads, for JSON logs, which keep its structure.
pub(super) fn metadata_json(
    view: &RecordView<'_>,
    namespace: &str,
    keys: &[Box<str>],
) -> Option<serde_json::Value> {
    let state = view.record.metadata();
    match keys {
        [] => state.namespace(namespace).map(struct_json),
        _ => state.metadata(namespace, keys).map(json),
    }
}

fn struct_json(fields: &prost_types::Struct) -> serde_json::Value {
    fields.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
}

fn json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(on)) => (*on).into(),
        // Whole numbers print without a fraction.
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
        Some(Kind::NumberValue(n)) => (*n).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::StructValue(fields)) => struct_json(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
    }
}

/// Whether a lone operator is a number in JSON.
pub(super) fn is_number(op: &Op) -> bool {
    matches!(
        op,
        Op::RequestHeadersBytes
            | Op::ResponseHeadersBytes
            | Op::ResponseTrailersBytes
            | Op::CommonDuration(..)
            | Op::UpstreamHostPort
            | Op::UpstreamLocalPort
            | Op::DownstreamDirectLocalPort
            | Op::DownstreamDirectRemotePort
            | Op::GrpcStatus(GrpcStatusStyle::Number)
            | Op::Zero
    )
}

/// A moment in the form of `strftime`.
pub(super) fn write_local_time(format: &str, time: SystemTime, out: &mut Vec<u8>) -> bool {
    let Ok(stamp) = jiff::Timestamp::try_from(time) else { return false };
    let local = stamp.to_zoned(jiff::tz::TimeZone::system());
    let format = if format.is_empty() { "%Y-%m-%dT%H:%M:%S.%3f%z" } else { format };
    put(out, format_args!("{}", local.strftime(format)));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_taken_apart_as_they_are() {
        let path = Some(b"/p?a=1&b&c=%20".as_slice());
        assert_eq!(query_parameter(path, "a"), Some(b"1".as_slice()));
        assert_eq!(query_parameter(path, "b"), Some(b"".as_slice()));
        assert_eq!(query_parameter(path, "c"), Some(b"%20".as_slice()));
        assert_eq!(query_parameter(path, "d"), None);
        assert_eq!(before_query(b"/p?a"), b"/p");
    }
}
