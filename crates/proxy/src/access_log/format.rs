//! Evaluation of substitution formats on a record: text lines, JSON lines, header values.
//!
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use meltemi_compile::format::{Format, HeaderOp, JsonFormat, Op};
use meltemi_http::Headers;

use super::values;
use crate::record::{RecordView, RequestRecord};

/// What stands for a value that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// `-`, as in log lines.
    Dash,
    /// Nothing, as in header values.
    Empty,
}

/// Appends the format, evaluated on `view`, to `out`.
pub fn render(format: &Format, view: &RecordView<'_>, missing: Missing, out: &mut Vec<u8>) {
    for op in &format.ops {
        if !write_op(op, view, out) && missing == Missing::Dash {
            out.push(b'-');
        }
    }
}

/// Appends a JSON document and a line end to `out`; `missing` says whether empty values leave `null` or nothing.
pub fn render_json(format: &JsonFormat, view: &RecordView<'_>, missing: Missing, out: &mut Vec<u8>) {
    write_json(format, view, missing, out);
    out.push(b'\n');
}

/// Says whether there was a value.
fn write_json(format: &JsonFormat, view: &RecordView<'_>, missing: Missing, out: &mut Vec<u8>) -> bool {
    match format {
        JsonFormat::Object(fields) => {
            out.push(b'{');
            let (opened, mut is_first) = (out.len(), true);
            for (key, value) in fields {
                let start = out.len();
                separate(is_first, out);
                write_json_string(key.as_bytes(), out);
                out.push(b':');
                if write_json(value, view, missing, out) || missing == Missing::Dash {
                    is_first = false;
                } else {
                    out.truncate(start);
                }
            }
            out.push(b'}');
            // An object that lost all it had is empty too.
            return out.len() > opened + 1;
        }
        JsonFormat::List(items) => {
            out.push(b'[');
            let mut is_first = true;
            for item in items {
                let start = out.len();
                separate(is_first, out);
                if write_json(item, view, missing, out) || missing == Missing::Dash {
                    is_first = false;
                } else {
                    out.truncate(start);
                }
            }
            out.push(b']');
        }
        JsonFormat::Value(format) => return write_json_value(format, view, missing, out),
        JsonFormat::Literal(value) => {
            put(out, format_args!("{value}"));
            return !value.is_null();
        }
    }
    true
}

fn separate(is_first: bool, out: &mut Vec<u8>) {
    if !is_first {
        out.push(b',');
    }
}

/// A lone operator keeps its type; several pieces are one string.
fn write_json_value(format: &Format, view: &RecordView<'_>, missing: Missing, out: &mut Vec<u8>) -> bool {
    let mut text = Vec::new();
    if let [op] = format.ops.as_slice() {
        if let Op::DynamicMetadata(namespace, keys) = op {
            let value = values::metadata_json(view, namespace, keys);
            put(out, format_args!("{}", value.as_ref().unwrap_or(&serde_json::Value::Null)));
            return value.is_some();
        }
        if !write_op(op, view, &mut text) {
            out.extend_from_slice(b"null");
            return false;
        }
        if is_number(op) {
            out.extend_from_slice(&text);
            return true;
        }
    } else {
        render(format, view, missing, &mut text);
    }
    write_json_string(&text, out);
    true
}

fn write_json_string(text: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    serde_json::to_writer(out, &text).expect("invariant: a string is JSON and a vector takes it");
}

fn is_number(op: &Op) -> bool {
    values::is_number(op)
        || matches!(
            op,
            Op::ResponseCode
                | Op::BytesReceived
                | Op::BytesSent
                | Op::Duration
                | Op::RequestDuration
                | Op::ResponseDuration
                | Op::ResponseTxDuration
                | Op::UpstreamRequestAttemptCount
                | Op::DownstreamLocalPort
                | Op::DownstreamRemotePort
                | Op::ConnectionId
        )
}

