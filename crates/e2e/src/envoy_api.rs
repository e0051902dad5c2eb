//! What happens to every field of the Envoy API that we claim, found out by trying it.
//!
//! From a few valid resources the explorer walks all messages by reflection, sets one field at a time and looks what
//! the code that decides says: a rejection that says "not supported" (refused), a note that the field has no effect
//! (`harmless!` of `compile`), or neither (used; a rejection of the value is use too). Nothing is listed by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use meltemi_envoy::Any;
use meltemi_envoy::json::Codec;
use meltemi_envoy::udpa::r#type::v1::TypedStruct;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _,
    Value,
};

/// What a configuration led to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Paths and reasons of rejections.
    pub rejections: Vec<(String, String)>,
    /// Fields without effect, and why.
    pub unheeded: Vec<(String, String)>,
}

/// A message that can be configured as a whole, and how to try it.
#[derive(Debug)]
pub struct Root {
    /// Compiles an encoded message.
    pub check: fn(&[u8]) -> Outcome,
    /// A valid one to begin with.
    pub base: DynamicMessage,
}

/// The verdicts on a field, over all values that were tried.
#[derive(Debug, Clone, Default)]
struct Verdicts {
    used: bool,
    refused: BTreeSet<String>,
    unheeded: BTreeSet<String>,
    types: BTreeSet<String>,
}

/// How often a message is looked at in different places: twice finds what is supported in one place only, and the
/// time stays short.
const MAX_CONTEXTS: usize = 2;

/// How deep messages are looked into; the deepest that is not recursion has 15 levels.
const MAX_DEPTH: usize = 24;

/// How many fields are filled in to make a message valid.
const MAX_REPAIRS: usize = 4;

/// Configurations that exist only as the fields of a `TypedStruct`, each in a valid form.
const TYPED_STRUCTS: [(&str, &str); 3] = [
    ("envoy.tcp.metadataexchange.config.MetadataExchange", "{protocol: a}"),
    ("io.istio.http.peer_metadata.Config", "{}"),
    ("stats.PluginConfig", "{}"),
];

/// Those by their names, as `Any`.
fn typed_structs() -> Vec<(String, Vec<u8>)> {
    let codec = Codec::new();
    let pack = |(name, fields): &(&str, &str)| {
        let text = format!("{{type_url: type.googleapis.com/{name}, value: {fields}}}");
        let message: TypedStruct = codec.parse(&text).expect("invariant: these are valid");
        (format!("TypedStruct of {name}"), prost::Message::encode_to_vec(&Any::pack(&message)))
    };
    TYPED_STRUCTS.iter().map(pack).collect()
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(FieldDescriptor),
    Index(usize),
    Key(MapKey),
    Packed(MessageDescriptor),
}

type Path = Vec<Step>;

/// The explorer and what it found so far.
#[derive(Debug)]
pub struct Explorer {
    extensions: Vec<MessageDescriptor>,
    typed_structs: Vec<(String, Vec<u8>)>,
    contexts: BTreeMap<String, usize>,
    found: BTreeMap<String, BTreeMap<u32, (String, Verdicts)>>,
    unreached: BTreeSet<String>,
}

impl Explorer {
    /// One that knows all extensions of the pool.
    pub fn new(pool: &DescriptorPool) -> Explorer {
        let is_extension = |m: &MessageDescriptor| {
            m.parent_message().is_none()
                && ["envoy.extensions.", "udpa.type.v1.", "xds.type.matcher."]
                    .iter()
                    .any(|package| m.full_name().starts_with(package))
        };
        Explorer {
            extensions: pool.all_messages().filter(is_extension).collect(),
            typed_structs: typed_structs(),
            contexts: BTreeMap::new(),
            found: BTreeMap::new(),
            unreached: BTreeSet::new(),
        }
    }

    /// Explores a message and all that it can hold.
    pub fn explore(&mut self, root: &Root) {
        self.contexts.clear();
        self.walk(root, &root.base, &Path::new());
    }

    /// Messages for which no valid form was found, so that nothing certain can be said of their fields.
    pub fn unreached(&self) -> Vec<&str> {
        let names = self.unreached.iter().map(String::as_str);
        names.filter(|name| !self.found.contains_key(*name)).collect()
    }

