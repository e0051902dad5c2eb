//! A server of configuration, and how it is reached: plain, by a Unix socket, or over the TLS of its cluster.
//!
//! A handshake is bounded by the cluster's `connect_timeout`; what fails or hangs is tried again by the xDS client, with
//! its back-off. Secrets are those of the moment, so that a certificate that was rotated is shown from the next
//! connection on. Source: Envoy's async gRPC client, which uses the cluster as a route would.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use meltemi_compile::program::Cluster;
use meltemi_compile::tls::UpstreamTls;
use meltemi_xds::client::{Connector, Options, Transport};
use tokio::net::TcpStream;

use crate::tls::{ClientContext, Contexts, Expected};

/// The protocol of gRPC, where the context names none.
const ALPN: &[&str] = &["h2"];

/// A handshake takes no longer than this, whatever the cluster says.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug, Clone)]
pub struct Server {
    /// What is asked, and by which name.
    pub options: Options,
    /// TLS, if the cluster has it.
    pub secured: Option<Secured>,
}

/// The TLS of a server of configuration.
#[derive(Debug, Clone)]
pub struct Secured {
    tls: Arc<UpstreamTls>,
    /// `HOST:PORT`.
    address: Box<str>,
    /// For `auto_host_sni`.
    hostname: Box<str>,
    connect_timeout: Duration,
}

impl From<Options> for Server {
    fn from(options: Options) -> Server {
        Server { options, secured: None }
    }
}

impl Server {
    /// The options with what makes connections.
    pub(super) fn connected(self, contexts: &Contexts) -> Options {
        let Server { mut options, secured } = self;
        options.connector = secured.map(|secured| {
            let secured = Arc::new(secured);
            let context = contexts.client(&secured.tls);
            Connector::new(move || {
                let (secured, context) = (Arc::clone(&secured), Arc::clone(&context));
                Box::pin(async move { secured.connect(&context).await })
            })
        });
        options
    }
}

impl Secured {
    pub(super) fn new(
        cluster: &Cluster,
        tls: &Arc<UpstreamTls>,
        address: String,
        hostname: Box<str>,
    ) -> Secured {
        let connect_timeout = cluster.connect_timeout.min(CONNECT_MAX);
        Secured { tls: Arc::clone(tls), address: address.into(), hostname, connect_timeout }
    }

    async fn connect(&self, context: &ClientContext) -> io::Result<Box<dyn Transport>> {
        match tokio::time::timeout(self.connect_timeout, self.handshake(context)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS within connect_timeout")),
        }
    }

    async fn handshake(&self, context: &ClientContext) -> io::Result<Box<dyn Transport>> {
        let stream = TcpStream::connect(&*self.address).await?;
        // Refused only on a connection that is already lost.
        let _ = stream.set_nodelay(true);
        let expected = Expected { default_alpn: ALPN, ..Expected::default() };
        match context.connect(stream, &expected, &self.hostname).await {
            Ok((stream, _)) => Ok(Box::new(stream)),
            Err(failure) => {
                let reason = failure.reason();
                let reason = reason.unwrap_or_else(|| "the server closed during the handshake".to_owned());
                Err(io::Error::other(reason))
            }
        }
    }
}
