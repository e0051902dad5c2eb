//! Leaves of TLS settings: paths, server names, pins.

use super::text::decode_base64;
use super::{Flaw, Verdict};
use crate::codes;

/// Bytes of SHA-256.
const DIGEST_BYTES: usize = 32;

/// The path of a file, on the side of the proxy.
pub(crate) fn path(text: &str) -> Verdict {
    if text.is_empty() || text.contains(['\0', '\n', '~']) {
        let message = format!("`{}` is not the path of a file", text.escape_debug());
        return Err(
            Flaw::new(&codes::BAD_NAME, message).help("`~` and control characters have no place in it")
        );
    }
    Ok(())
}

/// A server name as TLS carries it; also the mesh's own form, `outbound_.80_._.a.example.com`.
pub(crate) fn server_name(text: &str) -> Verdict {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fine = (1..=255).contains(&text.len()) && text.bytes().all(letter);
    if fine { Ok(()) } else { Err(Flaw::new(&codes::BAD_HOST, format!("`{text}` is not a server name"))) }
}

/// A trust domain: the first part of a SPIFFE id.
pub(crate) fn trust_domain(text: &str) -> Verdict {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(());
    }
    let flaw = Flaw::new(&codes::BAD_NAME, format!("`{}` is not a trust domain", text.escape_debug()));
    Err(flaw.help("use lower-case letters, digits, `.`, `-` and `_`, at most 255"))
}

/// The base64 of the SHA-256 of a public key.
pub(crate) fn spki_pin(text: &str) -> Verdict {
    match decode_base64(text) {
        Some(bytes) if bytes.len() == DIGEST_BYTES => Ok(()),
        _ => Err(Flaw::new(&codes::BAD_NAME, "the pin is not the base64 of 32 bytes")
            .help("it is the SHA-256 of the certificate's public key (DER)")),
    }
}

/// The hex of the SHA-256 of a certificate, maybe with `:` between the bytes.
pub(crate) fn certificate_hash(text: &str) -> Verdict {
    let digits = text.replace(':', "");
    let fine = digits.len() == 2 * DIGEST_BYTES && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let flaw = || Flaw::new(&codes::BAD_NAME, "the hash is not the hex of 32 bytes");
    if fine { Ok(()) } else { Err(flaw().help("it is the SHA-256 of the certificate (DER)")) }
}