    fn walk(&mut self, root: &Root, base: &DynamicMessage, path: &[Step]) {
        let Some(message) = at(base, path).map(|node| node.descriptor()) else { return };
        let name = message.full_name().to_owned();
        let seen = self.contexts.entry(name.clone()).or_default();
        *seen += 1;
        if *seen > 2 * MAX_CONTEXTS || path.len() > MAX_DEPTH || is_plain(&message) {
            return;
        }
        let before = (root.check)(&base.encode());
        for field in message.fields() {
            let verdicts = self.try_field(root, base, path, &field, &before);
            // Where any type does, nobody looks inside.
            let is_followed = verdicts.used && verdicts.types.len() < self.extensions.len();
            let types = verdicts.types.clone();
            self.found
                .entry(name.clone())
                .or_default()
                .entry(field.number())
                .or_insert_with(|| (field.name().to_owned(), Verdicts::default()))
                .1
                .add(verdicts);
            if is_followed {
                self.follow(root, base, path, &field, &types, &before);
            }
        }
    }

    /// Sets the field to one value after the other.
    fn try_field(
        &self,
        root: &Root,
        base: &DynamicMessage,
        path: &[Step],
        field: &FieldDescriptor,
        before: &Outcome,
    ) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (label, value) in self.candidates(field) {
            let changed = edited(base, path, |node| node.set_field(field, value.clone()));
            let after = (root.check)(&changed.encode());
            if let Some((_, reason)) =
                after.unheeded.iter().find(|note| note.0 == field.name() && !before.unheeded.contains(note))
            {
                verdicts.unheeded.insert(reason.clone());
            } else if is_unsupported(before, &after)
                && !self.can_be_valid(root, &changed, path, field, before)
            {
                verdicts.refused.insert(label);
            } else {
                verdicts.used = true;
                if is_packed(field) {
                    verdicts.types.insert(label);
                }
            }
        }
        verdicts
    }

    /// Whether a message that is refused as it is is taken with more in it.
    fn can_be_valid(
        &self,
        root: &Root,
        base: &DynamicMessage,
        path: &[Step],
        field: &FieldDescriptor,
        before: &Outcome,
    ) -> bool {
        if element_kind(field).as_message().is_none_or(is_plain) {
            return false;
        }
        places_in(base, path, field).iter().any(|place| {
            let mut base = base.clone();
            self.repair(root, &mut base, place, before.rejections.len(), MAX_REPAIRS);
            (root.check)(&base.encode()).rejections.len() <= before.rejections.len()
        })
    }

    /// Looks into the messages that a field holds, or could hold.
    #[expect(clippy::too_many_arguments, reason = "where the walk is, and what it saw there")]
    fn follow(
        &mut self,
        root: &Root,
        base: &DynamicMessage,
        path: &[Step],
        field: &FieldDescriptor,
        types: &BTreeSet<String>,
        before: &Outcome,
    ) {
        if element_kind(field).as_message().is_none() {
            return;
        }
        let present = at(base, path).is_some_and(|node| node.has_field(field));
        let mut places = Vec::new();
        places
            .extend(places_in(base, path, field).into_iter().filter(|_| present).map(|p| (base.clone(), p)));
        for (label, value) in self.candidates(field) {
            if (present && !is_packed(field)) || (is_packed(field) && !types.contains(&label)) {
                continue;
            }
            let filled = edited(base, path, |node| node.set_field(field, value.clone()));
            places.extend(places_in(&filled, path, field).into_iter().map(|place| (filled.clone(), place)));
        }
        // What stands in the base was put there to be looked at.
        let limit = if present { 2 * MAX_CONTEXTS } else { MAX_CONTEXTS };
        for (mut base, place) in places {
            let Some(message) = at(&base, &place).map(|node| node.descriptor()) else { continue };
            let seen = self.contexts.get(message.full_name()).copied().unwrap_or_default();
            if is_plain(&message) || message.fields().len() == 0 || seen >= limit {
                continue;
            }
            self.repair(root, &mut base, &place, before.rejections.len(), MAX_REPAIRS);
            if (root.check)(&base.encode()).rejections.len() > before.rejections.len() {
                self.unreached.insert(message.full_name().to_owned());
                continue;
            }
            self.walk(root, &base, &place);
        }
    }

    /// Fills in fields of a message until there are no more rejections than `wanted`, or nothing helps.
    fn repair(&self, root: &Root, base: &mut DynamicMessage, path: &[Step], wanted: usize, depth: usize) {
        for _ in 0..MAX_REPAIRS {
            let now = (root.check)(&base.encode()).rejections.len();
            if now <= wanted || depth == 0 {
                return;
            }
            let Some(better) = self.better(root, base, path, now, depth) else { return };
            *base = better;
        }
    }

    fn better(
        &self,
        root: &Root,
        base: &DynamicMessage,
        path: &[Step],
        now: usize,
        depth: usize,
    ) -> Option<DynamicMessage> {
        let node = at(base, path)?;
        for field in node.descriptor().fields().filter(|field| !node.has_field(field)) {
            for (_, value) in self.candidates(&field) {
                let mut filled = edited(base, path, |node| node.set_field(&field, value.clone()));
                if element_kind(&field).as_message().is_some() && depth > 1 && !is_packed(&field) {
                    for place in places_in(&filled.clone(), path, &field) {
                        self.repair(root, &mut filled, &place, now.saturating_sub(1), depth - 1);
                    }
                }
                if (root.check)(&filled.encode()).rejections.len() < now {
                    return Some(filled);
                }
            }
        }
        None
    }

    /// Values to try, with names for the reader. Repeated fields get one element, maps one entry.
    fn candidates(&self, field: &FieldDescriptor) -> Vec<(String, Value)> {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return Vec::new() };
            let values = self.singular(&entry.map_entry_value_field().kind());
            return values
                .into_iter()
                .map(|(label, value)| {
                    let key = if label.contains('.') { label.clone() } else { "a".to_owned() };
                    (label, Value::Map([(MapKey::String(key), value)].into()))
                })
                .collect();
        }
        let values = self.singular(&field.kind());
        match field.is_list() {
            true => values.into_iter().map(|(label, value)| (label, Value::List(vec![value]))).collect(),
            false => values,
        }
    }

    fn singular(&self, kind: &Kind) -> Vec<(String, Value)> {
        let several =
            |values: Vec<Value>| values.into_iter().map(|value| ("some values".to_owned(), value)).collect();
        match kind {
            Kind::Bool => vec![("true".to_owned(), Value::Bool(true))],
            Kind::Double => several(vec![Value::F64(1.0), Value::F64(50.0)]),
            Kind::Float => several(vec![Value::F32(1.0), Value::F32(50.0)]),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => several([1, 10, 503].map(Value::I32).into()),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => several([1, 10, 503].map(Value::I64).into()),
            Kind::Uint32 | Kind::Fixed32 => several([1, 10, 503, 65_536].map(Value::U32).into()),
            Kind::Uint64 | Kind::Fixed64 => several([1, 10, 503, 65_537].map(Value::U64).into()),
            Kind::String => {
                let texts = ["a", "/a", "127.0.0.1", "%PROTOCOL%", "5xx", "*", "/dev/null", "UH"];
                several(texts.map(|text| Value::String(text.to_owned())).into())
            }
            Kind::Bytes => several(vec![Value::Bytes("a".into())]),
            Kind::Enum(choices) => choices
                .values()
                .map(|choice| (choice.name().to_owned(), Value::EnumNumber(choice.number())))
                .filter(|(_, value)| *value != Value::EnumNumber(0))
                .collect(),
            Kind::Message(message) => self.messages(message),
        }
    }

    fn messages(&self, message: &MessageDescriptor) -> Vec<(String, Value)> {
        let name = message.full_name();
        if name == "google.protobuf.Any" {
            let extensions = self.extensions.iter().map(|extension| {
                let inner = DynamicMessage::new(extension.clone());
                (extension.full_name().to_owned(), packed(message, &inner))
            });
            let structs = self.typed_structs.iter().filter_map(|(label, bytes)| {
                let any = DynamicMessage::decode(message.clone(), bytes.as_slice());
                any.ok().map(|any| (label.clone(), any))
            });
            let all = extensions.chain(structs);
            return all.map(|(label, any)| (label, Value::Message(any))).collect();
        }
        if name == "google.protobuf.Duration" {
            let mut second = DynamicMessage::new(message.clone());
            second.set_field_by_name("seconds", Value::I64(1));
            return vec![("some values".to_owned(), Value::Message(second))];
        }
        if name == "google.protobuf.BoolValue" {
            return [true, false]
                .map(|on| {
                    let mut value = DynamicMessage::new(message.clone());
                    value.set_field_by_name("value", Value::Bool(on));
                    (on.to_string(), Value::Message(value))
                })
                .into();
        }
        let inner = message
            .get_field_by_name("value")
            .filter(|_| name.starts_with("google.protobuf.") && name.ends_with("Value"));
        match inner {
            Some(inner) if name != "google.protobuf.Value" => {
                let wrap = |(label, value)| {
                    let mut wrapper = DynamicMessage::new(message.clone());
                    wrapper.set_field(&inner, value);
                    (label, Value::Message(wrapper))
                };
                self.singular(&inner.kind()).into_iter().map(wrap).collect()
            }
            _ => vec![("some values".to_owned(), Value::Message(DynamicMessage::new(message.clone())))],
        }
    }

    /// The table as Markdown.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (message, fields) in &self.found {
            write!(out, "\n## `{message}`\n\n| field | what happens |\n|---|---|\n")
                .expect("a string takes text");
            for (field, verdicts) in fields.values() {
                writeln!(out, "| `{field}` | {} |", verdicts.text(self.extensions.len()))
                    .expect("a string takes text");
            }
        }
        out
    }
}

