//! HTTP/2 between our client and our server, both ends real.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use meltemi_http::client::{ClientExchange, H2};
use meltemi_http::server::{Codec, End, ServerOptions};
use meltemi_http::{
    ClientError, DrainStage, Frame, H2Options, Headers, Io, Keepalive, Reason, RequestHead, ResponseHead,
    Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::service::{Server, field, run};

fn request(method: Method, path: &str) -> RequestHead {
    let mut head = RequestHead::new(method, path);
    head.authority = Some("shop:80".into());
    head.scheme = Some("http".into());
    head
}

struct Pair {
    client: H2,
    driver: JoinHandle<Result<(), ClientError>>,
    server: Server,
}

async fn connect(options: ServerOptions) -> Pair {
    let mut server = Server::start(options);
    let (unused, _) = tokio::io::duplex(1);
    let io = std::mem::replace(&mut server.client, unused);
    let (client, driver) = H2::handshake(Io::Memory(io), &H2Options::default()).await.unwrap();
    Pair { client, driver: tokio::task::spawn_local(driver.run()), server }
}

async fn read(
    exchange: &mut ClientExchange<'_>,
) -> Result<(ResponseHead, Vec<u8>, Option<Headers>), ClientError> {
    let head = exchange.recv.head().await?;
    let mut body = Vec::new();
    let mut trailers = None;
    while let Some(frame) = exchange.recv.next().await? {
        match frame {
            Frame::Data(data) => body.extend_from_slice(&data),
            Frame::Trailers(fields) => trailers = Some(fields),
        }
    }
    Ok((head, body, trailers))
}

async fn get(client: &H2, path: &str) -> Result<(ResponseHead, Vec<u8>, Option<Headers>), ClientError> {
    let mut exchange = client.open().await?;
    exchange.send.head(request(Method::GET, path), true).await?;
    read(&mut exchange).await
}

#[test]
fn heads_bodies_and_trailers_pass_both_ways() {
    run(async {
        let pair = connect(ServerOptions::default()).await;
        let mut exchange = pair.client.open().await.unwrap();
        let mut head = request(Method::POST, "/trailers?q");
        head.path = "/trailers".into();
        head.headers = [
            field("cookie", "a=1"),
            field("cookie", "b=2"),
            field("x-one", "1"),
            field("connection", "close"),
            field("transfer-encoding", "chunked"),
        ]
        .into_iter()
        .collect();
        exchange.send.head(head, false).await.unwrap();
        exchange.send.data(Bytes::from_static(b"abc"), false).await.unwrap();
        exchange.send.trailers([field("x-sum", "3")].into_iter().collect()).await.unwrap();
        let (response, body, trailers) = read(&mut exchange).await.unwrap();
        assert_eq!((response.status, response.version), (StatusCode::OK, Version::Http2));
        assert_eq!(body, b"abc");
        assert_eq!(trailers.unwrap(), [field("x-sum", "3")].into_iter().collect::<Headers>());
        assert!(exchange.recv.is_end() && exchange.send.is_finished());
        let seen = pair.server.answers.seen.borrow()[0].clone();
        assert_eq!(seen.authority.as_deref(), Some("shop:80"));
        assert_eq!(seen.scheme.as_deref(), Some("http"));
        assert_eq!((&*seen.path, seen.version), ("/trailers", Version::Http2));
        assert_eq!(seen.headers.get_str(&header::COOKIE), Some("a=1; b=2"));
        assert!(!seen.headers.contains(&header::CONNECTION));
    });
}

#[test]
fn bodies_larger_than_the_windows_pass_side_by_side() {
    run(async {
        let h2 = H2Options {
            initial_stream_window_bytes: 1 << 16,
            initial_connection_window_bytes: 1 << 17,
            ..H2Options::default()
        };
        let pair = connect(ServerOptions { h2, ..ServerOptions::default() }).await;
        let exchanges = (0..8u8).map(|index| {
            let client = pair.client.clone();
            async move {
                let mut exchange = client.open().await.unwrap();
                exchange.send.head(request(Method::POST, "/echo"), false).await.unwrap();
                let ClientExchange { send, recv } = &mut exchange;
                let body = vec![index; 700_000];
                let sending = async {
                    for piece in body.chunks(100_000) {
                        send.data(Bytes::copy_from_slice(piece), false).await.unwrap();
                    }
                    send.data(Bytes::new(), true).await.unwrap();
                };
                let receiving = async {
                    assert_eq!(recv.head().await.unwrap().status, 200);
                    let mut received = Vec::new();
                    while let Some(Frame::Data(data)) = recv.next().await.unwrap() {
                        received.extend_from_slice(&data);
                    }
                    received
                };
                let ((), received) = tokio::join!(sending, receiving);
                assert!(received == body);
                assert_eq!((send.sent_bytes(), recv.received_bytes()), (700_000, 700_000));
            }
        });
        futures::future::join_all(exchanges).await;
        assert_eq!(pair.client.active(), 0);
    });
}

#[test]
fn informational_responses_come_first() {
    run(async {
        let pair = connect(ServerOptions::default()).await;
        let mut exchange = pair.client.open().await.unwrap();
        exchange.send.head(request(Method::GET, "/hints"), true).await.unwrap();
        let hints = exchange.recv.head().await.unwrap();
        assert_eq!(hints.status, StatusCode::EARLY_HINTS);
        assert_eq!(hints.headers.get_str(&header::LINK), Some("</a>"));
        let (head, body, _) = read(&mut exchange).await.unwrap();
        assert_eq!((head.status, &body[..]), (StatusCode::OK, &b"done"[..]));
    });
}

#[test]
fn a_head_request_has_no_body() {
    run(async {
        let pair = connect(ServerOptions::default()).await;
        let mut exchange = pair.client.open().await.unwrap();
        exchange.send.head(request(Method::HEAD, "/"), true).await.unwrap();
        let (head, body, _) = read(&mut exchange).await.unwrap();
        assert_eq!(head.headers.get(&header::CONTENT_LENGTH), Some(&HeaderValue::from_static("5")));
        assert!(body.is_empty());
    });
}

#[test]
fn a_reset_tells_its_reason_and_a_given_up_exchange_reaches_the_service() {
    run(async {
        let pair = connect(ServerOptions::default()).await;
        assert!(matches!(get(&pair.client, "/reset").await, Err(ClientError::Reset(Reason::INTERNAL_ERROR))));
        let mut exchange = pair.client.open().await.unwrap();
        exchange.send.head(request(Method::GET, "/hang"), true).await.unwrap();
        tokio::select! {
            biased;
            head = exchange.recv.head() => panic!("{head:?}"),
            () = async { while pair.server.answers.seen.borrow().len() < 2 { tokio::task::yield_now().await } } => {}
        }
        drop(exchange);
        while *pair.server.answers.gone.borrow() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pair.client.active(), 0);
        assert_eq!(get(&pair.client, "/").await.unwrap().1, b"hello");
    });
}

