//! The index from `:authority` to virtual host.
//!
//! Source: `envoy.config.route.v3.VirtualHost.domains`. Exact names first, then the longest suffix wildcard
//! (`*.example.com`), then the longest prefix wildcard (`example.*`), then `*`. A wildcard stands for at least
//! one character. The cost depends on how many different lengths the wildcards have, not on their number.

use foldhash::{HashMap, HashMapExt};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Domains {
    exact: HashMap<Box<str>, usize>,
    suffixes: Wildcards,
    prefixes: Wildcards,
    any: Option<usize>,
    ignore_port: bool,
}

/// Wildcards by the length of their fixed part, longest first.
#[derive(Debug, Default)]
struct Wildcards(Vec<(usize, HashMap<Box<str>, usize>)>);

/// Longest authority that is lower-cased on the stack; DNS names end at 253 bytes.
const STACK_AUTHORITY_BYTES: usize = 256;

impl Domains {
    /// An empty index; `ignore_port` is `ignore_port_in_host_matching`.
    pub(super) fn new(ignore_port: bool) -> Domains {
        Domains { ignore_port, ..Domains::default() }
    }

    /// Adds a domain.
    ///
    /// # Errors
    /// Why it cannot be added: it is there already.
    pub(super) fn insert(&mut self, domain: &str, virtual_host: usize) -> Result<(), &'static str> {
        let domain = domain.to_ascii_lowercase();
        let previous = if domain == "*" {
            self.any.replace(virtual_host).is_some()
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.insert(suffix, virtual_host)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.insert(prefix, virtual_host)
        } else {
            self.exact.insert(domain.clone().into(), virtual_host).is_some()
        };
        match (previous, domain.as_str()) {
            (false, _) => Ok(()),
            (true, "*") => Err("only a single wildcard domain is permitted"),
            (true, _) => Err("only unique values for domains are permitted"),
        }
    }

    /// The virtual host for an authority.
    pub(super) fn find(&self, authority: &str) -> Option<usize> {
        let host = if self.ignore_port { without_port(authority) } else { authority };
        if !host.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.find_lower_case(host);
        }
        let mut buffer = [0; STACK_AUTHORITY_BYTES];
        let Some(lower) = buffer.get_mut(..host.len()) else {
            return self.find_lower_case(&host.to_ascii_lowercase());
        };
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        self.find_lower_case(std::str::from_utf8(lower).expect("invariant: ASCII case keeps UTF-8"))
    }

    fn find_lower_case(&self, host: &str) -> Option<usize> {
        let exact = || self.exact.get(host).copied();
        let suffix = || self.suffixes.find(host, |len| host.get(host.len() - len..));
        let prefix = || self.prefixes.find(host, |len| host.get(..len));
        exact().or_else(suffix).or_else(prefix).or(self.any)
    }
}

impl Wildcards {
    /// Whether it was there already.
    fn insert(&mut self, fixed: &str, virtual_host: usize) -> bool {
        let at = match self.0.binary_search_by(|(len, _)| fixed.len().cmp(len)) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (fixed.len(), HashMap::new()));
                at
            }
        };
        self.0[at].1.insert(fixed.into(), virtual_host).is_some()
    }

    fn find<'h>(&self, host: &str, part: impl Fn(usize) -> Option<&'h str>) -> Option<usize> {
        let fitting = self.0.iter().filter(|(len, _)| *len < host.len());
        fitting.filter_map(|(len, domains)| domains.get(part(*len)?).copied()).next()
    }
}

