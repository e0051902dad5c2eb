//! Listener filters: where a connection wanted to go, whether it speaks TLS, which HTTP it speaks.
//!
//! They look at the first bytes without taking them. Source: Envoy's `original_dst`, `tls_inspector` and
//! `http_inspector`.

use std::net::SocketAddr;
use std::time::Duration;

use meltemi_compile::program::ListenerFilter;
use tokio::net::TcpStream;

use super::client_hello::{self, ClientHello};

/// How much of a connection is looked at; a ClientHello may be as long.
const MAX_BYTES: usize = 16 << 10;

/// First and longest pause while more bytes are needed: a peek finds the same bytes again, so readiness does not tell.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// The preface of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What was found out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Sniffed {
    /// Where the connection went before it was redirected here.
    pub(super) original_destination: Option<SocketAddr>,
    /// SNI.
    pub(super) server_name: Option<Box<str>>,
    /// `tls`, `raw_buffer`, or empty when nobody looked.
    pub(super) transport_protocol: &'static str,
    /// ALPN, or the HTTP version.
    pub(super) application_protocols: Vec<Box<str>>,
}

/// What some first bytes tell.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// More bytes are needed.
    More,
    /// All that can be known.
    Done,
}

/// Runs the filters; `None` when the connection broke.
pub(super) async fn sniff(stream: &TcpStream, filters: &[ListenerFilter]) -> Option<Sniffed> {
    let mut sniffed = Sniffed::default();
    if filters.contains(&ListenerFilter::OriginalDst) {
        sniffed.original_destination = original_destination(stream);
    }
    let tls = filters.contains(&ListenerFilter::TlsInspector);
    let http = filters.contains(&ListenerFilter::HttpInspector);
    if !tls && !http {
        return Some(sniffed);
    }
    let mut buffer = vec![0; MAX_BYTES];
    let mut pause = PAUSES.0;
    loop {
        let count = stream.peek(&mut buffer).await.ok()?;
        let is_last = count == 0 || count == buffer.len();
        if look(&buffer[..count], tls, http, &mut sniffed) == Look::Done || is_last {
            return Some(sniffed);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let original = socket.original_dst_v4().or_else(|_| socket.original_dst_v6()).ok()?;
    original.as_socket()
}

fn look(bytes: &[u8], tls: bool, http: bool, sniffed: &mut Sniffed) -> Look {
    if tls {
        match client_hello::parse(bytes) {
            ClientHello::Partial => return Look::More,
            ClientHello::Whole { server_name, protocols } => {
                sniffed.transport_protocol = "tls";
                sniffed.server_name = server_name;
                sniffed.application_protocols = protocols;
                return Look::Done;
            }
            ClientHello::None => sniffed.transport_protocol = "raw_buffer",
        }
    }
    if http { look_for_http(bytes, sniffed) } else { Look::Done }
}

fn look_for_http(bytes: &[u8], sniffed: &mut Sniffed) -> Look {
    if PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]) {
        if bytes.len() < PREFACE.len() {
            return Look::More;
        }
        sniffed.application_protocols = vec!["h2c".into()];
        return Look::Done;
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if could_be_method(bytes) { Look::More } else { Look::Done };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if line.ends_with(b" HTTP/1.1") {
        sniffed.application_protocols = vec!["http/1.1".into()];
    } else if line.ends_with(b" HTTP/1.0") {
        sniffed.application_protocols = vec!["http/1.0".into()];
    }
    Look::Done
}

/// Whether this is how a request line begins.
fn could_be_method(bytes: &[u8]) -> bool {
    let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    method.len() <= 32 && method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(bytes: &[u8]) -> (Look, Vec<Box<str>>) {
        let mut sniffed = Sniffed::default();
        (look(bytes, false, true, &mut sniffed), sniffed.application_protocols)
    }

    #[test]
    fn versions_of_http_are_told_apart() {
        assert_eq!(http(b"GET / HTTP/1.1\r\n"), (Look::Done, vec!["http/1.1".into()]));
        assert_eq!(http(b"GET / HTTP/1.0\r\n"), (Look::Done, vec!["http/1.0".into()]));
        assert_eq!(http(PREFACE), (Look::Done, vec!["h2c".into()]));
        assert_eq!(http(b"PRI * HT"), (Look::More, vec![]));
        assert_eq!(http(b"GET /a"), (Look::More, vec![]));
        assert_eq!(http(b"\x00\x01binary"), (Look::Done, vec![]));
    }
}
