//! Diagnostics that need more than one object to see. The objects are in force all the same, with Istio's meaning:
//! a route to what does not exist answers 503, a rule for nothing has no effect.
//!
//! Source: `istioctl analyze` (IST0101, IST0104, IST0108, IST0109, IST0132 and their kin).
//! Left out: a Gateway whose selector no workload carries, because the workload is usually described elsewhere or
//! started for it.

mod destination_rule;
mod gateway;
mod peer_authentication;
mod server_name;
mod service;
mod virtual_service;

use std::collections::BTreeMap;

use meltemi_api::{Diagnostic, Spec};

use crate::config::labels_match;
use crate::mesh::Snapshot;
use crate::mesh_config;

/// Everything wrong between the objects, in the order of objects and fields.
pub(crate) fn diagnostics(snapshot: &Snapshot) -> Vec<Diagnostic> {
    let workloads = Workloads::of(snapshot);
    let mut diagnostics = Vec::new();
    virtual_service::check(snapshot, &mut diagnostics);
    destination_rule::check(snapshot, &workloads, &mut diagnostics);
    gateway::check(snapshot, &workloads, &mut diagnostics);
    peer_authentication::check(snapshot, &mut diagnostics);
    service::check(snapshot, &workloads, &mut diagnostics);
    mesh_config::check(snapshot.objects(), &mut diagnostics);
    diagnostics.sort_by(|a, b| (&a.object, &a.field, a.code).cmp(&(&b.object, &b.field, b.code)));
    // A DestinationRule may have merged into several others.
    diagnostics.dedup();
    diagnostics
}

/// The labels of everything that runs or is to run, by namespace: WorkloadEntries and Pods, healthy or not, and what
/// Deployments and their kin, and WorkloadGroups, make.
struct Workloads<'a>(BTreeMap<&'a str, Vec<&'a BTreeMap<String, String>>>);

impl<'a> Workloads<'a> {
    fn of(snapshot: &'a Snapshot) -> Workloads<'a> {
        let mut labels: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for object in snapshot.objects() {
            let own = match &object.spec {
                Spec::WorkloadEntry(entry) => &entry.labels,
                Spec::Pod(_) => &object.meta.labels,
                Spec::WorkloadGroup(group) => &group.template.labels,
                Spec::Deployment(deployment) => &deployment.template.metadata.labels,
                Spec::StatefulSet(set) => &set.template.metadata.labels,
                Spec::DaemonSet(set) => &set.template.metadata.labels,
                Spec::ReplicaSet(set) => &set.template.metadata.labels,
                Spec::Job(job) => &job.template.metadata.labels,
                _ => continue,
            };
            labels.entry(&object.id.namespace).or_default().push(own);
        }
        Workloads(labels)
    }

    /// The namespaces of the workloads that a selector of no namespace finds.
    fn namespaces(&self, selector: &BTreeMap<String, String>) -> Vec<&'a str> {
        let all = self.0.iter();
        all.filter(|(_, of)| of.iter().any(|labels| labels_match(selector, labels)))
            .map(|(n, _)| *n)
            .collect()
    }

    /// The labels of the workloads that a selector finds; an empty selector finds none.
    fn select(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> Vec<&'a BTreeMap<String, String>> {
        let all = self.0.get(namespace).map_or(&[][..], Vec::as_slice);
        all.iter().filter(|labels| !selector.is_empty() && labels_match(selector, labels)).copied().collect()
    }
}

#[cfg(test)]
mod tests;