/// An authority without its port; the colons of a bare or bracketed IPv6 address are not one.
fn without_port(authority: &str) -> &str {
    match (authority.rfind(':'), authority.rfind(']')) {
        (Some(colon), Some(bracket)) if bracket > colon => authority,
        (Some(colon), _) => &authority[..colon],
        (None, _) => authority,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(domains: &[&str], ignore_port: bool) -> Domains {
        let mut index = Domains::new(ignore_port);
        for (i, domain) in domains.iter().enumerate() {
            index.insert(domain, i).unwrap();
        }
        index
    }

    #[test]
    fn exact_then_longest_suffix_then_longest_prefix_then_any() {
        let domains = ["*", "*.com", "*-x.b.com", "*.b.com", "a.*", "a.b.*", "a.b.com", "A.B.org:80"];
        let index = index(&domains, false);
        let found = |host: &str| domains[index.find(host).unwrap()];
        assert_eq!(found("a.b.com"), "a.b.com");
        assert_eq!(found("A.B.COM"), "a.b.com");
        assert_eq!(found("y.b.com"), "*.b.com");
        assert_eq!(found("y-x.b.com"), "*-x.b.com");
        assert_eq!(found("c.com"), "*.com");
        assert_eq!(found(".b.com"), "*.com");
        assert_eq!(found("a.b.net"), "a.b.*");
        assert_eq!(found("a.c"), "a.*");
        assert_eq!(found("a.b.org"), "a.b.*");
        assert_eq!(found("a.b.org:80"), "A.B.org:80");
        assert_eq!(found("z"), "*");
        assert_eq!(found(""), "*");
    }

    #[test]
    fn the_port_counts_unless_it_is_ignored() {
        assert_eq!(index(&["a"], false).find("a:80"), None);
        let index = index(&["a", "[::1]"], true);
        assert_eq!(index.find("a:80"), Some(0));
        assert_eq!(index.find("a"), Some(0));
        assert_eq!(index.find("[::1]:80"), Some(1));
        assert_eq!(index.find("[::1]"), Some(1));
    }

    #[test]
    fn a_domain_is_there_once() {
        let mut index = Domains::new(false);
        assert!(index.insert("a.b", 0).is_ok());
        assert!(index.insert("A.b", 1).is_err());
        assert!(index.insert("*.b", 0).is_ok());
        assert!(index.insert("*.b", 0).is_err());
        assert!(index.insert("*", 0).is_ok());
        assert!(index.insert("*", 1).unwrap_err().contains("single wildcard"));
    }

    #[test]
    fn an_authority_of_any_length_is_lower_cased() {
        let long = "a".repeat(STACK_AUTHORITY_BYTES + 1);
        assert_eq!(index(&[&long], false).find(&long.to_ascii_uppercase()), Some(0));
    }

    /// The rules, read out loud.
    fn naive(domains: &[String], host: &str) -> Option<usize> {
        let host = host.to_ascii_lowercase();
        let longest = |fits: &dyn Fn(&str) -> bool| {
            let fitting = domains.iter().enumerate().filter(|(_, d)| d.len() > 1 && fits(d));
            fitting.max_by_key(|(_, d)| d.len()).map(|(i, _)| i)
        };
        domains
            .iter()
            .position(|d| *d == host)
            .or_else(|| {
                longest(&|d| d.strip_prefix('*').is_some_and(|s| host.len() > s.len() && host.ends_with(s)))
            })
            .or_else(|| {
                longest(&|d| {
                    !d.starts_with('*')
                        && d.strip_suffix('*').is_some_and(|p| host.len() > p.len() && host.starts_with(p))
                })
            })
            .or_else(|| domains.iter().position(|d| d == "*"))
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_the_rules(
            domains in proptest::collection::hash_set(r"\*?[ab.é]{1,4}\*?|\*", 0..12),
            hosts in proptest::collection::vec("[abAB.é]{0,6}", 1..12),
        ) {
            let domains: Vec<String> = domains.into_iter().filter(|d| !d.is_empty()).collect();
            let names: Vec<&str> = domains.iter().map(String::as_str).collect();
            let index = index(&names, false);
            for host in hosts {
                prop_assert_eq!(index.find(&host), naive(&domains, &host), "{} in {:?}", host, domains);
            }
        }
    }
}
