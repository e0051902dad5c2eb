//! From YAML (or JSON, its subset) to nodes: events of the scanner in, documents out, aliases and merge keys expanded,
//! every bound of `limits.rs` enforced. A document that cannot be read does not hide the ones after it: reading goes
//! on at the next `---`.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Options, Parser, ScalarStyle, Span as Marks, StrInput, StructureStyle, Tag};

use super::source::Source;
use super::{Entry, Node, Value, scalar};
use crate::codes::{self, Code};
use crate::limits::{MAX_BROKEN_DOCUMENTS, MAX_DEPTH, MAX_NODES, MAX_TEXT_BYTES};
use crate::span::Span;

/// One document of a text.
pub(crate) enum Document {
    /// A value, and the keys that appear twice in one of its mappings.
    Read(Node, Vec<Duplicate>),
    /// Something that cannot be read.
    Broken(Broken),
}

/// A key that appears twice in one mapping.
pub(crate) struct Duplicate {
    pub(crate) key: String,
    pub(crate) span: Span,
    pub(crate) first_line: u32,
}

/// Why a document cannot be read.
pub(crate) struct Broken {
    pub(crate) code: &'static Code,
    pub(crate) span: Span,
    pub(crate) message: String,
}

/// Reads every document of a text.
pub(crate) fn read(text: &str) -> Vec<Document> {
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("the text has {} bytes; the limit is {MAX_TEXT_BYTES}", text.len());
        return vec![Document::Broken(Broken { code: &codes::TOO_LARGE, span: Span::default(), message })];
    }
    let source = Source::new(text);
    let mut parser = Parser::new_from_str_with_options(text, options());
    let mut builder = Builder::new(&source);
    let mut documents = Vec::new();
    for _ in 0..=MAX_BROKEN_DOCUMENTS {
        let Err(broken) = builder.read(&mut parser, &mut documents) else { return documents };
        let fatal = std::ptr::eq(broken.code, &raw const codes::TOO_LARGE);
        documents.push(Document::Broken(broken));
        if fatal || !matches!(parser.proceed_next_document(), Ok(true)) {
            return documents;
        }
        builder = Builder { nodes: builder.nodes, ..Builder::new(&source) };
    }
    documents
}

/// Comments are no data.
fn options() -> Options {
    let mut options = Options::default();
    options.emit_comments = false;
    options
}

type TextParser<'t> = Parser<'t, StrInput<'t>>;

/// A collection that is being read.
enum Frame {
    Sequence {
        items: Vec<Node>,
        anchor: usize,
        start: usize,
        style: StructureStyle,
    },
    Mapping {
        entries: Vec<Entry>,
        /// The keys so far, each with its line; a search of `entries` would be quadratic.
        keys: HashMap<String, u32>,
        key: Option<(String, Span)>,
        anchor: usize,
        start: usize,
        style: StructureStyle,
    },
}

/// A finished anchor and how much an alias to it costs.
struct Anchor {
    node: Node,
    nodes: usize,
    depth: usize,
}

struct Builder<'t> {
    source: &'t Source<'t>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchor>,
    duplicates: Vec<Duplicate>,
    nodes: usize,
    root: Option<Node>,
}

impl<'t> Builder<'t> {
    fn new(source: &'t Source<'t>) -> Self {
        let (stack, anchors, duplicates) = (Vec::new(), HashMap::new(), Vec::new());
        Self { source, stack, anchors, duplicates, nodes: 0, root: None }
    }

