//! From YAML (or JSON, its subset) to nodes: events of the scanner in, documents out, aliases and merge keys expanded,
//! every bound of `limits.rs` enforced. A document that cannot be read does not hide the ones after it: reading goes
//! on at the next `---`.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Marks, Tag};

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
    let mut documents = Vec::new();
    // A byte order mark is not part of the text, but counts in every position.
    let mark = text.strip_prefix('\u{feff}').map_or("", |rest| &text[..text.len() - rest.len()]);
    let (mut start, mut skipped) = (mark.len(), mark.chars().count());
    let (mut nodes, mut broken_documents) = (0, 0);
    loop {
        let mut builder = Builder::new(&source, skipped, nodes);
        let Err(broken) = builder.read(&text[start..], &mut documents) else { return documents };
        nodes = builder.nodes;
        let resume = next_document(text, builder.document.max(start));
        let fatal = std::ptr::eq(broken.code, &raw const codes::TOO_LARGE);
        documents.push(Document::Broken(broken));
        match resume {
            Some(next) if !fatal && broken_documents < MAX_BROKEN_DOCUMENTS => {
                broken_documents += 1;
                skipped += text[start..next].chars().count();
                start = next;
            }
            _ => return documents,
        }
    }
}

/// Byte offset of the first `---` line after the document that starts at `from`.
fn next_document(text: &str, from: usize) -> Option<usize> {
    text.get(from..)?.find("\n---").map(|at| from + at + 1)
}

/// A collection that is being read.
enum Frame {
    Sequence {
        items: Vec<Node>,
        anchor: usize,
        start: usize,
    },
    Mapping {
        entries: Vec<Entry>,
        /// The keys so far, each with its line; a search of `entries` would be quadratic.
        keys: HashMap<String, u32>,
        key: Option<(String, Span)>,
        anchor: usize,
        start: usize,
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
    /// Characters before the part of the text that is being read.
    skipped: usize,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchor>,
    duplicates: Vec<Duplicate>,
    nodes: usize,
    /// Byte offset at which the document that is being read starts.
    document: usize,
    root: Option<Node>,
}

impl<'t> Builder<'t> {
    fn new(source: &'t Source<'t>, skipped: usize, nodes: usize) -> Self {
        Self {
            source,
            skipped,
            stack: Vec::new(),
            anchors: HashMap::new(),
            duplicates: Vec::new(),
            nodes,
            document: 0,
            root: None,
        }
    }

    /// Reads documents until the text ends or something cannot be read.
    fn read(&mut self, text: &str, documents: &mut Vec<Document>) -> Result<(), Broken> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, marks) = event.map_err(|error| {
                let at = self.byte(error.marker().index());
                self.broken(&codes::SYNTAX, self.source.span(at, at), error.info())
            })?;
            self.on_event(event, marks)?;
            if let Some(root) = self.root.take() {
                documents.push(Document::Read(root, std::mem::take(&mut self.duplicates)));
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event<'_>, marks: Marks) -> Result<(), Broken> {
        let start = self.byte(marks.start.index());
        let span = self.source.span(start, self.byte(marks.end.index()));
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), span)?;
                self.place(Node { span, text: text.into_owned(), value }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                self.open(Frame::Sequence { items: Vec::new(), anchor, start }, span)
            }
            Event::MappingStart(anchor, _) => {
                let keys = HashMap::new();
                self.open(Frame::Mapping { entries: Vec::new(), keys, key: None, anchor, start }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::DocumentStart(_) | Event::DocumentEnd => {
                self.document = start;
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Value, Broken> {
        let Some(tag) = tag else {
            let plain = style == ScalarStyle::Plain;
            return Ok(if plain { scalar::resolve(text) } else { Value::String });
        };
        match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
            (true, "str") => Ok(Value::String),
            (true, "int" | "float" | "bool" | "null") => Ok(scalar::resolve(text)),
            _ if tag.handle.is_empty() && tag.suffix == "!" => Ok(Value::String),
            _ => {
                let message = format!("the tag `{}{}` is not supported", tag.handle, tag.suffix);
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
        let (start, anchor, value) = match frame {
            Frame::Sequence { items, anchor, start } => (start, anchor, Value::Sequence(items)),
            Frame::Mapping { entries, anchor, start, .. } => (start, anchor, Value::Mapping(merge(entries))),
        };
        // A block collection is closed by whatever follows it; the last value it holds says where it ends.
        let last = match &value {
            Value::Sequence(items) => items.last().map_or(0, |item| item.span.end),
            Value::Mapping(entries) => entries.last().map_or(0, |entry| entry.value.span.end),
            _ => 0,
        };
        let flow = self.source.starts_with_bracket(start);
        let end = if flow { end.end } else { last };
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

    fn byte(&self, character: usize) -> usize {
        self.source.byte(self.skipped + character)
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
