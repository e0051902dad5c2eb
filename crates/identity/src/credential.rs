//! The first proof of a workload that has no certificate yet: a token for one id, good once and for a short time. Who
//! starts a workload mints it, the authority that shares the key verifies it; that it is used only once is for the
//! verifier to remember ([`Claims::nonce`]).
//!
//! Form: `v1~ID~EXPIRES~NONCE~MAC`, where EXPIRES is Unix time in seconds and MAC is HMAC-SHA-256 over what stands
//! before it; ids have no `~`.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, SpiffeId};

/// Longest token that is read: the longest id and some.
const MAX_BYTES: usize = 2_300;

const VERSION: &str = "v1";

/// What minter and verifier share.
pub struct CredentialKey(hmac::Key);

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialKey(..)")
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose it is.
    pub id: SpiffeId,
    /// From when on it is no good, in whole seconds.
    pub expires: SystemTime,
    /// Tells it from all others.
    pub nonce: [u8; 16],
}

/// A token in clear, wiped when dropped.
#[derive(Clone)]
pub struct Credential(Zeroizing<String>);

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl CredentialKey {
    /// From random bytes.
    pub fn new(random: &[u8; 32]) -> CredentialKey {
        CredentialKey(hmac::Key::new(hmac::HMAC_SHA256, random))
    }

    /// The token.
    pub fn mint(&self, claims: &Claims) -> Credential {
        let expires = claims.expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let nonce = hex(&claims.nonce);
        let mut text = Zeroizing::new(format!("{VERSION}~{}~{expires}~{nonce}", claims.id));
        let mac = hex(hmac::sign(&self.0, text.as_bytes()).as_ref());
        text.push('~');
        text.push_str(&mac);
        Credential(text)
    }

    /// What the token says, once it is found to be ours and in its time.
    ///
    /// # Errors
    /// If it has another form, another key has made it, or its time is over.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, Error> {
        let malformed = || Error::malformed("the credential has another form");
        if token.len() > MAX_BYTES {
            return Err(malformed());
        }
        let (claims, mac) = token.rsplit_once('~').ok_or_else(malformed)?;
        let mac: [u8; 32] = unhex(mac).ok_or_else(malformed)?;
        // Constant in time. Nothing of the claims is read before this.
        hmac::verify(&self.0, claims.as_bytes(), &mac)
            .map_err(|_| Error::mismatch("the credential is not signed by this mesh"))?;
        let parts: Vec<&str> = claims.split('~').collect();
        let [VERSION, id, expires, nonce] = parts[..] else { return Err(malformed()) };
        let seconds = expires.parse().map_err(|_| malformed())?;
        let expires =
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(malformed)?;
        if now >= expires {
            return Err(Error::new(ErrorKind::Expired, "the credential has expired"));
        }
        Ok(Claims { id: id.parse()?, expires, nonce: unhex(nonce).ok_or_else(malformed)? })
    }
}

impl Credential {
    /// As it was received, not verified.
    pub fn from_text(text: &str) -> Credential {
        Credential(Zeroizing::new(text.trim().to_owned()))
    }

    /// The text, to be sent over a connection that nobody else can read.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims() -> Claims {
        Claims {
            id: "spiffe://td/ns/a/sa/b".parse().unwrap(),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
            nonce: [0xab; 16],
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_says_what_was_put_in_until_it_expires() {
        let key = CredentialKey::new(&[7; 32]);
        let token = key.mint(&claims());
        assert_eq!(key.verify(token.as_str(), at(999)).unwrap(), claims());
        assert_eq!(key.verify(token.as_str(), at(1_000)).unwrap_err().kind(), ErrorKind::Expired);
        assert!(!format!("{token:?} {key:?}").contains("ab"));
    }

    #[test]
    fn another_key_and_another_text_are_refused() {
        let key = CredentialKey::new(&[7; 32]);
        let token = key.mint(&claims());
        let other = CredentialKey::new(&[8; 32]);
        assert_eq!(other.verify(token.as_str(), at(1)).unwrap_err().kind(), ErrorKind::Mismatch);
        let forged = token.as_str().replace("/sa/b", "/sa/c");
        assert_eq!(key.verify(&forged, at(1)).unwrap_err().kind(), ErrorKind::Mismatch);
        for (place, _) in token.as_str().char_indices() {
            assert!(key.verify(&token.as_str()[..place], at(1)).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(v1)?[~ -~é]{0,80}") {
            prop_assert!(CredentialKey::new(&[7; 32]).verify(&text, at(1)).is_err());
        }
    }
}
