//! Protobuf JSON with `@type`, both ways, by reflection over the descriptor set of `build.rs`.
//!
//! The descriptor pool costs megabytes, so it is built per [`Codec`] and dropped with it: a proxy holds one
//! only while it reads its bootstrap or writes a dump.
//! Source: <https://protobuf.dev/programming-guides/json/>

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};
use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::Any;

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The descriptors of all messages here, for reflection. Costs megabytes and milliseconds.
pub fn descriptor_pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).expect("invariant: build.rs wrote a valid set")
}

/// What went wrong, with the place in the input where that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    pub(crate) fn new(text: String) -> Error {
        Error(text)
    }
}

/// Converts between messages and JSON. Expensive to build, cheap to use; drop it when done.
#[derive(Debug)]
pub struct Codec {
    pool: DescriptorPool,
}

impl Default for Codec {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec {
    /// Reads the embedded descriptor set.
    pub fn new() -> Codec {
        Codec { pool: descriptor_pool() }
    }

    /// One that knows all messages of the Envoy API, those of extensions included that nothing here has code for. It
    /// shares descriptors that stay for the life of the process.
    pub fn of_whole_api() -> Codec {
        Codec { pool: crate::reflect::Reflection::shared().pool().clone() }
    }

    /// The message as protobuf JSON with the field names of the `.proto` files (`snake_case`), as Envoy's
    /// admin interface prints them. A packed message of a type unknown here becomes
    /// `{"@type": …, "value": <base64>}`-like text instead of an error.
    ///
    /// # Errors
    /// If the message type is not in the descriptor set.
    pub fn to_json<M: Name>(&self, message: &M) -> Result<Value, Error> {
        self.any_to_json_body(&M::full_name(), &message.encode_to_vec())
    }

    /// A packed message as JSON, with its `@type` first.
    ///
    /// # Errors
    /// If the type is not in the descriptor set or the bytes are malformed.
    pub fn any_to_json(&self, any: &Any) -> Result<Value, Error> {
        let body = self.any_to_json_body(any.message_name(), &any.value)?;
        let mut object = serde_json::Map::new();
        object.insert("@type".to_owned(), Value::String(any.type_url.clone()));
        match body {
            Value::Object(fields) => object.extend(fields),
            scalar => drop(object.insert("value".to_owned(), scalar)),
        }
        Ok(Value::Object(object))
    }

    fn any_to_json_body(&self, name: &str, bytes: &[u8]) -> Result<Value, Error> {
        let descriptor = self
            .pool
            .get_message_by_name(name)
            .ok_or_else(|| Error(format!("unknown message type {name}")))?;
        let mut dynamic =
            DynamicMessage::decode(descriptor, bytes).map_err(|e| Error(format!("{name}: {e}")))?;
        mask_unknown(&self.pool, &mut dynamic);
        let options = SerializeOptions::new().use_proto_field_name(true);
        dynamic
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|e| Error(format!("{name}: {e}")))
    }

    /// Reads a message from JSON or YAML text; field names in `snake_case` or `camelCase`.
    ///
    /// # Errors
    /// On a syntax error, an unknown field, a wrong type or an unknown `@type`, with line and column.
    pub fn parse<M: Name + Default>(&self, text: &str) -> Result<M, Error> {
        self.parse_with(text, true)
    }

    /// As [`Codec::parse`], but fields that do not exist are passed over.
    ///
    /// # Errors
    /// On a syntax error, a wrong type or an unknown `@type`, with line and column.
    pub fn parse_leniently<M: Name + Default>(&self, text: &str) -> Result<M, Error> {
        self.parse_with(text, false)
    }

    fn parse_with<M: Name + Default>(&self, text: &str, deny_unknown_fields: bool) -> Result<M, Error> {
        let name = M::full_name();
        let descriptor = self
            .pool
            .get_message_by_name(&name)
            .ok_or_else(|| Error(format!("unknown message type {name}")))?;
        let options = DeserializeOptions::new().deny_unknown_fields(deny_unknown_fields);
        let dynamic = serde_saphyr::with_deserializer_from_str(text, |de| {
            DynamicMessage::deserialize_with_options(descriptor, de, &options)
        })
        .map_err(|e| Error(e.to_string()))?;
        typed(&dynamic)
    }

