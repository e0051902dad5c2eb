//! Positions in a source text: the parser counts characters, everybody else bytes, lines and columns. Leaves out what
//! stands at a position.

use crate::span::Span;

/// Characters between two checkpoints of [`Source`]: at most this many are walked to find a byte offset.
const STRIDE: usize = 256;

/// A text with what it takes to turn character indexes into spans.
pub(super) struct Source<'t> {
    text: &'t str,
    /// Byte offset of every `STRIDE`-th character.
    checkpoints: Vec<usize>,
    /// Byte offset of the start of every line.
    lines: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let checkpoints = text.char_indices().step_by(STRIDE).map(|(at, _)| at).collect();
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, checkpoints, lines: std::iter::once(0).chain(breaks).collect() }
    }

    /// Byte offset of the character with this index.
    pub(super) fn byte(&self, character: usize) -> usize {
        let Some(&start) = self.checkpoints.get(character / STRIDE) else { return self.text.len() };
        let rest = self.text[start..].char_indices().nth(character % STRIDE);
        rest.map_or(self.text.len(), |(offset, _)| start + offset)
    }

    /// Whether a flow collection (`{…}` or `[…]`) starts at this byte.
    pub(super) fn starts_with_bracket(&self, at: usize) -> bool {
        self.text.as_bytes().get(at).is_some_and(|byte| matches!(byte, b'{' | b'['))
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
    fn characters_become_lines_and_columns() {
        let text = format!("ä: 1\n{}ö: x \n", "é".repeat(600));
        let source = Source::new(&text);
        let at = text.find('ö').unwrap();
        let character = text.chars().position(|c| c == 'ö').unwrap();
        assert_eq!(source.byte(character), at);
        let span = source.span(at, at + 6);
        assert_eq!((span.line, span.column, span.end), (2, 601, at + 5));
        assert_eq!(source.byte(100_000), text.len());
    }
}
