//! What a workload proves itself with: its key, its certificate with the chain, and whom it trusts. Leaves out how it is
//! got and who is given it.

use std::fmt;
use std::time::{Duration, SystemTime};

use meltemi_identity::{
    Certificate, Error, ErrorKind, Key, SpiffeId, certificates_from_pem, certificates_to_pem,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::limits::{RENEWAL_JITTER, RENEWAL_RATIO};

/// The current one, and every later one; `None` until there is a first.
pub type Current = watch::Receiver<Option<std::sync::Arc<Svid>>>;

/// A key with its certificate.
pub struct Svid {
    /// Whose it is.
    pub id: SpiffeId,
    pub(crate) key: Key,
    /// The certificate, then what leads to a root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// When it ends.
    pub not_after: SystemTime,
    /// When it is to be renewed.
    pub renew_at: SystemTime,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Svid {
    /// From an authority's answer: texts of certificates, the last of which holds the roots.
    ///
    /// # Errors
    /// If a text is broken, the certificate is not for `key`, names no id, or is not good now.
    pub(crate) fn from_answer(
        key: Key,
        texts: &[String],
        now: SystemTime,
        random: f64,
    ) -> Result<Svid, Error> {
        let broken = |why: &str| {
            Error::new(ErrorKind::Malformed, format!("the answer of the certificate authority: {why}"))
        };
        let (roots, chain) = texts.split_last().ok_or_else(|| broken("it is empty"))?;
        let roots = certificates_from_pem(roots.as_bytes())?;
        let mut certificates = Vec::new();
        for text in chain {
            certificates.extend(certificates_from_pem(text.as_bytes())?);
        }
        let leaf = certificates.first().ok_or_else(|| broken("it has no certificate, only roots"))?;
        let facts = Certificate::from_der(leaf)?;
        if facts.public_key != key.public_key() {
            return Err(broken("the certificate is for another key"));
        }
        facts.check_time(now)?;
        let id = facts.spiffe_id()?;
        let lifetime = facts.not_after.duration_since(now).unwrap_or_default();
        let renew_at = now + renew_after(lifetime, random);
        Ok(Svid { id, key, chain: certificates, roots, not_after: facts.not_after, renew_at })
    }

    /// Certificate and chain as PEM.
    pub fn chain_pem(&self) -> String {
        certificates_to_pem(&self.chain)
    }

    /// Roots as PEM.
    pub(crate) fn roots_pem(&self) -> String {
        certificates_to_pem(&self.roots)
    }

    /// Whether it is still good.
    pub(crate) fn is_good(&self, now: SystemTime) -> bool {
        now < self.not_after
    }
}

/// How long after its issue a certificate is renewed: at half of its life, a little earlier or later for each, so that
/// workloads that started together do not renew together. `random` is in `0.0..1.0`.
fn renew_after(lifetime: Duration, random: f64) -> Duration {
    lifetime.mul_f64(RENEWAL_RATIO + RENEWAL_JITTER * (2.0 * random - 1.0))
}

#[cfg(test)]
mod tests {
    use meltemi_identity::{Authority, Csr, KeyKind, Plugged, Serial};

    use super::*;

    fn answer(key: &Key, ttl: u64) -> Vec<String> {
        let now = SystemTime::now();
        let domain: meltemi_identity::TrustDomain = "td".parse().unwrap();
        let (root, root_key) =
            Authority::make_root(&domain, KeyKind::EcdsaP256, now, Serial::new([1; 16])).unwrap();
        let root_key = root_key.to_pem();
        let files = Plugged {
            ca_cert: root.as_bytes(),
            ca_key: root_key.as_bytes(),
            root_cert: root.as_bytes(),
            cert_chain: b"",
        };
        let authority = Authority::plugged(domain, files, now).unwrap();
        let id = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let csr = Csr::from_pem(Csr::make(key, &id).unwrap().as_bytes()).unwrap();
        authority.sign(&csr, &id, Duration::from_secs(ttl), now, Serial::new([2; 16])).unwrap().to_texts()
    }

    #[test]
    fn an_answer_is_taken_for_its_own_key_and_in_its_time() {
        let key = Key::generate(KeyKind::EcdsaP256).unwrap();
        let texts = answer(&key, 100);
        let now = SystemTime::now();
        let other = Key::generate(KeyKind::EcdsaP256).unwrap();
        assert!(Svid::from_answer(other, &texts, now, 0.5).is_err());
        let again = Key::from_pem(key.to_pem().as_bytes()).unwrap();
        assert!(Svid::from_answer(again, &texts, now + Duration::from_secs(200), 0.5).is_err());
        assert!(
            Svid::from_answer(Key::generate(KeyKind::EcdsaP256).unwrap(), &texts[..0], now, 0.5).is_err()
        );
        let svid = Svid::from_answer(key, &texts, now, 0.5).unwrap();
        assert_eq!(svid.id.as_str(), "spiffe://td/ns/a/sa/b");
        assert!(svid.is_good(now) && !svid.is_good(now + Duration::from_secs(101)));
    }

    #[test]
    fn renewal_is_at_half_life_within_a_percent() {
        let life = Duration::from_secs(1_000);
        assert_eq!(renew_after(life, 0.5), Duration::from_secs(500));
        assert_eq!(renew_after(life, 0.0), Duration::from_secs(490));
        assert_eq!(renew_after(life, 1.0), Duration::from_secs(510));
    }

    /// Workloads that started together: their renewals fill the whole of the window evenly, two hundredths of a life.
    #[test]
    fn renewals_of_ten_thousand_workloads_are_spread() {
        const WORKLOADS: usize = 10_000;
        const PARTS: usize = 20;
        let life = Duration::from_secs(24 * 3600);
        let (begin, window) = (life.mul_f64(0.49), life.mul_f64(0.02));
        let mut parts = [0; PARTS];
        for _ in 0..WORKLOADS {
            let into = (renew_after(life, meltemi_runtime::backoff::jitter()) - begin).as_secs_f64();
            parts[((into / window.as_secs_f64() * PARTS as f64) as usize).min(PARTS - 1)] += 1;
        }
        // 500 are expected in each part, with a deviation of 22; nine of those are no chance.
        assert!(parts.iter().all(|count| (300..700).contains(count)), "{parts:?}");
    }
}
