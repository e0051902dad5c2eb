//! What proves who a workload is until it has a certificate.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use meltemi_identity::Credential;
use tonic::metadata::{Ascii, MetadataValue};

/// Largest credential or token that is read.
pub(crate) const MAX_PROOF_BYTES: u64 = 16 << 10;

/// One of the two.
#[derive(Debug)]
pub enum Proof {
    /// Good for one certificate: who lost that needs another credential.
    Once(Credential),
    /// A file with a token of an OpenID provider or of Kubernetes. Whoever writes it renews it, so it is read for every
    /// attempt.
    TokenFile(PathBuf),
}

impl Proof {
    /// Whether a refusal may end by itself.
    pub(crate) fn may_be_renewed(&self) -> bool {
        matches!(self, Proof::TokenFile(_))
    }

    /// The value of `authorization`.
    ///
    /// # Errors
    /// If the file cannot be read, or the text has characters that no header can have.
    pub(crate) fn authorization(&self) -> Result<MetadataValue<Ascii>, String> {
        let text = match self {
            Proof::Once(credential) => format!("Meltemi-Credential {}", credential.as_str()),
            Proof::TokenFile(path) => format!("Bearer {}", token(path)?),
        };
        let mut value: MetadataValue<_> =
            text.parse().map_err(|_| "the credential has characters that no header can have".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn token(path: &Path) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the token in {}: {error}", path.display());
    // A pipe would hold up every later attempt, too.
    let is_file = std::fs::metadata(path).map_err(|error| failed(&error))?.is_file();
    if !is_file {
        return Err(failed(&"it is no regular file"));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MAX_PROOF_BYTES).read_to_string(&mut text).map_err(|error| failed(&error))?;
    match text.trim() {
        "" => Err(failed(&"it is empty")),
        token => Ok(token.to_owned()),
    }
}
