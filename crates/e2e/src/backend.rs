//! An upstream for tests: HTTP/1.1 and HTTP/2 by prior knowledge (hyper), told by request headers what to do,
//! remembering what it received.

mod proxied;
mod scripted;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub use scripted::Script;
pub use tls::TlsSpec;

use crate::certificates::Certificates;

/// A request as it arrived at a backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Received {
    /// Name of the backend.
    pub backend: String,
    /// Method.
    pub method: String,
    /// Path with query (`:path`).
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Header names and values, sorted; `:authority` of HTTP/2 is there as `host`.
    pub headers: Vec<(String, String)>,
    /// The body when it is short text, else its length.
    pub body: String,
    /// Trailers, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, String)>,
}

/// What kind of backend a case asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum BackendSpec {
    /// One that does what request headers say.
    Told(String),
    /// One that answers by a script.
    Scripted(Script),
    /// One that does what request headers say, behind something. After scripts, which have some of its keys.
    Behind(Behind),
}

/// What a backend that does what request headers say stands behind. Each request tells the number of its connection as
/// `:connection`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behind {
    /// Its name.
    pub name: String,
    /// Connections begin with a header of the PROXY protocol; each request tells it as `:proxy-protocol`.
    pub proxy_protocol: bool,
    /// TLS, behind that if there is both; each request tells of the handshake as `:tls`.
    pub tls: Option<TlsSpec>,
    /// Bytes are written back as they come, and no HTTP is spoken.
    pub echo: bool,
}

impl BackendSpec {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            BackendSpec::Told(name) => name,
            BackendSpec::Behind(behind) => &behind.name,
            BackendSpec::Scripted(script) => &script.name,
        }
    }
}

/// A listening backend; it stops when dropped.
#[derive(Debug)]
pub struct Backend {
    /// Its name, sent back in `x-backend`.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Backend {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(name: &str) -> anyhow::Result<Backend> {
        Backend::listen(name, true).await
    }

    /// Listens as a case asks for.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start_as(spec: &BackendSpec, certificates: &Certificates) -> anyhow::Result<Backend> {
        let script = match spec {
            BackendSpec::Told(name) => return Backend::listen(name, true).await,
            BackendSpec::Behind(behind) => return Backend::listen_behind(behind, certificates).await,
            BackendSpec::Scripted(script) => script.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let name = script.name.clone();
        let task = tokio::spawn(scripted::accept(listener, script, Arc::clone(&received)));
        Ok(Backend { name, address, received, task })
    }

    /// A backend for benchmarks: it remembers nothing and answers 1 KiB.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn quiet(name: &str) -> anyhow::Result<Backend> {
        Backend::listen(name, false).await
    }

    async fn listen(name: &str, remembers: bool) -> anyhow::Result<Backend> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let state = State::new(name, remembers, &received);
        let task = tokio::spawn(accept(listener, state));
        Ok(Backend { name: name.to_owned(), address, received, task })
    }

    async fn listen_behind(behind: &Behind, certificates: &Certificates) -> anyhow::Result<Backend> {
        let tls = behind.tls.as_ref().map(|spec| tls::acceptor(spec, certificates)).transpose()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let state = State::new(&behind.name, true, &received);
        let task = tokio::spawn(accept_behind(listener, state, behind.clone(), tls));
        Ok(Backend { name: behind.name.clone(), address, received, task })
    }

    /// Takes what has been received since the last call.
    ///
    /// # Panics
    /// If a handler panicked while it recorded.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.received.lock().expect("no handler panicked"))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct State {
    name: String,
    remembers: bool,
    received: Arc<Mutex<Vec<Received>>>,
    failures: Mutex<HashMap<String, u32>>,
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _nodelay = stream.set_nodelay(true);
        tokio::spawn(serve(stream, Arc::clone(&state), Vec::new()));
    }
}

async fn accept_behind(listener: TcpListener, state: Arc<State>, behind: Behind, tls: Option<TlsAcceptor>) {
    for number in 1_u32.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let _nodelay = stream.set_nodelay(true);
        let (state, behind, tls) = (Arc::clone(&state), behind.clone(), tls.clone());
        tokio::spawn(async move {
            let about = vec![(":connection".to_owned(), number.to_string())];
            let _ended = serve_behind(stream, state, behind, tls, about).await;
        });
    }
}

async fn serve_behind(
    mut stream: TcpStream,
    state: Arc<State>,
    behind: Behind,
    tls: Option<TlsAcceptor>,
    mut about: Vec<(String, String)>,
) -> std::io::Result<()> {
    if behind.proxy_protocol {
        about.push((proxied::PSEUDO_HEADER.to_owned(), proxied::take(&mut stream).await?));
    }
    let Some(tls) = tls else {
        serve(stream, state, about).await;
        return Ok(());
    };
    let mut stream = tls.accept(stream).await?;
    about.push((tls::PSEUDO_HEADER.to_owned(), tls::told(&stream)));
    if behind.echo {
        let (mut read, mut write) = tokio::io::split(&mut stream);
        tokio::io::copy(&mut read, &mut write).await?;
        return write.shutdown().await;
    }
    serve(stream, state, about).await;
    Ok(())
}

