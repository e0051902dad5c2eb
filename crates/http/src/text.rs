//! A cheaply clonable piece of UTF-8 text: the path, authority or scheme of a message.
//!
//! Owns nothing but the invariant; the bytes are shared with the buffer that the message was read into.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, RangeBounds};

use bytes::Bytes;

/// UTF-8 text over shared [`Bytes`]. `clone` and `slice` copy no text.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// The empty text.
    pub const fn new() -> Text {
        Text(Bytes::new())
    }

    /// Text that lives as long as the program.
    pub const fn from_static(text: &'static str) -> Text {
        Text(Bytes::from_static(text.as_bytes()))
    }

    /// Takes bytes without copying them; gives them back when they are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Text, Bytes> {
        if std::str::from_utf8(&bytes).is_ok() { Ok(Text(bytes)) } else { Err(bytes) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("invariant: every constructor checked the UTF-8")
    }

    /// A part of the text, sharing its bytes. Panics, as `str` slicing does, when the range is out of bounds or
    /// cuts a character.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Text {
        let part = self.0.slice(range);
        assert!(std::str::from_utf8(&part).is_ok(), "invariant: the range lies on character boundaries");
        Text(part)
    }

    /// The shared bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The shared bytes, by reference.
    pub fn as_shared(&self) -> &Bytes {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// Hashes as `str` does, as `Borrow<str>` demands.
impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(Bytes::from(text))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
