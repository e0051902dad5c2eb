//! The TLS side of a test's client: believes every server, and tells what was agreed upon.

use std::sync::Arc;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::Certificates;

/// How a call speaks TLS.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsCall {
    /// Server name; empty is none. Default `shop.example`.
    pub sni: Option<String>,
    /// ALPN, in order.
    pub alpn: Vec<String>,
    /// The certificate to show.
    pub certificate: Option<String>,
    /// `1.2` or `1.3`; default both.
    pub version: Option<String>,
    /// Cipher suites, as rustls names them; default all.
    pub suites: Vec<String>,
    /// Sign nothing but RSA: the client knows no ECDSA.
    pub rsa_only: bool,
    /// Records of at most so many bytes, 32 at least: the hello is split over several.
    pub record_bytes: Option<usize>,
}

/// What was agreed upon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Agreed {
    /// Version.
    pub version: String,
    /// Cipher suite.
    pub suite: String,
    /// ALPN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// Common name of the server's certificate.
    pub server: String,
    /// The session was resumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
}

/// A client that may come again, with the sessions that it remembers.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    sni: String,
}

impl TlsClient {
    /// As a call wishes.
    ///
    /// # Errors
    /// If it names a certificate, version or suite that is not there.
    pub fn new(call: &TlsCall, certificates: &Certificates) -> anyhow::Result<TlsClient> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if !call.suites.is_empty() {
            provider.cipher_suites.retain(|suite| {
                let name = format!("{:?}", suite.suite());
                call.suites.contains(&name)
            });
        }
        let versions: &[_] = match call.version.as_deref() {
            None => &[&rustls::version::TLS13, &rustls::version::TLS12],
            Some("1.2") => &[&rustls::version::TLS12],
            Some("1.3") => &[&rustls::version::TLS13],
            Some(other) => anyhow::bail!("no version {other}"),
        };
        let mut verifier = AnyServer::new();
        let is_rsa = |scheme: &SignatureScheme| format!("{scheme:?}").starts_with("RSA");
        verifier.schemes.retain(|scheme| !call.rsa_only || is_rsa(scheme));
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &call.certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (chain, key) = certificates.pem(name)?;
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
            }
        };
        config.alpn_protocols = call.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.max_fragment_size = call.record_bytes;
        let sni = call.sni.clone().unwrap_or_else(|| "shop.example".to_owned());
        config.enable_sni = !sni.is_empty();
        Ok(TlsClient { config: Arc::new(config), sni })
    }

    /// Does the handshake over a connection.
    ///
    /// # Errors
    /// If the server does not agree.
    pub async fn connect(&self, stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
        let name = if self.sni.is_empty() { "none.example" } else { &self.sni };
        let name = ServerName::try_from(name.to_owned()).context("server name")?;
        Ok(TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?)
    }
}

/// What was agreed upon on a connection.
pub fn agreed(stream: &TlsStream<TcpStream>) -> Agreed {
    let (_, session) = stream.get_ref();
    let text = |value: Option<String>| value.unwrap_or_default();
    let server = session.peer_certificates().and_then(|chain| chain.first());
    let server = server.and_then(|leaf| meltemi_identity::PeerCertificate::from_der(leaf).ok());
    Agreed {
        version: text(session.protocol_version().map(|version| format!("{version:?}"))),
        suite: text(session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()))),
        alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        server: server.map(|facts| facts.subject).unwrap_or_default(),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

/// The alert in an error's causes, else nothing but that it broke.
pub fn alert(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let inner = io.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = inner.or_else(|| error.downcast_ref()) {
            return format!("alert {alert:?}");
        }
        cause = match io {
            Some(inner) => inner.source(),
            None => error.source(),
        };
    }
    "closed".to_owned()
}

/// Believes that any server is who it says, once it has proved to hold the key of its certificate: which certificate that was
/// is looked at afterwards.
#[derive(Debug)]
pub struct AnyServer {
    algorithms: WebPkiSupportedAlgorithms,
    schemes: Vec<SignatureScheme>,
}

impl AnyServer {
    /// With the algorithms of the default provider.
    pub fn new() -> AnyServer {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        AnyServer { schemes: algorithms.supported_schemes(), algorithms }
    }
}

impl Default for AnyServer {
    fn default() -> AnyServer {
        AnyServer::new()
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
