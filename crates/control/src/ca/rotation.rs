//! A change of a self-signed root that breaks nothing, in steps that are found again in the files of the authority, so
//! that it may be stopped and taken up anywhere:
//!
//! 1. a new root is made (`next-ca-cert.pem`, `next-ca-key.pem`) and trusted beside the old one;
//! 2. once every workload has heard of it, the new one signs (the old one becomes `retiring-root.pem`);
//! 3. once nothing lives that the old one has signed, it is trusted no more.
//!
//! A workload hears of roots when it renews, at half of its certificate's life; what a root has signed lives for a whole
//! one. A running control plane follows the files by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use meltemi_identity::{Authority, KeyKind, Serial, certificates_from_pem, certificates_to_pem};

use super::directory::{CA_CERT, CA_KEY, Directory, ROOT_CERT, read_secret, write_new};

const NEXT_CERT: &str = "next-ca-cert.pem";
const NEXT_KEY: &str = "next-ca-key.pem";
const RETIRING: &str = "retiring-root.pem";

/// How much later than at half of its life a certificate may be renewed, jitter and retries included.
const RENEWAL_MARGIN: f64 = 0.6;

/// Where the change is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A new root was made and is trusted beside the old one.
    Announced,
    /// Workloads hear of the new root; it signs from then on.
    Spreading(SystemTime),
    /// The new root signs from now on.
    Switched,
    /// What the old root has signed still lives until then.
    Retiring(SystemTime),
    /// The old root is trusted no more: the change is done.
    Done,
}

/// One change of the root of a directory.
pub(crate) struct Rotation {
    directory: Directory,
    path: PathBuf,
    kind: KeyKind,
    /// The longest life of a certificate of a workload.
    ttl: Duration,
}

impl Rotation {
    pub(crate) fn new(directory: Directory, path: PathBuf, kind: KeyKind, ttl: Duration) -> Rotation {
        Rotation { directory, path, kind, ttl }
    }

    /// Does what is due at `now`, at most one step, and says where the change is. Before the first step and after
    /// [`Progress::Done`] the directory is an ordinary one, and the next call begins a new change.
    pub(crate) fn step(&self, now: SystemTime) -> anyhow::Result<Progress> {
        if self.path.join(RETIRING).exists() {
            return self.retire(now);
        }
        if self.path.join(NEXT_CERT).exists() {
            return self.switch(now);
        }
        self.announce(now)
    }

    fn announce(&self, now: SystemTime) -> anyhow::Result<Progress> {
        let authority = self.directory.load(now)?;
        if !authority.roots().contains(authority.certificate()) {
            bail!(
                "the root is not here, only an intermediate: change it where it was made, and put the new files here"
            );
        }
        let serial = Serial::new(meltemi_identity::random()?);
        let (certificate, key) = Authority::make_root(authority.trust_domain(), self.kind, now, serial)?;
        // A run that was cut short before the certificate was written has left a key that nothing trusts.
        let _ = fs::remove_file(self.path.join(NEXT_KEY));
        write_new(&self.path.join(NEXT_KEY), 0o600, key.to_pem().as_bytes())?;
        let trusted = format!("{}{certificate}", certificates_to_pem(authority.roots()));
        replace(&self.path.join(ROOT_CERT), 0o644, trusted.as_bytes())?;
        replace(&self.path.join(NEXT_CERT), 0o644, certificate.as_bytes())?;
        Ok(Progress::Announced)
    }

    fn switch(&self, now: SystemTime) -> anyhow::Result<Progress> {
        let due = self.changed(NEXT_CERT)? + self.ttl.mul_f64(RENEWAL_MARGIN);
        if now < due {
            return Ok(Progress::Spreading(due));
        }
        let next = self.read(NEXT_CERT)?;
        let key = read_secret(&self.path.join(NEXT_KEY))?;
        let old = self.read(CA_CERT)?;
        if old != next {
            // Between the two a control plane finds files that do not belong together, and keeps what it has.
            replace(&self.path.join(CA_KEY), 0o600, &key)?;
            replace(&self.path.join(RETIRING), 0o644, &old)?;
            replace(&self.path.join(CA_CERT), 0o644, &next)?;
        }
        self.directory.load(now).context("after the change")?;
        fs::remove_file(self.path.join(NEXT_KEY))?;
        fs::remove_file(self.path.join(NEXT_CERT))?;
        Ok(Progress::Switched)
    }

