//! What is said of a generation: when it was saved, by whom, and what was changed since the one before.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Object, Spec};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// One generation, as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Its number, as in `control_plane.identifier`.
    pub(crate) generation: u64,
    /// When it was put in force, RFC 3339.
    pub(crate) time: String,
    /// Who owns the file that was changed last.
    pub(crate) author: Option<String>,
    /// What was changed since the generation before it that is kept; everything, in the first.
    #[serde(flatten)]
    pub(crate) change: Change,
    /// Digest of the text of its objects, which tells a file that was cut off.
    pub(crate) text_digest: String,
    /// Bytes of that text.
    pub(crate) text_bytes: u64,
    /// Digests of all its objects, also of those whose text is not kept, by name.
    pub(crate) objects: BTreeMap<String, String>,
}

/// The difference of two sets of objects, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) added: Vec<String>,
    pub(crate) changed: Vec<String>,
    pub(crate) removed: Vec<String>,
}

impl Change {
    /// From one set of digests to the other.
    pub(crate) fn between(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Change {
        let missing_in = |in_these: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
            in_these.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
        };
        let is_other =
            |(name, digest): &(&String, &String)| before.get(*name).is_some_and(|old| old != *digest);
        Change {
            added: missing_in(after, before),
            changed: after.iter().filter(is_other).map(|(name, _)| name.clone()).collect(),
            removed: missing_in(before, after),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Digests of these objects by name.
pub(crate) fn digests(objects: &[Arc<Object>]) -> BTreeMap<String, String> {
    objects.iter().map(|object| (object.id.to_string(), digest(&content(object)))).collect()
}

/// All that an object says. The JSON of a Secret does not have its values.
fn content(object: &Object) -> Vec<u8> {
    let mut content = object.to_json().to_string().into_bytes();
    if let Spec::Secret(secret) = &object.spec {
        for key in secret.keys() {
            content.extend_from_slice(key.as_bytes());
            content.push(0);
            content.extend_from_slice(secret.value(key).unwrap_or_default());
            content.push(0);
        }
    }
    content
}

/// 16 hex digits.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_digests() {
        let set = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect()
        };
        let (before, after) =
            (set(&[("a", "1"), ("b", "1"), ("c", "1")]), set(&[("b", "2"), ("c", "1"), ("d", "1")]));
        let change = Change::between(&before, &after);
        assert_eq!(
            (change.added, change.changed, change.removed),
            (vec!["d".to_owned()], vec!["b".to_owned()], vec!["a".to_owned()])
        );
        assert!(Change::between(&before, &before).is_empty());
    }
}
