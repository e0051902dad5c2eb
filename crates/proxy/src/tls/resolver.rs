//! Which of several certificates a client is shown: by the name that it asked for, then by the keys that it can check.
//!
//! Certificates whose OCSP response is demanded and not good are passed over. Source: Envoy's
//! `DefaultTlsCertificateSelector` and `ServerContextImpl::ocspStapleAction`.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use meltemi_compile::tls::StaplePolicy;
use meltemi_identity::{PublicKeyKind, ServedCertificate};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{NamedGroup, SignatureScheme};

/// What becomes of a client's wish for an OCSP response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stapling {
    /// It has none.
    #[default]
    Unasked,
    /// It gets it.
    Staple,
    /// It does without.
    Omit,
    /// It gets no connection.
    Refused,
}

impl Stapling {
    /// For this certificate, at a second.
    pub(super) fn of(
        certificate: &ServedCertificate,
        policy: StaplePolicy,
        asks: bool,
        now: i64,
    ) -> Stapling {
        let policy = if certificate.must_staple { StaplePolicy::Must } else { policy };
        match (&certificate.staple, policy) {
            _ if !asks => Stapling::Unasked,
            (Some(staple), _) if staple.is_good(now) => Stapling::Staple,
            (_, StaplePolicy::Lenient) | (None, StaplePolicy::Strict) => Stapling::Omit,
            _ => Stapling::Refused,
        }
    }
}

/// The certificates of a context, at least one.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) all: Vec<Arc<ServedCertificate>>,
    /// By host name, or by `.` and what follows the `*` of a wildcard.
    by_name: HashMap<Box<str>, Vec<usize>, foldhash::fast::RandomState>,
    scans_on_mismatch: bool,
}

/// [`Certificates`] as one handshake asks for them; remembers the answer.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) certificates: Arc<Certificates>,
    /// Of each certificate.
    pub(super) stapling: Box<[Stapling]>,
    pub(super) chosen: Arc<OnceLock<usize>>,
}

/// The only certificate of a context, with or without its OCSP response.
#[derive(Debug)]
pub(super) struct Only(pub(super) Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl Certificates {
    pub(super) fn new(all: Vec<Arc<ServedCertificate>>, scans_on_mismatch: bool) -> Certificates {
        let mut by_name: HashMap<Box<str>, Vec<usize>, _> = HashMap::default();
        for (index, certificate) in all.iter().enumerate() {
            for name in &certificate.server_names {
                let pattern = if name.starts_with("*.") { &name[1..] } else { name };
                let known = by_name.entry(pattern.into()).or_default();
                // Of several of one kind for one name, the first.
                if !known.iter().any(|other| all[*other].kind == certificate.kind) {
                    known.push(index);
                }
            }
        }
        Certificates { all, by_name, scans_on_mismatch }
    }

    /// The index of the certificate for a client that asks for this name and can check these kinds of ECDSA keys.
    fn choose(&self, name: Option<&str>, kinds: &[PublicKeyKind], stapling: &[Stapling]) -> usize {
        let usable = |found: &[usize]| -> Vec<usize> {
            found.iter().copied().filter(|index| stapling.get(*index) != Some(&Stapling::Refused)).collect()
        };
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let exact = self.named(name).and_then(|found| self.best(&usable(found), kinds));
            let wildcard = || {
                let dot = name.char_indices().skip(1).find(|(_, c)| *c == '.')?.0;
                let suffix = Some(&name[dot..]).filter(|suffix| suffix.len() > 1)?;
                self.best(&usable(self.named(suffix)?), kinds)
            };
            if let Some(index) = exact.or_else(wildcard) {
                return index;
            }
            if !self.scans_on_mismatch {
                return 0;
            }
        }
        let every: Vec<usize> = (0..self.all.len()).collect();
        self.best(&usable(&every), kinds).unwrap_or(0)
    }

    /// A certificate as a client gets it; `None` is not at all.
    pub(super) fn certified(&self, index: usize, stapling: Stapling) -> Option<Arc<CertifiedKey>> {
        let certificate = self.all.get(index)?;
        match (stapling, &certificate.staple) {
            (Stapling::Refused, _) => None,
            (Stapling::Staple, Some(staple)) => Some(Arc::clone(&staple.certified)),
            _ => Some(Arc::clone(&certificate.certified)),
        }
    }

    fn named(&self, name: &str) -> Option<&[usize]> {
        self.by_name.get(name).map(Vec::as_slice)
    }

    /// The first that the client can check, those with ECDSA keys before the others.
    fn best(&self, among: &[usize], kinds: &[PublicKeyKind]) -> Option<usize> {
        let is_ecdsa = |kind| matches!(kind, PublicKeyKind::P256 | PublicKeyKind::P384 | PublicKeyKind::P521);
        let kind = |index: &usize| self.all[*index].kind;
        let ecdsa = among.iter().find(|index| kinds.contains(&kind(index)));
        ecdsa.or_else(|| among.iter().find(|index| !is_ecdsa(kind(index)))).copied()
    }
}

