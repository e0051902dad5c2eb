//! Rendering of whole lines, and their way to a file.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderName, HeaderValue, Method};
use meltemi_compile::format::{Format, HeaderOp, JsonFormat, Op};
use meltemi_compile::program::{AccessLog, LogFormat};
use meltemi_http::{Headers, RequestHead, Text, Version};

use super::format::{Missing, render, render_json};
use super::{FlushPolicy, LogWriter, WorkerLogs};
use crate::record::{ConnectionInfo, RequestRecord, ResponseFlags};

fn record() -> RequestRecord {
    let address = |text: &str| text.parse().expect("address");
    let connection = ConnectionInfo::new(7, address("10.0.0.1:8080"), address("10.0.0.9:51000"), "l".into());
    let mut record = RequestRecord::new(Rc::new(connection), 1, Some(Version::Http11));
    record.start_time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_042);
    record.start = Instant::now();
    record.response_start = Some(record.start + Duration::from_millis(7));
    record.end = Some(record.start + Duration::from_millis(12));
    record.response_code = 503;
    record.flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
    record.details = Some("upstream_reset_before_response_started".into());
    record.bytes_sent = 98;
    record
}

fn head() -> RequestHead {
    let mut head = RequestHead::new(Method::GET, "/rewritten?a=1");
    head.authority = Some(Text::from_static("shop.example"));
    head.headers.append(HeaderName::from_static("user-agent"), HeaderValue::from_static("curl/7.88.1"));
    head.headers
        .append(HeaderName::from_static("x-envoy-original-path"), HeaderValue::from_static("/as-it-came"));
    head
}

fn header(name: &'static str) -> HeaderOp {
    HeaderOp { name: HeaderName::from_static(name), alternative: None, max_len: None }
}

fn literal(text: &str) -> Op {
    Op::Literal(text.into())
}

fn rendered(ops: Vec<Op>, missing: Missing) -> String {
    let (record, head, response) = (record(), head(), Headers::new());
    let mut out = Vec::new();
    render(&Format { ops }, &record.view(Some(&head), Some(&response), None), missing, &mut out);
    String::from_utf8(out).expect("text")
}

#[test]
fn a_line_reads_as_envoys() {
    let ops = vec![
        literal("["),
        Op::StartTime("".into()),
        literal("] \""),
        Op::ReqMethod,
        literal(" "),
        Op::ReqOriginalPath,
        literal(" "),
        Op::Protocol,
        literal("\" "),
        Op::ResponseCode,
        literal(" "),
        Op::ResponseFlags,
        literal(" "),
        Op::ResponseCodeDetails,
        literal(" "),
        Op::BytesReceived,
        literal(" "),
        Op::BytesSent,
        literal(" "),
        Op::Duration,
        literal(" "),
        Op::Resp(header("x-envoy-upstream-service-time")),
        literal(" \""),
        Op::Req(header("user-agent")),
        literal("\" \""),
        Op::ReqAuthority,
        literal("\" "),
        Op::UpstreamHost,
        literal(" "),
        Op::DownstreamLocalAddress,
        literal(" "),
        Op::DownstreamRemoteAddressWithoutPort,
    ];
    let expected = "[2023-11-14T22:13:20.042Z] \"GET /as-it-came HTTP/1.1\" 503 UF \
                    upstream_reset_before_response_started 0 98 12 - \"curl/7.88.1\" \"shop.example\" - 10.0.0.1:8080 10.0.0.9";
    assert_eq!(rendered(ops, Missing::Dash), expected);
}

#[test]
fn durations_count_from_their_own_start() {
    let ops =
        vec![Op::ResponseDuration, literal("/"), Op::ResponseTxDuration, literal("/"), Op::RequestDuration];
    assert_eq!(rendered(ops, Missing::Dash), "7/5/-");
}

#[test]
fn a_missing_value_is_nothing_in_a_header() {
    let ops = vec![literal("a"), Op::Req(header("x-none")), literal("b"), Op::RequestedServerName];
    assert_eq!(rendered(ops, Missing::Empty), "ab");
}

#[test]
fn a_header_has_an_alternative_and_a_maximal_length() {
    let alternative = HeaderName::from_static("user-agent");
    let op = HeaderOp { alternative: Some(alternative), max_len: Some(4), ..header("x-none") };
    assert_eq!(rendered(vec![Op::Req(op)], Missing::Dash), "curl");
}

#[test]
fn a_time_format_is_followed() {
    assert_eq!(
        rendered(vec![Op::StartTime("%Y/%m/%d %H:%M:%S".into())], Missing::Dash),
        "2023/11/14 22:13:20"
    );
}

