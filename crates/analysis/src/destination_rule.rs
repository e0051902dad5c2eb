//! DestinationRules without a service, subsets without workloads, TLS that verifies nobody.
//!
//! Source: Istio `pkg/config/analysis/analyzers/destinationrule`.

use meltemi_api::istio::{ClientTlsMode, ClientTlsSettings, DestinationRule};
use meltemi_api::{Diagnostic, Object, Spec};
use meltemi_snapshot::labels_match;

use crate::catalogue::{
    EMPTY_SUBSET, NO_SERVER_VERIFICATION, NO_SERVER_VERIFICATION_AT_PORT, UNKNOWN_RULE_HOST,
};
use crate::finding::found;
use crate::mesh::{Labels, Mesh, selector_text};

pub(crate) fn rules(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Spec::DestinationRule(rule) = &object.spec else { continue };
        subsets(mesh, object, rule, findings);
        verification(object, rule, findings);
    }
}

fn subsets(mesh: &Mesh<'_>, object: &Object, rule: &DestinationRule, findings: &mut Vec<Diagnostic>) {
    let Some(target) = mesh.hosts.find(&rule.host, &object.id.namespace, &rule.export_to) else {
        let message = format!("no service has the host `{}`", rule.host);
        let finding = found(&UNKNOWN_RULE_HOST, object, "spec.host", message);
        findings.push(finding.help("correct the name, or add a Service or a ServiceEntry"));
        return;
    };
    for (index, subset) in rule.subsets.iter().enumerate() {
        let mut selector: Labels = target.selector.cloned().unwrap_or_default();
        selector.extend(
            subset.labels.iter().filter(|(key, _)| !is_topology(key)).map(|(k, v)| (k.clone(), v.clone())),
        );
        if mesh.workloads.iter().any(|workload| labels_match(&selector, workload.labels)) {
            continue;
        }
        let message = format!("no workload has the labels {}", selector_text(&selector));
        let finding = found(&EMPTY_SUBSET, object, format!("spec.subsets[{index}].labels"), message);
        findings.push(
            finding.help("correct the labels here or on the workload; requests for the subset get 503"),
        );
    }
}

/// Labels that say where a workload runs; it gets them from its node, not from its object.
fn is_topology(key: &str) -> bool {
    key.starts_with("topology.kubernetes.io/")
        || key.starts_with("topology.istio.io/")
        || key == "kubernetes.io/hostname"
}

fn verification(object: &Object, rule: &DestinationRule, findings: &mut Vec<Diagnostic>) {
    let Some(policy) = &rule.traffic_policy else { return };
    let has_selector = object.spans.get("spec.workloadSelector").is_some();
    let verifies_nobody = |tls: &Option<ClientTlsSettings>| {
        let tls = tls.as_ref()?;
        let mode = tls.mode.filter(|mode| matches!(mode, ClientTlsMode::Simple | ClientTlsMode::Mutual))?;
        let by_secret = has_selector && tls.credential_name.is_some();
        (tls.ca_certificates.is_none() && !by_secret).then_some(mode.as_str())
    };
    let help = "without it servers are verified by the certificates of the system, or by nothing";
    if let Some(mode) = verifies_nobody(&policy.tls) {
        let message = format!("TLS mode {mode} for `{}` has no `caCertificates`", rule.host);
        findings.push(found(&NO_SERVER_VERIFICATION, object, "spec.trafficPolicy.tls", message).help(help));
    }
    for (index, setting) in policy.port_level_settings.iter().enumerate() {
        if let Some(mode) = verifies_nobody(&setting.tls) {
            let port = setting.port.number;
            let message =
                format!("TLS mode {mode} for port {port} of `{}` has no `caCertificates`", rule.host);
            let field = format!("spec.trafficPolicy.portLevelSettings[{index}].tls");
            findings.push(found(&NO_SERVER_VERIFICATION_AT_PORT, object, field, message).help(help));
        }
    }
}
