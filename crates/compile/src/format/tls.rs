//! Operators on the TLS of a connection, downstream or upstream.

use super::Op;

/// Named as Envoy's operators without `DOWNSTREAM_` or `UPSTREAM_`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the Envoy operator of that name")]
pub enum TlsOp {
    Version,
    Cipher,
    Group,
    PeerSubject,
    PeerIssuer,
    PeerSerial,
    PeerFingerprint256,
    PeerFingerprint1,
    PeerUriSan,
    PeerDnsSan,
    PeerIpSan,
    PeerEmailSan,
    /// PEM, with percent signs for what would not stand in a header.
    PeerCert,
    PeerChainFingerprints256,
    PeerChainFingerprints1,
    PeerChainSerials,
    /// `PEER_CERT_V_START(format)`.
    PeerCertStart(Box<str>),
    /// `PEER_CERT_V_END(format)`.
    PeerCertEnd(Box<str>),
    LocalSubject,
    LocalUriSan,
    LocalDnsSan,
    LocalIpSan,
    LocalEmailSan,
    TransportFailureReason,
}

/// The operator of a name without parameters.
pub(super) fn plain(name: &str) -> Option<Op> {
    if let Some(name) = name.strip_prefix("DOWNSTREAM_") {
        return of_connection(name).map(Op::Tls);
    }
    let name = name.strip_prefix("UPSTREAM_").filter(|name| UPSTREAM.contains(name))?;
    of_connection(name).map(Op::UpstreamTls)
}

/// What Envoy tells of upstream connections: fewer things than of downstream ones.
const UPSTREAM: [&str; 12] = [
    "LOCAL_DNS_SAN",
    "LOCAL_IP_SAN",
    "LOCAL_URI_SAN",
    "PEER_CERT",
    "PEER_DNS_SAN",
    "PEER_IP_SAN",
    "PEER_ISSUER",
    "PEER_SUBJECT",
    "PEER_URI_SAN",
    "TLS_CIPHER",
    "TLS_GROUP",
    "TLS_VERSION",
];

fn of_connection(name: &str) -> Option<TlsOp> {
    Some(match name {
        "TLS_VERSION" => TlsOp::Version,
        "TLS_CIPHER" => TlsOp::Cipher,
        "TLS_GROUP" => TlsOp::Group,
        "PEER_SUBJECT" => TlsOp::PeerSubject,
        "PEER_ISSUER" => TlsOp::PeerIssuer,
        "PEER_SERIAL" => TlsOp::PeerSerial,
        "PEER_FINGERPRINT_256" => TlsOp::PeerFingerprint256,
        "PEER_FINGERPRINT_1" => TlsOp::PeerFingerprint1,
        "PEER_URI_SAN" => TlsOp::PeerUriSan,
        "PEER_DNS_SAN" => TlsOp::PeerDnsSan,
        "PEER_IP_SAN" => TlsOp::PeerIpSan,
        "PEER_EMAIL_SAN" => TlsOp::PeerEmailSan,
        "PEER_CERT" => TlsOp::PeerCert,
        "PEER_CHAIN_FINGERPRINTS_256" => TlsOp::PeerChainFingerprints256,
        "PEER_CHAIN_FINGERPRINTS_1" => TlsOp::PeerChainFingerprints1,
        "PEER_CHAIN_SERIALS" => TlsOp::PeerChainSerials,
        "LOCAL_SUBJECT" => TlsOp::LocalSubject,
        "LOCAL_URI_SAN" => TlsOp::LocalUriSan,
        "LOCAL_DNS_SAN" => TlsOp::LocalDnsSan,
        "LOCAL_IP_SAN" => TlsOp::LocalIpSan,
        "LOCAL_EMAIL_SAN" => TlsOp::LocalEmailSan,
        "TRANSPORT_FAILURE_REASON" => TlsOp::TransportFailureReason,
        _ => return None,
    })
}
