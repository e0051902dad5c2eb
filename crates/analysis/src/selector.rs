//! Sidecars and Telemetries: which workloads they select, and whether another one selects them too; policies with
//! selectors for workloads that want another kind of attachment.
//!
//! Source: Istio `pkg/config/analysis/analyzers/{sidecar,telemetry,k8sgateway}`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_api::istio::PodSelector;
use meltemi_api::{Code, Diagnostic, Object, Spec};

use crate::catalogue::{
    CONFLICTING_SIDECARS, CONFLICTING_TELEMETRIES, INEFFECTIVE_POLICY, INEFFECTIVE_SELECTOR,
    REFERENCED_RESOURCE_NOT_FOUND, SIDECARS_WITHOUT_SELECTOR, TELEMETRIES_WITHOUT_SELECTOR,
};
use crate::finding::found;
use crate::mesh::{INJECTION, Labels, Mesh, selector_text};

/// The label of pods of a Gateway of the Gateway API.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Objects of one kind, each with the labels it selects, if any.
struct Selecting<'a> {
    objects: Vec<(&'a Arc<Object>, Option<&'a Labels>)>,
    /// Where the labels stand.
    field: &'static str,
    /// Several select the same workload.
    conflict: &'static Code,
    /// Several select all of a namespace.
    several: &'static Code,
}

pub(crate) fn sidecars(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    let objects = mesh.objects().filter_map(|object| match &object.spec {
        Spec::Sidecar(spec) => {
            let labels = spec.workload_selector.as_ref().map(|selector| &selector.labels);
            Some((object, labels.filter(|labels| !labels.is_empty())))
        }
        _ => None,
    });
    let field = "spec.workloadSelector.labels";
    let (conflict, several) = (&CONFLICTING_SIDECARS, &SIDECARS_WITHOUT_SELECTOR);
    let all = Selecting { objects: objects.collect(), field, conflict, several };
    all.unselected(mesh, findings);
    all.conflicts(mesh, findings);
    all.without_selector(mesh, findings);
}

pub(crate) fn telemetries(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    let objects = mesh.objects().filter_map(|object| match &object.spec {
        Spec::Telemetry(spec) if spec.target_ref.is_none() && spec.target_refs.is_empty() => {
            let labels = spec.selector.as_ref().map(|selector| &selector.match_labels);
            Some((object, labels))
        }
        _ => None,
    });
    let field = "spec.selector.matchLabels";
    let (conflict, several) = (&CONFLICTING_TELEMETRIES, &TELEMETRIES_WITHOUT_SELECTOR);
    let all = Selecting { objects: objects.collect(), field, conflict, several };
    all.unselected(mesh, findings);
    all.conflicts(mesh, findings);
    all.without_selector(mesh, findings);
}

impl Selecting<'_> {
    /// Those with labels that no workload of their namespace has.
    fn unselected(&self, mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
        for (object, labels) in &self.objects {
            let Some(labels) = labels.filter(|labels| !labels.is_empty()) else { continue };
            if mesh.select(&object.id.namespace, labels).next().is_none() {
                let message =
                    format!("no workload of the namespace has the labels {}", selector_text(labels));
                findings.push(found(&REFERENCED_RESOURCE_NOT_FOUND, object, self.field, message));
            }
        }
    }

    /// Workloads that several of them select.
    fn conflicts(&self, mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
        let mut by_workload: BTreeMap<(&str, &str), Vec<&Arc<Object>>> = BTreeMap::new();
        let mut ambient = BTreeSet::new();
        for (object, labels) in &self.objects {
            let Some(labels) = labels.filter(|labels| !labels.is_empty()) else { continue };
            for workload in mesh.select(&object.id.namespace, labels) {
                if workload.is_ambient {
                    ambient.insert(&object.id);
                } else {
                    by_workload.entry((workload.namespace, &workload.name)).or_default().push(object);
                }
            }
        }
        for ((_, workload), objects) in by_workload.iter().filter(|(_, objects)| objects.len() > 1) {
            let names = names(objects.iter().copied());
            for object in objects {
                let message = format!("{names} all select the workload `{workload}`, and one of them counts");
                findings.push(found(self.conflict, object, self.field, message));
            }
        }
        for (object, _) in self.objects.iter().filter(|(object, _)| ambient.contains(&object.id)) {
            let message = "a workload that it selects is in ambient mode, where it has no effect".to_owned();
            findings.push(found(&INEFFECTIVE_POLICY, object, self.field, message));
        }
    }

    /// Several of a namespace that are for all of its workloads.
    fn without_selector(&self, mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
        let mut by_namespace: BTreeMap<&str, Vec<&Arc<Object>>> = BTreeMap::new();
        for (object, _) in self.objects.iter().filter(|(_, labels)| labels.is_none()) {
            by_namespace.entry(&object.id.namespace).or_default().push(object);
        }
        for (namespace, objects) in by_namespace {
            let is_ambient = mesh.namespace_labels(namespace).is_some_and(is_ambient);
            let names = names(objects.iter().copied());
            for object in &objects {
                if is_ambient {
                    let message = "the namespace is in ambient mode, where it has no effect".to_owned();
                    findings.push(found(&INEFFECTIVE_POLICY, object, "metadata.namespace", message));
                } else if objects.len() > 1 {
                    let message =
                        format!("{names} are all for every workload of the namespace, and one counts");
                    findings.push(found(self.several, object, "metadata.name", message));
                }
            }
        }
    }
}

fn names<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> String {
    let mut names: Vec<&str> = objects.map(|object| &*object.id.name).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// Whether a namespace is in ambient mode and its pods get no sidecars.
fn is_ambient(labels: &Labels) -> bool {
    let has_sidecars = labels.get(INJECTION).is_some_and(|value| value == "enabled")
        || labels.get("istio.io/rev").is_some_and(|value| !value.is_empty());
    !has_sidecars && labels.get("istio.io/dataplane-mode").is_some_and(|value| value == "ambient")
}

/// Policies whose selector finds the pods of a Gateway of the Gateway API.
pub(crate) fn of_kubernetes_gateways(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Some(selector) = selector_of(object) else { continue };
        for workload in mesh.select(&object.id.namespace, &selector.match_labels) {
            let Some(gateway) = workload.labels.get(GATEWAY_NAME) else { continue };
            let message = format!("the selector has no effect on the Gateway `{gateway}` of the Gateway API");
            let finding = found(&INEFFECTIVE_SELECTOR, object, "spec.selector", message);
            findings.push(finding.help("use `targetRefs`"));
        }
    }
}

/// The selector of a policy that is attached to nothing else.
fn selector_of(object: &Object) -> Option<&PodSelector> {
    match &object.spec {
        Spec::AuthorizationPolicy(spec) if spec.target_ref.is_none() => spec.selector.as_ref(),
        Spec::RequestAuthentication(spec) if spec.target_ref.is_none() => spec.selector.as_ref(),
        Spec::Telemetry(spec) if spec.target_ref.is_none() => spec.selector.as_ref(),
        Spec::WasmPlugin(spec) if spec.target_ref.is_none() => spec.selector.as_ref(),
        _ => None,
    }
}
