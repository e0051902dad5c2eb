//! What a certificate says, for people and for decisions outside of a handshake. Leaves out whether it is to be believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use crate::{Error, ErrorKind, SpiffeId};

/// One of a certificate's subject alternative names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlternativeName {
    /// A URI, as SPIFFE ids are.
    Uri(String),
    /// A host name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// Of another kind, as text.
    Other(String),
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Serial number: bytes in hexadecimal with colons.
    pub serial: String,
    /// Subject, as RFC 4514 writes names; empty for workloads.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Good from here on.
    pub not_before: SystemTime,
    /// Good until here.
    pub not_after: SystemTime,
    /// Subject alternative names.
    pub names: Vec<AlternativeName>,
    /// Whether it may sign others (basic constraints).
    pub is_authority: bool,
    /// Algorithm and size of its key, as `EC 256` or `RSA 2048`.
    pub key: String,
    /// Its public key as `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

impl Certificate {
    /// Reads it.
    ///
    /// # Errors
    /// If it is no X.509 certificate.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Certificate, Error> {
        let (_, parsed) = X509Certificate::from_der(der)
            .map_err(|_| Error::malformed("it cannot be read as an X.509 certificate"))?;
        let names = parsed.subject_alternative_name().map_err(|_| {
            Error::malformed("the subject alternative names of the certificate cannot be read")
        })?;
        let names = names.map_or_else(Vec::new, |names| names.value.general_names.iter().map(name).collect());
        let constraints = parsed
            .basic_constraints()
            .map_err(|_| Error::malformed("the basic constraints of the certificate cannot be read"))?;
        Ok(Certificate {
            serial: parsed.raw_serial_as_string(),
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            not_before: system_time(parsed.validity().not_before),
            not_after: system_time(parsed.validity().not_after),
            names,
            is_authority: constraints.is_some_and(|constraints| constraints.value.ca),
            key: key(&parsed),
            public_key: parsed.public_key().raw.to_vec(),
            fingerprint: digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// The id in it: there must be exactly one URI among the names. Source: X.509-SVID, section 2.
    ///
    /// # Errors
    /// If there is none, several, or one that is no SPIFFE id.
    pub fn spiffe_id(&self) -> Result<SpiffeId, Error> {
        let mut uris = self.names.iter().filter_map(|name| match name {
            AlternativeName::Uri(uri) => Some(uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            (None, _) => Err(Error::malformed("the certificate has no URI among its names")),
            (Some(_), Some(_)) => {
                Err(Error::malformed("the certificate has more than one URI among its names"))
            }
        }
    }

    /// Whether `now` is in its time.
    ///
    /// # Errors
    /// [`ErrorKind::Expired`] if not, both for what has ended and for what has not begun.
    pub fn check_time(&self, now: SystemTime) -> Result<(), Error> {
        if now < self.not_before {
            return Err(Error::new(ErrorKind::Expired, "the certificate is not valid yet"));
        }
        if now > self.not_after {
            return Err(Error::new(ErrorKind::Expired, "the certificate has expired"));
        }
        Ok(())
    }
}

fn name(name: &GeneralName<'_>) -> AlternativeName {
    match name {
        GeneralName::URI(uri) => AlternativeName::Uri((*uri).to_owned()),
        GeneralName::DNSName(name) => AlternativeName::Dns((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            address(bytes).map_or_else(|| AlternativeName::Other(name.to_string()), AlternativeName::Ip)
        }
        other => AlternativeName::Other(other.to_string()),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))).ok()
}

fn key(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) => format!("EC {}", point.key_size()),
        Ok(PublicKey::RSA(rsa)) => format!("RSA {}", rsa.key_size()),
        _ => certificate.public_key().algorithm.algorithm.to_id_string(),
    }
}

fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, SanType};

    use super::*;
    use crate::{Key, KeyKind};

    fn certificate(names: &[&str]) -> Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        let key = Key::generate(KeyKind::EcdsaP256).unwrap();
        Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn there_is_one_id_or_none() {
        assert_eq!(certificate(&["spiffe://td/a"]).spiffe_id().unwrap().as_str(), "spiffe://td/a");
        assert!(certificate(&[]).spiffe_id().is_err());
        assert!(certificate(&["spiffe://td/a", "spiffe://td/b"]).spiffe_id().is_err());
        assert!(certificate(&["https://td/a"]).spiffe_id().is_err());
    }

    #[test]
    fn what_is_shown_is_right() {
        let shown = certificate(&["spiffe://td/a"]);
        assert_eq!((shown.key.as_str(), shown.is_authority), ("EC 256", false));
        assert_eq!(shown.fingerprint.len(), 64);
        assert_eq!(shown.subject, "CN=rcgen self signed cert");
        assert_eq!(shown.check_time(shown.not_after), Ok(()));
        assert!(shown.check_time(shown.not_after + Duration::from_secs(1)).is_err());
        assert!(shown.check_time(shown.not_before - Duration::from_secs(1)).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(der in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::from_der(&CertificateDer::from(der));
        }
    }
}
