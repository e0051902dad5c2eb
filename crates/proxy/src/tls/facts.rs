//! What a handshake told of a connection.

use std::cell::OnceCell;
use std::sync::Arc;

use super::resolver::Stapling;
use crate::peer::{Interned, Principals};
use crate::stats::SslStats;
use http::HeaderValue;
use meltemi_identity::{PeerCertificate, certificates_to_pem};
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

/// See the module. Texts of certificates are made when someone asks for one.
#[derive(Debug, Default)]
pub(crate) struct TlsFacts {
    /// As BoringSSL names it, such as `TLSv1.3`.
    pub(crate) version: &'static str,
    /// As OpenSSL names it, such as `TLS_AES_128_GCM_SHA256`.
    pub(crate) cipher: &'static str,
    /// The group of the key exchange, empty when it was resumed without one.
    pub(crate) group: &'static str,
    pub(crate) is_resumed: bool,
    /// The peer's certificate was believed, not only looked at.
    pub(crate) is_validated: bool,
    /// The peer's certificate and what came with it.
    pub(crate) peer_chain: Box<[CertificateDer<'static>]>,
    /// What became of the client's wish for an OCSP response.
    pub(super) stapling: Stapling,
    /// Our certificate.
    pub(crate) local: Option<Arc<PeerCertificate>>,
    pub(super) peer: OnceCell<Option<Box<PeerCertificate>>>,
    pub(super) principals: OnceCell<Interned<Principals>>,
    pub(super) peer_pem: OnceCell<Option<Box<str>>>,
    /// `x-forwarded-client-cert` as the connection manager writes it for this peer.
    pub(crate) forwarded: OnceCell<Option<HeaderValue>>,
}

impl TlsFacts {
    /// Counts the handshake.
    pub(crate) fn count(&self, stats: &SslStats) {
        stats.counts.handshake.inc();
        if self.is_resumed {
            stats.counts.session_reused.inc();
        }
        if self.peer_chain.is_empty() {
            stats.counts.no_certificate.inc();
        }
        match self.stapling {
            Stapling::Unasked | Stapling::Refused => {}
            Stapling::Staple => {
                stats.counts.ocsp_staple_requests.inc();
                stats.counts.ocsp_staple_responses.inc();
            }
            Stapling::Omit => {
                stats.counts.ocsp_staple_requests.inc();
                stats.counts.ocsp_staple_omitted.inc();
            }
        }
        stats.agreed("ciphers", self.cipher);
        stats.agreed("versions", self.version);
        stats.agreed("curves", self.group);
    }

    /// What the peer's certificate says.
    pub(crate) fn peer(&self) -> Option<&PeerCertificate> {
        let read = || {
            let leaf = self.peer_chain.first()?;
            PeerCertificate::from_der(leaf).ok().map(Box::new)
        };
        self.peer.get_or_init(read).as_deref()
    }

    /// Who is at both ends, as far as certificates prove it.
    pub(crate) fn principals(&self) -> &Interned<Principals> {
        let first = |certificate: &PeerCertificate| certificate.uris.first().map(|uri| uri.as_str().into());
        self.principals.get_or_init(|| {
            let peer = self.peer().filter(|_| self.is_validated).and_then(first);
            Interned::of_connection(Principals { peer, local: self.local.as_deref().and_then(first) })
        })
    }

    /// The peer's certificate in PEM, as it stands in headers.
    pub(crate) fn peer_pem(&self) -> Option<&str> {
        let encode = || self.peer_chain.first().map(|leaf| escaped(certificates_to_pem([leaf])));
        self.peer_pem.get_or_init(encode).as_deref()
    }

    /// The same of all that came.
    pub(crate) fn chain_pem(&self) -> String {
        escaped(certificates_to_pem(&*self.peer_chain)).into()
    }
}

#[cfg(test)]
impl TlsFacts {
    /// A handshake in which certificates with these URIs were shown.
    pub(crate) fn shown(peer: &str, local: &str, is_validated: bool) -> TlsFacts {
        let with_uri =
            |uri: &str| PeerCertificate { uris: vec![uri.to_owned()], ..PeerCertificate::default() };
        TlsFacts {
            is_validated,
            peer: OnceCell::from(Some(Box::new(with_uri(peer)))),
            local: Some(Arc::new(with_uri(local))),
            ..TlsFacts::default()
        }
    }
}

/// With percent signs for what has a meaning in headers or URLs.
fn escaped(pem: String) -> Box<str> {
    let mut text = String::with_capacity(pem.len() + pem.len() / 8);
    for c in pem.chars() {
        match c {
            '\n' => text.push_str("%0A"),
            ' ' => text.push_str("%20"),
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            c => text.push(c),
        }
    }
    text.into()
}

pub(super) fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "",
    }
}

pub(super) fn cipher_name(suite: Option<CipherSuite>) -> &'static str {
    match suite {
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) => "ECDHE-ECDSA-AES128-GCM-SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384) => "ECDHE-ECDSA-AES256-GCM-SHA384",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256) => "ECDHE-ECDSA-CHACHA20-POLY1305",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) => "ECDHE-RSA-AES128-GCM-SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) => "ECDHE-RSA-AES256-GCM-SHA384",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256) => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

pub(super) fn group_name(group: Option<NamedGroup>) -> &'static str {
    match group {
        Some(NamedGroup::X25519) => "X25519",
        Some(NamedGroup::secp256r1) => "P-256",
        Some(NamedGroup::secp384r1) => "P-384",
        Some(NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
        _ => "",
    }
}
