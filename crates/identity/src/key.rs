//! Private keys: made, read from any of the usual PEM forms, and used to sign. Never printed by accident: no `Display`, a
//! `Debug` without contents, memory wiped when dropped. Leaves out where a key is kept.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, pem};

/// The algorithms that keys are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    /// ECDSA on P-256: small, and the fastest handshakes.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 4096 bits.
    Rsa4096,
}

impl KeyKind {
    /// Every kind, in the order of documentation.
    pub const ALL: [KeyKind; 4] =
        [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048, KeyKind::Rsa4096];

    /// The name on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::EcdsaP256 => "ecdsa-p256",
            KeyKind::EcdsaP384 => "ecdsa-p384",
            KeyKind::Rsa2048 => "rsa-2048",
            KeyKind::Rsa4096 => "rsa-4096",
        }
    }
}

impl FromStr for KeyKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<KeyKind, Error> {
        let kind = KeyKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        let names = KeyKind::ALL.map(KeyKind::as_str).join(", ");
        kind.ok_or_else(|| Error::unsupported(format!("{text:?} is no kind of key; there are {names}")))
    }
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A private key with its public one.
pub struct Key {
    pair: Pair,
    algorithm: &'static SignatureAlgorithm,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn generate(kind: KeyKind) -> Result<Key, Error> {
        let ecdsa = |algorithm| EcdsaKeyPair::generate(algorithm).map(Pair::Ecdsa);
        let rsa = |size| RsaKeyPair::generate(size).map(Pair::Rsa);
        let pair = match kind {
            KeyKind::EcdsaP256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyKind::EcdsaP384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyKind::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyKind::Rsa4096 => rsa(KeySize::Rsa4096),
        };
        Key::of(pair.map_err(|_| Error::new(ErrorKind::Internal, "making a key failed"))?)
    }

    /// Reads the first private key of a text: PKCS#8, SEC 1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`).
    ///
    /// # Errors
    /// If there is none, it is encrypted, or it is neither ECDSA on P-256 or P-384 nor RSA of at least 2048 bits.
    pub fn from_pem(text: &[u8]) -> Result<Key, Error> {
        let der = PrivateKeyDer::from_pem_slice(text).map_err(|_| {
            Error::malformed("there is no private key in it that can be read (an encrypted one cannot)")
        })?;
        let ecdsa = || {
            [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING]
                .into_iter()
                .find_map(|algorithm| read_ecdsa(algorithm, &der))
        };
        let rsa = || match &der {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
            _ => None,
        };
        let pair = ecdsa().map(Pair::Ecdsa).or_else(|| rsa().map(Pair::Rsa));
        Key::of(pair.ok_or_else(|| {
            Error::unsupported(
                "the private key is neither ECDSA on P-256 or P-384 nor RSA of 2048 bits or more",
            )
        })?)
    }

    fn of(pair: Pair) -> Result<Key, Error> {
        let failed = |_| Error::new(ErrorKind::Internal, "a key cannot be written");
        let (algorithm, pkcs8) = match &pair {
            Pair::Ecdsa(pair) => {
                let algorithm = match pair.algorithm() == &ECDSA_P256_SHA256_ASN1_SIGNING {
                    true => &rcgen::PKCS_ECDSA_P256_SHA256,
                    false => &rcgen::PKCS_ECDSA_P384_SHA384,
                };
                (algorithm, pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec())
            }
            Pair::Rsa(pair) => (&rcgen::PKCS_RSA_SHA256, pair.as_der().map_err(failed)?.as_ref().to_vec()),
        };
        Ok(Key { pair, algorithm, pkcs8: Zeroizing::new(pkcs8) })
    }

    /// PKCS#8 as PEM: the private key in clear, wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// PKCS#8 for TLS. The copy belongs to the receiver, who keeps it as long as connections need it.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }

    /// The public key as `SubjectPublicKeyInfo`.
    pub fn public_key(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }
}

fn read_ecdsa(algorithm: &'static EcdsaSigningAlgorithm, der: &PrivateKeyDer<'_>) -> Option<EcdsaKeyPair> {
    match der {
        PrivateKeyDer::Pkcs8(der) => EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Sec1(der) => EcdsaKeyPair::from_private_key_der(algorithm, der.secret_sec1_der()).ok(),
        _ => None,
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        match &self.pair {
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ecdsa(pair) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
        };
        signature.map_err(|_| rcgen::Error::RingUnspecified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_made_and_read_again() {
        for kind in KeyKind::ALL {
            let key = Key::generate(kind).unwrap();
            let again = Key::from_pem(key.to_pem().as_bytes()).unwrap();
            assert_eq!(again.public_key(), key.public_key(), "{}", kind.as_str());
            assert_eq!(kind.as_str().parse::<KeyKind>().unwrap(), kind);
        }
    }

    #[test]
    fn two_keys_differ_and_none_is_printed() {
        let key = Key::generate(KeyKind::default()).unwrap();
        assert_ne!(key.public_key(), Key::generate(KeyKind::default()).unwrap().public_key());
        let pem = key.to_pem();
        let secret = pem.lines().nth(1).unwrap();
        assert!(!format!("{key:?}").contains(&secret[..16]));
    }

    #[test]
    fn other_keys_are_refused() {
        assert_eq!(Key::from_pem(b"no key").unwrap_err().kind(), ErrorKind::Malformed);
        let ed25519 = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        assert_eq!(Key::from_pem(ed25519).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
