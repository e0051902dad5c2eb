//! Why a handshake failed: for the counters, and in Envoy's words for logs.

use std::borrow::Cow;
use std::io;

use meltemi_identity::verify::Refusal;
use rustls::{AlertDescription, CertificateError};

use crate::stats::{ClusterTlsStats, SslStats};

/// Why there is no TLS.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A secret is not there yet.
    NoSecret,
    /// It took too long.
    TimedOut,
    /// The client closed.
    Closed,
    /// A client that asks for an OCSP response must get one, and there is none that is good.
    NoStaple,
    /// The client showed no certificate.
    NoCertificate,
    /// Its certificate is not believed.
    Refused(Refusal),
    /// It has none of the names that were asked for.
    Unexpected {
        /// Those.
        wanted: Vec<String>,
        /// Those that it has.
        found: Vec<String>,
    },
    /// Its chain is not believed; rustls' word for it.
    Chain(CertificateError),
    /// The protocol was broken, or there was nothing in common.
    Protocol(rustls::Error),
}

impl Failure {
    pub(super) fn of(error: io::Error) -> Failure {
        let Some(inner) = error.into_inner() else { return Failure::Closed };
        let Ok(error) = inner.downcast::<rustls::Error>() else { return Failure::Closed };
        match *error {
            rustls::Error::NoCertificatesPresented => Failure::NoCertificate,
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<Refusal>() {
                    Some(refusal) => Failure::Refused(refusal.clone()),
                    None => Failure::Chain(CertificateError::Other(other)),
                }
            }
            rustls::Error::InvalidCertificate(error) => Failure::Chain(error),
            other => Failure::Protocol(other),
        }
    }

    /// Counts it.
    pub(crate) fn count(&self, stats: &SslStats) {
        let counts = &stats.counts;
        match self {
            Failure::NoCertificate => counts.fail_verify_no_cert.inc(),
            Failure::Refused(Refusal::Names(_)) | Failure::Unexpected { .. } => counts.fail_verify_san.inc(),
            Failure::Refused(Refusal::Pins) => counts.fail_verify_cert_hash.inc(),
            Failure::Refused(Refusal::KeyUsage) | Failure::Protocol(_) => counts.connection_error.inc(),
            Failure::Refused(_) | Failure::Chain(_) => counts.fail_verify_error.inc(),
            Failure::NoStaple => {
                counts.ocsp_staple_requests.inc();
                counts.ocsp_staple_failed.inc();
                counts.connection_error.inc();
            }
            Failure::NoSecret | Failure::TimedOut | Failure::Closed => {}
        }
    }

    /// Counts it for a cluster.
    pub(crate) fn count_upstream(&self, stats: &ClusterTlsStats) {
        self.count(&stats.ssl);
        if matches!(self, Failure::NoSecret) {
            stats.factory.upstream_context_secrets_not_ready.inc();
        }
    }

    /// `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(crate) fn reason(&self) -> Option<String> {
        Some(match self {
            Failure::NoSecret => "TLS error: Secret is not supplied by SDS".to_owned(),
            Failure::TimedOut | Failure::Closed => return None,
            Failure::NoCertificate => tls_error(
                "268435647:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE",
                ":peer did not provide required client certificate",
            ),
            Failure::Refused(Refusal::KeyUsage) => {
                tls_error("268435758:SSL routines:OPENSSL_internal:KEY_USAGE_BIT_INCORRECT", "")
            }
            Failure::NoStaple => tls_error("268435603:SSL routines:OPENSSL_internal:CONNECTION_REJECTED", ""),
            Failure::Refused(refusal) => verify_failed(&refusal.to_string()),
            Failure::Unexpected { wanted, found } => verify_failed(&format!(
                "verify cert failed: verify SAN list, expected SANs: [{}], certificate SANs: [{}]",
                wanted.join(", "),
                found.join(", ")
            )),
            Failure::Chain(error) => verify_failed(&format!(
                "verify cert failed: X509_verify_cert: certificate verification error at depth 0: {}",
                chain_error(error)
            )),
            Failure::Protocol(error) => tls_error(&protocol(error), ""),
        })
    }
}

/// BoringSSL's words.
fn chain_error(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate is not yet valid"
        }
        CertificateError::UnknownIssuer => "unable to get local issuer certificate",
        CertificateError::Revoked => "certificate revoked",
        CertificateError::UnknownRevocationStatus => "unable to get certificate CRL",
        CertificateError::ExpiredRevocationList => "CRL has expired",
        CertificateError::InvalidPurpose => "unsuitable certificate purpose",
        other => return other.to_string(),
    }
    .to_owned()
}

fn verify_failed(why: &str) -> String {
    tls_error("268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED", &format!(":{why}"))
}

fn tls_error(code: &str, more: &str) -> String {
    format!("TLS_error:|{code}{more}:TLS_error_end")
}

/// BoringSSL's code and name of what rustls found.
fn protocol(error: &rustls::Error) -> Cow<'static, str> {
    use rustls::PeerIncompatible;
    Cow::Borrowed(match error {
        rustls::Error::AlertReceived(alert) => return alert_name(*alert).into(),
        rustls::Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "268435696:SSL routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL",
        rustls::Error::PeerIncompatible(_) => "268435640:SSL routines:OPENSSL_internal:NO_SHARED_CIPHER",
        rustls::Error::InvalidMessage(_) => "268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER",
        _ => "268435600:SSL routines:OPENSSL_internal:UNEXPECTED_MESSAGE",
    })
}

/// An alert of the peer: BoringSSL's codes for those follow their numbers.
fn alert_name(alert: AlertDescription) -> String {
    const FIRST: u32 = 268_435_456 + 1000;
    let name = match alert {
        AlertDescription::CloseNotify => "SSLV3_ALERT_CLOSE_NOTIFY",
        AlertDescription::UnexpectedMessage => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        AlertDescription::BadRecordMac => "SSLV3_ALERT_BAD_RECORD_MAC",
        AlertDescription::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        AlertDescription::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        AlertDescription::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        AlertDescription::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        AlertDescription::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        AlertDescription::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        AlertDescription::IllegalParameter => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        AlertDescription::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        AlertDescription::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        AlertDescription::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        AlertDescription::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        AlertDescription::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        AlertDescription::InsufficientSecurity => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        AlertDescription::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        AlertDescription::UnrecognisedName => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        AlertDescription::CertificateRequired => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        AlertDescription::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => "TLSV1_ALERT",
    };
    format!("{}:SSL routines:OPENSSL_internal:{name}", FIRST + u32::from(u8::from(alert)))
}
