//! Positions in a source text: the parser's marks become bytes, lines and columns. Leaves out what stands there.

use granit_parser::Marker;

use crate::span::Span;

/// A text with what it takes to turn marks into spans.
pub(super) struct Source<'t> {
    text: &'t str,
    /// Byte offset of the start of every line.
    lines: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, lines: std::iter::once(0).chain(breaks).collect() }
    }

    /// Byte offset of a mark, on the boundary of a character of the text.
    pub(super) fn byte(&self, mark: Marker) -> usize {
        let at = mark.byte_offset().unwrap_or(self.text.len()).min(self.text.len());
        self.text.floor_char_boundary(at)
    }

    /// The span between two byte offsets, without white space at its end.
    pub(super) fn span(&self, start: usize, end: usize) -> Span {
        let start = start.min(self.text.len());
        let end = end.clamp(start, self.text.len());
        let end = start + self.text[start..end].trim_end().len();
        let line = self.lines.partition_point(|&line| line <= start);
        let column = self.text[self.lines[line - 1]..start].chars().count() + 1;
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Span { line: narrow(line), column: narrow(column), start, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines_and_columns() {
        let text = "ä: 1\né-ö: x \n";
        let at = text.find('ö').unwrap();
        let span = Source::new(text).span(at, at + 6);
        assert_eq!((span.line, span.column, span.end), (2, 3, at + 5));
        assert_eq!(Source::new(text).span(1_000, 2_000).start, text.len());
    }
}