/// Serves a connection; every request of it tells what is known about it.
async fn serve<S>(stream: S, state: Arc<State>, about: Vec<(String, String)>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let about = Arc::new(about);
    let service = service_fn(move |request| answer(Arc::clone(&state), Arc::clone(&about), request));
    let server = auto::Builder::new(TokioExecutor::new());
    let _ended = server.serve_connection(TokioIo::new(stream), service).await;
}

type Content = BoxBody<Bytes, std::convert::Infallible>;

/// What a request asks of the backend, by headers:
/// `x-status`, `x-delay-ms`, `x-response-header: name=value` and `x-response-trailer: name=value` (also several),
/// `x-size` (bytes of body), `x-abort` (close before the response), and `x-fail-first: KEY:N:STATUS` (the first N requests with this key get STATUS, or are
/// aborted when it is 0).
async fn answer(
    state: Arc<State>,
    about: Arc<Vec<(String, String)>>,
    request: Request<Incoming>,
) -> Result<Response<Content>, std::io::Error> {
    if !state.remembers {
        return Ok(Response::new(Full::new(Bytes::from_static(&[b'x'; 1024])).boxed()));
    }
    let (head, body) = request.into_parts();
    let (body, trailers) = match body.collect().await {
        Ok(whole) => {
            let trailers = whole.trailers().cloned().unwrap_or_default();
            (whole.to_bytes(), trailers)
        }
        Err(_cut_off) => (Bytes::new(), HeaderMap::new()),
    };
    let text = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut received = received(&state.name, &head, &body, &trailers);
    received.headers.splice(0..0, about.iter().cloned());
    state.received.lock().expect("no handler panicked").push(received);
    if let Some(delay) = text("x-delay-ms").and_then(|v| v.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let mut status = text("x-status").and_then(|v| v.parse().ok()).unwrap_or(200);
    if let Some(forced) = text("x-fail-first").and_then(|spec| state.forced_failure(&spec)) {
        status = forced;
    }
    if text("x-abort").is_some() || status == 0 {
        return Err(std::io::Error::other("told to abort"));
    }
    let content = match text("x-size").and_then(|v| v.parse().ok()) {
        Some(size) => Bytes::from(vec![b'x'; size]),
        None => Bytes::from(format!("{}: {} {}\n", state.name, head.method, head.uri.path())),
    };
    let trailers: HeaderMap = named(&head.headers, "x-response-trailer").collect();
    let content = match trailers.is_empty() {
        true => Full::new(content).boxed(),
        false => Full::new(content).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed(),
    };
    let mut response = Response::new(content);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert("x-backend", HeaderValue::from_str(&state.name).expect("a name is a token"));
    for (name, value) in named(&head.headers, "x-response-header") {
        response.headers_mut().append(name, value);
    }
    Ok(response)
}

/// The pairs `name=value` that a header of the request holds.
fn named<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'h {
    headers.get_all(name).into_iter().filter_map(|pair| {
        let (name, value) = pair.to_str().ok()?.split_once('=')?;
        Some((HeaderName::try_from(name).ok()?, HeaderValue::from_str(value).ok()?))
    })
}

impl State {
    fn new(name: &str, remembers: bool, received: &Arc<Mutex<Vec<Received>>>) -> Arc<State> {
        Arc::new(State {
            name: name.to_owned(),
            remembers,
            received: Arc::clone(received),
            failures: Mutex::new(HashMap::new()),
        })
    }

    fn forced_failure(&self, spec: &str) -> Option<u16> {
        let mut parts = spec.split(':');
        let (key, count, status) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mut failures = self.failures.lock().expect("no handler panicked");
        let seen: &mut u32 = failures.entry(key.to_owned()).or_default();
        *seen += 1;
        (*seen <= count).then_some(status)
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut pairs: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    pairs.sort();
    pairs
}

fn received(backend: &str, head: &http::request::Parts, body: &Bytes, trailers: &HeaderMap) -> Received {
    let mut headers = pairs(&head.headers);
    if let (http::Version::HTTP_2, Some(authority)) = (head.version, head.uri.authority()) {
        headers.push(("host".to_owned(), authority.to_string()));
    }
    headers.sort();
    Received {
        backend: backend.to_owned(),
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string),
        version: format!("{:?}", head.version),
        headers,
        body: short(body),
        trailers: pairs(trailers),
    }
}

/// A body as it stands in a recording: short text as it is, anything else by length.
pub fn short(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) if text.len() <= 400 => text.to_owned(),
        _ => format!("<{} bytes>", body.len()),
    }
}

/// A loopback port on which nothing listens, nor will while the tests run: it stays bound.
///
/// # Errors
/// If no port can be bound.
pub fn dead_port() -> std::io::Result<u16> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let port = socket.local_addr()?.port();
    std::mem::forget(socket);
    Ok(port)
}

/// A loopback port that was free a moment ago, for who cannot take port 0.
///
/// # Errors
/// If no port can be bound.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
