//! `exportTo`: which namespaces may see an object.
//!
//! Source: Istio `pkg/config/visibility`.

use std::collections::BTreeSet;

/// The namespaces that an object is exported to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Visibility {
    /// `*`, or nothing said.
    #[default]
    All,
    /// `~`: nobody, not even its own namespace.
    Nobody,
    /// `.` (already resolved) and names.
    Only(BTreeSet<String>),
}

impl Visibility {
    /// Reads an `exportTo` list of an object in `namespace`.
    pub fn parse<S: AsRef<str>>(export_to: &[S], namespace: &str) -> Visibility {
        let words = || export_to.iter().map(|w| w.as_ref().trim());
        if export_to.is_empty() || words().any(|w| w == "*") {
            return Visibility::All;
        }
        if words().any(|w| w == "~") {
            return Visibility::Nobody;
        }
        Visibility::Only(words().map(|w| if w == "." { namespace } else { w }.to_owned()).collect())
    }

    /// Whether a proxy in `namespace` sees the object.
    pub fn reaches(&self, namespace: &str) -> bool {
        match self {
            Visibility::All => true,
            Visibility::Nobody => false,
            Visibility::Only(names) => names.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let reaches = |words: &[&str], ns| Visibility::parse(words, "a").reaches(ns);
        assert!(reaches(&[], "b"));
        assert!(reaches(&["*"], "b"));
        assert!(reaches(&["."], "a") && !reaches(&["."], "b"));
        assert!(reaches(&["b", "."], "b"));
        assert!(!reaches(&["~"], "a"));
    }
}