impl Verdicts {
    fn add(&mut self, other: Verdicts) {
        self.used |= other.used;
        self.refused.extend(other.refused);
        self.unheeded.extend(other.unheeded);
        self.types.extend(other.types);
    }

    fn text(&self, extensions: usize) -> String {
        let quoted = |names: &BTreeSet<String>| {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        if !self.used && self.unheeded.is_empty() {
            return "refused".to_owned();
        }
        if !self.types.is_empty() && self.types.len() < extensions {
            return format!("used: {}; other types are refused", quoted(&self.types));
        }
        let mut parts = Vec::new();
        if self.used {
            parts.push("used".to_owned());
        }
        parts.extend(self.unheeded.iter().map(|reason| format!("no effect: {reason}")));
        if self.refused.len() == 1 && self.refused.contains("some values") {
            parts.push("some uses are refused".to_owned());
        } else if !self.refused.is_empty() {
            parts.push(format!("{} refused", quoted(&self.refused)));
        }
        parts.join("; ")
    }
}

/// Whether a rejection says for the first time that something is not supported.
fn is_unsupported(before: &Outcome, after: &Outcome) -> bool {
    let mut fresh = after.rejections.iter().filter(|rejection| !before.rejections.contains(rejection));
    fresh.any(|(_, reason)| reason.contains("supported"))
}

/// Messages whose fields are values, not configuration of Envoy's.
fn is_plain(message: &MessageDescriptor) -> bool {
    let name = message.full_name();
    name.starts_with("google.") || name.ends_with(".TypedStruct")
}

fn element_kind(field: &FieldDescriptor) -> Kind {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    }
}

