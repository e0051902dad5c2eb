//! Which HTTP a connection speaks, by its first line.
//!
//! As loose as the parser of Envoy's `http_inspector`: what it takes for HTTP is in the tests.

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstLine {
    /// The beginning of a line that may be HTTP.
    Partial,
    /// HTTP/1.0, or a version that is treated so.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// Something else.
    Other,
}

/// The preface of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks at the first bytes of a connection.
pub(super) fn parse(bytes: &[u8]) -> FirstLine {
    if PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]) {
        return if bytes.len() < PREFACE.len() { FirstLine::Partial } else { FirstLine::Http2 };
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => version(&bytes[..end]).unwrap_or(FirstLine::Other),
        None if could_be_method(bytes) => FirstLine::Partial,
        None => FirstLine::Other,
    }
}

fn version(line: &[u8]) -> Option<FirstLine> {
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    let method = words.next().filter(|method| !method.is_empty() && method.iter().all(is_token))?;
    let mut words = words.filter(|word| !word.is_empty());
    let target = words.next()?;
    let is_absolute = target.windows(3).any(|part| part == b"://");
    if !(matches!(target[0], b'/' | b'*') || is_absolute || method == b"CONNECT") || !target.is_ascii() {
        return None;
    }
    match (words.next(), words.next()) {
        // Without a version it is HTTP/0.9, which is treated as 1.0.
        (None, _) => Some(FirstLine::Http10),
        (Some(b"HTTP/1.1"), None) => Some(FirstLine::Http11),
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Some(FirstLine::Http10)
        }
        _ => None,
    }
}

/// Whether this is how a request line begins.
fn could_be_method(bytes: &[u8]) -> bool {
    let method = bytes.split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
    (!method.is_empty() || bytes.is_empty()) && method.iter().all(is_token)
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_http_are_told_apart_as_envoy_does() {
        let cases: [(&[u8], FirstLine); 27] = [
            (b"GET / HTTP/1.1\r\n", FirstLine::Http11),
            (b"GET / HTTP/1.1\n", FirstLine::Http11),
            (b"GET  / HTTP/1.1\r\n", FirstLine::Http11),
            (b"GET\t/ HTTP/1.1 \r\n", FirstLine::Http11),
            (b"get / HTTP/1.1\r\n", FirstLine::Http11),
            (b"GET http://a/ HTTP/1.1\r\n", FirstLine::Http11),
            (b"OPTIONS * HTTP/1.1\r\n", FirstLine::Http11),
            (b"CONNECT a:1 HTTP/1.1\r\n", FirstLine::Http11),
            (b"GET / HTTP/1.0\r\n", FirstLine::Http10),
            (b"GET / HTTP/1.2\r\n", FirstLine::Http10),
            (b"GET /\r\n", FirstLine::Http10),
            (PREFACE, FirstLine::Http2),
            (b"GET / FOO/1.0\r\n", FirstLine::Other),
            (b"GET / HTTP/1.10\r\n", FirstLine::Other),
            (b"GET / http/1.1\r\n", FirstLine::Other),
            (b"GET / a HTTP/1.1\r\n", FirstLine::Other),
            (b"GET foo HTTP/1.1\r\n", FirstLine::Other),
            (b"GET /\xc3\xa9 HTTP/1.1\r\n", FirstLine::Other),
            (b" GET / HTTP/1.1\r\n", FirstLine::Other),
            (b"\r\nGET / HTTP/1.1\r\n", FirstLine::Other),
            (b"GET\r\n", FirstLine::Other),
            (b"hello world\r\n", FirstLine::Other),
            (b"G{T /", FirstLine::Other),
            (b"\x00\x01\x02", FirstLine::Other),
            (b"hello", FirstLine::Partial),
            (b"GET / HTTP/1.1", FirstLine::Partial),
            (b"PRI * HTTP/2.0\r\n", FirstLine::Partial),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
