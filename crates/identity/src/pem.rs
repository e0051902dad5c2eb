//! PEM in both directions: certificates, and the base64 that keys and requests are printed with. Reading is that of
//! `rustls-pki-types`. Source: RFC 7468.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::Error;

/// Certificates in one text that are read at most: a bundle of every public authority has some 150.
const MAX_CERTIFICATES: usize = 1_000;

/// Every certificate of a text, in its order; what else is in it is skipped.
///
/// # Errors
/// If a section is broken, there is no certificate at all, or there are more than 1000.
pub fn certificates_from_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text).take(MAX_CERTIFICATES + 1).collect();
    let certificates = certificates.map_err(|e| Error::malformed(format!("broken PEM: {e}")))?;
    match certificates.len() {
        0 => Err(Error::malformed("there is no certificate in it")),
        count if count > MAX_CERTIFICATES => {
            Err(Error::malformed(format!("there are more than {MAX_CERTIFICATES} certificates in it")))
        }
        _ => Ok(certificates),
    }
}

/// The certificates as PEM, in the order given.
pub fn certificates_to_pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    certificates.into_iter().map(|der| encode("CERTIFICATE", der).as_str().to_owned()).collect()
}

/// One section. Zeroised when dropped, because it may hold a private key.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    const BYTES_PER_LINE: usize = 48;
    // Reserved whole, so that no piece of a key stays behind where the text has outgrown its place.
    let size = der.len().div_ceil(BYTES_PER_LINE) * 65 + 2 * (label.len() + 18);
    let mut text = Zeroizing::new(String::with_capacity(size));
    text.extend(["-----BEGIN ", label, "-----\n"]);
    for line in der.chunks(BYTES_PER_LINE) {
        base64(line, &mut text);
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8], text: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sextet = (group >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= chunk.len() { ALPHABET[sextet] as char } else { '=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(der in proptest::collection::vec(any::<u8>(), 1..300)) {
            let certificate = CertificateDer::from(der);
            let text = certificates_to_pem([&certificate, &certificate]);
            prop_assert_eq!(certificates_from_pem(text.as_bytes()).unwrap(), vec![certificate.clone(), certificate]);
        }

        #[test]
        fn no_text_panics(text in "(-----BEGIN CERTIFICATE-----\n)?[A-Za-z0-9+/=\n -]{0,80}") {
            let _ = certificates_from_pem(text.as_bytes());
        }
    }

    #[test]
    fn nothing_is_no_bundle() {
        assert!(certificates_from_pem(b"hello").is_err());
    }
}