fn is_packed(field: &FieldDescriptor) -> bool {
    element_kind(field).as_message().is_some_and(|message| message.full_name() == "google.protobuf.Any")
}

/// Where the messages of a field stand: itself, its elements or entries, and what is packed in them.
fn places_in(base: &DynamicMessage, path: &[Step], field: &FieldDescriptor) -> Vec<Path> {
    let Some(node) = at(base, path) else { return Vec::new() };
    let element = |step: Option<Step>| -> Path {
        path.iter().cloned().chain([Step::Field(field.clone())]).chain(step).collect()
    };
    let places: Vec<Path> = match &*node.get_field(field) {
        Value::List(items) => (0..items.len()).map(|index| element(Some(Step::Index(index)))).collect(),
        Value::Map(entries) => entries.keys().map(|key| element(Some(Step::Key(key.clone())))).collect(),
        Value::Message(_) => vec![element(None)],
        _ => Vec::new(),
    };
    if !is_packed(field) {
        return places;
    }
    let inside = places.into_iter().filter_map(|mut place| {
        let inner = unpacked(&at(base, &place)?)?;
        place.push(Step::Packed(inner.descriptor()));
        Some(place)
    });
    inside.collect()
}

fn at(base: &DynamicMessage, path: &[Step]) -> Option<DynamicMessage> {
    let mut node = base.clone();
    let mut steps = path.iter().peekable();
    while let Some(step) = steps.next() {
        node = match step {
            Step::Packed(_) => unpacked(&node)?,
            Step::Field(field) => {
                let value = node.get_field(field).into_owned();
                let element = match (value, steps.peek()) {
                    (Value::List(items), Some(Step::Index(index))) => items.get(*index)?.clone(),
                    (Value::Map(entries), Some(Step::Key(key))) => entries.get(key)?.clone(),
                    (value, _) => value,
                };
                if matches!(steps.peek(), Some(Step::Index(_) | Step::Key(_))) {
                    steps.next();
                }
                element.as_message()?.clone()
            }
            Step::Index(_) | Step::Key(_) => return None,
        };
    }
    Some(node)
}

