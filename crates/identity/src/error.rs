//! The one error of this crate: its kind, and a sentence that names what was wrong. Leaves out which file or caller it
//! was: the caller knows.

use std::fmt;

/// What was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// An id, a certificate, a key or a request that does not have the form it should.
    Malformed,
    /// Well-formed, and of an algorithm, size or version that is not taken.
    Unsupported,
    /// A signature, a key or a chain that does not belong to what it is given with.
    Mismatch,
    /// Outside the time in which it is good.
    Expired,
    /// The cryptographic library failed.
    Internal,
}

/// Why something of an identity cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    text: String,
}

impl Error {
    /// An error of this kind; the text names what was wrong.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Error {
        Error { kind, text: text.into() }
    }

    pub(crate) fn malformed(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Malformed, text)
    }

    pub(crate) fn unsupported(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, text)
    }

    pub(crate) fn mismatch(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Mismatch, text)
    }

    /// What was wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