#[test]
fn a_reset_is_told_from_the_end_of_the_connection() {
    run(async {
        let pair = connect(ServerOptions::default()).await;
        let answers = &pair.server.answers;
        for (calls, resets) in [(1, 1), (2, 1)] {
            let mut exchange = pair.client.open().await.unwrap();
            exchange.send.head(request(Method::GET, "/hang"), true).await.unwrap();
            while answers.seen.borrow().len() < calls {
                tokio::task::yield_now().await;
            }
            if calls == 2 {
                pair.driver.abort();
            } else {
                drop(exchange);
            }
            while *answers.gone.borrow() < calls {
                tokio::task::yield_now().await;
            }
            assert_eq!(*answers.resets.borrow(), resets);
        }
    });
}

#[test]
fn draining_lets_streams_finish_and_refuses_new_ones() {
    run(async {
        let pair = connect(ServerOptions::default()).await;
        let mut exchange = pair.client.open().await.unwrap();
        exchange.send.head(request(Method::POST, "/echo"), false).await.unwrap();
        exchange.send.data(Bytes::from_static(b"a"), false).await.unwrap();
        while pair.server.answers.seen.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        pair.server.drain.advance(DrainStage::Draining);
        while !pair.client.is_closed() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(pair.client.open().await, Err(ClientError::Refused)));
        exchange.send.data(Bytes::from_static(b"b"), true).await.unwrap();
        assert_eq!(read(&mut exchange).await.unwrap().1, b"ab");
        drop(exchange);
        assert_eq!(pair.server.end.await.unwrap(), End::ClosedByUs);
        pair.driver.await.unwrap().unwrap();
    });
}