/// A copy in which the message at `path` is changed.
fn edited(base: &DynamicMessage, path: &[Step], change: impl FnOnce(&mut DynamicMessage)) -> DynamicMessage {
    let mut copy = base.clone();
    edit(&mut copy, path, change);
    copy
}

fn edit(message: &mut DynamicMessage, path: &[Step], change: impl FnOnce(&mut DynamicMessage)) {
    match path {
        [] => change(message),
        [Step::Packed(_), rest @ ..] => {
            let Some(mut inner) = unpacked(message) else { return };
            edit_boxed(&mut inner, rest, Box::new(change));
            *message = packed(&message.descriptor(), &inner);
        }
        [Step::Field(field), Step::Index(index), rest @ ..] => {
            let item = message.get_field_mut(field).as_list_mut().and_then(|items| items.get_mut(*index));
            if let Some(inner) = item.and_then(Value::as_message_mut) {
                edit_boxed(inner, rest, Box::new(change));
            }
        }
        [Step::Field(field), Step::Key(key), rest @ ..] => {
            let entry = message.get_field_mut(field).as_map_mut().and_then(|entries| entries.get_mut(key));
            if let Some(inner) = entry.and_then(Value::as_message_mut) {
                edit_boxed(inner, rest, Box::new(change));
            }
        }
        [Step::Field(field), rest @ ..] => {
            if let Some(inner) = message.get_field_mut(field).as_message_mut() {
                edit_boxed(inner, rest, Box::new(change));
            }
        }
        [Step::Index(_) | Step::Key(_), ..] => {}
    }
}

/// Keeps the recursion of [`edit`] from making a new type at every level.
fn edit_boxed<'c>(
    message: &mut DynamicMessage,
    path: &[Step],
    change: Box<dyn FnOnce(&mut DynamicMessage) + 'c>,
) {
    edit(message, path, change);
}

fn packed(any: &MessageDescriptor, inner: &DynamicMessage) -> DynamicMessage {
    let mut message = DynamicMessage::new(any.clone());
    let type_url = format!("type.googleapis.com/{}", inner.descriptor().full_name());
    message.set_field_by_name("type_url", Value::String(type_url));
    message.set_field_by_name("value", Value::Bytes(inner.encode().into()));
    message
}

fn unpacked(any: &DynamicMessage) -> Option<DynamicMessage> {
    let type_url = any.get_field_by_name("type_url")?;
    let name = type_url.as_str()?.rsplit('/').next()?;
    let descriptor = any.descriptor().parent_pool().get_message_by_name(name)?;
    let bytes = any.get_field_by_name("value")?.as_bytes()?.clone();
    DynamicMessage::decode(descriptor, bytes).ok()
}

/// The encoding of a message that fits into memory.
trait Encode {
    fn encode(&self) -> Vec<u8>;
}

impl Encode for DynamicMessage {
    fn encode(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(self)
    }
}