    /// Reads documents until the text ends or something cannot be read.
    fn read(&mut self, parser: &mut TextParser<'t>, documents: &mut Vec<Document>) -> Result<(), Broken> {
        while let Some(event) = parser.next_event() {
            let (event, marks) = event.map_err(|error| {
                let at = self.source.byte(*error.marker());
                self.broken(&codes::SYNTAX, self.source.span(at, at), &error.kind().to_string())
            })?;
            self.on_event(event, marks)?;
            if let Some(root) = self.root.take() {
                documents.push(Document::Read(root, std::mem::take(&mut self.duplicates)));
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event<'_>, marks: Marks) -> Result<(), Broken> {
        let start = self.source.byte(marks.start);
        let span = self.source.span(start, self.source.byte(marks.end));
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), span)?;
                self.place(Node { span, text: text.into_owned(), value }, anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                self.open(Frame::Sequence { items: Vec::new(), anchor, start, style }, span)
            }
            Event::MappingStart(style, anchor, _) => {
                let keys = HashMap::new();
                self.open(Frame::Mapping { entries: Vec::new(), keys, key: None, anchor, start, style }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            // Stream and document ends, and what the options leave out.
            _ => Ok(()),
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Value, Broken> {
        let Some(tag) = tag else {
            let plain = style == ScalarStyle::Plain;
            return Ok(if plain { scalar::resolve(text) } else { Value::String });
        };
        match (tag.core_suffix(), tag.suffix()) {
            (Some("str"), _) | (None, "!") => Ok(Value::String),
            (Some("int" | "float" | "bool" | "null"), _) => Ok(scalar::resolve(text)),
            _ => {
                let message = format!("the tag `{}` is not supported", tag.original());
                Err(self.broken(&codes::SYNTAX, span, &message))
            }
        }
    }

    fn open(&mut self, frame: Frame, span: Span) -> Result<(), Broken> {
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(self.broken(&codes::TOO_LARGE, span, &message));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<(), Broken> {
        let Some(frame) = self.stack.pop() else {
            return Err(self.broken(&codes::SYNTAX, end, "a collection ends that has not begun"));
        };
        let (start, anchor, style, value) = match frame {
            Frame::Sequence { items, anchor, start, style } => (start, anchor, style, Value::Sequence(items)),
            Frame::Mapping { entries, anchor, start, style, .. } => {
                (start, anchor, style, Value::Mapping(merge(entries)))
            }
        };
        // A block collection is closed by whatever follows it; the last value it holds says where it ends.
        let last = match &value {
            Value::Sequence(items) => items.last().map_or(0, |item| item.span.end),
            Value::Mapping(entries) => entries.last().map_or(0, |entry| entry.value.span.end),
            _ => 0,
        };
        let end = if style == StructureStyle::Flow { end.end } else { last };
        let span = self.source.span(start, end);
        self.place(Node { span, text: String::new(), value }, anchor)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Broken> {
        let Some(found) = self.anchors.get(&anchor) else {
            return Err(self.broken(&codes::SYNTAX, span, "the alias refers to a value it is part of"));
        };
        if self.nodes + found.nodes > MAX_NODES || self.stack.len() + found.depth > MAX_DEPTH {
            return Err(self.broken(&codes::TOO_LARGE, span, "aliases expand to too many values"));
        }
        self.nodes += found.nodes;
        let node = found.node.clone();
        self.place(node, 0)
    }

    /// Puts a finished value where it belongs: as key, as value, as item, or as the document.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), Broken> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values");
            return Err(self.broken(&codes::TOO_LARGE, node.span, &message));
        }
        if anchor != 0 {
            let (nodes, depth) = measure(&node);
            self.anchors.insert(anchor, Anchor { node: node.clone(), nodes, depth });
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::Sequence { items, .. }) => items.push(node),
            Some(Frame::Mapping { key: key @ None, .. }) => {
                if matches!(node.value, Value::Sequence(_) | Value::Mapping(_)) {
                    return Err(self.broken(&codes::SYNTAX, node.span, "a key must be a scalar"));
                }
                *key = Some((node.text, node.span));
            }
            Some(Frame::Mapping { entries, keys, key, .. }) => {
                let (key, key_span) = key.take().expect("invariant: the arm above takes the absent key");
                let first = keys.insert(key.clone(), key_span.line);
                if let Some(first_line) = first.filter(|_| key != MERGE) {
                    self.duplicates.push(Duplicate { key, span: key_span, first_line });
                    return Ok(());
                }
                entries.push(Entry { key, key_span, value: node });
            }
        }
        Ok(())
    }

    fn broken(&self, code: &'static Code, span: Span, message: &str) -> Broken {
        Broken { code, span, message: message.to_owned() }
    }
}

/// The key that takes over the entries of another mapping (YAML 1.1 merge).
const MERGE: &str = "<<";

/// Replaces merge keys by the entries they take over; an entry of the mapping itself wins.
fn merge(entries: Vec<Entry>) -> Vec<Entry> {
    if entries.iter().all(|entry| entry.key != MERGE) {
        return entries;
    }
    let (merged, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key == MERGE);
    let sources = merged.into_iter().flat_map(|entry| match entry.value.value {
        Value::Sequence(items) => items,
        _ => vec![entry.value],
    });
    let mut keys: HashSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
    for source in sources {
        let Value::Mapping(entries) = source.value else { continue };
        own.extend(entries.into_iter().filter(|entry| keys.insert(entry.key.clone())));
    }
    own
}

/// Number of values in a node, and its depth.
fn measure(node: &Node) -> (usize, usize) {
    let children: Vec<&Node> = match &node.value {
        Value::Sequence(items) => items.iter().collect(),
        Value::Mapping(entries) => entries.iter().map(|entry| &entry.value).collect(),
        _ => return (1, 0),
    };
    children.into_iter().map(measure).fold((1, 1), |(nodes, depth), (n, d)| (nodes + n, depth.max(d + 1)))
}
