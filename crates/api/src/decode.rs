//! From a node tree to wire types, and back to JSON. A wire type is one table ([`wire!`]): field, key, type, whether
//! it must be there, and the syntax of its leaves. Everything else follows from the table: the struct, its decoder,
//! the path and span of every value, and the finding of unknown fields. Leaves out the syntax of leaves
//! (`syntax.rs`) and rules between fields (`check.rs` and the kinds).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Number, Value as Json};

use crate::diagnostic::codes::{self, Code};
use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::limits::MAX_DIAGNOSTICS;
use crate::node::{Entry, Node, Value};
use crate::object::ObjectId;
use crate::span::{Span, Spans, push_key};
use crate::syntax::{self, Flaw};

/// Syntax of a leaf: what the text of a scalar must satisfy beyond its type.
pub(crate) type Leaf = fn(&str) -> Result<(), Flaw>;

/// A type that mirrors a piece of the API.
pub(crate) trait Wire: Sized + Default {
    /// What to call it in "expected …".
    const EXPECTED: &'static str;

    /// Reads a node. `None` means it could not, and that the reason has been reported.
    fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self>;

    /// Writes itself as the API's JSON; `None` when there is nothing to say.
    fn encode(&self) -> Option<Json>;
}

/// One field of a table, as the decoder needs it.
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) required: bool,
    pub(crate) leaf: Option<Leaf>,
}

/// A field the API has and we do not implement: what to say of it.
pub(crate) struct Later {
    pub(crate) key: &'static str,
    pub(crate) code: &'static Code,
}

/// Where decoding stands in one object, and what it has found.
pub(crate) struct Decoder {
    path: String,
    /// Where to say that something is missing from the value that is being read: its key, or its first line.
    title: Span,
    file: Arc<str>,
    pub(crate) object: Option<ObjectId>,
    pub(crate) spans: Spans,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Decoder {
    pub(crate) fn new(file: Arc<str>) -> Self {
        Self {
            path: String::new(),
            title: Span::default(),
            file,
            object: None,
            spans: Spans::default(),
            diagnostics: Vec::new(),
        }
    }

    /// Reads one field of a mapping; its default when it is absent, null, or wrong.
    pub(crate) fn field<T: Wire>(&mut self, parent: &Node, entries: &[Entry], field: &Field) -> T {
        let entry = entries.iter().find(|entry| entry.key == field.key && !entry.value.is_null());
        let Some(entry) = entry else {
            if field.required {
                self.missing(field.key, parent);
            }
            return T::default();
        };
        let decoded = self.within_key(entry, |d| T::decode(&entry.value, d, field.leaf));
        // An empty mapping says itself what it lacks.
        let scalar = !matches!(entry.value.value, Value::Mapping(_));
        if let Some(value) = &decoded
            && field.required
            && scalar
            && value.encode().is_none()
        {
            self.missing(field.key, &entry.value);
        }
        decoded.unwrap_or_default()
    }

    /// Reports that a field is not there, at the key of the mapping it should be in.
    pub(crate) fn missing(&mut self, key: &str, parent: &Node) {
        let message = format!("required field `{key}` is missing");
        let title = if self.title.end > 0 { self.title } else { parent.span };
        self.report_in(key, title, &codes::MISSING_FIELD, message, String::new());
    }

    /// Reports every key that the table does not have.
    pub(crate) fn surplus(
        &mut self,
        entries: &[Entry],
        known: &[&'static str],
        ignored: &[&str],
        later: &[Later],
    ) {
        for entry in entries {
            let key = entry.key.as_str();
            if known.contains(&key) || ignored.contains(&key) {
                continue;
            }
            if let Some(later) = later.iter().find(|later| later.key == key) {
                if entry.value.is_null() {
                    continue;
                }
                let message = format!("`{key}` is not supported yet");
                self.report_in(key, entry.key_span, later.code, message, String::new());
                continue;
            }
            let names = known.iter().copied().chain(later.iter().map(|later| later.key));
            let help = syntax::did_you_mean(key, names);
            self.report_in(
                key,
                entry.key_span,
                &codes::UNKNOWN_FIELD,
                format!("unknown field `{key}`"),
                help,
            );
        }
    }

    /// Runs `f` at another path of the object.
    pub(crate) fn within<T>(&mut self, path: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.path, path.to_owned());
        let result = f(self);
        self.path = outer;
        result
    }

    /// Runs `f` one mapping key further down, with the value's span on record.
    pub(crate) fn within_key<T>(&mut self, entry: &Entry, f: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        push_key(&mut self.path, &entry.key);
        self.below(length, entry.key_span, entry.value.span, f)
    }

    /// Runs `f` one sequence index further down, with the value's span on record.
    pub(crate) fn within_index<T>(&mut self, index: usize, node: &Node, f: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        self.below(length, node.span, node.span, f)
    }

    /// Runs `f` at the path that has just grown from `length`.
    fn below<T>(&mut self, length: usize, title: Span, value: Span, f: impl FnOnce(&mut Self) -> T) -> T {
        self.spans.insert(&self.path, value);
        let outer = std::mem::replace(&mut self.title, title);
        let result = f(self);
        self.title = outer;
        self.path.truncate(length);
        result
    }

    /// Reports something about the value that is being read.
    pub(crate) fn report(&mut self, node: &Node, code: &'static Code, message: String, help: String) {
        let field = self.path.clone();
        self.push(field, node.span, code, message, help);
    }

    /// As [`Decoder::report`], at a place of its own.
    pub(crate) fn report_at(&mut self, span: Span, code: &'static Code, message: String, help: String) {
        let field = self.path.clone();
        self.push(field, span, code, message, help);
    }

    /// Reports something about a key of the value that is being read.
    fn report_in(&mut self, key: &str, span: Span, code: &'static Code, message: String, help: String) {
        let mut field = self.path.clone();
        push_key(&mut field, key);
        self.push(field, span, code, message, help);
    }

    /// Reports something about a field below the value that has just been read (`route[0].weight`).
    pub(crate) fn report_below(&mut self, below: &str, code: &'static Code, message: String, help: &str) {
        let field = match (self.path.is_empty(), below.is_empty() || below.starts_with('[')) {
            (true, _) => below.to_owned(),
            (false, true) => format!("{}{below}", self.path),
            (false, false) => format!("{}.{below}", self.path),
        };
        let span = self.spans.nearest(&field).unwrap_or_default();
        self.push(field, span, code, message, help.to_owned());
    }

    /// As [`Decoder::report_below`], as a warning whatever the code says otherwise.
    pub(crate) fn warn_below(&mut self, below: &str, code: &'static Code, message: String, help: &str) {
        let before = self.diagnostics.len();
        self.report_below(below, code, message, help);
        for diagnostic in &mut self.diagnostics[before..] {
            diagnostic.severity = Severity::Warning;
        }
    }

    fn push(&mut self, field: String, span: Span, code: &'static Code, message: String, help: String) {
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            return;
        }
        self.diagnostics.push(Diagnostic {
            object: self.object.clone(),
            field,
            location: Some(Location { file: Arc::clone(&self.file), span }),
            help,
            ..Diagnostic::new(code, message)
        });
    }