#[test]
fn opening_waits_at_the_stream_limit() {
    run(async {
        let h2 = H2Options { max_concurrent_streams: 1, ..H2Options::default() };
        let pair = connect(ServerOptions { h2, ..ServerOptions::default() }).await;
        assert_eq!(get(&pair.client, "/").await.unwrap().1, b"hello");
        assert_eq!(pair.client.max_streams(), 1);
        let first = pair.client.open().await.unwrap();
        let mut second = Box::pin(pair.client.open());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
    });
}

#[test]
fn a_lost_connection_fails_what_is_in_flight_and_is_not_used_again() {
    run(async {
        let pair = connect(ServerOptions::default()).await;
        let mut exchange = pair.client.open().await.unwrap();
        exchange.send.head(request(Method::GET, "/hang"), true).await.unwrap();
        while pair.server.answers.seen.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        pair.server.end.abort();
        let failed = exchange.recv.head().await;
        assert!(matches!(failed, Err(ClientError::ClosedBeforeResponse)), "{failed:?}");
        assert!(pair.client.is_closed());
        assert!(matches!(pair.client.open().await, Err(ClientError::Refused)));
    });
}

#[test]
fn an_idle_connection_is_given_up_after_a_goodbye() {
    run(async {
        let options =
            ServerOptions { idle_timeout: Some(Duration::from_secs(60)), ..ServerOptions::default() };
        let pair = connect(options).await;
        assert_eq!(get(&pair.client, "/").await.unwrap().1, b"hello");
        let started = tokio::time::Instant::now();
        assert_eq!(pair.server.end.await.unwrap(), End::Idle);
        assert!(started.elapsed() >= Duration::from_secs(60) && started.elapsed() < Duration::from_secs(62));
        assert!(pair.client.is_closed());
    });
}

#[test]
fn the_first_bytes_choose_the_version_unless_it_is_fixed() {
    run(async {
        for (codec, works) in [(Codec::Auto, true), (Codec::Http2, true), (Codec::Http1, false)] {
            let pair = connect(ServerOptions { codec, ..ServerOptions::default() }).await;
            assert_eq!(get(&pair.client, "/").await.is_ok(), works, "{codec:?}");
        }
        let mut server = Server::start(ServerOptions { codec: Codec::Http2, ..ServerOptions::default() });
        server.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(matches!(server.end.await.unwrap(), End::Protocol(_)));
    });
}

#[test]
fn connect_is_a_tunnel_of_data_frames() {
    run(async {
        let pair = connect(ServerOptions::default()).await;
        let mut exchange = pair.client.open().await.unwrap();
        let mut head = request(Method::CONNECT, "");
        head.scheme = None;
        exchange.send.head(head, false).await.unwrap();
        assert_eq!(exchange.recv.head().await.unwrap().status, 200);
        exchange.send.data(Bytes::from_static(b"raw"), false).await.unwrap();
        assert_eq!(exchange.recv.next().await.unwrap(), Some(Frame::Data(Bytes::from_static(b"raw"))));
        exchange.send.data(Bytes::new(), true).await.unwrap();
        assert_eq!(exchange.recv.next().await.unwrap(), None);
    });
}

/// A frame by hand.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// `GET` with this path and these literal fields, in HPACK without compression.
fn header_block(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    // The static table: :method GET is 2, :scheme http is 6, the name :path is 4.
    let mut block = vec![0x82, 0x86];
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    block.extend([&[0x04][..], &text(path)].concat());
    for (name, value) in fields {
        block.extend([&[0x00][..], &text(name), &text(value)].concat());
    }
    block
}

