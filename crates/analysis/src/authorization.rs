//! AuthorizationPolicies for workloads and namespaces that do not exist.
//!
//! Source: Istio `pkg/config/analysis/analyzers/authz`.

use meltemi_api::istio::AuthorizationPolicy;
use meltemi_api::{Diagnostic, Object, Spec};
use meltemi_snapshot::labels_match;

use crate::catalogue::{NO_MATCHING_WORKLOADS, REFERENCED_RESOURCE_NOT_FOUND};
use crate::finding::found;
use crate::mesh::{Mesh, Workload, selector_text};

pub(crate) fn policies(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Spec::AuthorizationPolicy(policy) = &object.spec else { continue };
        findings.extend(workloads(mesh, object, policy));
        namespaces(mesh, object, policy, findings);
    }
}

fn workloads(mesh: &Mesh<'_>, object: &Object, policy: &AuthorizationPolicy) -> Option<Diagnostic> {
    if policy.target_ref.is_some() || !policy.target_refs.is_empty() {
        return None;
    }
    let is_mesh_wide = *object.id.namespace == *mesh.snapshot.config.mesh.root_namespace;
    let mut here = mesh.workloads.iter().filter(|workload| {
        (workload.is_in_mesh || workload.is_ambient)
            && (is_mesh_wide || workload.namespace == &*object.id.namespace)
    });
    let Some(selector) = &policy.selector else {
        let is_empty = !is_mesh_wide && here.next().is_none();
        let message = "the namespace has no workload that it could apply to".to_owned();
        return is_empty.then(|| found(&NO_MATCHING_WORKLOADS, object, "metadata.namespace", message));
    };
    let labels = &selector.match_labels;
    if here.any(|workload: &Workload<'_>| labels_match(labels, workload.labels)) {
        return None;
    }
    let message = format!("no workload has the labels {}", selector_text(labels));
    Some(found(&NO_MATCHING_WORKLOADS, object, "spec.selector.matchLabels", message))
}

/// Namespaces of callers, which may be patterns, that no object is in.
fn namespaces(
    mesh: &Mesh<'_>,
    object: &Object,
    policy: &AuthorizationPolicy,
    findings: &mut Vec<Diagnostic>,
) {
    let known = mesh.namespaces();
    for (i, rule) in policy.rules.iter().enumerate() {
        for (j, from) in rule.from.iter().enumerate() {
            let lists =
                [("namespaces", &from.source.namespaces), ("notNamespaces", &from.source.not_namespaces)];
            for (list, patterns) in lists {
                for (k, pattern) in patterns.iter().enumerate() {
                    if known.iter().any(|name| matches_pattern(name, pattern)) {
                        continue;
                    }
                    let message = format!("the namespace `{pattern}` is not known");
                    let field = format!("spec.rules[{i}].from[{j}].source.{list}[{k}]");
                    findings.push(found(&REFERENCED_RESOURCE_NOT_FOUND, object, field, message));
                }
            }
        }
    }
}

fn matches_pattern(name: &str, pattern: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => name.ends_with(suffix),
        (_, Some(prefix)) => name.starts_with(prefix),
        _ => name.eq_ignore_ascii_case(pattern),
    }
}
