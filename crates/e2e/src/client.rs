//! Clients for tests: hyper over one fresh connection, and raw bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

/// A whole response.
pub type Answer = Response<Bytes>;

/// How long a call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// Sends one HTTP/1.1 request over a connection of its own.
///
/// # Errors
/// If the connection fails or no complete response comes within 15 s.
pub async fn http1(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Answer> {
    let call = async {
        let stream = tokio::net::TcpStream::connect(address).await.context("connect")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        whole(sender.send_request(request.map(Full::new)).await?).await
    };
    tokio::time::timeout(CALL_DEADLINE, call).await.context("no answer in time")?
}

/// Sends one HTTP/2 request by prior knowledge over a connection of its own.
///
/// # Errors
/// If the connection fails or no complete response comes within 15 s.
pub async fn http2(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Answer> {
    let call = async {
        let stream = tokio::net::TcpStream::connect(address).await.context("connect")?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        whole(sender.send_request(request.map(Full::new)).await?).await
    };
    tokio::time::timeout(CALL_DEADLINE, call).await.context("no answer in time")?
}

async fn whole(response: Response<hyper::body::Incoming>) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// A `GET` of `url_path` for `host`.
///
/// # Errors
/// As [`http1`].
pub async fn get(address: SocketAddr, host: &str, url_path: &str) -> anyhow::Result<Answer> {
    let request = Request::get(url_path).header("host", host).body(Bytes::new())?;
    http1(address, request).await
}

/// What came back for raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RawAnswer {
    /// Status code of each response in order.
    pub statuses: Vec<u16>,
    /// Whether the peer closed the connection within the waiting time.
    pub closed: bool,
}

/// How long a peer may say nothing before the connection counts as kept: longer than Envoy's
/// `delayed_close_timeout` of a second, after which it closes a connection that it has given up.
const QUIET: Duration = Duration::from_millis(1800);

/// Sends bytes as they are, and reads until the peer closes or says nothing for a while.
///
/// # Errors
/// If the connection cannot be made.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<RawAnswer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(QUIET))?;
    let _early_close = stream.write_all(bytes);
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    let closed = loop {
        match stream.read(&mut chunk) {
            Ok(0) => break true,
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break false,
            Err(_reset) => break true,
        }
    };
    Ok(RawAnswer { statuses: statuses(&String::from_utf8_lossy(&all)), closed })
}

fn statuses(text: &str) -> Vec<u16> {
    let starts = text.match_indices("HTTP/1.").filter(|(at, _)| *at == 0 || text[..*at].ends_with('\n'));
    starts.filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}
