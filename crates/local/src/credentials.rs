//! First credentials: what proves to the control plane that a process was started by this `up`. The key is new for every
//! `up` and shared with its control plane through a file; a token is new for every start of a process.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use meltemi_identity::{Claims, Credential, CredentialKey, SpiffeId};

use crate::limits::CREDENTIAL_LIFETIME;
use crate::state::write_atomically;

/// Mints credentials.
#[derive(Debug)]
pub(crate) struct Credentials(CredentialKey);

impl Credentials {
    /// Makes a key and writes it for the control plane, readable by this user alone.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn start(path: &Path) -> io::Result<Credentials> {
        let secret: [u8; 32] = meltemi_identity::random().map_err(io::Error::other)?;
        write_atomically(path, secret)?;
        Ok(Credentials(CredentialKey::new(&secret)))
    }

    /// A credential for one start of a process.
    pub(crate) fn mint(&self, id: &SpiffeId) -> io::Result<Credential> {
        let nonce = meltemi_identity::random().map_err(io::Error::other)?;
        let expires = SystemTime::now() + CREDENTIAL_LIFETIME;
        Ok(self.0.mint(&Claims { id: id.clone(), expires, nonce }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_has_a_credential_of_its_own_under_the_key_in_the_file() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        let credentials = Credentials::start(&path).unwrap();
        let key = CredentialKey::new(&std::fs::read(&path).unwrap().try_into().unwrap());
        let id = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let claims = || key.verify(credentials.mint(&id).unwrap().as_str(), SystemTime::now()).unwrap();
        let (one, two) = (claims(), claims());
        assert_eq!((&one.id, &two.id), (&id, &id));
        assert_ne!(one.nonce, two.nonce);
    }
}
