use proptest::prelude::*;

use super::*;
use crate::h1::encode::{Answering, encode_request, encode_response};

fn request(wire: &str) -> Result<Option<RequestMessage>, ProtocolError> {
    parse_request(&mut BytesMut::from(wire), &mut HeadScan::default(), &H1Options::default())
}

fn refused(wire: &str) -> (u16, &'static str) {
    match request(wire) {
        Err(error) => (error.status.as_u16(), error.detail),
        Ok(message) => panic!("accepted {wire:?} as {message:?}"),
    }
}

fn accepted(wire: &str) -> RequestMessage {
    request(wire).unwrap().unwrap()
}

#[test]
fn host_becomes_the_authority_and_keeps_out_of_the_fields() {
    let message = accepted("GET /a?b=c HTTP/1.1\r\nHost: shop.example:80\r\nX-One: 1\r\nx-one: 2\r\n\r\n");
    let head = message.head;
    assert_eq!(head.authority.as_deref(), Some("shop.example:80"));
    assert_eq!(head.path, "/a?b=c");
    assert_eq!(head.scheme, None);
    let names: Vec<&str> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-one", "x-one"]);
    assert!(message.keep_alive);
    assert_eq!(message.body, BodyLength::Empty);
}

#[test]
fn the_four_target_forms() {
    let absolute = accepted("GET HTTP://a.example/p?q HTTP/1.1\r\nHost: other\r\n\r\n").head;
    assert_eq!((absolute.authority.as_deref(), &*absolute.path), (Some("a.example"), "/p?q"));
    assert_eq!(absolute.scheme.as_deref(), Some("http"));
    let no_path = accepted("GET http://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n").head;
    assert_eq!(no_path.path, "/?q");
    let star = accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").head;
    assert_eq!(star.path, "*");
    let connect = accepted("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n").head;
    assert_eq!((connect.authority.as_deref(), &*connect.path), (Some("a.example:443"), ""));
    assert_eq!(refused("GET a.example HTTP/1.1\r\nHost: a\r\n\r\n"), (400, "http1.codec_error"));
    assert_eq!(refused("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), (400, "http1.invalid_scheme"));
    assert_eq!(refused("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), (400, "http1.invalid_url"));
}

#[test]
fn shapes_that_two_parsers_read_differently_are_refused() {
    let codec = (400, "http1.codec_error");
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    let both_detail = (400, "http1.content_length_and_chunked_not_allowed");
    assert_eq!(refused(&with(both)), both_detail);
    assert_eq!(refused(&with("Content-Length: 3\r\nContent-Length: 3\r\n")), codec);
    for length in ["3, 3", "+3", "-3", "0x3", "3 3", "", "18446744073709551616"] {
        assert_eq!(refused(&with(&format!("Content-Length: {length}\r\n"))), codec, "{length:?}");
    }
    let coding = (501, "http1.invalid_transfer_encoding");
    assert_eq!(refused(&with("Transfer-Encoding: gzip, chunked\r\n")), coding);
    assert_eq!(refused(&with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")), coding);
    assert_eq!(refused(&with("Transfer-Encoding: identity\r\n")), coding);
    assert_eq!(refused(&with("X : 1\r\n")), codec);
    assert_eq!(refused(&with("X: 1\r\n folded\r\n")), codec);
    assert_eq!(refused(&with("X: 1\n")), codec);
    assert_eq!(refused(&with("X: a\0b\r\n")), (400, "http1.invalid_characters"));
    assert_eq!(refused(&with("X: a\rb\r\n")).0, 400);
    assert_eq!(refused(&with("X\r\n")), codec);
    assert_eq!(refused("GET / HTTP/1.1\nHost: a\n\n"), codec);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), codec);
    assert_eq!(refused("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), codec);
    assert_eq!(refused("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), codec);
    assert_eq!(refused("get / HTTP/1.1\r\nHost: a\r\n\r\n"), codec);
    for line in ["GET / HTTP/2.0", "GET / HTTP/1.2", "GET /"] {
        assert_eq!(refused(&format!("{line}\r\nHost: a\r\n\r\n")), (426, "low_version"), "{line}");
    }
    assert_eq!(refused("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), codec);
    for host in ["a b", "a/b", "a?b", "a#b", "a\\b", "<a>", "a\"b"] {
        let wire = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(refused(&wire), (400, "http.invalid_authority"), "{host}");
    }
    assert_eq!(refused("CONNECT a/b:1 HTTP/1.1\r\nHost: a\r\n\r\n"), (400, "http.invalid_authority"));
    assert_eq!(refused("\x16\x03\x01\x02"), codec);
    assert_eq!(accepted("GET / HTTP/1.1\r\n\r\n").head.authority, None);
    assert_eq!(accepted("GET / HTTP/1.1\r\nHost:\r\n\r\n").head.authority.as_deref(), Some(""));
    assert_eq!(refused("CONNECT a:1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n"), (400, "http1.body_disallowed"));
    assert_eq!(refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), codec);
}

#[test]
fn limits_are_answered_with_431() {
    let limits = H1Options { max_head_bytes: 64, max_headers: 2, ..H1Options::default() };
    let parse = |wire: &str| {
        let parsed = parse_request(&mut BytesMut::from(wire), &mut HeadScan::default(), &limits);
        parsed.map(|message| message.is_some()).map_err(|error| (error.status.as_u16(), error.detail))
    };
    assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nb: c\r\n\r\n"), Ok(true));
    assert_eq!(
        parse("GET / HTTP/1.1\r\nHost: a\r\nb: c\r\nd: e\r\n\r\n"),
        Err((431, "http1.too_many_headers"))
    );
    let unfinished = format!("GET /{} HTTP/1.1", "x".repeat(64));
    assert_eq!(parse(&unfinished), Err((431, "http1.headers_too_large")));
    let finished = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(64));
    assert_eq!(parse(&finished), Err((431, "http1.headers_too_large")));
}

#[test]
fn keep_alive_follows_version_and_tokens() {
    assert!(!accepted("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").keep_alive);
    assert!(!accepted("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert!(accepted("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
}

#[test]
fn an_offer_of_h2c_is_not_seen() {
    let wire = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n";
    assert!(accepted(wire).head.headers.is_empty());
}

#[test]
fn the_body_of_a_response_follows_method_and_status() {
    let body = |method: Method, wire: &str| {
        let mut buffer = BytesMut::from(wire);
        let parsed = parse_response(&mut buffer, &mut HeadScan::default(), &H1Options::default(), &method);
        parsed.unwrap().unwrap().body
    };
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(body(Method::GET, ok), BodyLength::Fixed(5));
    assert_eq!(body(Method::HEAD, ok), BodyLength::Empty);
    assert_eq!(body(Method::CONNECT, "HTTP/1.1 200\r\n\r\n"), BodyLength::Tunnel);
    assert_eq!(body(Method::GET, "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), BodyLength::Tunnel);
    assert_eq!(body(Method::GET, "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n"), BodyLength::Empty);
    assert_eq!(body(Method::GET, "HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n"), BodyLength::Empty);
    assert_eq!(body(Method::GET, "HTTP/1.1 200 OK\r\n\r\n"), BodyLength::UntilClose);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    assert_eq!(body(Method::GET, chunked), BodyLength::Chunked);
}

#[test]
fn responses_are_framed_as_envoy_frames_them() {
    let framed = |method: Method, http_10: bool, status: u16, end: bool| {
        let mut out = BytesMut::new();
        let head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
        let answering = Answering { method, http_10, keep_alive: true };
        let body = encode_response(&mut out, &head, &answering, end, false, &H1Options::default());
        (
            String::from_utf8(
                out.split_off(out.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2).to_vec(),
            )
            .unwrap(),
            body,
        )
    };
    assert_eq!(
        framed(Method::GET, false, 200, true),
        ("content-length: 0\r\n\r\n".into(), BodyLength::Empty)
    );
    let chunked = "transfer-encoding: chunked\r\n\r\n".to_owned();
    assert_eq!(framed(Method::GET, false, 200, false), (chunked.clone(), BodyLength::Chunked));
    assert_eq!(framed(Method::HEAD, false, 200, true), (chunked, BodyLength::Empty));
    assert_eq!(framed(Method::GET, false, 204, true), ("\r\n".into(), BodyLength::Empty));
    assert_eq!(
        framed(Method::GET, true, 200, false),
        ("connection: close\r\n\r\n".into(), BodyLength::UntilClose)
    );
    assert_eq!(framed(Method::CONNECT, false, 200, false), ("\r\n".into(), BodyLength::Tunnel));
}

fn token() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,12}".prop_filter("the codec owns these", |name| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        !crate::is_hop_by_hop(&name) && name != header::HOST && name != header::CONTENT_LENGTH
    })
}

proptest! {
    #[test]
    fn parsing_undoes_encoding(
        path in "/[!-~]{0,40}",
        authority in "[a-z0-9.:-]{1,20}",
        fields in proptest::collection::vec((token(), "([!-~]([ -~]{0,20}[!-~])?)?"), 0..12),
        method in proptest::sample::select(vec![Method::GET, Method::POST, Method::PUT, Method::PATCH]),
        length in proptest::option::of(1u64..1 << 40),
    ) {
        let mut head = RequestHead::new(method, path);
        head.authority = Some(Text::from(authority));
        for (name, value) in fields {
            head.headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(&value).unwrap(),
            );
        }
        if let Some(length) = length {
            head.headers.append(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let mut wire = BytesMut::new();
        let framing = encode_request(&mut wire, &head, false, &H1Options::default());
        let parsed = parse_request(&mut wire, &mut HeadScan::default(), &H1Options::default()).unwrap().unwrap();
        prop_assert_eq!(parsed.body, framing);
        prop_assert!(wire.is_empty());
        let mut received = parsed.head;
        if length.is_none() {
            prop_assert!(received.headers.remove(&header::TRANSFER_ENCODING));
        }
        prop_assert_eq!(received, head);
    }

    #[test]
    fn no_bytes_panic_and_any_cut_gives_the_same_answer(
        wire in proptest::collection::vec(prop_oneof![
            4 => proptest::sample::select(b"\r\n: GET/HTP1.0,;chunkedContent-Length".to_vec()),
            1 => any::<u8>(),
        ], 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let limits = H1Options::default();
        let whole = parse_request(&mut BytesMut::from(&wire[..]), &mut HeadScan::default(), &limits);
        let cut = cut.index(wire.len() + 1);
        let mut scan = HeadScan::default();
        let mut buffer = BytesMut::from(&wire[..cut]);
        let first = parse_request(&mut buffer, &mut scan, &limits);
        if let Ok(None) = first {
            buffer.extend_from_slice(&wire[cut..]);
            let second = parse_request(&mut buffer, &mut scan, &limits);
            prop_assert_eq!(second.is_err(), whole.is_err());
            prop_assert_eq!(second.ok().map(|message| message.is_some()), whole.ok().map(|message| message.is_some()));
        }
    }
}
