//! SPIFFE ids and trust domains. Source: the SPIFFE-ID standard, sections 2.1 to 2.4; the path of a workload is Istio's
//! `ns/NAMESPACE/sa/SERVICE_ACCOUNT`. Leaves out which ids a verifier accepts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::Error;

/// Longest trust domain, in bytes.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest id, in bytes.
const MAX_ID_BYTES: usize = 2048;

const SCHEME: &str = "spiffe://";

/// The name of a trust domain, such as `cluster.local`: the authority part of an id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = Error;

    fn from_str(text: &str) -> Result<TrustDomain, Error> {
        let is_allowed =
            |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN_BYTES || !text.bytes().all(is_allowed) {
            return Err(Error::malformed(format!(
                "{text:?} is no trust domain: 1 to {MAX_TRUST_DOMAIN_BYTES} of a-z, 0-9, '.', '-' and '_'"
            )));
        }
        Ok(TrustDomain(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE id: `spiffe://TRUST_DOMAIN/PATH`, always with a path, as workloads have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    uri: Arc<str>,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// The id of what runs as a service account, in Istio's form.
    ///
    /// # Errors
    /// If a name has characters that an id cannot have, or a slash, which would make it two. Kubernetes names never do.
    pub fn of_service_account(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<SpiffeId, Error> {
        if namespace.contains('/') || service_account.contains('/') {
            return Err(Error::malformed("a namespace or service account has no slash"));
        }
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What follows the trust domain, with the slash.
    pub fn path(&self) -> &str {
        &self.uri[SCHEME.len() + self.trust_domain.as_str().len()..]
    }

    /// Namespace and service account, if the path has Istio's form.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let mut parts = self.path().strip_prefix("/ns/")?.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some("sa"), Some(account), None) => Some((namespace, account)),
            _ => None,
        }
    }

    /// The same workload in another trust domain, for aliases.
    pub fn within(&self, trust_domain: &TrustDomain) -> SpiffeId {
        let uri = format!("{SCHEME}{trust_domain}{}", self.path()).into();
        SpiffeId { uri, trust_domain: trust_domain.clone() }
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<SpiffeId, Error> {
        let wrong = |why: &str| Error::malformed(format!("{text:?} is no SPIFFE id: {why}"));
        if text.len() > MAX_ID_BYTES {
            return Err(Error::malformed(format!("a SPIFFE id is longer than {MAX_ID_BYTES} bytes")));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("it must begin with spiffe://"))?;
        let (trust_domain, path) = rest.split_once('/').ok_or_else(|| wrong("it has no path"))?;
        let trust_domain = trust_domain.parse()?;
        let is_allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        for segment in path.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(wrong("a segment of the path is empty, '.' or '..'"));
            }
            if !segment.bytes().all(is_allowed) {
                return Err(wrong("the path has other characters than letters, digits, '.', '-' and '_'"));
            }
        }
        Ok(SpiffeId { uri: text.into(), trust_domain })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_read_and_printed() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/front-end".parse().unwrap();
        assert_eq!(id.trust_domain().as_str(), "cluster.local");
        assert_eq!(id.path(), "/ns/shop/sa/front-end");
        assert_eq!(id.service_account(), Some(("shop", "front-end")));
        let alias = id.within(&"old.example".parse().unwrap());
        assert_eq!(alias.as_str(), "spiffe://old.example/ns/shop/sa/front-end");
        let other: SpiffeId = "spiffe://td/db/1".parse().unwrap();
        assert_eq!(other.service_account(), None);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "https://td/a",
            "SPIFFE://td/a",
            "spiffe://td",
            "spiffe://td/",
            "spiffe:///a",
            "spiffe://TD/a",
            "spiffe://td:80/a",
            "spiffe://me@td/a",
            "spiffe://td/a//b",
            "spiffe://td/a/",
            "spiffe://td/../a",
            "spiffe://td/a%20b",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "spiffe://td/ns/a/sa/é",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
        let long = format!("spiffe://td/{}", "a".repeat(MAX_ID_BYTES));
        assert!(long.parse::<SpiffeId>().is_err());
        assert!("a".repeat(256).parse::<TrustDomain>().is_err());
    }

    #[test]
    fn a_name_cannot_smuggle_another_path() {
        let domain: TrustDomain = "td".parse().unwrap();
        for (namespace, account) in
            [("a", "b/sa/admin"), ("a/sa/admin", "b"), ("", "b"), ("a", ""), ("..", "b")]
        {
            let made = SpiffeId::of_service_account(&domain, namespace, account);
            assert!(made.is_err(), "{namespace:?} {account:?}: {made:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_prints_as_it_was(text in "(spiffe://)?[ -~]{0,40}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }
    }
}
