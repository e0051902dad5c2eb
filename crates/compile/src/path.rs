//! What is done to `:path` before routing: escaped slashes, normalisation, merging of slashes.
//!
//! Source: Envoy's `PathUtil` (googleurl's canonical path: dot segments resolved, unreserved characters decoded,
//! backslashes turned, other escapes left as they are).

use crate::program::{EscapedSlashes, HttpConnectionManager};

/// What comes of a path.
#[derive(Debug, PartialEq, Eq)]
pub enum PathVerdict {
    /// As it is.
    Keep,
    /// Go on with another one.
    Change(String),
    /// 400; the text is the path as far as it was changed.
    Reject(String),
    /// 307 to this.
    Redirect(String),
}

/// Applies the connection manager's settings. `path` includes the query, which is never touched.
pub fn normalise(path: &str, settings: &HttpConnectionManager) -> PathVerdict {
    // A fragment is the client's own; who sends one means to confuse a matcher.
    if path.contains('#') {
        return PathVerdict::Reject(path.to_owned());
    }
    let (mut bare, query) = split_query(path);
    let mut owned;
    let unescaped = unescape_slashes(bare, settings.escaped_slashes);
    if let Some(text) = unescaped.as_deref() {
        match settings.escaped_slashes {
            EscapedSlashes::Reject => return PathVerdict::Reject(format!("{text}{query}")),
            EscapedSlashes::UnescapeAndRedirect
            | EscapedSlashes::UnescapeAndForward
            | EscapedSlashes::Keep => {
                bare = text;
            }
        }
    }
    if settings.normalize_path && needs_normalising(bare) {
        let Some(text) = canonical(bare) else { return PathVerdict::Reject(path.to_owned()) };
        owned = text;
        bare = &owned;
    }
    if settings.merge_slashes && bare.contains("//") {
        owned = merge_slashes(bare);
        bare = &owned;
    }
    let changed = || format!("{bare}{query}");
    match unescaped.is_some() && settings.escaped_slashes == EscapedSlashes::UnescapeAndRedirect {
        true => PathVerdict::Redirect(changed()),
        false if bare.len() + query.len() == path.len() && path.starts_with(bare) => PathVerdict::Keep,
        false => PathVerdict::Change(changed()),
    }
}

fn split_query(path: &str) -> (&str, &str) {
    path.split_at(path.find('?').unwrap_or(path.len()))
}

/// `%2F` and `%5C` replaced, when there are any and the action is not to keep them.
fn unescape_slashes(path: &str, action: EscapedSlashes) -> Option<String> {
    if action == EscapedSlashes::Keep || !path.contains('%') {
        return None;
    }
    let lower = path.to_ascii_lowercase();
    if !lower.contains("%2f") && !lower.contains("%5c") {
        return None;
    }
    let slashes = path.replace("%2F", "/").replace("%2f", "/");
    Some(slashes.replace("%5C", "\\").replace("%5c", "\\"))
}

fn needs_normalising(path: &str) -> bool {
    path.contains("/.") || path.bytes().any(|b| b == b'%' || b == b'\\' || must_escape(b))
}

/// Characters that googleurl escapes in a path.
fn must_escape(byte: u8) -> bool {
    byte <= 0x20 || byte >= 0x7f || matches!(byte, b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'^' | b'|')
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The canonical form, or `None` when the path does not begin with a slash.
fn canonical(path: &str) -> Option<String> {
    if !path.starts_with('/') && !path.starts_with('\\') {
        return None;
    }
    let decoded = decode_unreserved(path.as_bytes());
    let mut out: Vec<&str> = Vec::new();
    let mut trailing = false;
    for segment in decoded[1..].split('/') {
        trailing = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(out.pop()),
            other => out.push(other),
        }
    }
    let mut text = String::with_capacity(decoded.len());
    for segment in &out {
        text.push('/');
        text.push_str(segment);
    }
    if trailing || text.is_empty() {
        text.push('/');
    }
    Some(text)
}

/// Decodes escapes of unreserved characters, turns backslashes, escapes what must not stand in a path.
fn decode_unreserved(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let byte = path[at];
        at += 1;
        match byte {
            b'\\' => out.push('/'),
            b'%' => match escaped(&path[at..]) {
                Some(value) if is_unreserved(value) => {
                    out.push(char::from(value));
                    at += 2;
                }
                _ => out.push('%'),
            },
            byte if must_escape(byte) => out.push_str(&format!("%{byte:02X}")),
            byte => out.push(char::from(byte)),
        }
    }
    out
}

fn escaped(rest: &[u8]) -> Option<u8> {
    let high = char::from(*rest.first()?).to_digit(16)?;
    let low = char::from(*rest.get(1)?).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_paths_are_those_of_envoy() {
        let cases = [
            ("/a/../b/./c", "/b/c"),
            ("/../../x", "/x"),
            ("/a/%2e%2e/b", "/b"),
            ("/a\\b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%41%7e", "/A~"),
            ("/%2f%3a", "/%2f%3a"),
            ("//a///b", "//a///b"),
            ("/..", "/"),
        ];
        for (path, expected) in cases {
            assert_eq!(canonical(path).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(canonical("a"), None);
    }

    #[test]
    fn slashes_are_unescaped_in_both_cases() {
        assert_eq!(unescape_slashes("/a%2Fb%5c", EscapedSlashes::Reject).as_deref(), Some("/a/b\\"));
        assert_eq!(unescape_slashes("/a%2Fb", EscapedSlashes::Keep), None);
        assert_eq!(unescape_slashes("/a%20b", EscapedSlashes::Reject), None);
    }

    #[test]
    fn merging_leaves_one_slash() {
        assert_eq!(merge_slashes("//a///b/"), "/a/b/");
    }
}
