//! Backends that speak TLS, and tell what their client asked for and showed.

use std::sync::Arc;

use meltemi_identity::{PeerCertificate, certificates_from_pem};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::Certificates;

/// The pseudo header under which a request tells of the handshake.
pub(super) const PSEUDO_HEADER: &str = ":tls";

/// How a backend speaks TLS.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSpec {
    /// The certificate that it shows.
    pub certificate: String,
    /// Who signs clients' certificates; without, none is asked for.
    pub client_ca: Option<String>,
    /// Clients may have no certificate.
    pub client_optional: bool,
    /// Protocols that it speaks, best first.
    pub alpn: Vec<String>,
    /// `1.2` or `1.3` alone.
    pub version: Option<String>,
    /// Sessions are not resumed.
    pub forgetful: bool,
}

pub(super) fn acceptor(spec: &TlsSpec, certificates: &Certificates) -> anyhow::Result<TlsAcceptor> {
    let (chain, key) = certificates.pem(&spec.certificate)?;
    let chain = certificates_from_pem(chain.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[_] = match spec.version.as_deref() {
        None => rustls::ALL_VERSIONS,
        Some("1.2") => &[&rustls::version::TLS12],
        Some("1.3") => &[&rustls::version::TLS13],
        Some(other) => anyhow::bail!("unknown version {other}"),
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let builder = match &spec.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for root in certificates_from_pem(certificates.pem(ca)?.0.as_bytes())? {
                roots.add(root)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if spec.client_optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = spec.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    if spec.forgetful {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    } else {
        config.ticketer = aws_lc_rs::Ticketer::new()?;
    }
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub(super) fn told<S>(stream: &TlsStream<S>) -> String {
    let (_, session) = stream.get_ref();
    let version = session.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
    let alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    let client = session.peer_certificates().and_then(|chain| PeerCertificate::from_der(chain.first()?).ok());
    let resumed = match session.handshake_kind() {
        Some(HandshakeKind::Resumed) => " resumed",
        _ => "",
    };
    format!(
        "{version} sni={} alpn={} client={}{resumed}",
        session.server_name().unwrap_or("-"),
        alpn.as_deref().unwrap_or("-"),
        client.map_or_else(|| "-".to_owned(), |certificate| certificate.subject.to_string()),
    )
}
