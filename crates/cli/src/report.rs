//! Findings as text or JSON. Leaves out where they come from.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use meltemi_api::{Diagnostic, Severity, render};
use serde::Serialize;

/// What was found in a set of files.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Objects free of errors of their own.
    objects: usize,
    errors: usize,
    warnings: usize,
    diagnostics: Vec<Diagnostic>,
    #[serde(skip)]
    sources: BTreeMap<Arc<str>, Arc<str>>,
}

impl Report {
    /// Orders the findings by file and place; those about no place come first.
    pub(crate) fn new(
        objects: usize,
        sources: BTreeMap<Arc<str>, Arc<str>>,
        mut diagnostics: Vec<Diagnostic>,
    ) -> Self {
        let place = |diagnostic: &Diagnostic| {
            diagnostic.location.as_ref().map(|location| (Arc::clone(&location.file), location.span.start))
        };
        diagnostics.sort_by_cached_key(place);
        let count =
            |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        Self { objects, errors, warnings, diagnostics, sources }
    }

    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// Annotated excerpts, then a line that sums up.
    pub(crate) fn write_text(&self, color: bool, out: &mut impl Write) -> io::Result<()> {
        for diagnostic in &self.diagnostics {
            let file = diagnostic.location.as_ref().map(|location| &location.file);
            let source = file.and_then(|file| self.sources.get(file)).map_or("", |text| text);
            writeln!(out, "{}\n", render(diagnostic, source, color))?;
        }
        let counts = [
            counted(self.objects, "object"),
            counted(self.errors, "error"),
            counted(self.warnings, "warning"),
        ];
        writeln!(out, "{}", counts.join(", "))
    }

    /// One JSON object on several lines.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
