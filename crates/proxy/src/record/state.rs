//! What filters leave for each other, for routes, loggers and upstreams: dynamic metadata and filter state.
//!
//! A request has its own, a connection has one that all its requests see. Nothing is allocated until something is set.
//! Source: Envoy's `StreamInfo::dynamicMetadata` and `StreamInfo::FilterState`.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use meltemi_compile::filter::set_filter_state::ObjectSharing as Sharing;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// Dynamic metadata and filter state objects.
#[derive(Debug, Clone, Default)]
pub struct State {
    kept: Option<Box<Kept>>,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    metadata: BTreeMap<Box<str>, Struct>,
    objects: Vec<(Arc<str>, FilterObject)>,
}

/// An object of filter state. Envoy's objects are of many types; all of them have a text, which is what is compared
/// and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterObject {
    /// `serializeAsString`.
    pub text: Arc<str>,
    /// Whether hash policies may read it (`Hashable`).
    pub is_hashable: bool,
    /// Whether upstream connections know it.
    pub sharing: Sharing,
}

impl State {
    /// The metadata of a filter.
    pub fn namespace(&self, namespace: &str) -> Option<&Struct> {
        self.kept.as_ref()?.metadata.get(namespace)
    }

    /// The value at a path of keys below a namespace; a path without keys leads nowhere.
    pub fn metadata(&self, namespace: &str, path: &[Box<str>]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.namespace(namespace)?.fields.get(&**first)?;
        for key in rest {
            let Some(Kind::StructValue(inner)) = &value.kind else { return None };
            value = inner.fields.get(&**key)?;
        }
        Some(value)
    }

    /// Every namespace.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &Struct)> {
        self.kept.iter().flat_map(|kept| kept.metadata.iter().map(|(name, fields)| (&**name, fields)))
    }

    /// Adds metadata; keys that are there already get the new value.
    pub fn merge_metadata(&mut self, namespace: &str, fields: Struct) {
        let kept = self.kept.get_or_insert_default();
        match kept.metadata.get_mut(namespace) {
            Some(known) => known.fields.extend(fields.fields),
            None => drop(kept.metadata.insert(namespace.into(), fields)),
        }
    }

    /// An object of filter state.
    pub fn object(&self, key: &str) -> Option<&FilterObject> {
        let objects = &self.kept.as_ref()?.objects;
        objects.iter().find(|(name, _)| **name == *key).map(|(_, object)| object)
    }

    /// Sets an object, in place of one that is there.
    pub fn set_object(&mut self, key: Arc<str>, object: FilterObject) {
        let objects = &mut self.kept.get_or_insert_default().objects;
        match objects.iter_mut().find(|(name, _)| *name == key) {
            Some((_, known)) => *known = object,
            None => objects.push((key, object)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.to_owned())) }
    }

    fn one(key: &str, value: Value) -> Struct {
        Struct { fields: [(key.to_owned(), value)].into() }
    }

    #[test]
    fn metadata_merges_and_is_found_by_path() {
        let mut state = State::default();
        let path = |keys: &[&str]| keys.iter().map(|key| Box::from(*key)).collect::<Vec<_>>();
        assert_eq!(state.metadata("a", &path(&["x"])), None);
        let inner = Value { kind: Some(Kind::StructValue(one("y", text("1")))) };
        state.merge_metadata("a", one("x", inner));
        state.merge_metadata("a", one("z", text("2")));
        assert_eq!(state.metadata("a", &path(&["x", "y"])), Some(&text("1")));
        assert_eq!(state.metadata("a", &path(&["z"])), Some(&text("2")));
        assert_eq!(state.metadata("a", &path(&["z", "y"])), None);
        assert_eq!(state.metadata("b", &path(&["z"])), None);
    }

    #[test]
    fn the_last_object_counts() {
        let mut state = State::default();
        let object =
            |text: &str| FilterObject { text: text.into(), is_hashable: false, sharing: Sharing::None };
        state.set_object("k".into(), object("1"));
        state.set_object("k".into(), object("2"));
        assert_eq!(state.object("k").map(|object| &*object.text), Some("2"));
    }
}
