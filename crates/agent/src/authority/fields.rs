//! The fields of one HPACK block, octet by octet, as far as it takes to find the values of `:authority` in it.

/// Its index in the static table.
const AUTHORITY_INDEX: u8 = 1;
const AUTHORITY: &[u8] = b":authority";
/// The same in Huffman coding.
const AUTHORITY_HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// Octets of an integer after its first: four reach beyond every length that a server takes.
const MAX_CONTINUATIONS: u32 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fields {
    next: Next,
}

/// What the next octet is.
#[derive(Debug, Clone, Copy, Default)]
enum Next {
    /// The first of a field.
    #[default]
    Field,
    /// One more of an index; then comes a value, or the next field.
    Index { has_value: bool },
    /// The first of a string's length.
    Length(Part),
    /// One more of it.
    LengthGoesOn { part: Part, is_huffman: bool, length: usize, octets: u32 },
    /// One of a string.
    Text { text: Text, left: usize },
    /// Anything: the block cannot be followed.
    Lost,
}

/// Which string of a field.
#[derive(Debug, Clone, Copy)]
enum Part {
    Name,
    Value { is_authority: bool },
}

/// A string, and how far it is read.
#[derive(Debug, Clone, Copy)]
enum Text {
    /// A name that agrees with `:authority` so far, or does not.
    Name {
        expected: &'static [u8],
        at: usize,
        agrees: bool,
    },
    /// The value of another field.
    Other,
    Plain,
    Huffman(Symbol),
}

impl Fields {
    /// Takes the next octet of the block in.
    pub(super) fn pass(&mut self, octet: &mut u8) {
        self.next = match self.next {
            Next::Field => field(*octet),
            Next::Index { has_value } if *octet & 0x80 == 0 => after_index(has_value, false),
            Next::Index { .. } => self.next,
            Next::Length(part) => match usize::from(*octet & 0x7f) {
                0x7f => Next::LengthGoesOn { part, is_huffman: *octet & 0x80 != 0, length: 0x7f, octets: 0 },
                length => text(part, *octet & 0x80 != 0, length),
            },
            Next::LengthGoesOn { octets: MAX_CONTINUATIONS, .. } => Next::Lost,
            Next::LengthGoesOn { part, is_huffman, length, octets } => {
                let length = length + (usize::from(*octet & 0x7f) << (7 * octets));
                match *octet & 0x80 {
                    0 => text(part, is_huffman, length),
                    _ => Next::LengthGoesOn { part, is_huffman, length, octets: octets + 1 },
                }
            }
            Next::Text { mut text, left } => {
                text.pass(octet);
                match left {
                    1 => text.end(),
                    _ => Next::Text { text, left: left - 1 },
                }
            }
            Next::Lost => Next::Lost,
        };
    }
}

/// By the first octet of a field (RFC 7541, section 6).
fn field(octet: u8) -> Next {
    let (mask, has_value) = match octet {
        0x80.. => (0x7f, false),
        0x40.. => (0x3f, true),
        0x20.. => (0x1f, false),
        _ => (0x0f, true),
    };
    match octet & mask {
        0 if has_value => Next::Length(Part::Name),
        index if index == mask => Next::Index { has_value },
        index => after_index(has_value, index == AUTHORITY_INDEX),
    }
}

fn after_index(has_value: bool, is_authority: bool) -> Next {
    if has_value { Next::Length(Part::Value { is_authority }) } else { Next::Field }
}

fn text(part: Part, is_huffman: bool, length: usize) -> Next {
    let text = match part {
        Part::Name => {
            let expected = if is_huffman { AUTHORITY_HUFFMAN } else { AUTHORITY };
            Text::Name { expected, at: 0, agrees: length == expected.len() }
        }
        Part::Value { is_authority: false } => Text::Other,
        Part::Value { is_authority: true } if is_huffman => Text::Huffman(Symbol::default()),
        Part::Value { is_authority: true } => Text::Plain,
    };
    if length == 0 { text.end() } else { Next::Text { text, left: length } }
}

impl Text {
    fn pass(&mut self, octet: &mut u8) {
        match self {
            Text::Name { expected, at, agrees } => {
                *agrees &= expected.get(*at) == Some(octet);
                *at += 1;
            }
            Text::Plain if *octet == b'%' => *octet = b'.',
            Text::Huffman(symbol) => {
                for place in (0..8).rev() {
                    *octet |= u8::from(symbol.pass(*octet >> place & 1)) << place;
                }
            }
            Text::Plain | Text::Other => {}
        }
    }

    /// What follows it.
    fn end(self) -> Next {
        match self {
            Text::Name { agrees, .. } => Next::Length(Part::Value { is_authority: agrees }),
            Text::Other | Text::Plain | Text::Huffman(_) => Next::Field,
        }
    }
}

/// The bits of a symbol so far (RFC 7541, appendix B).
#[derive(Debug, Clone, Copy, Default)]
struct Symbol {
    code: u16,
    bits: u32,
    is_lost: bool,
}

/// By length from five bits on, the first code that is not of that length: the code is canonical, so it ends a symbol to
/// be below. Longer ones than these are of no character that a text has.
const ENDS: [u16; 11] = [0xa, 0x2e, 0x7c, 0xfe, 0x1fc, 0x3fd, 0x7fd, 0xffc, 0x1ffe, 0x3ffe, 0x7fff];

impl Symbol {
    /// Takes the next bit in; whether it must be 1 instead of 0.
    ///
    /// `%` is `010101` and `.` is `010111`. What begins with `01010` is `%` or a blank, which is as wrong here and becomes
    /// `-`, so the fifth bit alone decides: the octet with the sixth may not be there yet.
    fn pass(&mut self, bit: u8) -> bool {
        const BEFORE: u16 = 0b0101;
        let turns = !self.is_lost && self.bits == 4 && self.code == BEFORE && bit == 0;
        self.code = self.code << 1 | u16::from(bit | u8::from(turns));
        self.bits += 1;
        match self.bits.checked_sub(5).map(|index| ENDS.get(index as usize)) {
            None => {}
            Some(Some(end)) if self.code < *end => {
                *self = Symbol { is_lost: self.is_lost, ..Symbol::default() }
            }
            Some(Some(_)) => {}
            Some(None) => *self = Symbol { is_lost: true, ..Symbol::default() },
        }
        turns
    }
}
