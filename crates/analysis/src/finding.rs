//! How analyzers report.

use meltemi_api::{Code, Diagnostic, Object};

use crate::mesh::Mesh;

/// One analyzer.
pub(crate) type Analyzer = fn(&Mesh<'_>, &mut Vec<Diagnostic>);

/// A finding at a field of an object.
pub(crate) fn found(
    code: &'static Code,
    object: &Object,
    field: impl Into<String>,
    message: String,
) -> Diagnostic {
    Diagnostic::new(code, message).at(object, field)
}
