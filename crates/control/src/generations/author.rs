//! Who saved a generation: the owner of the file that was changed last, by name where the system's list of users has one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::limits::MAX_AUTHOR_FILES;

/// The system's users; reading it asks no network.
const USERS: &str = "/etc/passwd";

/// The owner of the newest of the files; `None` when none of them is there any more.
pub(super) fn of(files: &BTreeSet<Arc<str>>) -> Option<String> {
    let found = files.iter().take(MAX_AUTHOR_FILES).filter_map(|file| fs::metadata(&**file).ok());
    let newest = found.max_by_key(|file| (file.mtime(), file.mtime_nsec()))?;
    let uid = newest.uid();
    Some(name(&fs::read_to_string(USERS).unwrap_or_default(), uid).unwrap_or_else(|| format!("uid {uid}")))
}

/// `NAME:x:UID:…`
fn name(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_or_a_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\n\nanna:x:1000:1000::/home/anna:/bin/sh\n";
        assert_eq!(name(users, 1000).as_deref(), Some("anna"));
        assert_eq!(name(users, 7), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path: Arc<str> = file.path().to_str().unwrap().into();
        assert!(of(&BTreeSet::from([path])).is_some());
        assert_eq!(of(&BTreeSet::from(["/no/such/file".into()])), None);
    }
}
