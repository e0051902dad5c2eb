//! An ordered list of header fields.
//!
//! Owns order, repetition and look-up. A list, not a hash map: a message has some ten to thirty fields, order is kept
//! end to end, and comparing interned [`HeaderName`]s is cheaper than hashing them. Leaves out what fields mean.

use http::header::{self, HeaderName, HeaderValue};

use crate::h1::Spelling;

/// Header fields in the order of the wire. Names are lower-case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// How the peer spelled the names, where that is kept.
    spelling: Option<Box<Spelling>>,
}

impl Headers {
    /// No fields, no allocation.
    pub const fn new() -> Headers {
        Headers { fields: Vec::new(), spelling: None }
    }

    /// No fields yet, room for `count`.
    pub fn with_capacity(count: usize) -> Headers {
        Headers { fields: Vec::with_capacity(count), spelling: None }
    }

    pub(crate) fn spelling(&self) -> Option<&Spelling> {
        self.spelling.as_deref()
    }

    pub(crate) fn spelling_mut(&mut self) -> Option<&mut Spelling> {
        self.spelling.as_deref_mut()
    }

    pub(crate) fn set_spelling(&mut self, spelling: Option<Box<Spelling>>) {
        self.spelling = spelling;
    }

    /// The first value under `name`.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The first value under `name` when it is visible ASCII.
    pub fn get_str(&self, name: &HeaderName) -> Option<&str> {
        self.get(name)?.to_str().ok()
    }

    /// The first value under `name`, to change in place.
    pub fn get_mut(&mut self, name: &HeaderName) -> Option<&mut HeaderValue> {
        self.fields.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Every value under `name`, in order.
    pub fn get_all<'h>(&'h self, name: &'h HeaderName) -> impl Iterator<Item = &'h HeaderValue> {
        self.fields.iter().filter(move |(key, _)| key == name).map(|(_, value)| value)
    }

    /// Whether a field of that name exists.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.fields.iter().any(|(key, _)| key == name)
    }

    /// Makes `value` the only one under `name`, at the place of the first one or at the end.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        let Some(first) = self.fields.iter().position(|(key, _)| *key == name) else {
            return self.fields.push((name, value));
        };
        self.fields[first].1 = value;
        let mut index = 0;
        self.fields.retain(|(key, _)| {
            index += 1;
            index - 1 <= first || *key != name
        });
    }

    /// Adds a field at the end.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.fields.push((name, value));
    }

    /// Removes every field of that name; says whether there was one.
    pub fn remove(&mut self, name: &HeaderName) -> bool {
        let before = self.fields.len();
        self.fields.retain(|(key, _)| key != name);
        self.fields.len() != before
    }

    /// The fields in order.
    pub fn iter(&self) -> std::slice::Iter<'_, (HeaderName, HeaderValue)> {
        self.fields.iter()
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Keeps the fields for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName, &HeaderValue) -> bool) {
        self.fields.retain(|(name, value)| keep(name, value));
    }

    /// Bytes of all names and values with `": "` and CRLF, the size that Envoy logs and limits.
    pub fn byte_size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
    }
}

impl<'h> IntoIterator for &'h Headers {
    type Item = &'h (HeaderName, HeaderValue);
    type IntoIter = std::slice::Iter<'h, (HeaderName, HeaderValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.fields.iter()
    }
}

impl IntoIterator for Headers {
    type Item = (HeaderName, HeaderValue);
    type IntoIter = std::vec::IntoIter<(HeaderName, HeaderValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.fields.into_iter()
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Headers {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Headers {
        Headers { fields: fields.into_iter().collect(), spelling: None }
    }
}

/// Whether a field speaks about one connection only and must not be forwarded (RFC 9110, 7.6.1). `upgrade` and `te` are
/// in: a proxy that relays an upgrade or `te: trailers` puts them back.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::TE
        || name.as_str() == "keep-alive"
        || name.as_str() == "proxy-connection"
}