    fn retire(&self, now: SystemTime) -> anyhow::Result<Progress> {
        if self.path.join(NEXT_CERT).exists() {
            // Cut short while the new one was put in place.
            let (next, key) = (self.read(NEXT_CERT)?, read_secret(&self.path.join(NEXT_KEY))?);
            replace(&self.path.join(CA_KEY), 0o600, &key)?;
            replace(&self.path.join(CA_CERT), 0o644, &next)?;
            fs::remove_file(self.path.join(NEXT_KEY))?;
            fs::remove_file(self.path.join(NEXT_CERT))?;
            return Ok(Progress::Switched);
        }
        let due = self.changed(RETIRING)? + self.ttl;
        if now < due {
            return Ok(Progress::Retiring(due));
        }
        let old = certificates_from_pem(&self.read(RETIRING)?)?;
        let mut trusted = certificates_from_pem(&self.read(ROOT_CERT)?)?;
        trusted.retain(|root| !old.contains(root));
        replace(&self.path.join(ROOT_CERT), 0o644, certificates_to_pem(&trusted).as_bytes())?;
        self.directory.load(now).context("after the change")?;
        fs::remove_file(self.path.join(RETIRING))?;
        Ok(Progress::Done)
    }

    fn read(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        fs::read(self.path.join(name)).with_context(|| format!("read {name}"))
    }

    /// When the file was written.
    fn changed(&self, name: &str) -> anyhow::Result<SystemTime> {
        let metadata = fs::metadata(self.path.join(name)).with_context(|| format!("read {name}"))?;
        Ok(metadata.modified()?)
    }
}

/// Replaces a file whole.
fn replace(path: &Path, mode: u32, text: &[u8]) -> anyhow::Result<()> {
    let scratch = path.with_extension("pem.new");
    let _ = fs::remove_file(&scratch);
    write_new(&scratch, mode, text)?;
    fs::rename(&scratch, path).with_context(|| format!("replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(path: &Path, ttl: Duration) -> Rotation {
        let directory =
            || Directory::new(path.to_owned(), "cluster.local".parse().unwrap(), KeyKind::EcdsaP256);
        directory().open_or_create(SystemTime::now()).unwrap();
        Rotation::new(directory(), path.to_owned(), KeyKind::EcdsaP384, ttl)
    }

    /// Roots, and which of them signs.
    fn state(rotation: &Rotation) -> (usize, Vec<u8>) {
        let authority = rotation.directory.load(SystemTime::now()).unwrap();
        (authority.roots().len(), authority.certificate().to_vec())
    }

    #[test]
    fn both_roots_are_trusted_while_either_may_have_signed() {
        let scratch = tempfile::tempdir().unwrap();
        let rotation = rotation(scratch.path(), Duration::from_secs(100));
        let (_, old) = state(&rotation);
        let begin = SystemTime::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(rotation.step(at(0)).unwrap(), Progress::Announced);
        assert_eq!(state(&rotation), (2, old.clone()));
        // Files tell coarser times than clocks, a little earlier.
        assert!(matches!(rotation.step(at(50)).unwrap(), Progress::Spreading(due) if due >= at(59)));
        assert_eq!(state(&rotation), (2, old.clone()), "too early");
        assert_eq!(rotation.step(at(62)).unwrap(), Progress::Switched);
        let (roots, new) = state(&rotation);
        assert!(roots == 2 && new != old);
        assert!(matches!(rotation.step(at(62)).unwrap(), Progress::Retiring(_)));
        assert_eq!(rotation.step(at(102)).unwrap(), Progress::Done);
        assert_eq!(state(&rotation), (1, new));
        let mut left: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [CA_CERT, CA_KEY, ROOT_CERT]);
    }

    #[test]
    fn a_change_that_was_cut_short_is_taken_up() {
        let scratch = tempfile::tempdir().unwrap();
        let rotation = rotation(scratch.path(), Duration::from_secs(100));
        let late = SystemTime::now() + Duration::from_secs(70);
        assert_eq!(rotation.step(SystemTime::now()).unwrap(), Progress::Announced);
        // As if it had ended after the key and the old root were written.
        let path = |name| scratch.path().join(name);
        fs::copy(path(NEXT_KEY), path(CA_KEY)).unwrap();
        fs::copy(path(CA_CERT), path(RETIRING)).unwrap();
        assert!(rotation.directory.load(late).is_err(), "a control plane would keep what it has");
        assert_eq!(rotation.step(late).unwrap(), Progress::Switched);
        assert_eq!(state(&rotation).0, 2);
    }
}
