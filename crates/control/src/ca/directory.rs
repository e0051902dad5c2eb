//! The files of the authority, in the layout of Istio's `cacerts`: `ca-cert.pem`, `ca-key.pem`, `root-cert.pem` and
//! `cert-chain.pem` (which a self-signed root does not need). Leaves out what they must say: [`Authority::plugged`].

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use meltemi_identity::{Authority, KeyKind, Plugged, Serial, TrustDomain};

pub(super) const CA_CERT: &str = "ca-cert.pem";
pub(super) const CA_KEY: &str = "ca-key.pem";
pub(super) const ROOT_CERT: &str = "root-cert.pem";
const CERT_CHAIN: &str = "cert-chain.pem";

/// Where an authority is kept.
pub(crate) struct Directory {
    path: PathBuf,
    trust_domain: TrustDomain,
    kind: KeyKind,
}

/// Changes when a file does.
pub(super) type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

impl Directory {
    pub(crate) fn new(path: PathBuf, trust_domain: TrustDomain, kind: KeyKind) -> Directory {
        Directory { path, trust_domain, kind }
    }

    /// The authority, which is made when there is none yet.
    pub(crate) fn open_or_create(&self, now: SystemTime) -> anyhow::Result<Authority> {
        if !self.path.join(CA_CERT).exists() && !self.path.join(CA_KEY).exists() {
            self.create(now).context("make a root")?;
        }
        self.load(now)
    }

    fn create(&self, now: SystemTime) -> anyhow::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let serial = Serial::new(meltemi_identity::random()?);
        let (certificate, key) = Authority::make_root(&self.trust_domain, self.kind, now, serial)?;
        // The certificates last: without them a run that was cut short leaves nothing that looks whole.
        write_new(&self.path.join(CA_KEY), 0o600, key.to_pem().as_bytes())?;
        write_new(&self.path.join(ROOT_CERT), 0o644, certificate.as_bytes())?;
        write_new(&self.path.join(CA_CERT), 0o644, certificate.as_bytes())?;
        tracing::info!(directory = %self.path.display(), trust_domain = %self.trust_domain, "made a root certificate");
        Ok(())
    }

    /// What the files say now.
    pub(crate) fn load(&self, now: SystemTime) -> anyhow::Result<Authority> {
        let read = |name: &str| fs::read(self.path.join(name)).with_context(|| format!("read {name}"));
        let ca_key = read_secret(&self.path.join(CA_KEY))?;
        let cert_chain = match read(CERT_CHAIN) {
            Ok(text) => text,
            Err(_) if !self.path.join(CERT_CHAIN).exists() => Vec::new(),
            Err(error) => return Err(error),
        };
        let (ca_cert, root_cert) = (read(CA_CERT)?, read(ROOT_CERT)?);
        let files =
            Plugged { ca_cert: &ca_cert, ca_key: &ca_key, root_cert: &root_cert, cert_chain: &cert_chain };
        Ok(Authority::plugged(self.trust_domain.clone(), files, now)?)
    }

    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |name: &str| {
            let metadata = fs::metadata(self.path.join(name)).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
        };
        [CA_CERT, CA_KEY, ROOT_CERT, CERT_CHAIN].map(stamp).to_vec()
    }
}

/// Writes a file that must not exist yet.
pub(super) fn write_new(path: &Path, mode: u32, text: &[u8]) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text)?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Reads a file that nobody but its owner may read.
///
/// # Errors
/// If others may: the text says which command makes it right.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let mode = fs::metadata(path).with_context(|| format!("read {shown}"))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("others may read the secret in {shown} (mode {mode:03o}): run `chmod 600 {shown}`");
    }
    fs::read(path).with_context(|| format!("read {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &Path) -> Directory {
        Directory::new(path.to_owned(), "cluster.local".parse().unwrap(), KeyKind::EcdsaP256)
    }

    #[test]
    fn a_root_is_made_once_and_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = directory(&scratch.path().join("ca"));
        let now = SystemTime::now();
        let made = directory.open_or_create(now).unwrap();
        let again = directory.open_or_create(now).unwrap();
        assert_eq!(made.roots(), again.roots());
        let mode = fs::metadata(scratch.path().join("ca").join(CA_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_command_that_helps() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = directory(scratch.path());
        directory.open_or_create(SystemTime::now()).unwrap();
        let key = scratch.path().join(CA_KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = format!("{:#}", directory.open_or_create(SystemTime::now()).unwrap_err());
        assert!(
            error.contains("mode 640") && error.contains(&format!("chmod 600 {}", key.display())),
            "{error}"
        );
    }

    #[test]
    fn a_directory_without_its_key_is_not_made_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = directory(scratch.path());
        directory.open_or_create(SystemTime::now()).unwrap();
        fs::remove_file(scratch.path().join(CA_KEY)).unwrap();
        assert!(directory.open_or_create(SystemTime::now()).is_err());
    }
}