#[test]
fn json_keeps_types_and_escapes() {
    let value = |ops: Vec<Op>| JsonFormat::Value(Format { ops });
    let format = JsonFormat::Object(vec![
        ("code".into(), value(vec![Op::ResponseCode])),
        ("path".into(), value(vec![literal("\"quoted\" "), Op::ReqPath])),
        ("sni".into(), value(vec![Op::RequestedServerName])),
        ("both".into(), value(vec![Op::ResponseFlags, literal(" "), Op::RequestedServerName])),
        ("list".into(), JsonFormat::List(vec![JsonFormat::Literal(true.into()), value(vec![Op::Protocol])])),
    ]);
    let (record, head) = (record(), head());
    let mut out = Vec::new();
    render_json(&format, &record.view(Some(&head), None, None), Missing::Dash, &mut out);
    let expected = concat!(
        r#"{"code":503,"path":"\"quoted\" /rewritten?a=1","sni":null,"both":"UF -","list":[true,"HTTP/1.1"]}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(out).expect("text"), expected);
}

#[test]
fn lines_reach_the_file_before_the_writer_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("access.log");
    let policy = FlushPolicy { min_bytes: 16, ..FlushPolicy::default() };
    let (writer, sink) = LogWriter::spawn(policy).expect("thread");
    let logs = WorkerLogs::new(sink);
    let format = LogFormat::Text(Format { ops: vec![Op::ResponseCode, literal("\n")] });
    let log = Arc::new(AccessLog {
        path: path.to_str().expect("text").into(),
        format,
        omit_empty_values: false,
        filter: None,
    });
    let logger = logs.logger(&log);
    let record = record();
    for _ in 0..1000 {
        logger.log(&record.view(None, None, None));
    }
    logs.flush();
    writer.finish();
    assert_eq!(std::fs::read_to_string(&path).expect("file"), "503\n".repeat(1000));
}

#[test]
fn a_file_that_cannot_be_opened_loses_lines_and_says_so() {
    let (writer, sink) = LogWriter::spawn(FlushPolicy::default()).expect("thread");
    sink.write(&"/nonexistent/folder/access.log".into(), b"line\n".to_vec());
    let dropped = sink;
    let probe = std::thread::spawn(move || {
        let deadline = Instant::now() + Duration::from_secs(10);
        while dropped.dropped() == 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        dropped.dropped()
    });
    assert_eq!(probe.join().expect("probe"), 1);
    writer.finish();
}

/// Operators with a place for an argument and a length, and some without.
const COMMANDS: [&str; 19] = [
    "START_TIME",
    "REQ",
    "RESP",
    "TRAILER",
    "DURATION",
    "COMMON_DURATION",
    "RESPONSE_CODE",
    "RESPONSE_FLAGS",
    "BYTES_SENT",
    "DYNAMIC_METADATA",
    "FILTER_STATE",
    "UPSTREAM_HOST",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "GRPC_STATUS",
    "PATH",
    "ENVIRONMENT",
    "REQUESTED_SERVER_NAME",
    "CLUSTER_METADATA",
];

/// Renders what parses, as a log line, as a header value and as a document.
fn parse_and_render(text: &str) {
    let (record, head, response) = (record(), head(), Headers::new());
    let view = record.view(Some(&head), Some(&response), None);
    let mut out = Vec::new();
    if let Ok(format) = Format::parse(text) {
        for missing in [Missing::Dash, Missing::Empty] {
            render(&format, &view, missing, &mut out);
        }
    }
    let value = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) };
    let document = prost_types::Struct { fields: [(text.to_owned(), value)].into() };
    let Ok(format) = JsonFormat::parse(&document) else { return };
    for missing in [Missing::Dash, Missing::Empty] {
        out.clear();
        render_json(&format, &view, missing, &mut out);
        serde_json::from_slice::<serde_json::Value>(&out).expect("a document");
    }
}

#[test]
fn operators_of_the_fuzz_target_render() {
    for text in ["%START_TIME(%s.%3f)%", "%REQ(X?USER-AGENT):4%", "%RESPONSE_CODE%", "%PATH(NQ:ORIG):3%"] {
        assert!(Format::parse(text).is_ok(), "{text}");
        parse_and_render(text);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_format_or_refused(text in "\\PC{0,60}") {
        parse_and_render(&text);
    }

    #[test]
    fn any_argument_of_an_operator_is_rendered_or_refused(
        command in proptest::sample::select(&COMMANDS[..]),
        argument in proptest::option::of("[ -~é]{0,24}|(%[%a-zA-Z0-9*]{0,3}){1,5}|[a-z:?.-]{1,20}|[A-Z_]{2,10}(:[A-Z]{1,4})?"),
        limit in proptest::option::of("[0-9-]{0,21}"),
        around in "[%a ]{0,3}",
    ) {
        let argument = argument.map(|argument| format!("({argument})")).unwrap_or_default();
        let limit = limit.map(|limit| format!(":{limit}")).unwrap_or_default();
        parse_and_render(&format!("{around}%{command}{argument}{limit}%{around}"));
    }
}