#[test]
fn streams_opened_only_to_be_reset_end_the_connection() {
    run(async {
        let mut server = Server::start(ServerOptions::default());
        server.client.write_all(PREFACE).await.unwrap();
        let block = header_block("/hang", &[("host", "a")]);
        let mut pairs = 0;
        // One at a time, so that every stream is accepted before its reset.
        while !server.end.is_finished() && pairs < 1000 {
            let stream = 2 * pairs + 1;
            let opened = server.client.write_all(&frame(1, 5, stream, &block)).await;
            if opened.is_err() {
                break;
            }
            while server.answers.seen.borrow().len() <= pairs as usize && !server.end.is_finished() {
                tokio::task::yield_now().await;
            }
            let _ended = server.client.write_all(&frame(3, 0, stream, &[0, 0, 0, 8])).await;
            tokio::task::yield_now().await;
            pairs += 1;
        }
        let End::Protocol(error) = server.end.await.unwrap() else { panic!("the flood is over its limit") };
        assert_eq!(error.detail, "too_many_premature_resets");
        assert!((250..=260).contains(&pairs), "{pairs}");
    });
}

#[test]
fn control_frames_for_nothing_end_the_connection() {
    run(async {
        let floods = [frame(2, 0, 1, &[0, 0, 0, 3, 1]), frame(8, 0, 0, &[0, 0, 0, 1])];
        for flood in floods {
            let mut server = Server::start(ServerOptions::default());
            server.client.write_all(PREFACE).await.unwrap();
            server.client.write_all(&flood.repeat(500)).await.unwrap();
            assert!(matches!(server.end.await.unwrap(), End::Io(std::io::ErrorKind::InvalidData)));
        }
    });
}

#[test]
fn a_host_that_is_none_resets_the_stream() {
    run(async {
        let h2 = H2Options { stream_errors: true, ..H2Options::default() };
        let mut server = Server::start(ServerOptions { h2, ..ServerOptions::default() });
        server.client.write_all(PREFACE).await.unwrap();
        let wrong: [&[(&str, &str)]; 2] = [&[("host", "a b/c")], &[("host", "a"), ("host", "b")]];
        for (fields, stream) in wrong.into_iter().zip([1, 3]) {
            let request = frame(1, 5, stream, &header_block("/", fields));
            server.client.write_all(&request).await.unwrap();
            let reset = frame(3, 0, stream, &[0, 0, 0, 1]);
            let mut received = Vec::new();
            while !received.windows(reset.len()).any(|window| window == reset) {
                assert!(server.client.read_buf(&mut received).await.unwrap() > 0, "{received:?}");
            }
        }
        assert!(server.answers.seen.borrow().is_empty());
    });
}

#[test]
fn a_malformed_request_ends_its_connection() {
    run(async {
        // `te` knows one value; two lengths are one too many even when they agree.
        let wrong: [&[(&str, &str)]; 2] =
            [&[("te", "gzip")], &[("content-length", "0"), ("content-length", "0")]];
        for fields in wrong {
            let mut server = Server::start(ServerOptions::default());
            server.client.write_all(PREFACE).await.unwrap();
            server.client.write_all(&frame(1, 5, 1, &header_block("/", fields))).await.unwrap();
            assert!(matches!(server.end.await.unwrap(), End::Protocol(_)), "{fields:?}");
            assert!(server.answers.seen.borrow().is_empty());
        }
    });
}

#[test]
fn a_peer_that_answers_no_ping_is_left() {
    run(async {
        let keepalive = Some(Keepalive { interval: Duration::from_secs(1), timeout: Duration::from_secs(2) });
        let h2 = H2Options { keepalive, ..H2Options::default() };
        let mut server = Server::start(ServerOptions { h2, ..ServerOptions::default() });
        server.client.write_all(PREFACE).await.unwrap();
        let start = tokio::time::Instant::now();
        assert_eq!(server.end.await.unwrap(), End::Idle);
        assert_eq!(start.elapsed().as_secs(), 3);
    });
}
