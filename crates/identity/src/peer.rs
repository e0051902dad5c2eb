//! What a certificate says, byte for byte as Envoy writes it in headers and logs.
//!
//! Source: Envoy's `Ssl::ConnectionInfo` and its texts: names as RFC 2253 has them (last part first), numbers in lower
//! case hexadecimal without separators.

mod name;

use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;
use crate::verify::NameKind;

/// What a certificate says. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Subject.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Serial number.
    pub serial: String,
    /// SHA-256 of the certificate.
    pub sha256: String,
    /// SHA-1 of it.
    pub sha1: String,
    /// First second of its time.
    pub not_before: i64,
    /// Last second of its time.
    pub not_after: i64,
    /// URIs among its names.
    pub uris: Vec<String>,
    /// Host names among them.
    pub dns: Vec<String>,
    /// Addresses among them.
    pub ips: Vec<String>,
    /// Mail addresses among them.
    pub emails: Vec<String>,
}

impl PeerCertificate {
    /// Reads it.
    ///
    /// # Errors
    /// If it is no X.509 certificate.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<PeerCertificate, Error> {
        let (_, parsed) = X509Certificate::from_der(der)
            .map_err(|_| Error::malformed("it cannot be read as an X.509 certificate"))?;
        let mut peer = PeerCertificate {
            subject: name::rfc2253(parsed.subject()),
            issuer: name::rfc2253(parsed.issuer()),
            serial: serial(parsed.raw_serial()),
            sha256: hex(digest(&SHA256, der).as_ref()),
            sha1: hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            ..PeerCertificate::default()
        };
        let names = parsed.subject_alternative_name().ok().flatten();
        for (kind, text) in names.iter().flat_map(|names| &names.value.general_names).filter_map(name_text) {
            match kind {
                NameKind::Uri => peer.uris.push(text),
                NameKind::Dns => peer.dns.push(text),
                NameKind::Ip => peer.ips.push(text),
                NameKind::Email => peer.emails.push(text),
            }
        }
        Ok(peer)
    }
}

/// A subject alternative name as text, of the kinds that are matched.
pub(crate) fn name_text(name: &GeneralName<'_>) -> Option<(NameKind, String)> {
    match name {
        GeneralName::URI(uri) => Some((NameKind::Uri, (*uri).to_owned())),
        GeneralName::DNSName(name) => Some((NameKind::Dns, (*name).to_owned())),
        GeneralName::RFC822Name(name) => Some((NameKind::Email, (*name).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|b| Ipv6Addr::from(b).to_string()));
            Some((NameKind::Ip, address.ok()?))
        }
        _ => None,
    }
}

/// Without the zero that only says that the number is positive.
pub(crate) fn serial(bytes: &[u8]) -> String {
    hex(bytes.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(bytes))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ok = write!(text, "{byte:02x}");
    }
    text
}
