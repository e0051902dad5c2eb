//! Why a handshake failed: for the counters, and in Envoy's words for logs.

use std::io;

use meltemi_identity::verify::Refusal;
use rustls::CertificateError;

use crate::stats::SslStats;

/// Why there is no TLS.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A secret is not there yet.
    NoSecret,
    /// It took too long.
    TimedOut,
    /// The client closed.
    Closed,
    /// The client showed no certificate.
    NoCertificate,
    /// Its certificate is not believed.
    Refused(Refusal),
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
            Failure::Refused(Refusal::Names(_)) => counts.fail_verify_san.inc(),
            Failure::Refused(Refusal::Pins) => counts.fail_verify_cert_hash.inc(),
            Failure::Refused(_) | Failure::Chain(_) => counts.fail_verify_error.inc(),
            Failure::Protocol(_) => counts.connection_error.inc(),
            Failure::NoSecret | Failure::TimedOut | Failure::Closed => {}
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
            Failure::Refused(refusal) => verify_failed(&refusal.to_string()),
            Failure::Chain(error) => verify_failed(&format!("verify cert failed: {error}")),
            Failure::Protocol(error) => tls_error(protocol(error), ""),
        })
    }
}

fn verify_failed(why: &str) -> String {
    tls_error("268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED", &format!(":{why}"))
}

fn tls_error(code: &str, more: &str) -> String {
    format!("TLS_error:|{code}{more}:TLS_error_end")
}

/// BoringSSL's code and name of what rustls found.
fn protocol(error: &rustls::Error) -> &'static str {
    use rustls::{AlertDescription, PeerIncompatible};
    match error {
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => {
            "268436528:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA"
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateUnknown) => {
            "268436526:SSL routines:OPENSSL_internal:SSLV3_ALERT_CERTIFICATE_UNKNOWN"
        }
        rustls::Error::AlertReceived(AlertDescription::BadCertificate) => {
            "268436522:SSL routines:OPENSSL_internal:SSLV3_ALERT_BAD_CERTIFICATE"
        }
        rustls::Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "268435696:SSL routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL",
        rustls::Error::PeerIncompatible(_) => "268435640:SSL routines:OPENSSL_internal:NO_SHARED_CIPHER",
        rustls::Error::InvalidMessage(_) => "268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER",
        _ => "268435600:SSL routines:OPENSSL_internal:UNEXPECTED_MESSAGE",
    }
}
