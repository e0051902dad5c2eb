//! Why a resource was not taken: the text of a NACK and of a refused bootstrap.

use std::fmt;

/// One field of one resource that is invalid or not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Rejection {
    /// Name of the resource.
    pub resource: String,
    /// Proto field path, such as `filter_chains[0].filters[1].typed_config.route_config`; empty for the whole.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Rejection {
    /// A rejection of the field at `path`.
    pub fn new(resource: impl Into<String>, path: impl Into<String>, reason: impl Into<String>) -> Rejection {
        Rejection { resource: resource.into(), path: path.into(), reason: reason.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rejection { resource, path, reason } = self;
        if path.is_empty() {
            write!(f, "{resource}: {reason}")
        } else {
            write!(f, "{resource}: {path}: {reason}")
        }
    }
}
