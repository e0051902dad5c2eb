//! Format strings, as Envoy documents them.

use http::HeaderName;

use super::*;

fn header(name: &str) -> HeaderOp {
    HeaderOp { name: HeaderName::try_from(name).unwrap(), alternative: None, max_len: None }
}

fn ops(text: &str) -> Vec<Op> {
    Format::parse(text).unwrap().ops
}

fn error(text: &str) -> String {
    Format::parse(text).unwrap_err().to_string()
}

#[test]
fn text_and_operators_alternate() {
    assert_eq!(
        ops("a %PROTOCOL%%RESP(x-b)% 100%%\n"),
        [Op::Literal("a ".into()), Op::Protocol, Op::Resp(header("x-b")), Op::Literal(" 100%\n".into()),]
    );
    assert_eq!(ops(""), []);
    assert_eq!(Format::parse("50%%").unwrap().literal(), Some("50%"));
}

#[test]
fn headers_have_alternatives_and_lengths() {
    let expected =
        HeaderOp { alternative: Some(HeaderName::from_static("x-b")), max_len: Some(10), ..header("x-a") };
    assert_eq!(ops("%REQ(X-A?X-B):10%"), [Op::Req(expected)]);
    assert_eq!(ops("%REQ(:AUTHORITY)%%REQ(host)%"), [Op::ReqAuthority, Op::ReqAuthority]);
    assert_eq!(ops("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"), [Op::ReqOriginalPath]);
}

#[test]
fn a_time_format_may_hold_percent_signs() {
    assert_eq!(ops("%START_TIME(%Y/%m/%dT%H:%M:%S%z)%"), [Op::StartTime("%Y/%m/%dT%H:%M:%S%z".into())]);
    assert_eq!(ops("%START_TIME%"), [Op::StartTime("".into())]);
    assert_eq!(ops("%START_TIME(%s.%3f)%"), [Op::StartTime("%s.%3f".into())]);
}

#[test]
fn envoys_own_forms_of_fractions_are_translated() {
    assert_eq!(ops("%START_TIME(%f)%"), [Op::StartTime("%9f".into())]);
    assert_eq!(ops("%START_TIME(%H%%%E3S)%"), [Op::StartTime("%H%%%S.%3f".into())]);
}

#[test]
fn operators_have_parameters_and_lengths() {
    assert_eq!(ops("%REQ(:PATH):3%"), [Op::Cut(Box::new(Op::ReqPath), 3)]);
    assert_eq!(ops("%PATH(NQ:ORIG)%"), [Op::Path(PathSource::Orig, false)]);
    assert_eq!(ops("%QUERY_PARAM(a):1%"), [Op::Cut(Box::new(Op::QueryParam("a".into())), 1)]);
    let metadata = Op::DynamicMetadata("a.b".into(), vec!["c".into(), "d".into()]);
    assert_eq!(ops("%DYNAMIC_METADATA(a.b:c:d)%"), [metadata]);
    assert_eq!(ops("%FILTER_STATE(k:PLAIN)%"), [Op::FilterState("k".into())]);
    let duration =
        Op::CommonDuration(TimePoint::DownstreamRxBegin, TimePoint::DownstreamTxEnd, Precision::Micros);
    assert_eq!(ops("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"), [duration]);
    assert_eq!(
        ops("%UPSTREAM_TLS_VERSION%%CUSTOM_FLAGS%"),
        [Op::UpstreamTls(super::TlsOp::Version), Op::Empty]
    );
    assert_eq!(ops("%DOWNSTREAM_TLS_VERSION%"), [Op::Tls(super::TlsOp::Version)]);
}

#[test]
fn what_is_not_understood_is_named() {
    assert!(error("%NO_SUCH%").contains("%NO_SUCH%"));
    assert!(error("100% sure").contains("literal %"));
    assert!(error("%PROTOCOL").contains("malformed"));
    assert!(error("%REQ%").contains("header name"));
    assert!(error("%REQ(a b)%").contains("a b"));
    assert!(error("%PROTOCOL(x)%").contains("no parameter"));
    assert!(error("%PROTOCOL:3%").contains("length"));
    assert!(error("%RESPONSE_CODE_DETAILS(X)%").contains("ALLOW_WHITESPACES"));
    assert!(error("%COMMON_DURATION(DS_RX_BEG:US_CX_BEG:ms)%").contains("US_CX_BEG"));
    assert!(error("%UPSTREAM_WIRE_BYTES_SENT%").contains("UPSTREAM_WIRE_BYTES_SENT"));
    assert!(error("%START_TIME(%)%").contains("START_TIME"));
}

#[test]
fn the_default_formats_are_understood() {
    assert_eq!(ops(Format::ENVOY_ACCESS_LOG).iter().filter(|op| !matches!(op, Op::Literal(_))).count(), 15);
    assert_eq!(ops(Format::ISTIO_ACCESS_LOG).iter().filter(|op| !matches!(op, Op::Literal(_))).count(), 24);
    assert!(Format::ISTIO_ACCESS_LOG.ends_with("%ROUTE_NAME%\n"));
}

#[test]
fn json_formats_keep_numbers_and_structure() {
    let document: prost_types::Struct = {
        let log: meltemi_envoy::config::core::v3::SubstitutionFormatString = meltemi_envoy::json::Codec::new(
        )
        .parse("json_format: {status: '%RESPONSE_CODE%', n: {list: [1, 0.5, true, null, 'a %PROTOCOL%']}}")
        .unwrap();
        match log.format.unwrap() {
            meltemi_envoy::config::core::v3::substitution_format_string::Format::JsonFormat(document) => {
                document
            }
            other => panic!("{other:?}"),
        }
    };
    let literal = |value: serde_json::Value| JsonFormat::Literal(value);
    let list = JsonFormat::List(vec![
        literal(1.into()),
        literal("0.5".into()),
        literal(true.into()),
        literal(serde_json::Value::Null),
        JsonFormat::Value(Format { ops: vec![Op::Literal("a ".into()), Op::Protocol] }),
    ]);
    assert_eq!(
        JsonFormat::parse(&document).unwrap(),
        JsonFormat::Object(vec![
            ("n".into(), JsonFormat::Object(vec![("list".into(), list)])),
            ("status".into(), JsonFormat::Value(Format { ops: vec![Op::ResponseCode] })),
        ])
    );
}
