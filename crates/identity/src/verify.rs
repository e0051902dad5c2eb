//! Whether the certificate of a peer is believed: the chain to whom we trust, then names, pins and revocation.
//!
//! [`Rules`] are what a validation context says; [`PeerVerifier`] holds them before rustls, for either side. Source:
//! Envoy's `DefaultCertValidator` and `SPIFFEValidator`; chains are those of webpki. Where the two differ, and why it
//! cannot be told from outside: webpki does not look at the time of anchors, so that is done here; an anchor that is
//! the peer's own certificate is accepted as BoringSSL does with partial chains.

mod chain;
mod rustls_side;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use self::chain::Anchors;
use self::chain::Shown;
pub use self::rustls_side::{PeerVerifier, Presence};
use crate::peer;

/// Which side the peer is on: its certificate must be good for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It answered.
    Server,
    /// It asked.
    Client,
}

/// Kinds of subject alternative names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// `rfc822Name`.
    Email,
    /// `dNSName`.
    Dns,
    /// `uniformResourceIdentifier`.
    Uri,
    /// `iPAddress`.
    Ip,
}

/// Says whether a name is the wanted one.
pub type NameMatcher = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// One of the names that a certificate may have.
#[derive(Clone)]
pub struct NameRule {
    /// Of which kind.
    pub kind: NameKind,
    /// Which.
    pub matches: NameMatcher,
}

impl fmt::Debug for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameRule").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Whom the chain of a certificate must lead to.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// No chain is looked at (`trusted_ca` is not set).
    #[default]
    NoChain,
    /// One of these (`trusted_ca`).
    Roots(Anchors),
    /// One of those of the certificate's trust domain (the SPIFFE validator).
    Domains(BTreeMap<Box<str>, Anchors>),
}

