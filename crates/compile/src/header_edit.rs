//! Header additions and removals of routes (`HeaderValueOption`), compiled.

use http::HeaderName;

use crate::format::Format;

mod build;

pub(crate) use build::{Fields, header_add, header_edits, modifiable};

/// What to change: removals first, then additions, as Envoy does it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderEdits {
    /// Names to remove.
    pub remove: Vec<HeaderName>,
    /// Headers to add.
    pub add: Vec<HeaderAdd>,
}

/// One addition.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderAdd {
    /// `header.key`; never `host` or a pseudo header.
    pub name: HeaderName,
    /// `header.value`, maybe with operators.
    pub value: Format,
    /// `append_action`.
    pub action: AppendAction,
    /// `keep_empty_value`.
    pub keep_empty: bool,
}

/// `append_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// Append, or add.
    AppendIfExistsOrAdd,
    /// Add only when absent.
    AddIfAbsent,
    /// Overwrite, or add.
    OverwriteIfExistsOrAdd,
    /// Overwrite only when present.
    OverwriteIfExists,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}