/// Writes the value of an operator; says whether there was one.
pub(super) fn write_op(op: &Op, view: &RecordView<'_>, out: &mut Vec<u8>) -> bool {
    let record = view.record;
    let connection = &*record.connection;
    match op {
        Op::Literal(text) => write_text(Some(text), out),
        Op::StartTime(format) => write_time(format, record.start_time, out),
        Op::Req(_) | Op::ReqMethod | Op::ReqOriginalPath | Op::ReqPath | Op::ReqAuthority | Op::ReqScheme => {
            write_request(op, view, out)
        }
        Op::Resp(op) => write_header(op, view.response, out),
        Op::Trailer(op) => write_header(op, view.trailers, out),
        Op::Protocol => write_text(record.protocol.map(|version| version.as_str()), out),
        Op::ResponseCode => write_number(u64::from(record.response_code), out),
        // Details may be empty, and are there then.
        Op::ResponseCodeDetails => {
            write_without_blanks(record.details.as_deref(), out) || record.details.is_some()
        }
        Op::ResponseCodeDetailsAsTheyAre => write_text(record.details.as_deref(), out),
        Op::ConnectionTerminationDetails => write_text(record.termination_details.as_deref(), out),
        Op::ResponseFlags => write_flags(record, false, out),
        Op::ResponseFlagsLong => write_flags(record, true, out),
        Op::BytesReceived => write_number(record.bytes_received, out),
        Op::BytesSent => write_number(record.bytes_sent, out),
        Op::Duration => write_between(Some(record.start), record.end, out),
        Op::RequestDuration => write_between(Some(record.start), record.request_end, out),
        Op::ResponseDuration => write_between(Some(record.start), record.response_start, out),
        Op::ResponseTxDuration => write_between(record.response_start, record.end, out),
        Op::DownstreamLocalAddress => write_address(connection.local, out),
        Op::DownstreamLocalAddressWithoutPort => write_ip(connection.local, out),
        Op::DownstreamLocalPort => write_number(u64::from(connection.local.port()), out),
        Op::DownstreamRemoteAddress => write_address(record.remote, out),
        Op::DownstreamRemoteAddressWithoutPort => write_ip(record.remote, out),
        Op::DownstreamRemotePort => write_number(u64::from(record.remote.port()), out),
        Op::DownstreamDirectRemoteAddress => write_address(connection.direct_remote, out),
        Op::DownstreamDirectRemoteAddressWithoutPort => write_ip(connection.direct_remote, out),
        Op::RequestedServerName => write_text(connection.server_name.as_deref(), out),
        Op::RouteName => write_text(record.found.as_ref().map(|taken| &*taken.found().route.name), out),
        Op::VirtualHostName => {
            write_text(record.found.as_ref().map(|taken| &*taken.found().virtual_host.name), out)
        }
        Op::Hostname => write_text(hostname(), out),
        Op::ConnectionId => write_number(connection.id, out),
        Op::StreamId => write_number(record.stream_id, out),
        Op::UpstreamHost
        | Op::UpstreamCluster
        | Op::UpstreamClusterRaw
        | Op::UpstreamLocalAddress
        | Op::UpstreamRemoteAddress
        | Op::UpstreamRequestAttemptCount
        | Op::UpstreamTransportFailureReason
        | Op::UpstreamProtocol
        | Op::UpstreamRemoteAddressEndpointId => write_upstream(op, record, out),
        Op::StartTimeLocal(format) => values::write_local_time(format, record.start_time, out),
        Op::EmitTime(format) => write_time(format, SystemTime::now(), out),
        Op::EmitTimeLocal(format) => values::write_local_time(format, SystemTime::now(), out),
        Op::Tls(op) => super::tls::write(op, view, out),
        Op::UpstreamTls(op) => super::tls::write_upstream(op, view.record, out),
        op => values::write(op, view, out),
    }
}

/// The operators on the request head.
fn write_request(op: &Op, view: &RecordView<'_>, out: &mut Vec<u8>) -> bool {
    static ORIGINAL_PATH: http::HeaderName = http::HeaderName::from_static("x-envoy-original-path");
    let Some(head) = view.request else { return false };
    match op {
        Op::Req(op) => write_header(op, Some(&head.headers), out),
        Op::ReqMethod => write_text(Some(head.method.as_str()), out),
        Op::ReqOriginalPath => {
            let original = head.headers.get(&ORIGINAL_PATH).filter(|value| !value.is_empty());
            match original {
                Some(value) => write_bytes(value.as_bytes(), None, out),
                None => write_text(Some(&*head.path), out),
            }
        }
        Op::ReqPath => write_text(Some(&*head.path), out),
        Op::ReqAuthority => write_text(head.authority.as_deref(), out),
        _ => write_text(head.scheme.as_deref(), out),
    }
}

