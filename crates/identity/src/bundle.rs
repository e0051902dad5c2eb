//! Whom to trust: the roots of each trust domain. Leaves out how a chain is verified against them.

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;

use crate::{Error, TrustDomain, certificates_from_pem, certificates_to_pem};

/// The roots of trust domains. Roots of one domain do not vouch for another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    roots: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
}

impl Bundle {
    /// The roots of one domain.
    pub fn of(trust_domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Bundle {
        let mut bundle = Bundle::default();
        bundle.add(trust_domain, roots);
        bundle
    }

    /// The roots of one domain, from PEM.
    ///
    /// # Errors
    /// If there is none in the text or it is broken.
    pub fn from_pem(trust_domain: TrustDomain, text: &[u8]) -> Result<Bundle, Error> {
        Ok(Bundle::of(trust_domain, certificates_from_pem(text)?))
    }

    /// Trusts these as well, each once.
    pub fn add(&mut self, trust_domain: TrustDomain, roots: Vec<CertificateDer<'static>>) {
        let known = self.roots.entry(trust_domain).or_default();
        for root in roots {
            if !known.contains(&root) {
                known.push(root);
            }
        }
    }

    /// The roots of a domain; none for one that is not trusted.
    pub fn roots(&self, trust_domain: &TrustDomain) -> &[CertificateDer<'static>] {
        self.roots.get(trust_domain).map_or(&[], Vec::as_slice)
    }

    /// The domains and their roots, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&TrustDomain, &[CertificateDer<'static>])> {
        self.roots.iter().map(|(domain, roots)| (domain, roots.as_slice()))
    }

    /// The roots of a domain as PEM.
    pub fn to_pem(&self, trust_domain: &TrustDomain) -> String {
        certificates_to_pem(self.roots(trust_domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_kept_once_and_apart() {
        let root = |byte| CertificateDer::from(vec![byte; 3]);
        let (one, two): (TrustDomain, TrustDomain) = ("one".parse().unwrap(), "two".parse().unwrap());
        let mut bundle = Bundle::of(one.clone(), vec![root(1)]);
        bundle.add(one.clone(), vec![root(1), root(2)]);
        bundle.add(two.clone(), vec![root(3)]);
        assert_eq!(bundle.roots(&one), [root(1), root(2)]);
        assert_eq!(bundle.roots(&two), [root(3)]);
        assert!(bundle.roots(&"three".parse().unwrap()).is_empty());
        assert_eq!(
            Bundle::from_pem(two.clone(), bundle.to_pem(&two).as_bytes()).unwrap().roots(&two),
            [root(3)]
        );
    }
}
