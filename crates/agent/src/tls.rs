//! TLS to the control plane: its name under the mesh's roots, and our certificate once there is one.
//! Leaves out what is said over it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use hyper_util::rt::TokioIo;
use meltemi_identity::certificates_from_pem;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use crate::limits::CONNECT_TIMEOUT;
use crate::svid::Svid;

/// Where the control plane is, and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Its TLS port.
    pub address: SocketAddr,
    /// The host name that its certificate must have.
    pub host: String,
    /// File of the roots that its certificate must lead to; read for every connection, so that a change of roots needs
    /// no restart.
    pub root_cert: std::path::PathBuf,
}

impl ControlPlane {
    /// Connects, with the certificate if it is still good, and verifies the other end.
    pub(crate) async fn connect(&self, svid: Option<&Svid>) -> io::Result<TlsStream<TcpStream>> {
        let config = self.settings(svid)?;
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let connect = async {
            let stream = TcpStream::connect(self.address).await?;
            // Refused only on a connection that is already lost.
            let _ = stream.set_nodelay(true);
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        };
        timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn settings(&self, svid: Option<&Svid>) -> io::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for root in
            read_roots(&self.root_cert)?.into_iter().chain(svid.into_iter().flat_map(|s| s.roots.clone()))
        {
            roots.add(root).map_err(io::Error::other)?;
        }
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .with_root_certificates(roots);
        let mut config = match svid.filter(|svid| svid.is_good(SystemTime::now())) {
            Some(svid) => builder
                .with_client_auth_cert(svid.chain.clone(), svid.key.to_der())
                .map_err(io::Error::other)?,
            None => builder.with_no_client_auth(),
        };
        // Every connection has the certificate of its own moment; a resumed one would have that of an earlier one.
        config.resumption = rustls::client::Resumption::disabled();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn read_roots(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let failed = |why: String| io::Error::other(format!("the roots in {}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    certificates_from_pem(&text).map_err(|e| failed(e.to_string()))
}

/// Connects gRPC channels.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) control_plane: ControlPlane,
    pub(crate) svid: Option<Arc<Svid>>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector { control_plane, svid } = self.clone();
        Box::pin(async move { control_plane.connect(svid.as_deref()).await.map(TokioIo::new) })
    }
}
