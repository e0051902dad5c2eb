//! The node tree of one document: values with their spans. Leaves out how text becomes one (`node/reader.rs`) and
//! what the values mean (`decode.rs`).

mod reader;
mod scalar;
mod source;

pub(crate) use reader::{Document, Duplicate, read};

use crate::span::Span;

/// One value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    /// The text of a scalar, escapes resolved; empty for collections.
    pub(crate) text: String,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A string; the characters are the node's `text`.
    String,
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// One entry of a mapping, in source order.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The value of a key, when this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The characters, when this is a string.
    pub(crate) fn as_str(&self) -> Option<&str> {
        matches!(self.value, Value::String).then_some(self.text.as_str())
    }

    /// A number without a fractional part; `80.0` counts, as it does in JSON.
    pub(crate) fn whole_number(&self) -> Option<i64> {
        /// Largest magnitude up to which every whole double is exact.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self.value {
            Value::Int(value) => Some(value),
            #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and exact")]
            Value::Float(value) if value.fract() == 0.0 && value.abs() <= EXACT => Some(value as i64),
            _ => None,
        }
    }

    /// What it is, for "found …".
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(_) => format!("the boolean {}", self.text),
            Value::Int(_) | Value::Float(_) => format!("the number {}", self.text),
            Value::String => format!("the string \"{}\"", self.text.escape_debug()),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}
