//! Whatever a peer sends, a connection comes to an end: no panic, no hang, and the same answers however the bytes are cut.
//!
//! Inputs are pieces of real messages, damaged and put together at random, since random bytes alone never get past the
//! first line. `PROPTEST_CASES=100000` looks longer.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use meltemi_http::client::{H1, H1Options};
use meltemi_http::server::{ServerOptions, Service, serve};
use meltemi_http::{Exchange, Frame, Io, RequestHead, ResponseHead, drain};
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::service::run;

/// Far longer than any timeout of the options; time is paused, so it costs nothing.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What requests are made of, the good and the bad.
const REQUEST_PIECES: [&str; 34] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nX-Trailer: 1\r\n\r\n",
    "5;ext=1\r\n",
    "ffffffffffffffffff\r\n",
    "HEAD /h HTTP/1.1\r\n",
    "CONNECT a:80 HTTP/1.1\r\n",
    "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "GET http://a/x HTTP/1.0\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "Host: a\r\n",
    "Host: b\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: +3\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, x\r\n",
    " folded\r\n",
    "X: \0\r\n",
    "X\x01: 1\r\n",
    ": nameless\r\n",
    "\r\n",
    "\n",
    "\r",
    "abc",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\u{fffd}",
];

/// What responses are made of.
const RESPONSE_PIECES: [&str; 16] = [
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\n",
    "HTTP/1.1 999 \r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 4\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "\r\n",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "zz\r\n",
    "abc",
    "\n",
];

/// A byte to overwrite, and with what.
type Damage = Vec<(Index, u8)>;

fn pieced(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let text = proptest::collection::vec(proptest::sample::select(pieces), 1..12);
    let damage: BoxedStrategy<Damage> = proptest::collection::vec(any::<(Index, u8)>(), 0..3).boxed();
    (text, damage).prop_map(|(pieces, damage)| {
        let mut bytes = pieces.concat().into_bytes();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

/// HTTP/2 frames: real types mostly, with lengths that fit.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![9 => 0_u8..10, 1 => any::<u8>()];
    let stream = prop_oneof![8 => 0_u32..8, 1 => any::<u32>()];
    let frame = (kind, any::<u8>(), stream, proptest::collection::vec(any::<u8>(), 0..40), 0_usize..20);
    proptest::collection::vec(frame, 0..20).prop_map(|frames| {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for (kind, flags, stream, mut payload, luck) in frames {
            if kind == 1 && luck > 2 {
                // GET / http over a well-formed header block, of which the damage is only in flags and stream.
                payload = vec![0x82, 0x84, 0x86, 0x41, 0x01, b'a'];
            }
            let length = u32::try_from(payload.len()).unwrap() + u32::from(luck == 0);
            bytes.extend_from_slice(&length.to_be_bytes()[1..]);
            bytes.extend([kind, flags]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(payload);
        }
        bytes
    })
}

/// Reads what it is given, answers, and does not mind clients that break off.
struct Tolerant;

impl Service for Tolerant {
    async fn call(&self, mut exchange: Exchange<'_>) {
        while let Ok(Some(_)) = exchange.body.next().await {}
        if exchange.respond.head(ResponseHead::new(StatusCode::OK), false).await.is_ok() {
            let _gone = exchange.respond.data(Bytes::from_static(b"ok"), true).await;
        }
    }
}

/// Sends the bytes in pieces cut at `cuts`, then finishes, and gives everything that came back.
async fn conversation(bytes: &[u8], cuts: &[Index]) -> Vec<u8> {
    let (client, server) = tokio::io::duplex(1 << 16);
    let (_drain, signal) = drain();
    let options = ServerOptions { accept_http_10: true, ..ServerOptions::default() };
    let serving =
        tokio::task::spawn_local(serve(Io::Memory(server), Rc::new(options), Rc::new(Tolerant), signal));
    let (mut read, mut write) = tokio::io::split(client);
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    let sending = async {
        for pair in at.windows(2) {
            // The server may have closed already.
            let _closed = write.write_all(&bytes[pair[0]..pair[1]]).await;
            tokio::task::yield_now().await;
        }
        let _closed = write.shutdown().await;
    };
    let mut answer = Vec::new();
    let receiving = async {
        // A reset is an end like any other.
        let _ended = read.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(NEVER, async { tokio::join!(sending, receiving) })
        .await
        .expect("the connection ends");
    tokio::time::timeout(NEVER, serving).await.expect("the server ends").expect("the server does not panic");
    answer
}

/// The answers in order. Which of several faults a refusal names may depend on how far the bytes had come.
fn answers(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer).into_owned();
    let status = |at: usize| text[at..].chars().skip(9).take(3).collect::<String>();
    let class = |status: String| if status.starts_with('4') { "refused".to_owned() } else { status };
    text.match_indices("HTTP/1.").map(|(at, _)| class(status(at))).collect()
}

/// What the client makes of an upstream's bytes.
async fn exchange(bytes: &[u8]) {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let mut client = H1::new(Io::Memory(client), H1Options::default());
    let mut exchange = client.exchange();
    let mut head = RequestHead::new(Method::GET, "/");
    head.authority = Some("a".into());
    exchange.send.head(head, true).await.expect("the pipe takes a head");
    server.write_all(bytes).await.expect("the pipe takes the bytes");
    server.shutdown().await.expect("the pipe closes");
    let reading = async {
        loop {
            match exchange.recv.head().await {
                Ok(head)
                    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS => {}
                Ok(_) => break,
                Err(_) => return,
            }
        }
        while let Ok(Some(Frame::Data(_) | Frame::Trailers(_))) = exchange.recv.next().await {}
    };
    tokio::time::timeout(NEVER, reading).await.expect("the exchange ends");
}

proptest! {
    #[test]
    fn an_http1_connection_ends_the_same_way_however_its_bytes_are_cut(
        bytes in pieced(&REQUEST_PIECES),
        cuts in proptest::collection::vec(any::<Index>(), 0..6),
    ) {
        run(async {
            let whole = conversation(&bytes, &[]).await;
            let cut = conversation(&bytes, &cuts).await;
            assert_eq!(answers(&whole), answers(&cut), "{:?}", String::from_utf8_lossy(&bytes));
        });
    }

    #[test]
    fn an_http2_connection_ends(
        bytes in frames(),
        cuts in proptest::collection::vec(any::<Index>(), 0..6),
    ) {
        run(async { drop(conversation(&bytes, &cuts).await) });
    }

    #[test]
    fn an_upstream_that_says_anything_is_heard_to_its_end(bytes in pieced(&RESPONSE_PIECES)) {
        run(exchange(&bytes));
    }
}