/// The operators on the last attempt.
fn write_upstream(op: &Op, record: &RequestRecord, out: &mut Vec<u8>) -> bool {
    let cluster = record.cluster.as_deref();
    match op {
        Op::UpstreamCluster => write_text(cluster.map(|cluster| &*cluster.stat_name), out),
        Op::UpstreamClusterRaw => write_text(cluster.map(|cluster| &*cluster.name), out),
        Op::UpstreamLocalAddress => record.upstream_local.is_some_and(|address| write_address(address, out)),
        Op::UpstreamRequestAttemptCount => write_number(u64::from(record.attempts), out),
        Op::UpstreamTransportFailureReason => write_without_blanks(record.upstream_failure.as_deref(), out),
        // Of a host that was picked but never reached there is no connection.
        Op::UpstreamRemoteAddress if record.upstream_local.is_none() => false,
        Op::UpstreamRemoteAddressEndpointId => record.upstream_local.is_some(),
        Op::UpstreamProtocol => write_text(record.upstream_protocol.map(|version| version.as_str()), out),
        _ => record.host.as_deref().is_some_and(|host| write_address(host.address, out)),
    }
}

/// Details may quote what came from outside; a log line is split at blanks.
pub(super) fn write_without_blanks(text: Option<&str>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let there = write_text(text, out);
    out[start..].iter_mut().filter(|byte| byte.is_ascii_whitespace()).for_each(|byte| *byte = b'_');
    there
}

pub(super) fn write_text(text: Option<&str>, out: &mut Vec<u8>) -> bool {
    write_bytes(text.unwrap_or_default().as_bytes(), None, out)
}

/// Empty values count as missing, as in Envoy.
pub(super) fn write_bytes(bytes: &[u8], max_len: Option<usize>, out: &mut Vec<u8>) -> bool {
    let len = max_len.map_or(bytes.len(), |max| max.min(bytes.len()));
    out.extend_from_slice(&bytes[..len]);
    len > 0
}

fn write_header(op: &HeaderOp, headers: Option<&Headers>, out: &mut Vec<u8>) -> bool {
    let Some(headers) = headers else { return false };
    let value = headers.get(&op.name).or_else(|| headers.get(op.alternative.as_ref()?));
    value.is_some_and(|value| write_bytes(value.as_bytes(), op.max_len, out))
}

pub(super) fn write_number(number: u64, out: &mut Vec<u8>) -> bool {
    put(out, format_args!("{number}"));
    true
}

pub(super) fn write_address(address: SocketAddr, out: &mut Vec<u8>) -> bool {
    put(out, format_args!("{address}"));
    true
}

pub(super) fn write_ip(address: SocketAddr, out: &mut Vec<u8>) -> bool {
    put(out, format_args!("{}", address.ip()));
    true
}

fn write_flags(record: &RequestRecord, long: bool, out: &mut Vec<u8>) -> bool {
    if record.flags.is_empty() {
        // The value of no flags, not the absence of one: it stands in headers and JSON too.
        out.push(b'-');
    } else if long {
        record.flags.write_long(out)
    } else {
        record.flags.write_short(out)
    }
    true
}

/// Whole milliseconds from one moment to another.
fn write_between(from: Option<Instant>, to: Option<Instant>, out: &mut Vec<u8>) -> bool {
    let (Some(from), Some(to)) = (from, to) else { return false };
    put(out, format_args!("{}", to.saturating_duration_since(from).as_millis()));
    true
}

pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("invariant: a vector takes every write");
}

fn hostname() -> Option<&'static str> {
    static NAME: OnceLock<Option<String>> = OnceLock::new();
    NAME.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
    })
    .as_deref()
}

/// The default time format is on every line, and only its milliseconds change within a second.
struct Second {
    unix: i64,
    text: String,
}

thread_local! {
    static LAST_SECOND: RefCell<Second> = const { RefCell::new(Second { unix: i64::MIN, text: String::new() }) };
}

pub(super) fn write_time(format: &str, time: SystemTime, out: &mut Vec<u8>) -> bool {
    let Ok(stamp) = jiff::Timestamp::try_from(time) else { return false };
    if !format.is_empty() {
        // A bare timestamp has no zone to name.
        put(out, format_args!("{}", stamp.to_zoned(jiff::tz::TimeZone::UTC).strftime(format)));
        return true;
    }
    LAST_SECOND.with_borrow_mut(|second| {
        if second.unix != stamp.as_second() {
            second.unix = stamp.as_second();
            second.text = stamp.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.extend_from_slice(second.text.as_bytes());
    });
    put(out, format_args!(".{:03}Z", stamp.subsec_millisecond()));
    true
}
