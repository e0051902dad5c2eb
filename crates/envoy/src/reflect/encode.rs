//! Encoding by reflection with the entries of maps in order, so that the same message always gives the same bytes.
//! `prost-reflect` itself keeps maps without an order.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MapKey, Value};

/// The number of the value in an entry of a map.
const VALUE: u32 = 2;

/// `google.protobuf.Any`: what is packed has maps, too.
const ANY: &str = "google.protobuf.Any";

/// The bytes of a message.
pub(super) fn encode(pool: &DescriptorPool, message: &DynamicMessage) -> Vec<u8> {
    use prost_reflect::ReflectMessage;
    if message.descriptor().full_name() == ANY
        && let Some(packed) = packed(pool, message)
    {
        return packed;
    }
    let mut fields: Vec<(FieldDescriptor, &Value)> = message.fields().collect();
    fields.sort_by_key(|(field, _)| field.number());
    let mut bytes = Vec::new();
    for (field, value) in fields {
        match value {
            Value::Map(entries) => map(pool, &field, entries.iter(), &mut bytes),
            Value::Message(inner) => nested(field.number(), &encode(pool, inner), &mut bytes),
            Value::List(items) if field.kind().as_message().is_some() => {
                for item in items.iter().filter_map(Value::as_message) {
                    nested(field.number(), &encode(pool, item), &mut bytes);
                }
            }
            scalar => bytes.extend(alone(message, &field, scalar.clone())),
        }
    }
    bytes
}

/// An `Any` whose message is known.
fn packed(pool: &DescriptorPool, any: &DynamicMessage) -> Option<Vec<u8>> {
    let any: crate::Any = any.transcode_to().ok()?;
    let descriptor = pool.get_message_by_name(any.message_name())?;
    let inner = DynamicMessage::decode(descriptor, any.value.clone()).ok()?;
    let value = encode(pool, &inner).into();
    Some(crate::Any { type_url: any.type_url, value }.encode_to_vec())
}

fn map<'a>(
    pool: &DescriptorPool,
    field: &FieldDescriptor,
    entries: impl Iterator<Item = (&'a MapKey, &'a Value)>,
    bytes: &mut Vec<u8>,
) {
    let kind = field.kind();
    let Some(entry) = kind.as_message() else { return };
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(key, _)| *key);
    for (key, value) in entries {
        let mut own = DynamicMessage::new(entry.clone());
        own.set_field(&entry.map_entry_key_field(), key.clone().into());
        let mut encoded = own.encode_to_vec();
        match value {
            Value::Message(inner) => nested(VALUE, &encode(pool, inner), &mut encoded),
            scalar => encoded.extend(alone(&own, &entry.map_entry_value_field(), scalar.clone())),
        }
        nested(field.number(), &encoded, bytes);
    }
}

/// A message of this type that has the one field.
fn alone(like: &DynamicMessage, field: &FieldDescriptor, value: Value) -> Vec<u8> {
    use prost_reflect::ReflectMessage;
    let mut message = DynamicMessage::new(like.descriptor());
    message.set_field(field, value);
    message.encode_to_vec()
}

fn nested(number: u32, message: &[u8], bytes: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, bytes);
    encode_varint(message.len() as u64, bytes);
    bytes.extend_from_slice(message);
}
