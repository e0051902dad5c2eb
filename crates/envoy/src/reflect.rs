//! All messages of the Envoy API by reflection, those of extensions included that nothing here has code for: reading
//! them from JSON, saying where JSON is not one of them, and merging them.
//!
//! Source: <https://protobuf.dev/programming-guides/json/>, and `proto.Merge` of Go's protobuf for merging.

mod encode;
mod flaw;

use std::sync::OnceLock;

use prost::Name;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, Value};
use serde_json::Value as Json;

use crate::Any;
use crate::json::Error;

pub use flaw::Flaw;

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/whole.bin"));

/// What is merged as a whole: the parts of a duration mean nothing by themselves, nor do those of a packed message.
const WHOLE: [&str; 2] = ["google.protobuf.Duration", "google.protobuf.Any"];

/// The descriptors of every message of the Envoy API.
#[derive(Debug)]
pub struct Reflection {
    pool: DescriptorPool,
}

/// What becomes of a list that both messages have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// The second follows the first.
    Append,
    /// Only the second is left.
    Replace,
}

impl Reflection {
    /// The one of this process. Costs megabytes from its first use on.
    pub fn shared() -> &'static Reflection {
        static SHARED: OnceLock<Reflection> = OnceLock::new();
        SHARED.get_or_init(|| Reflection {
            pool: DescriptorPool::decode(DESCRIPTORS).expect("invariant: build.rs wrote a valid set"),
        })
    }

    /// The descriptors.
    pub(crate) fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// Reads a message from JSON; field names in `snake_case` or `camelCase`. Fields that do not exist are passed over.
    ///
    /// # Errors
    /// On a wrong type or an unknown `@type`.
    pub fn read<M: Name + Default>(&self, json: &Json) -> Result<M, Error> {
        let descriptor = self.descriptor(&M::full_name())?;
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message = DynamicMessage::deserialize_with_options(descriptor, json, &options);
        self.typed(&message.map_err(|error| Error::new(error.to_string()))?)
    }

    /// Everything in the JSON of a message that is not of the API, with its place.
    pub fn flaws(&self, message: &str, json: &Json) -> Vec<Flaw> {
        match self.descriptor(message) {
            Ok(descriptor) => flaw::find(&self.pool, &descriptor, json),
            Err(_) => Vec::new(),
        }
    }

    /// `base` with what `patch` says in place of its own; messages in both are merged.
    ///
    /// # Errors
    /// If the message is not of the Envoy API.
    pub fn merge<M: Name + Default>(&self, base: &M, patch: &M, lists: Lists) -> Result<M, Error> {
        let descriptor = self.descriptor(&M::full_name())?;
        let decode = |message: &M| decode(descriptor.clone(), &message.encode_to_vec());
        let (mut base, patch) = (decode(base)?, decode(patch)?);
        merge(&mut base, &patch, lists);
        self.typed(&base)
    }

    /// As [`Reflection::merge`], for packed messages.
    ///
    /// # Errors
    /// If the two are of different types, or of one that is not known.
    pub fn merge_any(&self, base: &Any, patch: &Any) -> Result<Any, Error> {
        let (own, other) = (base.message_name(), patch.message_name());
        if own != other {
            return Err(Error::new(format!("{other} cannot be merged into {own}")));
        }
        let descriptor = self.descriptor(own)?;
        let mut merged = decode(descriptor.clone(), &base.value)?;
        merge(&mut merged, &decode(descriptor, &patch.value)?, Lists::Append);
        Ok(Any { type_url: base.type_url.clone(), value: encode::encode(&self.pool, &merged).into() })
    }

    fn typed<M: Name + Default>(&self, message: &DynamicMessage) -> Result<M, Error> {
        let bytes = encode::encode(&self.pool, message);
        M::decode(bytes.as_slice()).map_err(|error| Error::new(error.to_string()))
    }

    fn descriptor(&self, name: &str) -> Result<MessageDescriptor, Error> {
        let found = self.pool.get_message_by_name(name);
        found.ok_or_else(|| Error::new(format!("unknown message type {name}")))
    }
}

fn decode(descriptor: MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, Error> {
    DynamicMessage::decode(descriptor, bytes).map_err(|error| Error::new(error.to_string()))
}

fn merge(base: &mut DynamicMessage, patch: &DynamicMessage, lists: Lists) {
    for (field, value) in patch.fields() {
        let is_mergeable = match field.kind() {
            Kind::Message(of) => base.has_field(&field) && !WHOLE.contains(&of.full_name()),
            _ => base.has_field(&field) && (field.is_list() || field.is_map()),
        };
        let replaces = field.is_list() && lists == Lists::Replace;
        if !is_mergeable || replaces {
            base.set_field(&field, value.clone());
            continue;
        }
        match (base.get_field_mut(&field), value) {
            (Value::Message(base), Value::Message(patch)) => merge(base, patch, lists),
            (Value::List(base), Value::List(patch)) => base.extend(patch.iter().cloned()),
            (Value::Map(base), Value::Map(patch)) => {
                base.extend(patch.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            (base, patch) => *base = patch.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
