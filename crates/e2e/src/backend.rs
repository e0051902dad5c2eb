//! An upstream for tests: HTTP/1.1 and HTTP/2 by prior knowledge (hyper), told by request headers what to do,
//! remembering what it received.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// A request as it arrived at a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        let state = Arc::new(State {
            name: name.to_owned(),
            remembers,
            received: Arc::clone(&received),
            failures: Mutex::new(HashMap::new()),
        });
        let task = tokio::spawn(accept(listener, state));
        Ok(Backend { name: name.to_owned(), address, received, task })
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
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            let server = auto::Builder::new(TokioExecutor::new());
            let _ended = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// What a request asks of the backend, by headers:
/// `x-status`, `x-delay-ms`, `x-response-header: name=value`, `x-size` (bytes of body), `x-abort` (close before
/// the response), and `x-fail-first: KEY:N:STATUS` (the first N requests with this key get STATUS, or are
/// aborted when it is 0).
async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    if !state.remembers {
        return Ok(Response::new(Full::new(Bytes::from_static(&[b'x'; 1024]))));
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    state.received.lock().expect("no handler panicked").push(received(&state.name, &head, &body));
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
    let mut response = Response::new(Full::new(content));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert("x-backend", HeaderValue::from_str(&state.name).expect("a name is a token"));
    if let Some((name, value)) = text("x-response-header").as_deref().and_then(|v| v.split_once('='))
        && let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value))
    {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

impl State {
    fn forced_failure(&self, spec: &str) -> Option<u16> {
        let mut parts = spec.split(':');
        let (key, count, status) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mut failures = self.failures.lock().expect("no handler panicked");
        let seen: &mut u32 = failures.entry(key.to_owned()).or_default();
        *seen += 1;
        (*seen <= count).then_some(status)
    }
}

fn received(backend: &str, head: &http::request::Parts, body: &Bytes) -> Received {
    let mut headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
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
    }
}

/// A body as it stands in a recording: short text as it is, anything else by length.
pub fn short(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) if text.len() <= 400 => text.to_owned(),
        _ => format!("<{} bytes>", body.len()),
    }
}

/// A loopback port on which nothing listens: bound and given back at once.
///
/// # Errors
/// If no port can be bound.
pub fn dead_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
