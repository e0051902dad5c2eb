//! A small service whose answer the request's path chooses, and the way to talk to it.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use meltemi_http::server::{End, ServerOptions, Service, serve};
use meltemi_http::{
    Drain, Exchange, Frame, Headers, Io, ProtocolError, Reason, RequestHead, ResponseHead, drain,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) seen: RefCell<Vec<RequestHead>>,
    pub(crate) errors: RefCell<Vec<ProtocolError>>,
    pub(crate) gone: RefCell<usize>,
    pub(crate) resets: RefCell<usize>,
}

pub(crate) fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

impl Service for Answers {
    async fn call(&self, mut exchange: Exchange<'_>) {
        self.seen.borrow_mut().push(exchange.request.clone());
        let path = exchange.request.path.clone();
        match &*path {
            "/echo" => echo(exchange, false).await,
            "/trailers" => echo(exchange, true).await,
            "/hang" => {
                exchange.respond.closed().await;
                *self.gone.borrow_mut() += 1;
                *self.resets.borrow_mut() += usize::from(exchange.respond.is_reset());
            }
            "/early" => {
                exchange.respond.head(ResponseHead::new(StatusCode::FORBIDDEN), true).await.unwrap();
            }
            "/reset" => exchange.respond.reset(Reason::INTERNAL_ERROR),
            "/hints" => {
                let mut hints = ResponseHead::new(StatusCode::EARLY_HINTS);
                hints.headers.append(HeaderName::from_static("link"), HeaderValue::from_static("</a>"));
                exchange.respond.informational(hints).await.unwrap();
                text(exchange, "done").await;
            }
            "/broken" => {
                exchange.respond.head(ResponseHead::new(StatusCode::OK), false).await.unwrap();
                exchange.respond.data(Bytes::from_static(b"part"), false).await.unwrap();
                exchange.respond.flush().await.unwrap();
            }
            "/upgrade" => upgrade(exchange, StatusCode::SWITCHING_PROTOCOLS).await,
            "" => upgrade(exchange, StatusCode::OK).await,
            "/continue" => {
                exchange.respond.informational(ResponseHead::new(StatusCode::CONTINUE)).await.unwrap();
                echo(exchange, false).await;
            }
            "/big" => text(exchange, &"x".repeat(1 << 20)).await,
            _ => text(exchange, "hello").await,
        }
    }

    fn protocol_error(&self, error: ProtocolError) -> (ResponseHead, Bytes) {
        self.errors.borrow_mut().push(error);
        let (mut head, body) = error.answer();
        let (name, value) = field("server", "test");
        head.headers.append(name, value);
        (head, body)
    }
}

async fn text(mut exchange: Exchange<'_>, body: &str) {
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers.append(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if exchange.request.method == Method::HEAD {
        exchange.respond.head(head, true).await.unwrap();
        return;
    }
    exchange.respond.head(head, false).await.unwrap();
    exchange.respond.data(Bytes::copy_from_slice(body.as_bytes()), true).await.unwrap();
}

/// Reads the whole request, then sends it back in one chunk.
async fn echo(mut exchange: Exchange<'_>, trailers: bool) {
    let mut body = Vec::new();
    let mut received = Headers::new();
    while let Some(frame) = exchange.body.next().await.unwrap() {
        match frame {
            Frame::Data(data) => body.extend_from_slice(&data),
            Frame::Trailers(fields) => received = fields,
        }
    }
    exchange.respond.head(ResponseHead::new(StatusCode::OK), false).await.unwrap();
    exchange.respond.data(Bytes::from(body), !trailers).await.unwrap();
    if trailers {
        exchange.respond.trailers(received).await.unwrap();
    }
}

/// Accepts the upgrade and turns the tunnel's bytes around.
async fn upgrade(mut exchange: Exchange<'_>, status: StatusCode) {
    let mut head = ResponseHead::new(status);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        head.headers.append(http::header::UPGRADE, HeaderValue::from_static("echo"));
    }
    exchange.respond.upgrade(head).await.unwrap();
    while let Some(Frame::Data(data)) = exchange.body.next().await.unwrap() {
        exchange.respond.data(data, false).await.unwrap();
        exchange.respond.flush().await.unwrap();
    }
    exchange.respond.data(Bytes::new(), true).await.unwrap();
}

/// A server on one end of a pipe, and the other end.
pub(crate) struct Server {
    pub(crate) client: DuplexStream,
    pub(crate) answers: Rc<Answers>,
    pub(crate) drain: Drain,
    pub(crate) end: JoinHandle<End>,
}

impl Server {
    /// Needs a `LocalSet` around it.
    pub(crate) fn start(options: ServerOptions) -> Server {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (drain, signal) = drain();
        let answers = Rc::new(Answers::default());
        let end = tokio::task::spawn_local(serve(
            Io::Memory(server),
            Rc::new(options),
            Rc::clone(&answers),
            signal,
        ));
        Server { client, answers, drain, end }
    }

    pub(crate) async fn send(&mut self, wire: &str) {
        self.client.write_all(wire.as_bytes()).await.unwrap();
    }

    /// Reads exactly this; shows what came instead.
    pub(crate) async fn expect(&mut self, wire: &str) {
        let mut received = Vec::new();
        while received.len() < wire.len() {
            let mut piece = vec![0; wire.len() - received.len()];
            match self.client.read(&mut piece).await.unwrap() {
                0 => break,
                count => received.extend_from_slice(&piece[..count]),
            }
        }
        assert_eq!(String::from_utf8_lossy(&received), wire);
    }

    /// Reads to the end and returns how the server saw it.
    pub(crate) async fn expect_end(mut self, wire: &str) -> End {
        let mut received = Vec::new();
        self.client.read_to_end(&mut received).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&received), wire);
        drop(self.client);
        self.end.await.unwrap()
    }
}

/// Runs a test where `!Send` tasks can be spawned, with paused time.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}
