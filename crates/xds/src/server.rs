//! The server end: [`Stream`] is the protocol of one client without sockets, [`serve`] listens, and [`serve_on`] serves
//! connections that somebody else accepts, over TLS or a Unix socket, with other services beside.
//!
//! A [`Provider`] gives each client its configuration as a watched value, and hears what became of it.

use std::net::SocketAddr;
use std::sync::Arc;

use meltemi_envoy::config::core::v3::Node;
use tokio::sync::watch;

use crate::{Config, Mode};

mod by_type;
mod secrets;
mod serve;
mod stream;
mod subscription;

pub use crate::message::{Request, Response};
pub use serve::{Error, Service, serve, serve_on};
pub use stream::{Action, Answer, Event, Rejection, Sent, Stream};

/// What a connection proves of its other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: plaintext.
    Plaintext,
    /// It came through a socket of the file system, whose permissions decide who can.
    UnixSocket,
    /// TLS. The name is that of the client's verified certificate, if it has shown one.
    Tls(Option<Arc<str>>),
}

/// The other end of a connection: what [`serve_on`] expects as a connection's information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it comes from; `0.0.0.0:0` for a Unix socket.
    pub address: SocketAddr,
    /// What it proves.
    pub proof: Proof,
}

/// One client of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Unique in this process; a proxy that reconnects is another client.
    pub id: u64,
    /// What the first request says of the proxy.
    pub node: Node,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// What the connection proves of its other end.
    pub proof: Proof,
    /// The variant of the protocol.
    pub mode: Mode,
}

/// The client is not served; the text goes to it as the gRPC status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What it says of itself makes no sense: `INVALID_ARGUMENT`.
    #[error("{0}")]
    Invalid(String),
    /// It is not who it says it is: `PERMISSION_DENIED`.
    #[error("{0}")]
    Denied(String),
}

/// Where configurations come from, and who hears what became of them. The calls must not block: they run on
/// the task that serves the client. [`Provider::connect`] alone runs on a thread of its own and may take time.
pub trait Provider: Send + Sync + 'static {
    /// Completes once there is something to serve; clients that come earlier wait. Cancel safe.
    fn ready(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// A client has said who it is. Newer values of the receiver supersede older ones; a client that is busy
    /// skips values.
    ///
    /// # Errors
    /// If the client cannot be served; the stream ends with the refusal's status.
    fn connect(&self, client: &Client) -> Result<watch::Receiver<Arc<Config>>, Refusal>;

    /// The client is about to be answered this request: for resources that exist only because somebody asks for them.
    fn requested(&self, client: &Client, request: &Request) {
        let _ = (client, request);
    }

    /// An update went out.
    fn sent(&self, client: &Client, sent: &Sent);

    /// The client has taken an update.
    fn acked(&self, client: &Client, answer: &Answer);

    /// The client has refused an update, in whole or in part.
    fn rejected(&self, client: &Client, rejection: &Rejection);

    /// A request came that was made before the client saw the latest response of its type; it is left alone.
    fn stale(&self, client: &Client, type_url: &str) {
        let _ = (client, type_url);
    }

    /// The stream is gone.
    fn disconnected(&self, client: &Client);
}
