//! Which of several certificates a client is shown: by the name that it asked for, then by the keys that it can check.
//!
//! Source: Envoy's `DefaultTlsCertificateSelector`.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use meltemi_identity::{PublicKeyKind, ServedCertificate};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{NamedGroup, SignatureScheme};

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
    pub(super) chosen: Arc<OnceLock<usize>>,
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
    fn choose(&self, name: Option<&str>, kinds: &[PublicKeyKind]) -> usize {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let exact = self.named(name).and_then(|found| self.best(found, kinds));
            let wildcard = || {
                let dot = name.char_indices().skip(1).find(|(_, c)| *c == '.')?.0;
                let suffix = Some(&name[dot..]).filter(|suffix| suffix.len() > 1)?;
                self.best(self.named(suffix)?, kinds)
            };
            if let Some(index) = exact.or_else(wildcard) {
                return index;
            }
            if !self.scans_on_mismatch {
                return 0;
            }
        }
        let every: Vec<usize> = (0..self.all.len()).collect();
        self.best(&every, kinds).unwrap_or(0)
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
        let all = &self.certificates.all;
        let index = match all.len() {
            1 => 0,
            _ => self.certificates.choose(hello.server_name(), &kinds(&hello)),
        };
        let chosen = *self.chosen.get_or_init(|| index);
        all.get(chosen).map(|certificate| Arc::clone(&certificate.certified))
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
        let choose = |name: &str, kinds: &[PublicKeyKind]| lax.choose(Some(name), kinds);
        assert_eq!(choose("a.example", P256), 0);
        assert_eq!(choose("a.example", &[]), 2);
        assert_eq!(choose("x.b.example", P256), 1);
        assert_eq!(choose("x.y.b.example", P256), 0);
        assert_eq!(choose("b.example", P256), 2);
        assert_eq!(choose("other.example", &[]), 0);
        assert_eq!(lax.choose(None, &[]), 2);
        assert_eq!(lax.choose(None, P256), 0);
        let scanning = Certificates::new(all, true);
        assert_eq!(scanning.choose(Some("other.example"), &[]), 2);
    }
}
