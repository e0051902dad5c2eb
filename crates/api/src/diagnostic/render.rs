//! A diagnostic as a person reads it: code, place, the line in question, the field, and what to do. Leaves out when
//! colours are wanted; the caller knows its terminal.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

use crate::diagnostic::{Diagnostic, Location, Severity};

/// Renders a diagnostic with the line it is about. `source` is the text of its file as it was parsed; where the text
/// does not reach (or is empty, because it is not known), the place alone is given.
pub fn render(diagnostic: &Diagnostic, source: &str, color: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
    let mut group = Group::with_title(title);
    if let Some(location) = &diagnostic.location {
        group = place(group, location, source, &diagnostic.field);
    }
    if let Some(object) = &diagnostic.object {
        group = group.element(Level::NOTE.message(normalize_untrusted_str(&format!("in {object}"))));
    }
    if !diagnostic.help.is_empty() {
        group = group.element(Level::HELP.message(normalize_untrusted_str(&diagnostic.help)));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    renderer.decor_style(DecorStyle::Unicode).render(&[group])
}

/// The line with the value underlined, or only where it is.
fn place<'a>(group: Group<'a>, location: &'a Location, source: &'a str, field: &'a str) -> Group<'a> {
    let Some(range) = first_line(source, location.span.start..location.span.end) else {
        let line = usize::try_from(location.span.line).unwrap_or_default();
        let column = usize::try_from(location.span.column).unwrap_or_default();
        let file = normalize_untrusted_str(&location.file);
        return match line {
            0 => group.element(Origin::path(file)),
            _ => group.element(Origin::path(file).line(line).char_column(column)),
        };
    };
    let label = (!field.is_empty()).then_some(field);
    let annotation: Annotation<'_> = AnnotationKind::Primary.span(range).label(label);
    group
        .element(Snippet::source(source).path(normalize_untrusted_str(&location.file)).annotation(annotation))
}

/// The part of a range on its first line: a whole mapping underlined would bury what is wrong with it.
fn first_line(source: &str, range: Range<usize>) -> Option<Range<usize>> {
    if source.is_empty() || range.start > source.len() {
        return None;
    }
    let text = source.get(range.start..range.end.min(source.len()))?;
    let line = text.split(['\r', '\n']).next().unwrap_or_default();
    Some(range.start..range.start + line.len())
}
