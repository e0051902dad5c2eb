//! The TLS port of the control plane: its own certificate, and who is at the other end of each connection. Clients may
//! show a certificate, and one that is shown must be good; what somebody without one may do is decided where it asks.
//! Leaves out the services on it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use meltemi_identity::{Authority, Certificate, Csr, Key, KeyKind, Serial, SpiffeId, TrustDomain};
use meltemi_runtime::task;
use meltemi_xds::server::{Peer, Proof};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::limits::{
    ACCEPT_PAUSE, ACCEPTED_QUEUE, HANDSHAKE_TIMEOUT, MAX_HANDSHAKES, SERVING_CERTIFICATE_TTL,
};

/// The namespace and service account of a control plane. Istio's.
const CONTROL_PLANE: (&str, &str) = ("istio-system", "istiod");

/// The names under which agents look for a control plane. Istio's.
const HOSTS: [&str; 5] = [
    "istiod.istio-system.svc",
    "istiod.istio-system.svc.cluster.local",
    "istiod",
    "istio-pilot.istio-system.svc",
    "localhost",
];

/// TLS settings of the port under this authority, and how long they are good.
fn settings(
    authority: &Authority,
    address: SocketAddr,
    now: SystemTime,
) -> anyhow::Result<(ServerConfig, Duration)> {
    let (namespace, account) = CONTROL_PLANE;
    let id = SpiffeId::of_service_account(authority.trust_domain(), namespace, account)?;
    let hosts: Vec<String> = HOSTS.map(str::to_owned).into_iter().chain([address.ip().to_string()]).collect();
    let key = Key::generate(KeyKind::EcdsaP256)?;
    let csr = Csr::from_pem(Csr::make(&key, &id)?.as_bytes())?;
    let serial = Serial::new(meltemi_identity::random()?);
    let issued = authority.sign_server(&csr, (&id, &hosts), SERVING_CERTIFICATE_TTL, now, serial)?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.clone()).context("a root")?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .context("the roots")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(issued.chain, key.to_der())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((config, issued.not_after.duration_since(now).unwrap_or_default()))
}

/// Keeps TLS settings fresh: made anew at half of the certificate's life, and when the authority changes.
pub(crate) struct Settings {
    configs: watch::Sender<Arc<ServerConfig>>,
    authority: watch::Receiver<Arc<Authority>>,
    address: SocketAddr,
    renew_in: Duration,
}

impl Settings {
    /// The first settings.
    ///
    /// # Errors
    /// If the authority cannot sign.
    pub(crate) fn new(
        mut authority: watch::Receiver<Arc<Authority>>,
        address: SocketAddr,
    ) -> anyhow::Result<Settings> {
        let current = Arc::clone(&authority.borrow_and_update());
        let (config, lifetime) = settings(&current, address, SystemTime::now())?;
        let (configs, _) = watch::channel(Arc::new(config));
        Ok(Settings { configs, authority, address, renew_in: lifetime / 2 })
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.configs.subscribe()
    }

    /// Runs for ever. What cannot be renewed is tried again, and what was good stays.
    pub(crate) async fn keep(mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.renew_in) => {}
                changed = self.authority.changed() => if changed.is_err() { return },
            }
            let authority = Arc::clone(&self.authority.borrow_and_update());
            match settings(&authority, self.address, SystemTime::now()) {
                Ok((config, lifetime)) => {
                    self.renew_in = lifetime / 2;
                    self.configs.send_replace(Arc::new(config));
                }
                Err(error) => {
                    self.renew_in = Duration::from_secs(1).max(self.renew_in / 2);
                    let error = format!("{error:#}");
                    tracing::error!(%error, "the control plane's own certificate cannot be renewed");
                }
            }
        }
    }
}

/// A connection whose handshake is done.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What accepts connections.
pub(crate) struct Acceptor {
    listener: TcpListener,
    configs: watch::Receiver<Arc<ServerConfig>>,
    trust_domains: Arc<[TrustDomain]>,
}

impl Acceptor {
    pub(crate) fn new(
        listener: TcpListener,
        configs: watch::Receiver<Arc<ServerConfig>>,
        trust_domains: &[TrustDomain],
    ) -> Acceptor {
        Acceptor { listener, configs, trust_domains: trust_domains.into() }
    }

    /// The connections as they finish their handshakes, each of which has a task and a time of its own.
    pub(crate) fn connections(self) -> ReceiverStream<io::Result<Connection>> {
        let (accepted, receiver) = mpsc::channel(ACCEPTED_QUEUE);
        task::spawn("secure acceptor", self.run(accepted)).detach();
        ReceiverStream::new(receiver)
    }

    async fn run(self, accepted: mpsc::Sender<io::Result<Connection>>) {
        let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = tokio::select! {
                stream = self.listener.accept() => stream,
                () = accepted.closed() => return,
            };
            let (stream, address) = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    // Of this connection alone, or no descriptors are left; then others must end first.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let config = Arc::clone(&self.configs.borrow());
            let (accepted, trust_domains) = (accepted.clone(), Arc::clone(&self.trust_domains));
            let handshake = async move {
                match timeout(HANDSHAKE_TIMEOUT, handshake(stream, address, config, &trust_domains)).await {
                    Ok(Ok(connection)) => drop(accepted.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::debug!(peer = %address, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(peer = %address, "TLS handshake took too long"),
                }
                drop(place);
            };
            task::spawn("secure handshake", handshake).detach();
        }
    }
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    trust_domains: &[TrustDomain],
) -> io::Result<Connection> {
    // Refused only on a connection that is already lost.
    let _ = stream.set_nodelay(true);
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let name = shown.map(|leaf| identity(leaf, trust_domains)).transpose().map_err(io::Error::other)?;
    Ok(Connection { stream, peer: Peer { address, proof: Proof::Tls(name) } })
}

/// The id of a certificate whose chain was verified.
fn identity(leaf: &CertificateDer<'_>, trust_domains: &[TrustDomain]) -> Result<Arc<str>, String> {
    let id = Certificate::from_der(leaf).and_then(|facts| facts.spiffe_id()).map_err(|e| e.to_string())?;
    if !trust_domains.contains(id.trust_domain()) {
        return Err(format!("the trust domain of {id} is not ours"));
    }
    Ok(id.as_str().into())
}
