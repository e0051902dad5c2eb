//! A certificate with its key, as a server or client shows it: read from PEM, checked to belong together.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::ocsp::OcspResponse;
use crate::{Error, PeerCertificate, certificates_from_pem, peer};

/// Keys of RSA certificates are not shorter than this, as in Envoy.
const RSA_MIN_BITS: usize = 2048;

/// What kind of key a certificate has, as far as peers choose by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicKeyKind {
    /// RSA.
    Rsa,
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Anything else.
    Other,
}

/// A certificate chain with the key of its first certificate.
#[derive(Debug, Clone)]
pub struct ServedCertificate {
    /// Both, for rustls.
    pub certified: Arc<CertifiedKey>,
    /// The key's kind.
    pub kind: PublicKeyKind,
    /// Names that it is for, in lower case: host names among its alternative names; without any alternative name, the
    /// common name.
    pub server_names: Vec<Box<str>>,
    /// What it says.
    pub facts: Arc<PeerCertificate>,
    /// It promises an OCSP response (RFC 7633).
    pub must_staple: bool,
    /// Where the chain was found, for people.
    pub path: Box<str>,
    /// An OCSP response that goes with it.
    pub staple: Option<Staple>,
}

/// A certificate with its OCSP response.
#[derive(Debug, Clone)]
pub struct Staple {
    /// Both and the key, for rustls.
    pub certified: Arc<CertifiedKey>,
    next_update: Option<i64>,
}

impl Staple {
    /// Whether the response is good at a second; one that does not say until when never is, as in Envoy.
    pub fn is_good(&self, now: i64) -> bool {
        self.next_update.is_some_and(|until| now <= until)
    }
}

/// What is wrong with a certificate or its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unservable {
    /// With the chain.
    Chain(Error),
    /// With the key.
    Key(Error),
}

impl ServedCertificate {
    /// Reads both. The time of the certificate does not count: clients see what it is.
    ///
    /// # Errors
    /// If either is no PEM, of a kind that is not served, or if they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<ServedCertificate, Unservable> {
        let chain = certificates_from_pem(chain).map_err(Unservable::Chain)?;
        let Some(leaf) = chain.first() else {
            return Err(Unservable::Chain(Error::malformed("there is no certificate in it")));
        };
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|_| Unservable::Chain(Error::malformed("the certificate cannot be read")))?;
        let kind = key_kind(&parsed).map_err(Unservable::Chain)?;
        let facts = PeerCertificate::from_der(leaf).map_err(Unservable::Chain)?;
        let server_names = server_names(&parsed);
        let must_staple = must_staple(&parsed);
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| Unservable::Key(Error::malformed(format!("no private key in PEM: {error}"))))?;
        let key = any_supported_type(&key).map_err(|_| {
            Unservable::Key(Error::unsupported(
                "the private key is broken, or of a kind that is not supported",
            ))
        })?;
        let certified = CertifiedKey::new(chain.clone(), key);
        certified.keys_match().map_err(|_| {
            Unservable::Key(Error::mismatch("the private key does not belong to the certificate"))
        })?;
        Ok(ServedCertificate {
            certified: Arc::new(certified),
            kind,
            server_names,
            facts: Arc::new(facts),
            must_staple,
            path: Box::default(),
            staple: None,
        })
    }

    /// The same with an OCSP response, in DER.
    ///
    /// # Errors
    /// If it cannot be read, or is not for this certificate.
    pub fn stapled(self, response: &[u8]) -> Result<ServedCertificate, Error> {
        let read = OcspResponse::from_der(response)?;
        if peer::serial(read.serial) != self.facts.serial {
            return Err(Error::mismatch("OCSP response does not match its TLS certificate"));
        }
        let certified = CertifiedKey { ocsp: Some(response.to_vec()), ..(*self.certified).clone() };
        let staple = Staple { certified: Arc::new(certified), next_update: read.next_update };
        Ok(ServedCertificate { staple: Some(staple), ..self })
    }
}

fn key_kind(parsed: &X509Certificate<'_>) -> Result<PublicKeyKind, Error> {
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const P521: &str = "1.3.132.0.35";
    match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < RSA_MIN_BITS => {
            Err(Error::unsupported("only RSA certificates with 2048-bit or larger keys are supported"))
        }
        Ok(PublicKey::RSA(_)) => Ok(PublicKeyKind::Rsa),
        Ok(PublicKey::EC(_)) => {
            let curve = parsed.public_key().algorithm.parameters.as_ref();
            let curve = curve.and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
            match curve.as_deref() {
                Some(P256) => Ok(PublicKeyKind::P256),
                Some(P384) => Ok(PublicKeyKind::P384),
                Some(P521) => Ok(PublicKeyKind::P521),
                _ => Err(Error::unsupported("only P-256, P-384 or P-521 ECDSA certificates are supported")),
            }
        }
        _ => Ok(PublicKeyKind::Other),
    }
}

fn server_names(parsed: &X509Certificate<'_>) -> Vec<Box<str>> {
    use x509_parser::extensions::GeneralName;
    let lower = |name: &str| Box::from(name.to_ascii_lowercase());
    match parsed.subject_alternative_name().ok().flatten() {
        Some(names) => {
            let dns = names.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(lower(name)),
                _ => None,
            });
            dns.collect()
        }
        None => {
            let names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
            names.take(1).map(lower).collect()
        }
    }
}

fn must_staple(parsed: &X509Certificate<'_>) -> bool {
    const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";
    const STATUS_REQUEST: &[u8] = &[0x30, 3, 2, 1, 5];
    parsed
        .extensions()
        .iter()
        .any(|extension| extension.oid.to_id_string() == TLS_FEATURE && extension.value == STATUS_REQUEST)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_are_served() {
        let (chain, key) = pair(&["Shop.example", "*.b.example"]);
        let served = ServedCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(served.kind, PublicKeyKind::P384);
        assert_eq!(served.server_names, [Box::from("shop.example"), Box::from("*.b.example")]);
        assert!(!served.must_staple);
    }

    #[test]
    fn strangers_and_broken_ones_are_not() {
        let ((chain, key), (_, other)) = (pair(&["a"]), pair(&["a"]));
        let served = |chain: &str, key: &str| ServedCertificate::from_pem(chain.as_bytes(), key.as_bytes());
        assert!(matches!(served(&chain, &other), Err(Unservable::Key(_))));
        assert!(matches!(served("", &key), Err(Unservable::Chain(_))));
        assert!(matches!(served(&chain, ""), Err(Unservable::Key(_))));
        assert!(matches!(served(&chain, &key.replace('M', "-")), Err(Unservable::Key(_))));
    }
}
