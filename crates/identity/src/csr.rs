//! Certificate signing requests (PKCS#10): made by an agent, read by an authority, which takes nothing from one but the
//! public key, once the request has proved that its sender holds the private one. Source: RFC 2986.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, DistinguishedName, SanType, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer;

use crate::{Error, ErrorKind, Key, SpiffeId};

/// Largest request that is read, in bytes of PEM: one for RSA 4096 has 1.7 KiB.
const MAX_BYTES: usize = 16 << 10;

/// A request whose signature was verified.
#[derive(Debug, Clone)]
pub struct Csr {
    pub(crate) public_key: SubjectPublicKeyInfo,
    der: Vec<u8>,
}

impl Csr {
    /// A request as PEM, signed by `key`. The id in it is what its sender expects; an authority asks its caller instead.
    ///
    /// # Errors
    /// If signing fails.
    pub fn make(key: &Key, id: &SpiffeId) -> Result<String, Error> {
        let failed = |e: rcgen::Error| Error::new(ErrorKind::Internal, format!("making a request: {e}"));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().map_err(failed)?)];
        params.serialize_request(key).and_then(|request| request.pem()).map_err(failed)
    }

    /// Reads the first request of a text and verifies that it is signed by the key it is for.
    ///
    /// # Errors
    /// If it is no request, its signature is wrong or SHA-1, or its key is of a kind that is not signed for: ECDSA on
    /// P-256 and P-384 and RSA from 2048 bits are.
    pub fn from_pem(text: &[u8]) -> Result<Csr, Error> {
        if text.len() > MAX_BYTES {
            return Err(Error::malformed(format!("the request is larger than {MAX_BYTES} bytes")));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(text)
            .map_err(|_| Error::malformed("there is no certificate request in it"))?;
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|_| Error::malformed("the certificate request cannot be read"))?;
        if !rest.is_empty() {
            return Err(Error::malformed("something follows the certificate request"));
        }
        let algorithm = &request.signature_algorithm.algorithm;
        if *algorithm == OID_PKCS1_SHA1WITHRSA || *algorithm == OID_SHA1_WITH_RSA {
            return Err(Error::unsupported("the certificate request is signed with SHA-1"));
        }
        request.verify_signature().map_err(|_| {
            Error::mismatch("the certificate request is not signed by the key that it is for")
        })?;
        let info = &request.certification_request_info.subject_pki;
        let public_key = SubjectPublicKeyInfo::from_der(info.raw)
            .map_err(|_| Error::unsupported("the key of the certificate request is of an unknown kind"))?;
        Ok(Csr { public_key, der: info.raw.to_vec() })
    }

    /// The public key as `SubjectPublicKeyInfo`.
    pub fn public_key(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the public key: tells a request that is repeated from one of somebody else.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &self.der).as_ref());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::KeyKind;

    fn id() -> SpiffeId {
        "spiffe://td/ns/a/sa/b".parse().unwrap()
    }

    #[test]
    fn a_request_of_every_kind_of_key_is_read() {
        for kind in KeyKind::ALL {
            let key = Key::generate(kind).unwrap();
            let csr = Csr::from_pem(Csr::make(&key, &id()).unwrap().as_bytes()).unwrap();
            assert_eq!(csr.public_key(), key.public_key());
        }
    }

    #[test]
    fn a_request_for_somebody_elses_key_is_refused() {
        let (own, other) =
            (Key::generate(KeyKind::default()).unwrap(), Key::generate(KeyKind::default()).unwrap());
        let pem = Csr::make(&own, &id()).unwrap();
        let mut der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        let (own, other) = (own.public_key(), other.public_key());
        let place = der.windows(own.len()).position(|window| window == own).unwrap();
        der[place..place + other.len()].copy_from_slice(&other);
        let forged = crate::pem::encode("CERTIFICATE REQUEST", &der);
        assert_eq!(Csr::from_pem(forged.as_bytes()).unwrap_err().kind(), ErrorKind::Mismatch);
    }

    #[test]
    fn broken_requests_are_refused_without_a_panic() {
        let pem = Csr::make(&Key::generate(KeyKind::default()).unwrap(), &id()).unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        for end in 0..der.len() {
            let cut = crate::pem::encode("CERTIFICATE REQUEST", &der[..end]);
            assert!(Csr::from_pem(cut.as_bytes()).is_err(), "cut after {end} bytes");
        }
        assert!(Csr::from_pem(&vec![b'a'; MAX_BYTES + 1]).is_err());
    }
}
