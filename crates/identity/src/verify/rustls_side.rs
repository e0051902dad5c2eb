//! [`Rules`] as rustls asks for them, on either side of a connection.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Refusal, Role, Rules, Trust};

/// Whether a client shows a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is not asked for one.
    Unasked,
    /// It may.
    Optional,
    /// It must.
    Required,
}

/// Believes peers by [`Rules`].
#[derive(Debug)]
pub struct PeerVerifier {
    rules: Arc<Rules>,
    presence: Presence,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    /// For servers: of clients by these rules. `names_authorities` tells clients whom we trust, so that they can choose
    /// among their certificates.
    pub fn of_clients(rules: Arc<Rules>, presence: Presence, names_authorities: bool) -> PeerVerifier {
        let hints = if names_authorities { hints(&rules) } else { Vec::new() };
        PeerVerifier { rules, presence, hints, algorithms: algorithms() }
    }

    /// For clients: of servers by these rules. The name that was asked for does not count, as in Envoy: the rules name
    /// who may answer.
    pub fn of_servers(rules: Arc<Rules>) -> PeerVerifier {
        PeerVerifier { rules, presence: Presence::Required, hints: Vec::new(), algorithms: algorithms() }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(), Error> {
        match self.rules.check(leaf, intermediates, role, now) {
            Ok(()) => Ok(()),
            Err(_) if self.rules.accepts_untrusted => Ok(()),
            Err(refusal) => Err(Error::InvalidCertificate(certificate_error(refusal))),
        }
    }
}

/// Whoever shows a certificate signs with its key, so that must be what the key is for; `enforce_rsa_key_usage` changes
/// nothing about it in Envoy 1.40.
fn check_usage(certificate: &CertificateDer<'_>) -> Result<(), Error> {
    match may_sign(certificate) {
        true => Ok(()),
        false => Err(Error::InvalidCertificate(other(Refusal::KeyUsage))),
    }
}

/// A usage that is not said is any usage.
fn may_sign(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    parsed.key_usage().ok().flatten().is_none_or(|usage| usage.value.digital_signature())
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

/// The subjects of the anchors, each once.
fn hints(rules: &Rules) -> Vec<DistinguishedName> {
    let anchors = match &rules.trust {
        Trust::NoChain => Vec::new(),
        Trust::Roots(anchors) => vec![anchors],
        Trust::Domains(domains) => domains.values().collect(),
    };
    let mut subjects: Vec<Vec<u8>> = Vec::new();
    for der in anchors.into_iter().flat_map(|anchors| anchors.certificates()) {
        let Ok((_, parsed)) = X509Certificate::from_der(der) else { continue };
        let subject = parsed.subject().as_raw();
        if !subjects.iter().any(|known| known == subject) {
            subjects.push(subject.to_vec());
        }
    }
    subjects.into_iter().map(DistinguishedName::from).collect()
}

/// The error by which rustls chooses the alert; ours is in it where rustls has no word for it.
fn certificate_error(refusal: Refusal) -> CertificateError {
    match &refusal {
        Refusal::Chain(error) => match error {
            webpki::Error::CertExpired { .. } => CertificateError::Expired,
            webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
            webpki::Error::CertRevoked => CertificateError::Revoked,
            webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
            webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
            webpki::Error::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
            webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
            _ => other(refusal),
        },
        _ => other(refusal),
    }
}

fn other(refusal: Refusal) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(refusal)))
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.presence != Presence::Unasked
    }

    fn client_auth_mandatory(&self) -> bool {
        self.presence == Presence::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, Role::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.rules.accepts_untrusted && !matches!(self.rules.trust, Trust::NoChain) && !may_sign(cert) {
            // With TLS 1.2, BoringSSL's chain finds it.
            return Err(Error::InvalidCertificate(CertificateError::InvalidPurpose));
        }
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_usage(cert)?;
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, Role::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_usage(cert)?;
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_usage(cert)?;
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
