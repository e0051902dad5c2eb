//! Which one-time credentials were used. Kept in a file, so that one that was used before a restart of the control plane
//! is not good after it.
//!
//! A credential is bound to the first key that it is used for: a workload that has not heard the answer may ask again,
//! and somebody else with the same credential and another key is refused.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use meltemi_identity::Claims;

use crate::limits::MAX_USED_CREDENTIALS;

/// The key that a credential was used for, and until when that must be remembered.
type Use = ([u8; 32], SystemTime);

/// Memory of used credentials.
pub(super) struct UsedCredentials {
    uses: HashMap<[u8; 16], Use>,
    file: Option<File>,
}

/// Why a credential is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It was used before, with another key.
    Replayed,
    /// It cannot be remembered, so it cannot be taken.
    Full,
}

impl UsedCredentials {
    /// Reads what is still of interest, and forgets the rest. Without a path nothing outlives the process.
    pub(super) fn open(path: Option<PathBuf>, now: SystemTime) -> io::Result<UsedCredentials> {
        let Some(path) = path else { return Ok(UsedCredentials { uses: HashMap::new(), file: None }) };
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let uses: HashMap<_, _> =
            text.lines().filter_map(parse).filter(|(_, (_, until))| *until > now).collect();
        let lines: String = uses.iter().map(|(nonce, used)| line(nonce, used)).collect();
        let fresh = path.with_extension("used.new");
        fs::write(&fresh, lines)?;
        fs::rename(&fresh, &path)?;
        let file = OpenOptions::new().append(true).open(&path)?;
        Ok(UsedCredentials { uses, file: Some(file) })
    }

    /// Uses the credential for the key.
    pub(super) fn take(&mut self, claims: &Claims, key: [u8; 32], now: SystemTime) -> Result<(), NotTaken> {
        if let Some((known, _)) = self.uses.get(&claims.nonce) {
            return if *known == key { Ok(()) } else { Err(NotTaken::Replayed) };
        }
        if self.uses.len() >= MAX_USED_CREDENTIALS {
            self.uses.retain(|_, (_, until)| *until > now);
        }
        if self.uses.len() >= MAX_USED_CREDENTIALS {
            return Err(NotTaken::Full);
        }
        let used = (key, claims.expires);
        if let Some(file) = &mut self.file {
            file.write_all(line(&claims.nonce, &used).as_bytes()).map_err(|error| {
                tracing::error!(%error, "a used credential cannot be written down");
                NotTaken::Full
            })?;
        }
        self.uses.insert(claims.nonce, used);
        Ok(())
    }
}

fn line(nonce: &[u8; 16], (key, until): &Use) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let until = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{} {} {until}\n", hex(nonce), hex(key))
}

fn parse(line: &str) -> Option<([u8; 16], Use)> {
    let mut words = line.split(' ');
    let (nonce, key) = (bytes(words.next()?)?, bytes(words.next()?)?);
    let until = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(words.next()?.parse().ok()?))?;
    Some((nonce, (key, until)))
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let value = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = value(at)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn claims(nonce: u8, expires: u64) -> Claims {
        Claims { id: "spiffe://td/a".parse().unwrap(), expires: at(expires), nonce: [nonce; 16] }
    }

    #[test]
    fn a_credential_is_good_for_one_key_also_after_a_restart() {
        let scratch = tempfile::tempdir().unwrap();
        let path = Some(scratch.path().join("key.used"));
        let mut used = UsedCredentials::open(path.clone(), at(0)).unwrap();
        assert_eq!(used.take(&claims(1, 100), [1; 32], at(1)), Ok(()));
        assert_eq!(used.take(&claims(1, 100), [1; 32], at(1)), Ok(()), "the answer was lost");
        assert_eq!(used.take(&claims(1, 100), [2; 32], at(1)), Err(NotTaken::Replayed));
        drop(used);
        let mut again = UsedCredentials::open(path.clone(), at(50)).unwrap();
        assert_eq!(again.take(&claims(1, 100), [2; 32], at(50)), Err(NotTaken::Replayed));
        let later = UsedCredentials::open(path, at(101)).unwrap();
        assert!(later.uses.is_empty(), "what has expired is forgotten: its time refuses it");
    }

    #[test]
    fn memory_is_bounded_and_full_means_refused() {
        let mut used = UsedCredentials::open(None, at(0)).unwrap();
        for n in 0..MAX_USED_CREDENTIALS as u128 {
            used.uses.insert(n.to_be_bytes(), ([0; 32], at(100)));
        }
        assert_eq!(used.take(&claims(255, 200), [1; 32], at(99)), Err(NotTaken::Full));
        assert_eq!(used.take(&claims(255, 200), [1; 32], at(100)), Ok(()));
        assert_eq!(used.uses.len(), 1);
    }
}
