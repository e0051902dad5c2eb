//! The query of a path as parameters that can be changed.
//!
//! Source: Envoy's `QueryParamsMulti`: names are compared unescaped, several values under one name stay together, and
//! what is written is in the order of the names. New values are escaped, but for unreserved characters (RFC 3986, 2.3).
//! Differs: parameters that nobody changes stay escaped as they came; Envoy writes them unescaped, with blanks and all.

use std::collections::BTreeMap;

use meltemi_compile::header_edit::AppendAction;

/// Parameters by unescaped name: each name and value as it is written.
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, Vec<(String, String)>>);

impl Query {
    /// Reads the query of a path.
    pub(super) fn parse(path: &str) -> Query {
        let mut query = Query::default();
        let Some((_, text)) = path.split_once('?') else { return query };
        let text = text.split_once('#').map_or(text, |(text, _)| text);
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            query.add(&unescaped(name), name.to_owned(), value.to_owned());
        }
        query
    }

    fn add(&mut self, name: &str, written_name: String, written_value: String) {
        self.0.entry(name.to_owned()).or_default().push((written_name, written_value));
    }

    /// Takes a parameter out.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Adds or replaces a parameter.
    pub(super) fn put(&mut self, name: &str, value: &str, action: AppendAction) {
        let is_there = self.0.contains_key(name);
        match action {
            AppendAction::AddIfAbsent if is_there => {}
            AppendAction::OverwriteIfExists if !is_there => {}
            AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => {
                self.add(name, escaped(name), escaped(value))
            }
            AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
                self.0.insert(name.to_owned(), vec![(escaped(name), escaped(value))]);
            }
        }
    }

    /// The path with these parameters as its query.
    pub(super) fn replaced_in(&self, path: &str) -> String {
        let mut out = path.split_once('?').map_or(path, |(path, _)| path).to_owned();
        let mut separator = '?';
        for (name, value) in self.0.values().flatten() {
            out.push(separator);
            out.extend([name.as_str(), "=", value]);
            separator = '&';
        }
        out
    }
}

fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |i: usize| bytes.get(i).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_unescaped_changed_and_escaped() {
        let mut query = Query::parse("/p?b=2&a=x%20y&b=3&flag#f");
        query.put("b", "4", AppendAction::AppendIfExistsOrAdd);
        query.put("a", "z/", AppendAction::OverwriteIfExists);
        query.put("new", "n", AppendAction::OverwriteIfExists);
        query.put("c", "1", AppendAction::AddIfAbsent);
        query.put("c", "2", AppendAction::AddIfAbsent);
        query.remove("flag");
        assert_eq!(query.replaced_in("/p?b=2#f"), "/p?a=z%2F&b=2&b=3&b=4&c=1");
        assert_eq!(Query::parse("/p?%62=x%20y&a=%zz&=").replaced_in("/p?a"), "/p?=&a=%zz&%62=x%20y");
        assert_eq!(Query::default().replaced_in("/p?a"), "/p");
    }
}
