//! Host names as the Istio API writes them: short names, wildcards, and which of two is more specific.
//!
//! Source: Istio `pkg/config/host` (name matching) and `ResolveShortnameToFQDN` (short names).

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The DNS suffix of Kubernetes services.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// A DNS name, `*.suffix` or `*`, in the letters of whoever wrote it: as in Istio, `A.org` and `a.org` are two hosts, which
/// only the proxy, where it looks for a virtual host, takes for the same. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

impl Host {
    /// The host as written, without resolving short names.
    pub fn new(name: &str) -> Host {
        Host(name.into())
    }

    /// The host that `name` means in an object of `namespace`: a name without dots (and not `*` or an address) is a
    /// service of that namespace, also where a ServiceEntry has just this name.
    pub fn resolve(name: &str, namespace: &str) -> Host {
        if name.contains('.') || name == "*" || name.parse::<IpAddr>().is_ok() {
            return Host::new(name);
        }
        Host::service(name, namespace)
    }

    /// The host of the Kubernetes service `name` in `namespace`.
    pub fn service(name: &str, namespace: &str) -> Host {
        Host::new(&format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name starts with `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether every name that `other` stands for is one that `self` stands for.
    pub fn covers(&self, other: &Host) -> bool {
        match self.0.strip_prefix('*') {
            None => self == other,
            Some(suffix) => other.0.strip_prefix('*').unwrap_or(&other.0).ends_with(suffix),
        }
    }

    /// Whether some name is one that both stand for.
    pub fn overlaps(&self, other: &Host) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Most specific first: exact names before wildcards, longer wildcards before shorter ones.
    pub fn by_specificity(&self, other: &Host) -> Ordering {
        (self.is_wildcard(), std::cmp::Reverse(self.0.len()), &self.0).cmp(&(
            other.is_wildcard(),
            std::cmp::Reverse(other.0.len()),
            &other.0,
        ))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_dots_is_a_service_of_the_namespace() {
        assert_eq!(Host::resolve("reviews", "shop").as_str(), "reviews.shop.svc.cluster.local");
        assert_eq!(Host::resolve("Example.com", "shop").as_str(), "Example.com");
        assert_eq!(Host::resolve("serviceA", "shop").as_str(), "serviceA.shop.svc.cluster.local");
        assert_eq!(Host::resolve("2001:db8::1", "shop").as_str(), "2001:db8::1");
        assert_eq!(Host::resolve("*", "shop").as_str(), "*");
    }

    #[test]
    fn wildcards_cover_by_suffix() {
        let covers = |a: &str, b: &str| Host::new(a).covers(&Host::new(b));
        assert!(covers("*", "a.b"));
        assert!(covers("*.b", "a.b"));
        assert!(covers("*.b", "*.a.b"));
        assert!(!covers("*.a.b", "*.b"));
        assert!(!covers("a.b", "*.b"));
        assert!(!covers("*.b", "b"));
        assert!(Host::new("*.a.b").overlaps(&Host::new("*.b")));
    }

    #[test]
    fn exact_before_long_before_short_wildcards() {
        let mut hosts = ["*", "*.com", "a.com", "*.a.com"].map(Host::new);
        hosts.sort_by(Host::by_specificity);
        assert_eq!(hosts.map(|h| h.to_string()), ["a.com", "*.a.com", "*.com", "*"]);
    }
}
