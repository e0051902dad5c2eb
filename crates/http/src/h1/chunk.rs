//! Chunked transfer coding (RFC 9112, 7.1).
//!
//! Owns the decoder and its limits. Extensions are read over and dropped, as a recipient that knows none must.

use bytes::{Buf, Bytes, BytesMut};

use super::H1Options;
use super::parse::{HeadScan, parse_trailers};
use crate::Headers;

/// Limit of the line before a chunk, extensions included: they carry nothing for us.
const SIZE_LINE_MAX_BYTES: usize = 1024;

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Some bytes of the body, never none.
    Data(Bytes),
    /// Trailers; the body is complete.
    Trailers(Headers),
    /// The body is complete.
    End,
}

/// Decodes a chunked body piece by piece, however the bytes are cut.
#[derive(Debug, Default)]
pub struct ChunkDecoder {
    state: State,
    scan: HeadScan,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

impl ChunkDecoder {
    /// Takes the next piece off the front of `buffer`. `None`: more bytes are needed.
    pub fn decode(
        &mut self,
        buffer: &mut BytesMut,
        limits: &H1Options,
    ) -> Result<Option<Chunk>, &'static str> {
        loop {
            match self.state {
                State::Size => {
                    let Some(size) = take_size(buffer)? else { return Ok(None) };
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(_) if buffer.is_empty() => return Ok(None),
                State::Data(left) => {
                    let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - take as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Some(Chunk::Data(buffer.split_to(take).freeze())));
                }
                State::DataEnd if buffer.len() < 2 => return Ok(None),
                State::DataEnd => {
                    if !buffer.starts_with(b"\r\n") {
                        return Err("no CRLF after a chunk");
                    }
                    buffer.advance(2);
                    self.state = State::Size;
                }
                State::Trailers => return self.trailers(buffer, limits),
            }
        }
    }

    fn trailers(&mut self, buffer: &mut BytesMut, limits: &H1Options) -> Result<Option<Chunk>, &'static str> {
        let Some(end) = self.scan.find_end(buffer).map_err(|error| error.detail)? else {
            if buffer.len() > limits.max_head_bytes {
                return Err("trailers too large");
            }
            return Ok(None);
        };
        if end > limits.max_head_bytes {
            return Err("trailers too large");
        }
        let block = buffer.split_to(end).freeze();
        if block.len() == 2 {
            return Ok(Some(Chunk::End));
        }
        let trailers = parse_trailers(&block, limits).map_err(|error| error.detail)?;
        Ok(Some(if limits.trailers { Chunk::Trailers(trailers) } else { Chunk::End }))
    }
}

/// The size of the next chunk, with its line taken off the buffer.
fn take_size(buffer: &mut BytesMut) -> Result<Option<u64>, &'static str> {
    let window = &buffer[..buffer.len().min(SIZE_LINE_MAX_BYTES)];
    let Some(line_feed) = memchr::memchr(b'\n', window) else {
        if buffer.len() >= SIZE_LINE_MAX_BYTES {
            return Err("chunk size line too long");
        }
        return Ok(None);
    };
    let line = buffer[..line_feed].strip_suffix(b"\r").ok_or("bare LF after a chunk size")?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let is_extension = |rest: &[u8]| rest.is_empty() || rest.trim_ascii_start().starts_with(b";");
    if digits == 0 || digits > 16 || !is_extension(&line[digits..]) || line.contains(&b'\r') {
        return Err("invalid chunk size");
    }
    let size = line[..digits].iter().fold(0u64, |sum, digit| sum << 4 | u64::from(hex(*digit)));
    buffer.advance(line_feed + 1);
    Ok(Some(size))
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// Writes the line before a chunk of `size` bytes.
pub fn encode_size(out: &mut BytesMut, size: usize) {
    let mut digits = [0u8; 18];
    let mut at = 16;
    let mut rest = size;
    digits[16..].copy_from_slice(b"\r\n");
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<Headers>, usize), &'static str> {
        let limits = H1Options::default();
        let mut decoder = ChunkDecoder::default();
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(chunk) = decoder.decode(&mut buffer, &limits)? {
                match chunk {
                    Chunk::Data(data) => body.extend_from_slice(&data),
                    Chunk::Trailers(trailers) => return Ok((body, Some(trailers), buffer.len())),
                    Chunk::End => return Ok((body, None, buffer.len())),
                }
            }
        }
        Err("incomplete")
    }

    #[test]
    fn broken_sizes_are_errors() {
        for text in
            ["\r\n", "x\r\n", "5 5\r\n", "-1\r\n", "0x5\r\n", "5\n", "12345678901234567\r\n", "5;a\rb\r\n"]
        {
            assert!(decode_all(&[text.as_bytes()]).is_err_and(|error| error != "incomplete"), "{text:?}");
        }
        assert_eq!(decode_all(&[b"1\r\naXX"]), Err("no CRLF after a chunk"));
        let long = format!("5;{}", "x".repeat(SIZE_LINE_MAX_BYTES));
        assert_eq!(decode_all(&[long.as_bytes()]), Err("chunk size line too long"));
    }

    #[test]
    fn extensions_are_dropped_and_trailers_kept() {
        let wire = b"3;name=value\r\nabc\r\n0 ; x\r\nGrpc-Status: 0\r\nx: y\r\n\r\nnext";
        let (body, trailers, left) = decode_all(&[wire]).unwrap();
        assert_eq!(body, b"abc");
        assert_eq!(left, 4);
        let trailers = trailers.unwrap();
        assert_eq!(trailers.get_str(&http::HeaderName::from_static("grpc-status")), Some("0"));
        assert_eq!(trailers.len(), 2);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_body(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut wire = BytesMut::new();
            for chunk in &chunks {
                encode_size(&mut wire, chunk.len());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect();
            let (body, trailers, left) = decode_all(&pieces).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert!(trailers.is_none());
            prop_assert_eq!(left, 0);
        }

        #[test]
        fn no_bytes_panic(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_all(&[&wire]);
        }
    }
}
