//! What the HTTP/1 client writes, and how it reads what servers answer.

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Method, StatusCode};
use meltemi_http::client::{H1, H1Options};
use meltemi_http::{ClientError, Frame, Io, RequestHead, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::service::{field, run};

fn pair() -> (H1, DuplexStream) {
    let (client, server) = tokio::io::duplex(1 << 16);
    (H1::new(Io::Memory(client), H1Options::default()), server)
}

fn get(path: &str) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, path);
    head.authority = Some("shop".into());
    head
}

async fn expect(server: &mut DuplexStream, wire: &str) {
    let mut received = vec![0; wire.len()];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&received), wire);
}

/// Sends a request, lets the server answer and end there, and returns what the client made of it.
async fn answer(request: RequestHead, wire: &str) -> (Result<(u16, Vec<u8>), ClientError>, bool) {
    let (mut client, mut server) = pair();
    let mut exchange = client.exchange();
    exchange.send.head(request, true).await.unwrap();
    server.write_all(wire.as_bytes()).await.unwrap();
    let outcome = async {
        let mut head = exchange.recv.head().await?;
        while head.status.is_informational() {
            head = exchange.recv.head().await?;
        }
        let mut body = Vec::new();
        if !wire.contains("length") && !wire.contains("chunked") {
            server.shutdown().await.unwrap();
        }
        while let Some(frame) = exchange.recv.next().await? {
            if let Frame::Data(data) = frame {
                body.extend_from_slice(&data);
            }
        }
        Ok((head.status.as_u16(), body))
    };
    let outcome = outcome.await;
    (outcome, client.is_reusable())
}

#[test]
fn requests_have_host_first_and_own_their_framing() {
    run(async {
        let (mut client, mut server) = pair();
        let mut exchange = client.exchange();
        let mut head = get("/a?b");
        head.headers = [
            field("x-one", "1"),
            field("connection", "keep-alive"),
            field("te", "trailers"),
            field("transfer-encoding", "gzip"),
        ]
        .into_iter()
        .collect();
        exchange.send.head(head, true).await.unwrap();
        expect(&mut server, "GET /a?b HTTP/1.1\r\nhost: shop\r\nx-one: 1\r\nte: trailers\r\n\r\n").await;
        server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        let response = exchange.recv.head().await.unwrap();
        assert_eq!((response.status, response.version), (StatusCode::OK, Version::Http11));
        assert_eq!(exchange.recv.content_length(), Some(2));
        assert_eq!(exchange.recv.next().await.unwrap(), Some(Frame::Data(Bytes::from_static(b"ok"))));
        assert!(exchange.recv.is_end());
        assert!(client.is_reusable());
        let mut exchange = client.exchange();
        let mut post = get("/");
        post.method = Method::POST;
        exchange.send.head(post, false).await.unwrap();
        exchange.send.data(Bytes::from_static(b"abc"), false).await.unwrap();
        exchange.send.trailers([field("x-sum", "3")].into_iter().collect()).await.unwrap();
        expect(
            &mut server,
            "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n",
        )
        .await;
        drop(exchange);
        assert!(!client.is_reusable());
    });
}