    /// The entries of a mapping, or a report that it is none.
    pub(crate) fn mapping<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n [Entry]> {
        if let Value::Mapping(entries) = &node.value {
            return Some(entries);
        }
        self.wrong_type(node, expected);
        None
    }

    pub(crate) fn wrong_type(&mut self, node: &Node, expected: &str) {
        let message = format!("expected {expected}, found {}", node.describe());
        let help = match (&node.value, expected) {
            (Value::Bool(_) | Value::Int(_) | Value::Float(_), "a string") => {
                format!("write it in quotes: \"{}\"", node.text)
            }
            (Value::Int(_), <Duration as Wire>::EXPECTED) => format!("add a unit: `{}s`", node.text),
            (Value::String, "a whole number" | "a number") if node.text.parse::<f64>().is_ok() => {
                "write it without quotes".to_owned()
            }
            (Value::String, "true or false") if node.text.parse::<bool>().is_ok() => {
                "write it without quotes".to_owned()
            }
            _ => String::new(),
        };
        self.report(node, &codes::WRONG_TYPE, message, help);
    }

    /// Applies the syntax of a leaf to a scalar.
    fn leaf(&mut self, node: &Node, leaf: Option<Leaf>) {
        self.leaf_text(node, &node.text, leaf);
    }

    /// Applies the syntax of a leaf to a canonical form of a scalar.
    fn leaf_text(&mut self, node: &Node, text: &str, leaf: Option<Leaf>) {
        if let Some(Err(flaw)) = leaf.map(|leaf| leaf(text)) {
            self.report(node, flaw.code, flaw.message, flaw.help);
        }
    }
}

impl Wire for String {
    const EXPECTED: &'static str = "a string";

    fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self> {
        let Value::String = &node.value else {
            decoder.wrong_type(node, Self::EXPECTED);
            return None;
        };
        decoder.leaf(node, leaf);
        Some(node.text.clone())
    }

    fn encode(&self) -> Option<Json> {
        (!self.is_empty()).then(|| Json::String(self.clone()))
    }
}

