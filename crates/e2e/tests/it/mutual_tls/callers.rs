//! Certificates of a test's own making, and those who call with or without one.

use std::sync::Arc;

use meltemi_e2e::tls_client::AnyServer;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A root of one's own.
pub(super) struct Root {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

/// A certificate with its key.
pub(super) struct Identity {
    pub(super) pem: String,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: KeyPair,
}

impl Root {
    pub(super) fn new() -> Root {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::OrganizationName, "a root");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a root");
        Root { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn sign(&self, id: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { pem: certificate.pem(), certificate: certificate.der().clone(), key }
    }
}

/// Who calls.
pub(super) enum Caller<'a> {
    Plaintext,
    Mutual(&'a Identity),
    /// TLS without a certificate.
    Anonymous,
}

impl Caller<'_> {
    /// Whether a workload answers.
    pub(super) async fn is_let_in(&self, port: u16) -> bool {
        self.call(port, "outbound_.80_._.reviews", "reviews").await.is_ok()
    }

    /// The certificate that the server shows, if it answers 200; else what came.
    pub(super) async fn call(
        &self,
        port: u16,
        server_name: &str,
        host: &str,
    ) -> Result<Option<CertificateDer<'static>>, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the listener is there");
        let (shown, answer) = match self.config() {
            None => (None, answer(stream, host).await),
            Some(config) => {
                let name = ServerName::try_from(server_name.to_owned()).expect("a name");
                let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                (shown.map(|certificate| certificate.clone().into_owned()), answer(stream, host).await)
            }
        };
        if answer.starts_with("HTTP/1.1 200") { Ok(shown) } else { Err(answer) }
    }

    fn config(&self) -> Option<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer::new()));
        let mut config = match self {
            Caller::Plaintext => return None,
            Caller::Anonymous => builder.with_no_client_auth(),
            Caller::Mutual(identity) => {
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![identity.certificate.clone()], key).expect("a pair")
            }
        };
        config.alpn_protocols =
            ["istio-peer-exchange", "istio", "http/1.1"].map(|name| name.as_bytes().to_vec()).into();
        Some(config)
    }
}

/// What comes back for a request; as much of it as came.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let mut received = Vec::new();
    // A connection that is cut says so at one place or the other.
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _cut = stream.read_to_end(&mut received).await;
    }
    String::from_utf8_lossy(&received).into_owned()
}