#[test]
fn the_end_of_a_response_decides_about_reuse() {
    run(async {
        let ok = |body: &str| Ok::<_, String>((200, body.as_bytes().to_vec()));
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", ok("ok"), true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", ok("ok"), true),
            ("HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ok(""), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", ok("ok"), false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", ok("ok"), false),
            ("HTTP/1.1 200 OK\r\n\r\nok", ok("ok"), false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more", ok("ok"), false),
        ];
        for (wire, expected, reusable) in cases {
            let (outcome, reuse) = answer(get("/"), wire).await;
            assert_eq!(outcome.map_err(|error| error.to_string()), expected, "{wire:?}");
            assert_eq!(reuse, reusable, "{wire:?}");
        }
        let mut head = get("/");
        head.method = Method::HEAD;
        let (outcome, reuse) = answer(head, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
        assert_eq!((outcome.unwrap(), reuse), ((200, Vec::new()), true));
    });
}

#[test]
fn broken_responses_are_protocol_errors() {
    run(async {
        for wire in [
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "SSH-2.0-OpenSSH length\r\n\r\n",
        ] {
            let (outcome, reusable) = answer(get("/"), wire).await;
            assert!(matches!(outcome, Err(ClientError::Protocol(_))), "{wire:?}: {outcome:?}");
            assert!(!reusable);
        }
    });
}

#[test]
fn where_the_connection_ended_is_told() {
    run(async {
        for (wire, before) in
            [("", true), ("HTTP/1.1 2", false), ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nx", false)]
        {
            let (mut client, mut server) = pair();
            let mut exchange = client.exchange();
            exchange.send.head(get("/"), true).await.unwrap();
            server.write_all(wire.as_bytes()).await.unwrap();
            drop(server);
            let error = async {
                exchange.recv.head().await?;
                while exchange.recv.next().await?.is_some() {}
                Ok(())
            };
            match error.await {
                Err(ClientError::ClosedBeforeResponse) => assert!(before, "{wire:?}"),
                Err(ClientError::Truncated) => assert!(!before, "{wire:?}"),
                other => panic!("{wire:?}: {other:?}"),
            }
            assert!(!client.is_reusable());
        }
    });
}

#[test]
fn an_idle_connection_shows_that_it_died() {
    run(async {
        let (mut client, server) = pair();
        let closed = |client: &mut H1| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            client.poll_idle_closed(&mut context).is_ready()
        };
        assert!(!closed(&mut client));
        assert!(client.is_reusable());
        drop(server);
        assert!(closed(&mut client));
        assert!(!client.is_reusable());
    });
}

#[test]
fn an_upgrade_turns_both_directions_raw_or_is_refused() {
    run(async {
        let upgrade = || {
            let mut head = get("/");
            head.headers.append(http::header::UPGRADE, HeaderValue::from_static("echo"));
            head.headers.append(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
            head
        };
        let (mut client, mut server) = pair();
        let mut exchange = client.exchange();
        exchange.send.head(upgrade(), false).await.unwrap();
        exchange.send.flush().await.unwrap();
        expect(&mut server, "GET / HTTP/1.1\r\nhost: shop\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n")
            .await;
        server.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\n\r\nhi").await.unwrap();
        assert_eq!(exchange.recv.head().await.unwrap().status, 101);
        assert_eq!(exchange.recv.next().await.unwrap(), Some(Frame::Data(Bytes::from_static(b"hi"))));
        exchange.send.data(Bytes::from_static(b"raw"), false).await.unwrap();
        exchange.send.flush().await.unwrap();
        expect(&mut server, "raw").await;
        drop(server);
        assert_eq!(exchange.recv.next().await.unwrap(), None);
        assert!(!client.is_reusable());
        let (mut client, mut server) = pair();
        let mut exchange = client.exchange();
        exchange.send.head(upgrade(), false).await.unwrap();
        exchange.send.flush().await.unwrap();
        server.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(exchange.recv.head().await.unwrap().status, 403);
        assert!(client.is_reusable());
    });
}

#[test]
fn more_or_less_body_than_announced_is_the_callers_error() {
    run(async {
        for (data, end) in [("abc", false), ("a", true)] {
            let (mut client, _server) = pair();
            let mut exchange = client.exchange();
            let mut head = get("/");
            head.headers.append(http::header::CONTENT_LENGTH, HeaderValue::from_static("2"));
            exchange.send.head(head, false).await.unwrap();
            let sent = exchange.send.data(Bytes::from_static(data.as_bytes()), end).await;
            assert!(matches!(sent, Err(ClientError::Misuse(_))), "{sent:?}");
            assert!(!client.is_reusable());
        }
    });
}
