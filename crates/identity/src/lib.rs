//! Who a workload is, and how it proves it: SPIFFE ids, keys, certificates, trust bundles.
//!
//! Pure: time is a parameter, nothing here opens a file or a socket. Randomness is a parameter too, but for the making
//! of keys, which the cryptographic library does with the system's generator and nothing else.
//!
//! Entry points: [`SpiffeId`], [`Key`], [`Csr`], [`Authority`] (what signs), [`Bundle`] (whom to trust),
//! [`Certificate`] (what a certificate says), [`Credential`] (the first proof of a workload without a certificate).

mod authority;
mod bundle;
mod certificate;
mod credential;
mod csr;
mod error;
mod key;
mod ocsp;
mod peer;
mod pem;
mod served;
mod spiffe;
pub mod verify;

pub use authority::{Authority, Issued, Plugged, Serial, Ttl};
pub use bundle::Bundle;
pub use certificate::{AlternativeName, Certificate};
pub use credential::{Claims, Credential, CredentialKey};
pub use csr::Csr;
pub use error::{Error, ErrorKind};
pub use key::{Key, KeyKind};
pub use peer::{PeerCertificate, hex};
pub use pem::{certificates_from_pem, certificates_to_pem};
pub use served::{PublicKeyKind, ServedCertificate, Staple, Unservable};
pub use spiffe::{SpiffeId, TrustDomain};

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("invariant: SHA-256 has 32 bytes")
}

/// Random bytes from the system: for serial numbers, nonces and keys that callers hand back to this crate.
///
/// # Errors
/// If the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::new(ErrorKind::Internal, "the system gives no randomness"))?;
    Ok(bytes)
}
