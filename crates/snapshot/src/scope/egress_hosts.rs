//! `hosts` of an egress listener: `namespace/host`, with `~namespace/host` to leave out.
//!
//! Source: Istio `pilot/pkg/model/sidecar.go` (`hostClassification`, `selectServices`), `virtualservice.go`
//! (`SelectVirtualServices`).

use crate::host::Host;

/// What a listener brings in.
pub(super) struct EgressHosts {
    admitted: Vec<(Namespace, Host)>,
    excluded: Vec<(Namespace, Host)>,
}

enum Namespace {
    Any,
    Is(String),
}

impl Namespace {
    fn parse(text: &str, own: &str) -> Namespace {
        match text {
            "*" => Namespace::Any,
            "." => Namespace::Is(own.to_owned()),
            name => Namespace::Is(name.to_owned()),
        }
    }

    fn is(&self, namespace: &str) -> bool {
        match self {
            Namespace::Any => true,
            Namespace::Is(name) => name == namespace,
        }
    }
}

impl EgressHosts {
    /// `*/*`.
    pub(super) fn everything() -> EgressHosts {
        EgressHosts { admitted: vec![(Namespace::Any, Host::new("*"))], excluded: Vec::new() }
    }

    /// Reads the list for a client in `own`. `~/HOST` leaves the host out in all namespaces, so that `~/*` is nothing.
    pub(super) fn parse(hosts: &[String], own: &str) -> EgressHosts {
        let mut parsed = EgressHosts { admitted: Vec::new(), excluded: Vec::new() };
        for text in hosts {
            let Some((namespace, host)) = text.split_once('/') else { continue };
            match namespace.strip_prefix('~') {
                Some("") => parsed.excluded.push((Namespace::Any, Host::new(host))),
                Some(rest) => parsed.excluded.push((Namespace::parse(rest, own), Host::new(host))),
                None => parsed.admitted.push((Namespace::parse(namespace, own), Host::new(host))),
            }
        }
        parsed
    }

    /// Whether a service comes in.
    pub(super) fn admit(&self, namespace: &str, host: &Host) -> bool {
        let listed = self.admitted.iter().any(|(scope, pattern)| scope.is(namespace) && pattern.covers(host));
        listed && !self.excludes(namespace, host)
    }

    /// Whether a VirtualService comes in by one of its hosts: also one that is wider than what is listed.
    pub(super) fn admit_virtual_service(&self, namespace: &str, host: &Host) -> bool {
        let listed =
            self.admitted.iter().any(|(scope, pattern)| scope.is(namespace) && pattern.overlaps(host));
        listed && !self.excludes(namespace, host)
    }

    fn excludes(&self, namespace: &str, host: &Host) -> bool {
        self.excluded.iter().any(|(scope, pattern)| scope.is(namespace) && pattern.covers(host))
    }
}
