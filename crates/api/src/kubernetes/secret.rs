//! Secret: keys and certificates by name. Values never appear in a diagnostic, in `Debug` or in the object's JSON.
//! Leaves out which keys a TLS secret has; that is the snapshot's to say. Source: Kubernetes core/v1 `Secret`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;

use crate::codes;
use crate::decode::{Decoder, Leaf, Wire, wire};
use crate::node::{Node, Value};
use crate::syntax;

/// Largest value, as large as Kubernetes allows a whole Secret to be.
const MAX_VALUE_BYTES: usize = 1 << 20;

wire! {
    /// Named values that are nobody's business.
    pub struct Secret {
        /// Values in base64.
        data: BTreeMap<String, Encoded>, "data";
        /// Values as text; they win over `data`.
        string_data: BTreeMap<String, Plain>, "stringData";
        /// What it is for (`kubernetes.io/tls`, `Opaque`).
        secret_type: Option<String>, "type";
    }
    ignored "apiVersion", "kind", "metadata", "immutable";
}

impl Secret {
    /// The value of a key; `None` when it is absent or empty.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        let plain = self.string_data.get(key).map(|value| value.0.bytes());
        let value = plain.or_else(|| self.data.get(key).map(|value| value.0.bytes()))?;
        (!value.is_empty()).then_some(value)
    }

    /// The names of the values.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let data = self.data.keys().filter(|key| !self.string_data.contains_key(*key));
        data.chain(self.string_data.keys()).map(String::as_str)
    }
}

/// Bytes that are not to be shown.
#[derive(Clone, Default, PartialEq, Eq)]
struct Hidden(Vec<u8>);

impl Hidden {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// A value written in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded(Hidden);

/// A value written as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plain(Hidden);

impl Wire for Encoded {
    const EXPECTED: &'static str = "a string";

    fn decode(node: &Node, decoder: &mut Decoder, _: Option<Leaf>) -> Option<Self> {
        let text = text(node, decoder)?;
        // YAML folds long values into several lines.
        let compact: String = text.split_ascii_whitespace().collect();
        let Some(bytes) = syntax::decode_base64(&compact) else {
            decoder.report(
                node,
                &codes::WRONG_TYPE,
                "the value is not base64".to_owned(),
                BASE64_HELP.to_owned(),
            );
            return None;
        };
        Some(Self(Hidden(bytes)))
    }

    fn encode(&self) -> Option<Json> {
        None
    }
}

const BASE64_HELP: &str = "write text that is not encoded below `stringData`";

impl Wire for Plain {
    const EXPECTED: &'static str = "a string";

    fn decode(node: &Node, decoder: &mut Decoder, _: Option<Leaf>) -> Option<Self> {
        text(node, decoder).map(|text| Self(Hidden(text.as_bytes().to_vec())))
    }

    fn encode(&self) -> Option<Json> {
        None
    }
}

/// The text of a value. What was found instead is not said.
fn text<'n>(node: &'n Node, decoder: &mut Decoder) -> Option<&'n str> {
    let Value::String = node.value else {
        decoder.report(node, &codes::WRONG_TYPE, "expected a string".to_owned(), String::new());
        return None;
    };
    if node.text.len() > MAX_VALUE_BYTES {
        let message = format!("the value has {} bytes; the limit is {MAX_VALUE_BYTES}", node.text.len());
        decoder.report(node, &codes::TOO_LARGE, message, String::new());
        return None;
    }
    Some(&node.text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn neither_debug_nor_json_shows_a_value() {
        let text = "{apiVersion: v1, kind: Secret, metadata: {name: a}, data: {tls.key: aHVudGVyMg==}, stringData: {x: hunter2}}";
        let (objects, diagnostics) = crate::parse(text, &"secret.yaml".into());
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let crate::Spec::Secret(secret) = &objects[0].spec else { panic!("wrong kind") };
        assert_eq!(secret.value("tls.key"), Some(&b"hunter2"[..]));
        assert_eq!(secret.value("x"), Some(&b"hunter2"[..]));
        assert_eq!(secret.keys().collect::<Vec<_>>(), ["tls.key", "x"]);
        let shown = format!("{objects:?} {}", objects[0].to_json());
        assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
    }

    #[test]
    fn mistakes_do_not_show_a_value() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: hunter2!, b: 1234567, c: [hunter2]}\ntls.key: hunter2\n\
            ---\n{apiVersion: v1, kind: Secret, metadata: {name: b}, data: {a: hunter2, a: hunter2}}\n\
            ---\n{apiVersion: v1, kind: Secret, data: {a: \"hunter2\n";
        let (objects, diagnostics) = crate::parse(text, &"secret.yaml".into());
        assert!(objects.is_empty() && diagnostics.len() >= 6, "{diagnostics:?}");
        for diagnostic in &diagnostics {
            let shown = format!("{diagnostic:?} {}", crate::render(diagnostic, text, false));
            assert!(!shown.contains("hunter2") && !shown.contains("1234567"), "{shown}");
        }
    }
}
