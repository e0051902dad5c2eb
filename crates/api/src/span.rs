//! Where a value stands in its source text, and the map from field path to that place. Leaves out the text itself:
//! whoever loaded the file keeps it, and hands it back for rendering.

use std::collections::BTreeMap;

use serde::Serialize;

/// A stretch of source text. Lines and columns count from 1, columns in characters; bytes are offsets into the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Line of the first character, from 1.
    pub line: u32,
    /// Column of the first character, from 1, in characters.
    pub column: u32,
    /// Byte offset of the first character.
    pub start: usize,
    /// Byte offset after the last character.
    pub end: usize,
}

/// Spans of the values of one object, by field path (`spec.http[0].route[1].destination.subset`). A map key that is
/// not made of letters, digits, `-` and `_` stands in brackets: `metadata.labels["app.kubernetes.io/name"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    by_path: BTreeMap<String, Span>,
}

impl Spans {
    /// The span of the value at exactly this path.
    pub fn get(&self, path: &str) -> Option<Span> {
        self.by_path.get(path).copied()
    }

    /// The span of the value at this path or, when the source does not spell it out, of the closest enclosing value.
    pub fn nearest(&self, path: &str) -> Option<Span> {
        let mut path = path;
        loop {
            if let Some(span) = self.get(path) {
                return Some(span);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// All paths with their spans, in path order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Span)> {
        self.by_path.iter().map(|(path, span)| (path.as_str(), *span))
    }

    pub(crate) fn insert(&mut self, path: &str, span: Span) {
        self.by_path.insert(path.to_owned(), span);
    }
}

/// Appends one mapping key to a field path, in brackets when it would be ambiguous bare.
pub(crate) fn push_key(path: &mut String, key: &str) {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !bare {
        path.push_str("[\"");
        path.push_str(key);
        path.push_str("\"]");
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}
