//! Findings as text or JSON. Leaves out where they come from.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use comfy_table::{Table, presets};
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
        self.write_summary(out)
    }

    fn write_summary(&self, out: &mut impl Write) -> io::Result<()> {
        let counts = [
            counted(self.objects, "object"),
            counted(self.errors, "error"),
            counted(self.warnings, "warning"),
        ];
        writeln!(out, "{}", counts.join(", "))
    }

    /// Columns, then a line that sums up.
    pub(crate) fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        if !self.diagnostics.is_empty() {
            writeln!(out, "{}", table(self.diagnostics.iter()))?;
        }
        self.write_summary(out)
    }

    /// One JSON object on several lines.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }
}

/// A row per finding.
pub(crate) fn table<'a>(findings: impl Iterator<Item = &'a Diagnostic>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.force_no_tty();
    table.set_header(["LEVEL", "CODE", "OBJECT", "FIELD", "PLACE", "MESSAGE"]);
    for finding in findings {
        let object = finding.object.as_ref().map(ToString::to_string).unwrap_or_default();
        let place = place(finding).unwrap_or_default();
        let level = finding.severity.as_str();
        table.add_row([level, finding.code, &object, &finding.field, &place, &finding.message]);
    }
    table.trim_fmt()
}

/// `FILE:LINE`, or the file alone.
pub(crate) fn place(finding: &Diagnostic) -> Option<String> {
    let location = finding.location.as_ref()?;
    Some(match location.span.line {
        0 => location.file.to_string(),
        line => format!("{}:{line}", location.file),
    })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
