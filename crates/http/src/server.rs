//! The server side of a connection: from accepted stream to calls of a [`Service`].

mod deadline;
pub(crate) mod h1;
pub(crate) mod h2;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use self::deadline::Deadline;
use crate::h1::H1Options;
use crate::h1::connection::Connection;
use crate::{DrainSignal, DrainStage, Exchange, H2Options, Io, ProtocolError, ResponseHead};

/// What an HTTP/2 connection starts with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What answers requests. Runs on one thread; HTTP/1 calls it one request after the other, HTTP/2 in one local task per
/// stream.
pub trait Service {
    /// Answers one request. Returning with the response unfinished breaks the exchange off.
    fn call(&self, exchange: Exchange<'_>) -> impl Future<Output = ()>;

    /// An HTTP/2 connection ends because of a request that no service saw. For logs and counters.
    fn connection_error(&self, _detail: &'static str) {}

    /// The codec could not hand over a broken request. For logs and counters, and what to answer: a body with the
    /// fields that go with it.
    fn protocol_error(&self, error: ProtocolError) -> (ResponseHead, Bytes) {
        error.answer()
    }
}

/// Which versions a connection may speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// HTTP/2 when the connection starts with its preface, HTTP/1 otherwise.
    #[default]
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 with prior knowledge only.
    Http2,
}

/// Settings of the connections of one listener.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Versions spoken.
    pub codec: Codec,
    /// HTTP/1 settings, and the limits of a head for both versions.
    pub h1: H1Options,
    /// `accept_http_10`, default off: 426.
    pub accept_http_10: bool,
    /// A connection without a request in flight closes after this, default 1 h; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// `request_headers_timeout`: from the first byte of a head to its last, default off. Answers 408.
    pub headers_timeout: Option<Duration>,
    /// `stream_idle_timeout`, as far as it bounds the same: off is 5 min, for a head is always bounded.
    pub stream_idle_timeout: Option<Duration>,
    /// `max_requests_per_connection`; `None` is unlimited.
    pub max_requests: Option<u32>,
    /// `max_connection_duration`: drain the connection when it is this old; `None` is never.
    pub max_connection_duration: Option<Duration>,
    /// `delayed_close_timeout`: how long a closing side waits for the peer to read its last bytes, default 1 s.
    pub delayed_close_timeout: Duration,
    /// HTTP/2 settings.
    pub h2: H2Options,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            codec: Codec::Auto,
            h1: H1Options::default(),
            accept_http_10: false,
            idle_timeout: Some(Duration::from_secs(3600)),
            headers_timeout: None,
            stream_idle_timeout: None,
            max_requests: None,
            max_connection_duration: None,
            delayed_close_timeout: Duration::from_secs(1),
            h2: H2Options::default(),
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed it between requests.
    ClosedByPeer,
    /// `idle_timeout` passed.
    Idle,
    /// `max_connection_duration` passed; what ran then was served.
    TooOld,
    /// We closed it: `connection: close`, drained, `max_requests`, a broken-off exchange.
    ClosedByUs,
    /// The client broke the protocol.
    Protocol(ProtocolError),
    /// The stream failed.
    Io(io::ErrorKind),
}

/// What the loops of both versions need.
struct Context<S> {
    options: Rc<ServerOptions>,
    service: Rc<S>,
    drain: DrainSignal,
    deadline: Deadline,
    started: Instant,
}

/// Serves one connection to its end. Needs a `LocalSet` or `LocalRuntime` around it (HTTP/2 spawns local tasks).
/// Dropping the future closes the connection at once.
pub async fn serve<S: Service + 'static>(
    io: Io,
    options: Rc<ServerOptions>,
    service: Rc<S>,
    drain: DrainSignal,
) -> End {
    let agreed = agreed(&io).filter(|_| options.codec == Codec::Auto);
    let connection = Connection::new(io, BytesMut::new(), options.h1);
    let deadline = Deadline::default();
    let mut context = Context { options, service, drain, deadline, started: Instant::now() };
    let is_h2 = match agreed.unwrap_or(context.options.codec) {
        Codec::Http1 => false,
        Codec::Http2 => true,
        Codec::Auto => match sniff(&connection, &mut context).await {
            Ok(is_h2) => is_h2,
            Err(end) => return end,
        },
    };
    if is_h2 {
        let (io, prefix) = connection.into_parts();
        // Boxed: the state of `h2` is large, and an HTTP/1 connection should not pay for it.
        return Box::pin(h2::run(io, prefix, context)).await;
    }
    h1::run(connection, context).await
}

/// What client and server agreed upon in the TLS handshake; whatever it is but HTTP/2, they mean HTTP/1.
fn agreed(io: &Io) -> Option<Codec> {
    match io.tls()?.session().state().alpn_protocol()? {
        b"h2" => Some(Codec::Http2),
        _ => Some(Codec::Http1),
    }
}

/// Reads until it is clear whether the connection starts with the HTTP/2 preface.
async fn sniff<S: Service>(connection: &Connection, context: &mut Context<S>) -> Result<bool, End> {
    context.deadline.arm(context.idle_allowance());
    loop {
        {
            let reader = connection.reader();
            let length = reader.buffer.len().min(PREFACE.len());
            if reader.buffer[..length] != PREFACE[..length] {
                return Ok(false);
            }
            if length == PREFACE.len() {
                return Ok(true);
            }
        }
        context.fill(connection).await?;
    }
}

impl<S: Service> Context<S> {
    /// Reads more bytes on a connection that has no exchange in progress.
    async fn fill(&mut self, connection: &Connection) -> Result<(), End> {
        let Context { drain, deadline, .. } = self;
        let fill = std::future::poll_fn(|cx| connection.poll_fill(cx));
        tokio::select! {
            biased;
            filled = fill => match filled {
                Ok(0) => Err(End::ClosedByPeer),
                Ok(_) => Ok(()),
                Err(error) => Err(End::from_io(&error)),
            },
            () = deadline.passed() => Err(if self.is_too_old() { End::TooOld } else { End::Idle }),
            () = drain.reached(DrainStage::Closing) => Err(End::ClosedByUs),
        }
    }

    /// How long the connection may be idle from now on.
    fn idle_allowance(&self) -> Option<Duration> {
        let age_left =
            self.options.max_connection_duration.map(|max| max.saturating_sub(self.started.elapsed()));
        match (self.options.idle_timeout, age_left) {
            (Some(idle), Some(age)) => Some(idle.min(age)),
            (idle, age) => idle.or(age),
        }
    }

    /// Whether the connection has reached `max_connection_duration`.
    fn is_too_old(&self) -> bool {
        self.options.max_connection_duration.is_some_and(|max| self.started.elapsed() >= max)
    }
}

impl End {
    fn from_io(error: &io::Error) -> End {
        if crate::error::is_disconnect(error.kind()) { End::ClosedByPeer } else { End::Io(error.kind()) }
    }
}