/// What a validation context asks of a certificate.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Whom the chain must lead to.
    pub trust: Trust,
    /// `crl`.
    pub revocations: Vec<Revocations>,
    /// `only_verify_leaf_cert_crl`.
    pub revokes_leaf_only: bool,
    /// `match_typed_subject_alt_names`: one of these must be there, if there are any.
    pub names: Vec<NameRule>,
    /// `verify_certificate_hash`: SHA-256 of the certificate.
    pub hashes: Vec<[u8; 32]>,
    /// `verify_certificate_spki`: SHA-256 of its public key. One of both kinds must fit, if there are any.
    pub key_hashes: Vec<[u8; 32]>,
    /// `allow_expired_certificate`.
    pub allows_expired: bool,
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`.
    pub accepts_untrusted: bool,
    /// `max_verify_depth`.
    pub max_depth: Option<u32>,
}

/// A certificate revocation list.
#[derive(Debug, Clone)]
pub struct Revocations(Arc<webpki::CertRevocationList<'static>>);

impl Revocations {
    /// Reads it.
    ///
    /// # Errors
    /// If it is no list, or of a form that is not understood.
    pub fn from_der(der: &[u8]) -> Result<Revocations, crate::Error> {
        let list = webpki::OwnedCertRevocationList::from_der(der).map_err(|error| {
            crate::Error::malformed(format!("the revocation list cannot be read: {error}"))
        })?;
        Ok(Revocations(Arc::new(list.into())))
    }

    /// Reads all that are in a text.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn from_pem(text: &[u8]) -> Result<Vec<Revocations>, crate::Error> {
        let read = |list: Result<CertificateRevocationListDer<'_>, _>| match list {
            Ok(der) => Revocations::from_der(&der),
            Err(error) => Err(crate::Error::malformed(format!("broken PEM: {error}"))),
        };
        CertificateRevocationListDer::pem_slice_iter(text).map(read).collect()
    }
}

/// Why a certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The chain, and what webpki says of it.
    Chain(webpki::Error),
    /// It is of no trust domain that we know, or no SPIFFE certificate at all.
    TrustDomain,
    /// None of its names is wanted; these are they.
    Names(Vec<String>),
    /// Neither hash fits.
    Pins,
    /// Its key is not for signing.
    KeyUsage,
    /// It cannot be read.
    Malformed,
}

impl fmt::Display for Refusal {
    /// As Envoy words it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Chain(error) => {
                write!(f, "verify cert failed: X509_verify_cert: {}", chain::explained(error))
            }
            Refusal::TrustDomain => f.write_str("verify cert failed: no trust bundle store"),
            Refusal::Names(names) => {
                write!(f, "verify cert failed: SAN matcher, certificate SANs are [{}]", names.join(", "))
            }
            Refusal::KeyUsage => f.write_str("the key usage does not allow signatures"),
            Refusal::Pins => f.write_str("verify cert failed: cert hash and spki"),
            Refusal::Malformed => f.write_str("verify cert failed: the certificate cannot be read"),
        }
    }
}

impl std::error::Error for Refusal {}

impl Rules {
    /// Whether a certificate is asked for at all, and whether there must be one, of a client of which
    /// `require_client_certificate` says this.
    pub fn presence(&self, is_required: bool) -> Presence {
        let pins = !(self.names.is_empty() && self.hashes.is_empty() && self.key_hashes.is_empty());
        match &self.trust {
            Trust::Domains(_) => Presence::Required,
            Trust::Roots(_) if is_required => Presence::Required,
            _ if pins && !self.accepts_untrusted => Presence::Required,
            Trust::NoChain if !pins && !self.accepts_untrusted => Presence::Unasked,
            _ => Presence::Optional,
        }
    }

    /// Whether the certificate is believed.
    ///
    /// # Errors
    /// Why it is not. With `accepts_untrusted` the peer is let in all the same, as one that is not validated.
    pub fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| Refusal::Malformed)?;
        let shown = Shown { leaf, parsed: &parsed, intermediates };
        match &self.trust {
            Trust::NoChain => {}
            Trust::Roots(anchors) => self.check_chain(anchors, &shown, role, now)?,
            Trust::Domains(domains) => {
                let anchors = trust_domain(&parsed).and_then(|domain| domains.get(domain));
                let anchors = anchors.ok_or(Refusal::TrustDomain)?;
                self.check_chain(anchors, &shown, role, now)?;
            }
        }
        self.check_names(&parsed)?;
        self.check_pins(leaf, &parsed)
    }

    fn check_names(&self, parsed: &X509Certificate<'_>) -> Result<(), Refusal> {
        if self.names.is_empty() {
            return Ok(());
        }
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let is_wanted = |name: &GeneralName<'_>| {
            let Some((kind, text)) = peer::name_text(name) else { return false };
            self.names.iter().any(|rule| rule.kind == kind && (rule.matches)(&text))
        };
        if names.iter().any(is_wanted) {
            return Ok(());
        }
        Err(Refusal::Names(names.iter().filter_map(peer::name_text).map(|(_, text)| text).collect()))
    }

    fn check_pins(&self, leaf: &CertificateDer<'_>, parsed: &X509Certificate<'_>) -> Result<(), Refusal> {
        if self.hashes.is_empty() && self.key_hashes.is_empty() {
            return Ok(());
        }
        let is_one_of = |hashes: &[[u8; 32]], bytes: &[u8]| {
            hashes.iter().any(|hash| hash == digest(&SHA256, bytes).as_ref())
        };
        match is_one_of(&self.hashes, leaf) || is_one_of(&self.key_hashes, parsed.public_key().raw) {
            true => Ok(()),
            false => Err(Refusal::Pins),
        }
    }
}

/// The trust domain of a certificate that may be a workload's: it signs nothing, and its first URI is a SPIFFE id.
fn trust_domain<'c>(parsed: &'c X509Certificate<'_>) -> Option<&'c str> {
    let is_authority = parsed.is_ca();
    // A usage that is not said is any usage, as in Envoy.
    let signs = parsed
        .key_usage()
        .ok()
        .flatten()
        .is_none_or(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    if is_authority || signs {
        return None;
    }
    let names = parsed.subject_alternative_name().ok().flatten()?;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })?;
    uri.strip_prefix("spiffe://")?.split_once('/').map(|(domain, _)| domain)
}

#[cfg(test)]
mod tests;
