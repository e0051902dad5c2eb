//! Secrets from files, by the names that Istio gives them: read, checked for belonging together, and read again when
//! they change. A broken file leaves what was read before.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meltemi_identity::{Certificate, Key, certificates_from_pem};
use meltemi_xds::Config;
use tokio::sync::{mpsc, watch};

use crate::limits::{FILE_POLL, MAX_FILE_BYTES, MAX_FILE_SECRETS};
use crate::secrets;
use crate::svid::Current;

const CERTIFICATE: &str = "file-cert:";
const ROOTS: &str = "file-root:";

/// A secret as its files hold it: PEM.
pub(crate) enum FileSecret {
    /// With its key, wiped when dropped.
    Certificate { chain: Vec<u8>, key: zeroize::Zeroizing<Vec<u8>> },
    /// Certificates to trust.
    Roots(Vec<u8>),
}

/// Which files a name stands for.
#[derive(Debug, PartialEq, Eq)]
enum Files<'a> {
    Certificate(&'a Path, &'a Path),
    Roots(&'a Path),
}

/// `file-cert:CERTIFICATE~KEY` or `file-root:CERTIFICATES`.
fn parse(name: &str) -> Option<Files<'_>> {
    if let Some(path) = name.strip_prefix(ROOTS).filter(|path| !path.is_empty()) {
        return Some(Files::Roots(Path::new(path)));
    }
    let (certificate, key) = name.strip_prefix(CERTIFICATE)?.split_once('~')?;
    (!certificate.is_empty() && !key.is_empty())
        .then(|| Files::Certificate(Path::new(certificate), Path::new(key)))
}

fn read(name: &str) -> Result<FileSecret, String> {
    match parse(name).ok_or("the name is neither file-cert:CERTIFICATE~KEY nor file-root:CERTIFICATES")? {
        Files::Roots(path) => {
            let text = read_file(path)?;
            certificates_from_pem(&text).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok(FileSecret::Roots(text))
        }
        Files::Certificate(certificate, path) => {
            let chain = read_file(certificate)?;
            let key = zeroize::Zeroizing::new(read_file(path)?);
            let parsed = certificates_from_pem(&chain).and_then(|chain| Certificate::from_der(&chain[0]));
            let facts = parsed.map_err(|e| format!("{}: {e}", certificate.display()))?;
            let own = Key::from_pem(&key).map_err(|e| format!("{}: {e}", path.display()))?;
            if facts.public_key != own.public_key() {
                return Err(format!("{} is not the key of {}", path.display(), certificate.display()));
            }
            Ok(FileSecret::Certificate { chain, key })
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let size = fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?.len();
    if size > MAX_FILE_BYTES {
        return Err(format!("{shown} is larger than {MAX_FILE_BYTES} bytes"));
    }
    fs::read(path).map_err(|e| format!("{shown}: {e}"))
}

type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

fn stamp(name: &str) -> Stamp {
    let paths: Vec<PathBuf> = match parse(name) {
        Some(Files::Roots(path)) => vec![path.into()],
        Some(Files::Certificate(certificate, key)) => vec![certificate.into(), key.into()],
        None => Vec::new(),
    };
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    };
    paths.iter().map(stamp).collect()
}

/// Makes the configuration of the SDS server from the certificate and the files, and makes it again when either changes.
pub(crate) struct Publisher {
    current: Current,
    wanted: mpsc::Receiver<String>,
    configs: watch::Sender<Arc<Config>>,
    seen: BTreeMap<String, Stamp>,
    secrets: BTreeMap<String, FileSecret>,
}

impl Publisher {
    pub(crate) fn new(
        current: Current,
        wanted: mpsc::Receiver<String>,
        configs: watch::Sender<Arc<Config>>,
    ) -> Publisher {
        Publisher { current, wanted, configs, seen: BTreeMap::new(), secrets: BTreeMap::new() }
    }

    /// Runs until the agent ends.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(FILE_POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let svid = self.current.borrow_and_update().clone();
            let config = secrets::config(svid.as_deref(), &self.secrets);
            self.configs.send_if_modified(|old| {
                let is_new = old.generation != config.generation;
                if is_new {
                    *old = config;
                }
                is_new
            });
            loop {
                let has_changed = tokio::select! {
                    changed = self.current.changed() => match changed {
                        Ok(()) => true,
                        Err(_) => return,
                    },
                    name = self.wanted.recv() => match name {
                        Some(name) => self.add(name),
                        None => return,
                    },
                    _ = ticks.tick(), if !self.seen.is_empty() => self.refresh(),
                };
                if has_changed {
                    break;
                }
            }
        }
    }

    /// Whether there is a new secret.
    fn add(&mut self, name: String) -> bool {
        if self.seen.contains_key(&name) {
            return false;
        }
        if self.seen.len() >= MAX_FILE_SECRETS {
            tracing::error!(
                name,
                limit = MAX_FILE_SECRETS,
                "too many secrets from files; this one is not served"
            );
            return false;
        }
        self.look(name)
    }

    fn refresh(&mut self) -> bool {
        let changed: Vec<String> = self
            .seen
            .iter()
            .filter(|(name, seen)| stamp(name) != **seen)
            .map(|(name, _)| name.clone())
            .collect();
        let news: Vec<bool> = changed.into_iter().map(|name| self.look(name)).collect();
        news.contains(&true)
    }

    fn look(&mut self, name: String) -> bool {
        // The stamp is taken first: a file that changes meanwhile is read again.
        let stamp = stamp(&name);
        let found = read(&name);
        self.seen.insert(name.clone(), stamp);
        match found {
            Ok(secret) => {
                self.secrets.insert(name, secret);
                true
            }
            Err(error) => {
                tracing::error!(name, %error, "a secret from a file cannot be used; what was read before stays");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_istios() {
        let pair = Files::Certificate(Path::new("/a/cert.pem"), Path::new("/a/key.pem"));
        assert_eq!(parse("file-cert:/a/cert.pem~/a/key.pem"), Some(pair));
        assert_eq!(parse("file-root:/a/ca.pem"), Some(Files::Roots(Path::new("/a/ca.pem"))));
        for name in ["file-root:", "file-cert:/a", "file-cert:~/a", "file-cert:/a~", "default", ""] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let kind = meltemi_identity::KeyKind::EcdsaP256;
        let make = |n| {
            let serial = meltemi_identity::Serial::new([n; 16]);
            let now = std::time::SystemTime::now();
            meltemi_identity::Authority::make_root(&"td".parse().unwrap(), kind, now, serial).unwrap()
        };
        let (one, two) = (make(1), make(2));
        let (certificate, key) = (scratch.path().join("cert.pem"), scratch.path().join("key.pem"));
        fs::write(&certificate, &one.0).unwrap();
        fs::write(&key, two.1.to_pem().as_bytes()).unwrap();
        let name = format!("file-cert:{}~{}", certificate.display(), key.display());
        assert!(read(&name).err().unwrap().contains("is not the key of"));
        fs::write(&key, one.1.to_pem().as_bytes()).unwrap();
        assert!(matches!(read(&name), Ok(FileSecret::Certificate { .. })));
        assert!(matches!(read(&format!("file-root:{}", certificate.display())), Ok(FileSecret::Roots(_))));
        assert!(read("file-root:/nowhere").is_err());
    }
}
