//! Clients for tests: hyper over one fresh connection, and raw bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::tls_client::{self, Agreed, TlsClient};

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

/// A response in all its parts.
#[derive(Debug, Default)]
pub struct Whole {
    /// Status, 0 when none came.
    pub status: u16,
    /// Informational responses before it.
    pub informational: Vec<u16>,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// What came of the body.
    pub body: Vec<u8>,
    /// Trailers in order.
    pub trailers: Vec<(String, String)>,
    /// Why the body did not end well.
    pub broken: Option<String>,
    /// What the TLS handshake agreed upon.
    pub tls: Option<Agreed>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type SendBody = BoxBody<Bytes, std::convert::Infallible>;

/// Sends one request over a connection of its own and takes in everything of the response. With `cancel` the exchange is
/// given up after that time.
///
/// # Errors
/// If the connection cannot be made or a call without `cancel` hangs for 15 s.
pub async fn whole_call(
    address: SocketAddr,
    http2: bool,
    request: Request<Bytes>,
    trailers: &[(String, String)],
    cancel: Option<Duration>,
    tls: Option<&TlsClient>,
) -> anyhow::Result<Whole> {
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        map.append(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
    }
    let body = |bytes: Bytes| -> SendBody {
        match map.is_empty() {
            true => Full::new(bytes).boxed(),
            false => Full::new(bytes).with_trailers(std::future::ready(Some(Ok(map.clone())))).boxed(),
        }
    };
    let mut request = request.map(body);
    let interim = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&interim);
    hyper::ext::on_informational(&mut request, move |response| {
        seen.lock().expect("no handler panicked").push(response.status().as_u16());
    });
    let call = async {
        let stream = tokio::net::TcpStream::connect(address).await.context("connect")?;
        let mut agreed = None;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(tls) => match tls.connect(stream).await {
                Ok(stream) => {
                    agreed = Some(tls_client::agreed(&stream));
                    Box::new(stream)
                }
                Err(error) => {
                    let broken = Some(tls_client::alert(error.as_ref()));
                    return Ok(Whole { broken, ..Whole::default() });
                }
            },
        };
        let io = TokioIo::new(stream);
        let sent = if http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection.with_upgrades());
            sender.send_request(request).await
        };
        let mut whole = match sent {
            Ok(response) => collect(response).await,
            // Whether the alert arrives before the end of the connection is a matter of timing.
            Err(_) if tls.is_some() => Whole { broken: Some("refused".to_owned()), ..Whole::default() },
            Err(_) => Whole::default(),
        };
        whole.tls = agreed;
        whole.informational = interim.lock().expect("no handler panicked").clone();
        anyhow::Ok(whole)
    };
    match cancel {
        Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Ok(Whole::default())),
        None => tokio::time::timeout(CALL_DEADLINE, call).await.context("no answer in time")?,
    }
}

async fn collect(response: Response<hyper::body::Incoming>) -> Whole {
    let (head, mut body) = response.into_parts();
    let mut whole = Whole { status: head.status.as_u16(), headers: pairs(&head.headers), ..Whole::default() };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) if frame.is_data() => whole.body.extend(frame.into_data().iter().flatten()),
            Ok(frame) => whole.trailers = frame.into_trailers().as_ref().map(pairs).unwrap_or_default(),
            Err(error) => {
                whole.broken = Some(broken(&error));
                break;
            }
        }
    }
    whole
}