/// The kinds of ECDSA keys that a client can check.
fn kinds(hello: &ClientHello<'_>) -> Vec<PublicKeyKind> {
    // A client of TLS 1.2 names its curves among the groups, one of TLS 1.3 by the algorithms of signatures; rustls
    // gives both lists as they came, and answers TLS 1.2 by the algorithms too.
    let schemes = hello.signature_schemes();
    let groups = hello.named_groups();
    let knows = |scheme, group| {
        schemes.contains(&scheme) && groups.is_none_or(|groups| is_tls13(hello) || groups.contains(&group))
    };
    [
        (PublicKeyKind::P256, SignatureScheme::ECDSA_NISTP256_SHA256, NamedGroup::secp256r1),
        (PublicKeyKind::P384, SignatureScheme::ECDSA_NISTP384_SHA384, NamedGroup::secp384r1),
        (PublicKeyKind::P521, SignatureScheme::ECDSA_NISTP521_SHA512, NamedGroup::secp521r1),
    ]
    .into_iter()
    .filter(|(_, scheme, group)| knows(*scheme, *group))
    .map(|(kind, _, _)| kind)
    .collect()
}

fn is_tls13(hello: &ClientHello<'_>) -> bool {
    hello.cipher_suites().iter().any(|suite| {
        let number = u16::from(*suite);
        (0x1301..=0x1305).contains(&number)
    })
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let index = self.certificates.choose(hello.server_name(), &kinds(&hello), &self.stapling);
        let chosen = *self.chosen.get_or_init(|| index);
        self.certificates.certified(chosen, *self.stapling.get(chosen)?)
    }
}

#[cfg(test)]
mod tests {
    use meltemi_identity::{Key, KeyKind};
    use rcgen::CertificateParams;

    use super::*;

    fn certificate(names: &[&str], kind: KeyKind) -> Arc<ServedCertificate> {
        let key = Key::generate(kind).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let chain = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        Arc::new(ServedCertificate::from_pem(chain.as_bytes(), key.to_pem().as_bytes()).unwrap())
    }

    const P256: &[PublicKeyKind] = &[PublicKeyKind::P256];

    #[test]
    fn the_name_chooses_before_the_key_and_the_first_is_for_strangers() {
        let all = vec![
            certificate(&["a.example"], KeyKind::EcdsaP256),
            certificate(&["*.b.example"], KeyKind::EcdsaP256),
            certificate(&["b.example", "a.example"], KeyKind::Rsa2048),
        ];
        let lax = Certificates::new(all.clone(), false);
        let choose = |name: &str, kinds: &[PublicKeyKind]| lax.choose(Some(name), kinds, &[]);
        assert_eq!(choose("a.example", P256), 0);
        assert_eq!(choose("a.example", &[]), 2);
        assert_eq!(choose("x.b.example", P256), 1);
        assert_eq!(choose("x.y.b.example", P256), 0);
        assert_eq!(choose("b.example", P256), 2);
        assert_eq!(choose("other.example", &[]), 0);
        assert_eq!(lax.choose(None, &[], &[]), 2);
        assert_eq!(lax.choose(None, P256, &[]), 0);
        let scanning = Certificates::new(all, true);
        let without = [Stapling::Refused, Stapling::Omit, Stapling::Omit];
        assert_eq!(scanning.choose(Some("a.example"), P256, &without), 2);
        assert_eq!(scanning.choose(Some("other.example"), &[], &[]), 2);
    }
}