    /// Reads a message from a JSON value; field names in `snake_case` or `camelCase`.
    ///
    /// # Errors
    /// On an unknown field, a wrong type or an unknown `@type`.
    pub fn from_json<M: Name + Default>(&self, value: &Value) -> Result<M, Error> {
        let name = M::full_name();
        let descriptor = self
            .pool
            .get_message_by_name(&name)
            .ok_or_else(|| Error(format!("unknown message type {name}")))?;
        let dynamic = descriptor.deserialize(value).map_err(|e| Error(e.to_string()))?;
        typed(&dynamic)
    }
}

fn typed<M: Name + Default>(dynamic: &DynamicMessage) -> Result<M, Error> {
    M::decode(dynamic.encode_to_vec().as_slice()).map_err(|e| Error(format!("{}: {e}", M::full_name())))
}

/// Serialising an `Any` of an unknown type is an error for the whole document; a dump would rather show the
/// rest. So such a message is replaced by a `google.protobuf.StringValue` that names the type.
fn mask_unknown(pool: &DescriptorPool, message: &mut DynamicMessage) {
    use prost_reflect::{ReflectMessage, Value as Reflected};
    if message.descriptor().full_name() == "google.protobuf.Any" {
        mask_any(pool, message);
        return;
    }
    let fields: Vec<_> = message.fields().map(|(field, _)| field).collect();
    for field in fields {
        if field.kind().as_message().is_none() {
            continue;
        }
        match message.get_field_mut(&field) {
            Reflected::Message(inner) => mask_unknown(pool, inner),
            Reflected::List(items) => items.iter_mut().for_each(|item| mask_value(pool, item)),
            Reflected::Map(items) => items.values_mut().for_each(|item| mask_value(pool, item)),
            _ => {}
        }
    }
}

fn mask_value(pool: &DescriptorPool, value: &mut prost_reflect::Value) {
    if let prost_reflect::Value::Message(inner) = value {
        mask_unknown(pool, inner);
    }
}

fn mask_any(pool: &DescriptorPool, any: &mut DynamicMessage) {
    let Ok(decoded) = any.transcode_to::<Any>() else { return };
    let Some(descriptor) = pool.get_message_by_name(decoded.message_name()) else {
        let text = format!("{} ({} bytes of a type unknown here)", decoded.type_url, decoded.value.len());
        let note = Any {
            type_url: "type.googleapis.com/google.protobuf.StringValue".to_owned(),
            value: text.encode_to_vec().into(),
        };
        any.transcode_from(&note).expect("invariant: an Any is an Any");
        return;
    };
    let Ok(mut inner) = DynamicMessage::decode(descriptor, decoded.value.clone()) else { return };
    mask_unknown(pool, &mut inner);
    let masked = Any { type_url: decoded.type_url, value: inner.encode_to_vec().into() };
    any.transcode_from(&masked).expect("invariant: an Any is an Any");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::bootstrap::v3::Bootstrap;

    const BOOTSTRAP: &str = r#"
node: {id: n, cluster: c}
staticResources:
  clusters:
  - name: a
    connect_timeout: 0.25s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
"#;

    #[test]
    fn reads_yaml_with_types_and_writes_json_back() {
        let codec = Codec::new();
        let bootstrap: Bootstrap = codec.parse(BOOTSTRAP).expect("valid bootstrap");
        let json = codec.to_json(&bootstrap).expect("known type");
        let cluster = &json["static_resources"]["clusters"][0];
        assert_eq!(cluster["connect_timeout"], "0.250s");
        let options = &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        assert_eq!(
            options["@type"],
            "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        );
        assert_eq!(codec.from_json::<Bootstrap>(&json), Ok(bootstrap));
    }

    #[test]
    fn an_unknown_field_names_its_place() {
        let error = Codec::new().parse::<Bootstrap>("node: {id: n}\nnodes: {}\n").expect_err("unknown field");
        assert!(error.to_string().contains("nodes"), "{error}");
        let lenient: Bootstrap =
            Codec::new().parse_leniently("node: {id: n}\nnodes: {}\n").expect("passed over");
        assert_eq!(lenient.node.map(|node| node.id).as_deref(), Some("n"));
    }

    #[test]
    fn a_packed_message_of_unknown_type_does_not_hide_the_rest() {
        let any =
            Any { type_url: "type.googleapis.com/no.Such".into(), value: bytes::Bytes::from_static(b"xy") };
        let filter = crate::config::listener::v3::Filter {
            name: "f".into(),
            config_type: Some(crate::config::listener::v3::filter::ConfigType::TypedConfig(any)),
        };
        let json = Codec::new().to_json(&filter).expect("masked");
        assert_eq!(json["name"], "f");
        assert!(json["typed_config"]["value"].as_str().expect("note").contains("no.Such"));
    }
}
