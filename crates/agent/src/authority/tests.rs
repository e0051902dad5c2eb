//! Requests as gRPC's C core and other encoders write them, in pieces of every size.

use super::*;

const PREFACE_TEXT: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// What comes out, whatever the pieces in which it goes in.
fn passed(bytes: &[u8]) -> Vec<u8> {
    let mut whole = bytes.to_vec();
    Frames::default().pass(&mut whole);
    for size in 1..bytes.len().min(40) {
        let mut pieces = bytes.to_vec();
        let mut frames = Frames::default();
        pieces.chunks_mut(size).for_each(|piece| frames.pass(piece));
        assert_eq!(pieces, whole, "in pieces of {size}");
    }
    whole
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE_TEXT.to_vec(), frames.concat()].concat()
}

/// A literal field with a new name, neither in Huffman coding.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0x40], string(name), string(value)].concat()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// `%2Frun%2Fmeltemi%2Fsds.sock` in Huffman coding before and after, as the Python package `hpack` encodes both.
const HUFFMAN: (&str, &str) =
    ("419454586cb6a5458692d092d26545851221741c9d7f", "41945c586cb6a5c58692d092d265c5851221741c9d7f");
/// The same for `%2Frun%2Fsds.sock` after a name in Huffman coding.
const HUFFMAN_NAME: (&str, &str) =
    ("4088b83b5339ec327d7f8d54586cb6a545851221741c9d7f", "4088b83b5339ec327d7f8d5c586cb6a5c5851221741c9d7f");
/// The same for characters of up to 15 bits: `a%(b)!+%'~#%$|{}<>^%@%%%`.
const HUFFMAN_LONG_CODES: (&str, &str) = (
    "419e1abfd47fdff1fed5ff5ffdffa57ff3ff3fff7ffbfff3fefffc57ff4aaaaf",
    "419e1affd47fdff1fed7ff5ffdffa5fff3ff3fff7ffbfff3fefffc5fff4baebf",
);

#[test]
fn an_escaped_path_is_an_authority_in_every_encoding() {
    let settings = frame(4, 0, &[0, 3, 0, 0, 0, 100]);
    let data = frame(0, 1, b":authority%%%%");
    for (before, after) in [
        (literal(":authority", "%2Frun%2Fsds.sock"), literal(":authority", ".2Frun.2Fsds.sock")),
        (literal(":path", "/a%2Fb"), literal(":path", "/a%2Fb")),
        (literal(":authorit%", "%"), literal(":authorit%", "%")),
        ([&[0x41, 1], &b"%"[..]].concat(), [&[0x41, 1], &b"."[..]].concat()),
        ([&[0x01, 1], &b"%"[..]].concat(), [&[0x01, 1], &b"."[..]].concat()),
        ([&[0x44, 1], &b"%"[..]].concat(), [&[0x44, 1], &b"%"[..]].concat()),
        ([&[0x7f, 0x81, 0x01, 1], &b"%"[..]].concat(), [&[0x7f, 0x81, 0x01, 1], &b"%"[..]].concat()),
        (vec![0x3f, 0xe1, 0x1f, 0x83], vec![0x3f, 0xe1, 0x1f, 0x83]),
        (hex(HUFFMAN.0), hex(HUFFMAN.1)),
        (hex(HUFFMAN_NAME.0), hex(HUFFMAN_NAME.1)),
        (hex(HUFFMAN_LONG_CODES.0), hex(HUFFMAN_LONG_CODES.1)),
    ] {
        // Twice: what one field leaves behind must not be in the way of the next.
        let twice = |block: &[u8]| [block, block, &[0x82]].concat();
        let sent = |block: &[u8]| connection(&[settings.clone(), frame(1, 4, block), data.clone()]);
        assert_eq!(passed(&sent(&twice(&before))), sent(&twice(&after)), "{before:02x?}");
    }
}

#[test]
fn fields_in_several_frames_with_padding_and_priority_are_followed() {
    let block = |authority: &str| [vec![0x83], literal(":authority", authority), vec![0x86]].concat();
    let sent = |authority: &str| {
        let block = block(authority);
        let (first, rest) = block.split_at(17);
        let padded = [&[3, 0, 0, 0, 0, 16][..], first, b"%%%"].concat();
        connection(&[
            frame(1, PADDED | PRIORITY, &padded),
            frame(9, 0, &[]),
            frame(9, 0, &rest[..4]),
            frame(9, END_HEADERS, &rest[4..]),
            frame(1, END_HEADERS, &literal(":authority", authority)),
        ])
    };
    assert_eq!(passed(&sent("%2Frun%2Fs")), sent(".2Frun.2Fs"));
}

#[test]
fn long_texts_are_followed_and_endless_ones_passed() {
    let text = |name: &str, sign: &str| {
        let value = format!("{sign}{}", "a".repeat(300));
        let length = [0x7f, 0x80 | ((301 - 127) & 0x7f) as u8, ((301 - 127) >> 7) as u8];
        [&[0x40, u8::try_from(name.len()).unwrap()], name.as_bytes(), &length, value.as_bytes()].concat()
    };
    let sent = |other: &str, authority: &str| {
        let block = [text("x-other", other), text(":authority", authority)].concat();
        connection(&[frame(1, END_HEADERS, &block)])
    };
    assert_eq!(passed(&sent("%", "%")), sent("%", "."));
    let endless = connection(&[frame(1, END_HEADERS, &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, b'%'])]);
    assert_eq!(passed(&endless), endless);
}
