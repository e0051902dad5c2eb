//! The server end: [`Stream`] is the protocol of one client without sockets, [`serve`] listens.
//!
//! A [`Provider`] gives each client its configuration as a watched value, and hears what became of it.

use std::net::SocketAddr;
use std::sync::Arc;

use meltemi_envoy::config::core::v3::Node;
use tokio::sync::watch;

use crate::{Config, Mode};

mod serve;
mod stream;
mod subscription;

pub use crate::message::{Request, Response};
pub use serve::{Error, serve};
pub use stream::{Action, Answer, Event, Rejection, Sent, Stream};

/// One client of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Unique in this process; a proxy that reconnects is another client.
    pub id: u64,
    /// What the first request says of the proxy.
    pub node: Node,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// The variant of the protocol.
    pub mode: Mode,
}

/// The client is not served; the text goes to it as the gRPC status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Where configurations come from, and who hears what became of them. The calls must not block: they run on
/// the task that serves the client. [`Provider::connect`] alone runs on a thread of its own and may take time.
pub trait Provider: Send + Sync + 'static {
    /// A client has said who it is. Newer values of the receiver supersede older ones; a client that is busy
    /// skips values.
    ///
    /// # Errors
    /// If the client cannot be served; the stream ends with `INVALID_ARGUMENT`.
    fn connect(&self, client: &Client) -> Result<watch::Receiver<Arc<Config>>, Refusal>;

    /// An update went out.
    fn sent(&self, client: &Client, sent: &Sent);

    /// The client has taken an update.
    fn acked(&self, client: &Client, answer: &Answer);

    /// The client has refused an update, in whole or in part.
    fn rejected(&self, client: &Client, rejection: &Rejection);

    /// The stream is gone.
    fn disconnected(&self, client: &Client);
}
