//! What is wrong with the user's input, said so that the user can act. One type for the command line, the control
//! plane, statuses and webhooks. Leaves out faults of requests and failures of calls: those are not the user's text.

pub mod codes;
pub(crate) mod render;

use std::sync::Arc;

use serde::Serialize;

use crate::diagnostic::codes::Code;
use crate::object::{Object, ObjectId};
use crate::span::Span;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong yet.
    Info,
    /// In force, and probably not what was meant.
    Warning,
    /// Not in force: the object keeps its last good version.
    Error,
}

impl Severity {
    /// Lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// A place in a source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file, as the source names it.
    pub file: Arc<str>,
    /// The place in it.
    #[serde(flatten)]
    pub span: Span,
}

/// One finding about the user's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// Stable code (`MEL0101`), documented in `docs/diagnostics.md`.
    pub code: &'static str,
    /// The object it is about, when its identity could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectId>,
    /// Field path in the object (`spec.http[0].timeout`); empty when it is about the whole object or file.
    pub field: String,
    /// Where to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// What is wrong, one sentence, lower case, no full stop.
    pub message: String,
    /// What to do about it; empty when the message says it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub help: String,
}

impl Diagnostic {
    /// A finding with the code's own severity and no place yet.
    pub fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self {
            severity: code.severity,
            code: code.id,
            object: None,
            field: String::new(),
            location: None,
            message: message.into(),
            help: String::new(),
        }
    }

    /// Places the finding at a field of an object (`spec.hosts[0]`; empty for the object as a whole).
    #[must_use]
    pub fn at(mut self, object: &Object, field: impl Into<String>) -> Self {
        self.field = field.into();
        self.object = Some(object.id.clone());
        let span = object.spans.nearest(&self.field).or_else(|| object.spans.get("kind"));
        self.location = span.map(|span| Location { file: Arc::clone(&object.origin.file), span });
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Overrides the code's severity.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Whether the object it is about is out of force because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
