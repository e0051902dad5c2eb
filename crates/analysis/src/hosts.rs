//! Hosts by who sees them, as Istio's analyzers look them up. Leaves out what routing does with them: a lookup here is
//! more lenient than the snapshot's, for a wildcard ServiceEntry counts for every host below it.
//!
//! Source: Istio `pkg/config/analysis/analyzers/util` (`hosts.go`, `service_lookup.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Object, Spec};
use meltemi_snapshot::CLUSTER_DOMAIN;

use crate::mesh::Labels;

/// Every namespace, in `exportTo`.
pub(crate) const ALL: &str = "*";

/// The annotation of a Service that says who sees it.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// A service that a host stands for.
pub(crate) struct Target<'a> {
    pub(crate) ports: Vec<u32>,
    /// The workloads of a ServiceEntry.
    pub(crate) selector: Option<&'a Labels>,
}

/// Services by scope (a namespace, or [`ALL`]) and full host.
pub(crate) struct Hosts<'a> {
    by_scope: BTreeMap<(String, String), Arc<Target<'a>>>,
}

/// The full name of a host in an object of a namespace.
pub(crate) fn full_host(host: &str, namespace: &str) -> String {
    match host.starts_with('*') || host.contains('.') {
        true => host.to_owned(),
        false => format!("{host}.{namespace}.svc.{CLUSTER_DOMAIN}"),
    }
}

/// The namespaces of an `exportTo` in an object of a namespace; one of them may be [`ALL`], and then is the only one.
pub(crate) fn scopes(export_to: &[String], namespace: &str) -> Vec<String> {
    if export_to.is_empty() || export_to.iter().any(|scope| scope == ALL) {
        return vec![ALL.to_owned()];
    }
    let mut scopes: Vec<String> = export_to.iter().map(|scope| own(scope, namespace)).collect();
    scopes.sort();
    scopes.dedup();
    scopes
}

fn own(scope: &str, namespace: &str) -> String {
    if scope == "." { namespace.to_owned() } else { scope.to_owned() }
}

/// Whether a host, maybe a wildcard, stands for something that another one stands for too.
pub(crate) fn overlaps(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(suffix), None) => other.ends_with(suffix),
        (None, Some(suffix)) => one.ends_with(suffix),
        (None, None) => one == other,
    }
}

impl<'a> Hosts<'a> {
    pub(crate) fn of(objects: impl Iterator<Item = &'a Arc<Object>>) -> Hosts<'a> {
        let mut hosts = Hosts { by_scope: BTreeMap::new() };
        let (services, entries): (Vec<_>, Vec<_>) =
            objects.partition(|object| matches!(object.spec, Spec::Service(_)));
        // A Kubernetes Service of the same host comes last and so counts.
        for object in entries.into_iter().chain(services) {
            hosts.add(object);
        }
        hosts
    }

    fn add(&mut self, object: &'a Arc<Object>) {
        let namespace = &*object.id.namespace;
        match &object.spec {
            Spec::ServiceEntry(entry) => {
                let ports = entry.ports.iter().map(|port| port.number).collect();
                let selector = entry.workload_selector.as_ref().map(|selector| &selector.labels);
                let target = Arc::new(Target { ports, selector });
                for host in &entry.hosts {
                    self.put(scopes(&entry.export_to, namespace), full_host(host, namespace), &target);
                }
            }
            Spec::Service(service) => {
                let ports = service.ports.iter().map(|port| port.port).collect();
                let target = Arc::new(Target { ports, selector: None });
                let export: Vec<String> = object
                    .meta
                    .annotations
                    .get(EXPORT_TO)
                    .map(|text| text.split(',').map(|scope| scope.trim().to_owned()).collect())
                    .unwrap_or_default();
                self.put(scopes(&export, namespace), full_host(&object.id.name, namespace), &target);
            }
            _ => {}
        }
    }

    fn put(&mut self, scopes: Vec<String>, host: String, target: &Arc<Target<'a>>) {
        for scope in scopes {
            self.by_scope.insert((scope, host.clone()), Arc::clone(target));
        }
    }

    /// The service that a host means in an object of a namespace that is exported like this.
    pub(crate) fn find(&self, host: &str, namespace: &str, export_to: &[String]) -> Option<&Target<'a>> {
        let full = full_host(host, namespace);
        let get = |scope: String| self.by_scope.get(&(scope, full.clone()));
        let seen: Vec<String> = match export_to {
            [] => vec![namespace.to_owned()],
            some => some.iter().map(|scope| own(scope, namespace)).collect(),
        };
        let exact = std::iter::once(ALL.to_owned()).chain(seen).find_map(get);
        exact.or_else(|| self.wildcard(host, namespace)).map(|target| &**target)
    }

    fn wildcard(&self, host: &str, namespace: &str) -> Option<&Arc<Target<'a>>> {
        let name = host.strip_prefix('*').unwrap_or(host);
        let mut all = self.by_scope.iter();
        all.find(|((scope, candidate), _)| {
            let is_seen = scope == ALL || scope == namespace;
            is_seen && candidate.strip_prefix('*').is_some_and(|suffix| name.ends_with(suffix))
        })
        .map(|(_, target)| target)
    }
}
