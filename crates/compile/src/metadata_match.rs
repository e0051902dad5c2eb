//! What the endpoint metadata of a host must hold for a request to go to it (`metadata_match`).
//!
//! Source: `envoy.config.route.v3.RouteAction.metadata_match` and its kin of a weighted cluster, of which subset
//! load balancing reads the namespace `envoy.lb`. Leaves out the choice of the subset, which is the balancer's.

use meltemi_envoy::config::core::v3::Metadata;
use prost::Message;
use prost_types::{Struct, Value};

use crate::ledger::{At, harmless};

/// The namespace of `filter_metadata` that load balancing reads.
pub const LB_NAMESPACE: &str = "envoy.lb";

/// Names and the values that a host must have for them, sorted by name, each name once.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatch {
    criteria: Vec<Criterion>,
}

/// One name and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Criterion {
    /// The key of the metadata.
    pub name: Box<str>,
    /// What must stand there.
    pub value: Value,
    /// [`value_digest`] of the value, for indexes.
    pub digest: u64,
}

/// Digest of a value: equal values have equal digests.
pub fn value_digest(value: &Value) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&value.encode_to_vec())
}

impl MetadataMatch {
    /// The criteria of a struct of the namespace.
    pub fn new(fields: &Struct) -> MetadataMatch {
        let criterion = |(name, value): (&String, &Value)| Criterion {
            name: name.as_str().into(),
            value: value.clone(),
            digest: value_digest(value),
        };
        // The map is sorted.
        MetadataMatch { criteria: fields.fields.iter().map(criterion).collect() }
    }

    /// The criteria, sorted by name.
    pub fn criteria(&self) -> &[Criterion] {
        &self.criteria
    }

    /// These criteria and those of something more specific, which wins where both name one.
    #[must_use]
    pub fn merged(&self, specific: &MetadataMatch) -> MetadataMatch {
        let mut criteria = specific.criteria.clone();
        let is_new = |own: &&Criterion| specific.criteria.iter().all(|other| other.name != own.name);
        criteria.extend(self.criteria.iter().filter(is_new).cloned());
        criteria.sort_by(|a, b| a.name.cmp(&b.name));
        MetadataMatch { criteria }
    }
}

/// Compiles `metadata_match`; `None` when it does not speak of load balancing.
pub(crate) fn metadata_match(_: &At<'_>, message: &Option<Metadata>) -> Option<MetadataMatch> {
    let Metadata { filter_metadata, typed_filter_metadata } = message.as_ref()?;
    harmless!(Metadata; typed_filter_metadata);
    filter_metadata.get(LB_NAMESPACE).map(MetadataMatch::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(fields: &[(&str, f64)]) -> MetadataMatch {
        let value = |number| Value { kind: Some(prost_types::value::Kind::NumberValue(number)) };
        let fields = fields.iter().map(|(name, number)| ((*name).to_owned(), value(*number))).collect();
        MetadataMatch::new(&Struct { fields })
    }

    #[test]
    fn the_more_specific_criteria_win_and_names_stay_sorted() {
        let route = matches(&[("stage", 1.0), ("version", 1.0)]);
        let entry = matches(&[("version", 2.0), ("a", 3.0)]);
        assert_eq!(route.merged(&entry), matches(&[("a", 3.0), ("stage", 1.0), ("version", 2.0)]));
        assert_eq!(entry.merged(&route), matches(&[("a", 3.0), ("stage", 1.0), ("version", 1.0)]));
    }
}