impl Wire for bool {
    const EXPECTED: &'static str = "true or false";

    fn decode(node: &Node, decoder: &mut Decoder, _: Option<Leaf>) -> Option<Self> {
        let Value::Bool(value) = &node.value else {
            decoder.wrong_type(node, Self::EXPECTED);
            return None;
        };
        Some(*value)
    }

    fn encode(&self) -> Option<Json> {
        self.then_some(Json::Bool(true))
    }
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Wire for $int {
            const EXPECTED: &'static str = "a whole number";

            fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self> {
                let Some(number) = node.whole_number() else {
                    decoder.wrong_type(node, Self::EXPECTED);
                    return None;
                };
                let Ok(value) = <$int>::try_from(number) else {
                    let message = format!("{number} is not between {} and {}", <$int>::MIN, <$int>::MAX);
                    decoder.report(node, &codes::OUT_OF_RANGE, message, String::new());
                    return None;
                };
                decoder.leaf_text(node, &number.to_string(), leaf);
                Some(value)
            }

            fn encode(&self) -> Option<Json> {
                Some(Json::Number((*self).into()))
            }
        }
    )*};
}
integers!(u32, i32);

impl Wire for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self> {
        let Some(number) = node.whole_number() else {
            decoder.wrong_type(node, Self::EXPECTED);
            return None;
        };
        decoder.leaf_text(node, &number.to_string(), leaf);
        Some(number)
    }

    fn encode(&self) -> Option<Json> {
        Some(Json::Number((*self).into()))
    }
}

impl Wire for f64 {
    const EXPECTED: &'static str = "a number";

    fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self> {
        let value = match node.value {
            #[expect(clippy::cast_precision_loss, reason = "a JSON number is a double by definition")]
            Value::Int(value) => value as f64,
            Value::Float(value) => value,
            _ => {
                decoder.wrong_type(node, Self::EXPECTED);
                return None;
            }
        };
        decoder.leaf(node, leaf);
        Some(value)
    }

    fn encode(&self) -> Option<Json> {
        Number::from_f64(*self).map(Json::Number)
    }
}

/// `google.protobuf.Duration` in Istio's YAML: Go duration text (`1h30m`, `1.5s`, `300ms`).
impl Wire for Duration {
    const EXPECTED: &'static str = "a duration such as `1.5s`";

    fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self> {
        let Value::String = &node.value else {
            decoder.wrong_type(node, Self::EXPECTED);
            return None;
        };
        match syntax::parse_duration(&node.text) {
            Ok(duration) => {
                decoder.leaf(node, leaf);
                Some(duration)
            }
            Err(flaw) => {
                decoder.report(node, flaw.code, flaw.message, flaw.help);
                None
            }
        }
    }

    fn encode(&self) -> Option<Json> {
        let fraction = format!("{:09}", self.subsec_nanos());
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        Some(Json::String(format!("{}{dot}{fraction}s", self.as_secs())))
    }
}

impl<T: Wire> Wire for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self> {
        // The API does not tell an empty text from an absent one, unless it is something by itself.
        let empty = matches!(node.value, Value::String) && node.text.is_empty();
        if empty && leaf.is_some_and(|leaf| leaf("").is_err()) {
            return Some(None);
        }
        T::decode(node, decoder, leaf).map(Some)
    }

    /// A message that is present but empty still says something, so it is written.
    fn encode(&self) -> Option<Json> {
        self.as_ref().map(|value| {
            value.encode().unwrap_or_else(|| match T::EXPECTED {
                "a string" => Json::String(String::new()),
                "true or false" => Json::Bool(false),
                _ => Json::Object(serde_json::Map::new()),
            })
        })
    }
}

impl<T: Wire> Wire for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self> {
        let Value::Sequence(items) = &node.value else {
            decoder.wrong_type(node, Self::EXPECTED);
            return None;
        };
        let decode = |(index, item): (usize, &Node)| {
            decoder.within_index(index, item, |d| T::decode(item, d, leaf)).unwrap_or_default()
        };
        Some(items.iter().enumerate().map(decode).collect())
    }

    fn encode(&self) -> Option<Json> {
        let item = |item: &T| item.encode().unwrap_or_else(|| Json::Object(serde_json::Map::new()));
        (!self.is_empty()).then(|| Json::Array(self.iter().map(item).collect()))
    }
}

impl<T: Wire> Wire for BTreeMap<String, T> {
    const EXPECTED: &'static str = "a mapping";

    fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self> {
        let entries = decoder.mapping(node, Self::EXPECTED)?;
        let mut decode = |entry: &Entry| {
            let value = decoder.within_key(entry, |d| T::decode(&entry.value, d, leaf));
            (entry.key.clone(), value.unwrap_or_default())
        };
        Some(entries.iter().map(&mut decode).collect())
    }

    fn encode(&self) -> Option<Json> {
        let entry = |(key, value): (&String, &T)| {
            (key.clone(), value.encode().unwrap_or_else(|| Json::String(String::new())))
        };
        (!self.is_empty()).then(|| Json::Object(self.iter().map(entry).collect()))
    }
}

/// Declares a wire struct by its table:
///
/// ```text
/// wire! {
///     /// A documented struct.
///     pub struct Name {
///         /// A documented field.
///         field_name: Type, "fieldKey", required => leaf_syntax;
///     }
///     ignored "bookkeeping";                      // has no effect by nature
///     later UNSUPPORTED_FIELD "fault", "delegate"; // not implemented: reported with this code
///     rule check_it;                               // fn(&Name, &mut Decoder)
/// }
/// ```
macro_rules! wire {
    (@required) => { false };
    (@required required) => { true };
    (@leaf) => { None };
    (@leaf $leaf:path) => { Some($leaf as $crate::decode::Leaf) };
    (
        $(#[$doc:meta])*
        $vis:vis struct $name:ident {$(
            $(#[$field_doc:meta])*
            $field:ident : $ty:ty, $key:literal $(, $required:ident)? $(=> $leaf:path)?;
        )*}
        $(ignored $($ignored:literal),+;)?
        $(later $code:ident $($later:literal),+;)*
        $(rule $rule:path;)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        $vis struct $name { $($(#[$field_doc])* $vis $field: $ty,)* }

        impl $crate::decode::Wire for $name {
            const EXPECTED: &'static str = "an object";

            fn decode(
                node: &$crate::node::Node,
                decoder: &mut $crate::decode::Decoder,
                _: Option<$crate::decode::Leaf>,
            ) -> Option<Self> {
                const KEYS: &[&str] = &[$($key),*];
                const LATER: &[$crate::decode::Later] = &[$($($crate::decode::Later {
                    key: $later,
                    code: &$crate::codes::$code,
                },)+)*];
                const IGNORED: &[&str] = &[$($($ignored),+)?];
                let entries = decoder.mapping(node, Self::EXPECTED)?;
                let value = Self {$($field: decoder.field(node, entries, &$crate::decode::Field {
                    key: $key,
                    required: $crate::decode::wire!(@required $($required)?),
                    leaf: $crate::decode::wire!(@leaf $($leaf)?),
                }),)*};
                decoder.surplus(entries, KEYS, IGNORED, LATER);
                $($rule(&value, decoder);)?
                Some(value)
            }

            fn encode(&self) -> Option<serde_json::Value> {
                #[allow(unused_mut, reason = "a struct without fields has nothing to insert")]
                let mut map = serde_json::Map::new();
                $(if let Some(value) = $crate::decode::Wire::encode(&self.$field) {
                    map.insert($key.to_owned(), value);
                })*
                (!map.is_empty()).then_some(serde_json::Value::Object(map))
            }
        }
    };
}

/// Declares a wire enum by its names; the first is the API's default.
macro_rules! wire_enum {
    (
        $(#[$doc:meta])*
        pub enum $name:ident {$(
            $(#[$variant_doc:meta])*
            $variant:ident = $text:literal,
        )*}
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { #[default] $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The name as the API spells it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl $crate::decode::Wire for $name {
            const EXPECTED: &'static str = "a string";

            fn decode(
                node: &$crate::node::Node,
                decoder: &mut $crate::decode::Decoder,
                _: Option<$crate::decode::Leaf>,
            ) -> Option<Self> {
                const CHOICES: &[(&str, $name)] = &[$(($text, $name::$variant)),*];
                $crate::decode::choose(node, decoder, CHOICES)
            }

            fn encode(&self) -> Option<serde_json::Value> {
                Some(serde_json::Value::String(self.as_str().to_owned()))
            }
        }
    };
}

/// Reads a scalar that must be one of the choices.
pub(crate) fn choose<T: Copy>(node: &Node, decoder: &mut Decoder, choices: &[(&str, T)]) -> Option<T> {
    let Value::String = &node.value else {
        decoder.wrong_type(node, "a string");
        return None;
    };
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == node.text) {
        return Some(*value);
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let message = format!("`{}` is not one of {}", node.text, names.join(", "));
    let help = syntax::did_you_mean(&node.text, names);
    decoder.report(node, &codes::BAD_ENUM, message, help);
    None
}

pub(crate) use {wire, wire_enum};
