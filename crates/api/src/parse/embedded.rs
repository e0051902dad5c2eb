//! YAML inside YAML: MeshConfig is a text of a ConfigMap, and what is wrong in it is shown where it stands in the file.

use crate::codes;
use crate::decode::{Decoder, Wire};
use crate::istio::{self, MeshConfig};
use crate::node::{self, Document, Node, Value};
use crate::object::{Object, Spec};
use crate::span::{Span, push_key};

/// The key with the networks of the mesh, which stands beside MeshConfig.
const NETWORKS: &str = "meshNetworks";

/// Reads the MeshConfig in a ConfigMap, if it is the one that has it.
pub(super) fn read_mesh(object: &mut Object, file: &str, decoder: &mut Decoder) {
    if !istio::is_config_map(object) {
        return;
    }
    let Spec::ConfigMap(map) = &mut object.spec else { return };
    if let Some(text) = map.data.get(istio::MESH) {
        map.mesh = decode::<MeshConfig>(istio::MESH, text, file, decoder).map(Box::new);
    }
    if map.data.get(NETWORKS).is_some_and(|text| !is_empty(text)) {
        let message = format!("`{NETWORKS}` is not supported yet");
        decoder.report_below(&format!("data.{NETWORKS}"), &codes::NO_EFFECT_YET, message, "");
    }
}

/// Whether there is no network in it; Istio installs `networks: {}`.
fn is_empty(text: &str) -> bool {
    node::read(text).iter().all(|document| match document {
        Document::Read(node, _) => {
            node.is_null()
                || node.get("networks").is_none_or(|n| {
                    matches!(&n.value, Value::Null) || matches!(&n.value, Value::Mapping(m) if m.is_empty())
                })
        }
        Document::Broken(_) => false,
    })
}

/// Reads the text of the key `key` of `data`.
fn decode<T: Wire>(key: &str, text: &str, file: &str, decoder: &mut Decoder) -> Option<T> {
    let mut path = "data".to_owned();
    push_key(&mut path, key);
    let whole = decoder.spans.nearest(&path).unwrap_or_default();
    let places = Places::new(text, file, whole);
    let mut documents = node::read(text).into_iter();
    let (first, more) = (documents.next(), documents.next());
    if more.is_some() {
        let message = format!("`{key}` holds more than one document");
        decoder.report_below(&path, &codes::SYNTAX, message, "only the first one would count");
    }
    match first {
        None => Some(T::default()),
        Some(Document::Broken(broken)) => {
            let at = places.of(broken.span);
            decoder.within(&path, |d| d.report_at(at, broken.code, broken.message, String::new()));
            None
        }
        Some(Document::Read(mut node, duplicates)) => {
            places.move_all(&mut node);
            decoder.within(&path, |d| {
                for duplicate in duplicates {
                    let at = places.of(duplicate.span);
                    let message = format!("the key `{}` is already in the text", duplicate.key);
                    d.report_at(at, &codes::DUPLICATE_KEY, message, "remove one of the two".to_owned());
                }
                if node.is_null() { Some(T::default()) } else { T::decode(&node, d, None) }
            })
        }
    }
}

/// From places in a text to places in the file that holds it, as a literal block scalar (`|`).
struct Places {
    /// Where the lines of the text begin, in it and in the file; `None` for a text in another form (quoted, folded), of
    /// which only the whole can be shown.
    lines: Option<Vec<(usize, usize)>>,
    /// Number of the first line in the file, from 1.
    first: u32,
    /// Columns by which the text is indented in the file.
    indent: u32,
    whole: Span,
}

impl Places {
    fn new(text: &str, file: &str, whole: Span) -> Places {
        // A block begins behind its `|` or on the line after it.
        let lines: Vec<(usize, &str)> = numbered(file, whole.start, whole.end).collect();
        let found = (0..lines.len().min(2)).find_map(|skipped| {
            let (starts, indent) = align(text, &lines[skipped..])?;
            Some((u32::try_from(skipped).unwrap_or_default(), starts, indent))
        });
        match found {
            Some((skipped, starts, indent)) => {
                Places { lines: Some(starts), first: whole.line + skipped, indent, whole }
            }
            None => Places { lines: None, first: whole.line, indent: 0, whole },
        }
    }

    fn of(&self, span: Span) -> Span {
        let Some(lines) = self.lines.as_deref().filter(|lines| !lines.is_empty()) else { return self.whole };
        let moved = |byte: usize| {
            let line = lines.partition_point(|(inner, _)| *inner <= byte).saturating_sub(1);
            let (inner, outer) = lines[line];
            outer + byte.saturating_sub(inner)
        };
        Span {
            line: self.first + span.line.saturating_sub(1),
            column: span.column + self.indent,
            start: moved(span.start),
            end: moved(span.end),
        }
    }

    fn move_all(&self, node: &mut Node) {
        node.span = self.of(node.span);
        match &mut node.value {
            Value::Sequence(items) => items.iter_mut().for_each(|item| self.move_all(item)),
            Value::Mapping(entries) => {
                for entry in entries {
                    entry.key_span = self.of(entry.key_span);
                    self.move_all(&mut entry.value);
                }
            }
            _ => {}
        }
    }
}

/// The lines of a stretch of a file, each with the byte at which it begins; the first and the last one whole.
fn numbered(file: &str, start: usize, end: usize) -> impl Iterator<Item = (usize, &str)> {
    let start = file.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let mut at = start;
    let text = file.get(start..).unwrap_or_default();
    text.split_inclusive('\n').map_while(move |line| {
        let begin = at;
        at += line.len();
        (begin <= end).then_some((begin, line.trim_end_matches(['\n', '\r'])))
    })
}

/// Where the lines of the text begin in it and in the file, and by how much they are indented there; `None` if the lines
/// of the file are not those of the text.
fn align(text: &str, file: &[(usize, &str)]) -> Option<(Vec<(usize, usize)>, u32)> {
    let inner: Vec<(usize, &str)> = numbered(text, 0, text.len()).collect();
    let (first, shown) = inner.iter().enumerate().find(|(_, (_, line))| !line.is_empty())?;
    let indent = file.get(first)?.1.strip_suffix(shown.1).filter(|space| space.trim().is_empty())?.len();
    let mut starts = Vec::with_capacity(inner.len());
    for (index, (start, line)) in inner.iter().enumerate() {
        let Some((outer, whole)) = file.get(index) else { break };
        if !line.is_empty() && whole.get(indent..) != Some(*line) {
            return None;
        }
        starts.push((*start, outer + indent.min(whole.len())));
    }
    Some((starts, u32::try_from(indent).ok()?))
}
