//! All analyzers over one mesh, and what the parser and the snapshot have to say, in one list.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_api::{Diagnostic, Object, Severity, codes};
use meltemi_snapshot::{Inputs, Snapshot};

use crate::catalogue::{SCHEMA_VALIDATION_ERROR, SCHEMA_WARNING};
use crate::finding::Analyzer;
use crate::mesh::{Mesh, provided};
use crate::{
    annotation, authorization, deployment, deprecation, destination_rule, envoy_filter, gateway, injection,
    own, selector, service, service_entry, telemetry, unreachable, virtual_service,
};

/// Every analyzer. Each reports what it finds, in any order.
const ANALYZERS: &[Analyzer] = &[
    annotation::annotations,
    authorization::policies,
    deployment::services,
    deprecation::fields,
    destination_rule::rules,
    envoy_filter::patches,
    gateway::workloads,
    gateway::secrets,
    gateway::certificates,
    gateway::conflicts,
    injection::namespaces,
    injection::without_sidecar,
    own::export_to,
    own::idle_policies,
    own::weights,
    selector::sidecars,
    selector::telemetries,
    selector::of_kubernetes_gateways,
    service::port_names,
    service_entry::protocols,
    service_entry::addresses,
    telemetry::providers,
    unreachable::routes,
    virtual_service::destination_hosts,
    virtual_service::destination_subsets,
    virtual_service::gateways,
    virtual_service::conflicting_hosts,
    virtual_service::subsets_without_effect,
    virtual_service::claims,
];

/// What is analyzed.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The objects that can be put in force.
    pub sound: Vec<Arc<Object>>,
    /// Objects with errors of their own, as far as they can be read. Others may name them, and a reference to them is not
    /// one to nothing.
    pub unsound: Vec<Arc<Object>>,
    /// What the parser said.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether the Secrets among the objects are there without their data, of which nothing can be said then.
    pub are_secrets_hidden: bool,
}

/// What is doubtful or wrong about objects by themselves and together. Sorted by object, field and code.
pub fn analyze(subject: Subject) -> Vec<Diagnostic> {
    let Subject { sound, unsound, diagnostics: parsed, are_secrets_hidden } = subject;
    let (snapshot, across) = Snapshot::build(&Inputs { objects: sound });
    let provided = provided();
    let mesh = Mesh::new(&snapshot, &unsound, &provided);
    let mut findings = Vec::new();
    for analyzer in ANALYZERS {
        analyzer(&mesh, &mut findings);
    }
    let own = own::of_snapshot(across, &findings, !unsound.is_empty());
    findings.extend(own);
    findings.extend(own::of_snapshot(parsed, &findings, false).into_iter().map(as_schema));
    findings.retain(|finding| !(are_secrets_hidden && OF_SECRETS.contains(&finding.code)));
    findings.retain(|finding| finding.object.as_ref().is_none_or(|id| !KUBERNETES.contains(&&*id.namespace)));
    findings.sort_by(|a, b| {
        (&a.object, &a.field, a.code, &a.message).cmp(&(&b.object, &b.field, b.code, &b.message))
    });
    let mut seen = BTreeSet::new();
    findings.retain(|f| seen.insert((f.object.clone(), f.field.clone(), f.code, f.message.clone())));
    findings
}

/// Namespaces of Kubernetes itself, of which Istio says nothing.
const KUBERNETES: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Codes that speak of what is in a Secret.
const OF_SECRETS: &[&str] = &[crate::catalogue::INVALID_CREDENTIAL.id, codes::INCOMPLETE_SECRET.id];

/// Codes of the parser that speak of Meltemi and not of the object.
const OF_MELTEMI: &[&str] = &[
    codes::UNSUPPORTED_KIND.id,
    codes::UNSUPPORTED_FIELD.id,
    codes::UNSUPPORTED_VALUE.id,
    codes::UNSUPPORTED_POD_FIELD.id,
    codes::NO_EFFECT_YET.id,
    codes::NOT_IN_FORCE.id,
];

/// What the parser says, under the code of Istio for objects that are not valid, or doubtful.
fn as_schema(finding: Diagnostic) -> Diagnostic {
    let code = match finding.severity {
        Severity::Error => &SCHEMA_VALIDATION_ERROR,
        _ => &SCHEMA_WARNING,
    };
    if OF_MELTEMI.contains(&finding.code) || finding.object.is_none() {
        return finding;
    }
    let message = format!("{} ({})", finding.message, finding.code);
    Diagnostic { code: code.id, message, ..finding }
}
