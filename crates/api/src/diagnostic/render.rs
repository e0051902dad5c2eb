//! A diagnostic as a person reads it: code, place, the line in question, the field, and what to do. Leaves out when
//! colours are wanted; the caller knows its terminal.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::object::Kind;

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
        let source = if is_secret(diagnostic, source) { "" } else { source };
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

/// Whether the line may hold a key or password: it is of a Secret, or of a document whose kind could not be read in a
/// text that has Secrets.
fn is_secret(diagnostic: &Diagnostic, source: &str) -> bool {
    match &diagnostic.object {
        Some(object) => object.kind == Kind::Secret,
        None => source.lines().any(|line| line.contains("kind") && line.contains("Secret")),
    }
}

/// The line with the value underlined, or only where it is.
fn place<'a>(group: Group<'a>, location: &'a Location, source: &'a str, field: &'a str) -> Group<'a> {
    let number = |number: u32| usize::try_from(number).unwrap_or_default();
    let (line, column) = (number(location.span.line), number(location.span.column));
    let file = normalize_untrusted_str(&location.file);
    let Some(excerpt) = excerpt(source, location.span.start..location.span.end) else {
        return match line {
            0 => group.element(Origin::path(file)),
            _ => group.element(Origin::path(file).line(line).char_column(column)),
        };
    };
    let label = (!field.is_empty()).then_some(field);
    let annotation: Annotation<'_> = AnnotationKind::Primary.span(excerpt.range).label(label);
    group.element(Snippet::source(excerpt.line).line_start(line).path(file).annotation(annotation))
}

/// One line of a source, and the part of it to underline.
struct Excerpt<'a> {
    line: &'a str,
    range: Range<usize>,
}

/// The line on which a range starts. Of a range of several lines the first is enough: a whole mapping underlined would
/// bury what is wrong with it. Only this line goes to the renderer, which looks at all it gets.
fn excerpt(source: &str, range: Range<usize>) -> Option<Excerpt<'_>> {
    if source.is_empty() || range.start > source.len() {
        return None;
    }
    let before = source.get(..range.start)?;
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = source[line_start..].lines().next().unwrap_or_default();
    // The range may start at the line break itself, as the end of a text does.
    let start = (range.start - line_start).min(line.len());
    let end = range.end.saturating_sub(line_start).clamp(start, line.len());
    line.is_char_boundary(end).then_some(Excerpt { line, range: start..end })
}
