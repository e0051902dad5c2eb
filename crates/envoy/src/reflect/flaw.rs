//! Where a JSON value is not the message that it should be.

use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
};
use serde_json::{Map, Value as Json, json};

/// The key that says which message an `Any` holds.
const TYPE: &str = "@type";

/// Messages whose JSON is something of its own.
const OWN_FORMS: [&str; 16] = [
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "google.protobuf.FieldMask",
    "google.protobuf.Struct",
    "google.protobuf.Value",
    "google.protobuf.ListValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.FloatValue",
    "google.protobuf.Int64Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.Int32Value",
    "google.protobuf.UInt32Value",
    "google.protobuf.BoolValue",
    "google.protobuf.StringValue",
    "google.protobuf.BytesValue",
    "google.protobuf.Empty",
];

/// Something in JSON that is not of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The keys and positions that lead there: `filters`, `[0]`, `typed_config`.
    pub path: Vec<String>,
    /// What is wrong, a sentence.
    pub message: String,
    /// It is only a field that does not exist; without it the rest is a message.
    pub is_unknown_field: bool,
}

pub(super) fn find(pool: &DescriptorPool, message: &MessageDescriptor, json: &Json) -> Vec<Flaw> {
    let mut search = Search { pool, path: Vec::new(), found: Vec::new() };
    search.message(message, json);
    search.found
}

struct Search<'a> {
    pool: &'a DescriptorPool,
    path: Vec<String>,
    found: Vec<Flaw>,
}

impl Search<'_> {
    fn message(&mut self, message: &MessageDescriptor, json: &Json) {
        let Json::Object(fields) = json else {
            return self.wrong(format!("{} is a mapping", message.full_name()));
        };
        if message.full_name() == "google.protobuf.Any" {
            return self.packed(fields);
        }
        for (key, value) in fields.iter().filter(|(key, _)| *key != TYPE) {
            self.below(key, |search| search.entry(message, key, value));
        }
    }

    fn packed(&mut self, fields: &Map<String, Json>) {
        let Some(Json::String(url)) = fields.get(TYPE) else {
            return self.wrong(format!("`{TYPE}` has to say which message this is"));
        };
        let name = url.rsplit('/').next().unwrap_or_default();
        let Some(message) = self.pool.get_message_by_name(name) else {
            let text = format!("the Envoy API has no message `{name}`");
            return self.below(TYPE, |search| search.wrong(text));
        };
        if OWN_FORMS.contains(&name) {
            return;
        }
        self.message(&message, &Json::Object(fields.clone()));
    }

    fn entry(&mut self, message: &MessageDescriptor, key: &str, value: &Json) {
        let field = message.get_field_by_name(key).or_else(|| message.get_field_by_json_name(key));
        match field {
            Some(field) => self.field(message, &field, value),
            None => self.found.push(Flaw {
                path: self.path.clone(),
                message: format!("{} has no field `{key}`", message.full_name()),
                is_unknown_field: true,
            }),
        }
    }

    fn field(&mut self, message: &MessageDescriptor, field: &FieldDescriptor, value: &Json) {
        let kind = field.kind();
        let inner = kind.as_message().filter(|of| !OWN_FORMS.contains(&of.full_name()));
        match (inner, value) {
            (_, Json::Null) => {}
            (Some(entry), Json::Object(entries)) if field.is_map() => {
                self.map(&entry.map_entry_value_field(), message, field, entries);
            }
            (Some(of), Json::Array(items)) if field.is_list() => {
                for (index, item) in items.iter().enumerate() {
                    self.below(&format!("[{index}]"), |search| search.message(of, item));
                }
            }
            (Some(of), _) if !field.is_list() && !field.is_map() => self.message(of, value),
            _ => self.leaf(message, field, value),
        }
    }

    fn map(
        &mut self,
        value_field: &FieldDescriptor,
        message: &MessageDescriptor,
        field: &FieldDescriptor,
        entries: &Map<String, Json>,
    ) {
        match value_field.kind() {
            Kind::Message(of) if !OWN_FORMS.contains(&of.full_name()) => {
                for (key, value) in entries {
                    self.below(key, |search| search.message(&of, value));
                }
            }
            _ => self.leaf(message, field, &Json::Object(entries.clone())),
        }
    }

    /// Whether the message with this one field can be read.
    fn leaf(&mut self, message: &MessageDescriptor, field: &FieldDescriptor, value: &Json) {
        let alone = json!({ field.name(): value });
        // What is lenient with fields would pass over unknown enum values, too.
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        if let Err(error) = DynamicMessage::deserialize_with_options(message.clone(), &alone, &options) {
            self.wrong(format!("`{}` of {}: {error}", field.name(), message.full_name()));
        }
    }

    fn wrong(&mut self, message: String) {
        self.found.push(Flaw { path: self.path.clone(), message, is_unknown_field: false });
    }

    fn below(&mut self, step: &str, search: impl FnOnce(&mut Self)) {
        self.path.push(step.to_owned());
        search(self);
        self.path.pop();
    }
}