/// An HTTP/2 reset by its code; anything else only as itself, since its wording is hyper's.
fn broken(error: &hyper::Error) -> String {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    match source.and_then(h2::Error::reason) {
        Some(reason) => format!("{reason:?}"),
        None => "cut off".to_owned(),
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// What came back for raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RawAnswer {
    /// Status code of each response in order.
    pub statuses: Vec<u16>,
    /// Whether the peer closed the connection within the waiting time.
    pub closed: bool,
    /// What came, by line, when the call asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Vec<String>>,
    /// HTTP/2 frames that tell how it ended: resets and GOAWAY with their codes, each kind once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<String>,
}

/// How long a peer may say nothing before the connection counts as kept: longer than Envoy's
/// `delayed_close_timeout` of a second, after which it closes a connection that it has given up.
const QUIET: Duration = Duration::from_millis(1800);

/// How long a peer may say nothing between two pieces of what is sent.
const STEP_QUIET: Duration = Duration::from_millis(300);

/// Sends bytes as they are, and reads until the peer closes or says nothing for a while. Between two pieces it waits for
/// the peer to say something, but not long.
///
/// # Errors
/// If the connection cannot be made.
pub fn raw_steps(address: SocketAddr, steps: &[String]) -> anyhow::Result<RawAnswer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut all = Vec::new();
    let mut closed = false;
    for (number, step) in steps.iter().enumerate() {
        let _early_close = stream.write_all(step.as_bytes());
        if number + 1 < steps.len() {
            stream.set_read_timeout(Some(STEP_QUIET))?;
            closed = read_some(&mut stream, &mut all).is_err();
        }
    }
    stream.set_read_timeout(Some(QUIET))?;
    if !closed {
        closed = read_to_end(&mut stream, &mut all);
    }
    let text = String::from_utf8_lossy(&all).into_owned();
    Ok(RawAnswer { statuses: statuses(&text), closed, text: Some(vec![text]), frames: Vec::new() })
}

/// As [`raw_steps`] with one piece, without keeping the text.
///
/// # Errors
/// If the connection cannot be made.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<RawAnswer> {
    let bytes = String::from_utf8_lossy(bytes).into_owned();
    Ok(RawAnswer { text: None, ..raw_steps(address, &[bytes])? })
}

/// One read; an error when the peer has closed.
fn read_some(stream: &mut TcpStream, all: &mut Vec<u8>) -> Result<(), ()> {
    let mut chunk = [0; 16384];
    match stream.read(&mut chunk) {
        Ok(0) => Err(()),
        Ok(n) => {
            all.extend_from_slice(&chunk[..n]);
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(_reset) => Err(()),
    }
}

/// Whether the peer closed before it was quiet for the stream's time.
fn read_to_end(stream: &mut TcpStream, all: &mut Vec<u8>) -> bool {
    loop {
        let before = all.len();
        match read_some(stream, all) {
            Err(()) => return true,
            Ok(()) if all.len() == before => return false,
            Ok(()) => {}
        }
    }
}

/// HTTP/2 frames from hexadecimal text.
///
/// # Errors
/// If the text is not pairs of hexadecimal digits.
pub fn frames(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    digits.chunks(2).map(pair).collect()
}

/// The HTTP/2 preface with empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Opens an HTTP/2 connection, sends frames as they are and reads until the peer closes or is quiet.
///
/// # Errors
/// If the connection cannot be made.
pub fn raw_http2(address: SocketAddr, frames: &[u8]) -> anyhow::Result<RawAnswer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(QUIET))?;
    let mut writer = stream.try_clone()?;
    let bytes = [PREFACE, frames].concat();
    // The peer may stop reading; it must still be heard.
    let writing = std::thread::spawn(move || writer.write_all(&bytes));
    let mut all = Vec::new();
    let closed = read_to_end(&mut stream, &mut all);
    let _both = stream.shutdown(std::net::Shutdown::Both);
    let _early_close = writing.join();
    let mut seen = endings(&all);
    seen.sort();
    seen.dedup();
    Ok(RawAnswer { statuses: Vec::new(), closed, text: None, frames: seen })
}

/// The frames that end streams or the connection.
fn endings(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((payload, next)) = rest.split_at_checked(length) else { break };
        let code = |at: usize| payload.get(at..at + 4).map_or(0, |code| u32::from(code[3]));
        match kind {
            0 if flags & 1 == 1 => found.push("DATA END_STREAM".to_owned()),
            1 if flags & 1 == 1 => found.push("HEADERS END_STREAM".to_owned()),
            3 => found.push(format!("RST_STREAM {}", code(0))),
            7 => found.push(format!("GOAWAY {}", code(4))),
            _ => {}
        }
        bytes = next;
    }
    found
}

fn statuses(text: &str) -> Vec<u16> {
    let starts = text.match_indices("HTTP/1.").filter(|(at, _)| *at == 0 || text[..*at].ends_with('\n'));
    starts.filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}
