//! Findings that Istio has no code for, and those of the snapshot, which the control plane reports too.

use std::collections::BTreeSet;

use meltemi_api::{Diagnostic, Object, Spec, codes};

use crate::finding::found;
use crate::mesh::{Mesh, Workload};

/// Codes of the snapshot, and the codes of Istio that say the same.
const COUNTERPARTS: &[(&str, &str)] = &[
    ("MEL0118", "IST0130"),
    ("MEL0202", "IST0101"),
    ("MEL0203", "IST0101"),
    ("MEL0204", "IST0101"),
    ("MEL0205", "IST0173"),
    ("MEL0206", "IST0101"),
    ("MEL0208", "IST0109"),
    ("MEL0209", "IST0101"),
    ("MEL0209", "IST0112"),
    ("MEL0210", "IST0174"),
    ("MEL0212", "IST0132"),
    ("MEL0217", "IST0101"),
    ("MEL0218", "IST0161"),
    ("MEL0219", "IST0145"),
];

/// Codes of the snapshot about references, which it follows to sound objects only.
const REFERENCES: &[&str] = &["MEL0202", "MEL0203", "MEL0204", "MEL0209", "MEL0210", "MEL0212"];

/// The findings of the snapshot that no finding with Istio's code says already. Where some objects are unsound, references
/// are what the analyzers say of them.
pub(crate) fn of_snapshot(
    snapshot: Vec<Diagnostic>,
    found: &[Diagnostic],
    has_unsound: bool,
) -> Vec<Diagnostic> {
    let known: BTreeSet<_> = found.iter().map(|finding| (&finding.object, finding.code)).collect();
    let is_said = |finding: &Diagnostic| {
        let mut counterparts = COUNTERPARTS.iter().filter(|(ours, _)| *ours == finding.code);
        counterparts.any(|(_, theirs)| known.contains(&(&finding.object, *theirs)))
    };
    let is_left = |finding: &Diagnostic| has_unsound && REFERENCES.contains(&finding.code);
    snapshot.into_iter().filter(|finding| !is_said(finding) && !is_left(finding)).collect()
}

/// Namespaces of `exportTo` that nothing else speaks of.
pub(crate) fn export_to(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    let known = mesh.namespaces();
    for object in mesh.objects() {
        let list = match &object.spec {
            Spec::VirtualService(spec) => &spec.export_to,
            Spec::DestinationRule(spec) => &spec.export_to,
            Spec::ServiceEntry(spec) => &spec.export_to,
            _ => continue,
        };
        for (index, name) in list.iter().enumerate() {
            if matches!(name.as_str(), "." | "*" | "~") || known.contains(name.as_str()) {
                continue;
            }
            let message = format!("nothing is known of the namespace `{name}`");
            let finding =
                found(&codes::UNKNOWN_NAMESPACE, object, format!("spec.exportTo[{index}]"), message);
            findings.push(finding.help("correct the name, or add objects of that namespace"));
        }
    }
}

/// Policies, for which Istio looks at some kinds only, that select nothing.
pub(crate) fn idle_policies(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let selector = match &object.spec {
            Spec::PeerAuthentication(spec) => spec.selector.as_ref(),
            Spec::RequestAuthentication(spec) => spec.selector.as_ref(),
            Spec::WasmPlugin(spec) => spec.selector.as_ref(),
            Spec::TrafficExtension(spec) => spec.selector.as_ref(),
            _ => continue,
        };
        let Some(selector) = selector.filter(|selector| !selector.match_labels.is_empty()) else { continue };
        let is_mesh_wide = *object.id.namespace == *mesh.snapshot.config.mesh.root_namespace;
        let mut all = mesh.select_anywhere(&selector.match_labels);
        let is_here = |workload: &Workload<'_>| is_mesh_wide || workload.namespace == &*object.id.namespace;
        if all.any(is_here) || mesh.is_provided(&selector.match_labels) {
            continue;
        }
        let labels = crate::mesh::selector_text(&selector.match_labels);
        let message = format!("no workload has the labels {labels}");
        let field = "spec.selector.matchLabels";
        findings.push(found(&codes::IDLE_POLICY, object, field, message).help("correct the labels"));
    }
}

/// Weights that are meant as percentages and do not add up to 100. Istio takes any sum.
pub(crate) fn weights(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Spec::VirtualService(spec) = &object.spec else { continue };
        let http = spec.http.iter().map(|route| route.route.iter().map(|to| to.weight).collect::<Vec<_>>());
        let tls = spec.tls.iter().map(|route| route.route.iter().map(|to| to.weight).collect());
        let tcp = spec.tcp.iter().map(|route| route.route.iter().map(|to| to.weight).collect());
        let lists = http.enumerate().map(|(i, w)| ("http", i, w));
        let lists = lists.chain(tls.enumerate().map(|(i, w)| ("tls", i, w)));
        for (list, index, weights) in lists.chain(tcp.enumerate().map(|(i, w)| ("tcp", i, w))) {
            findings.extend(sum(object, list, index, &weights));
        }
    }
}

/// Sums that look like percentages which somebody added up wrongly.
const NEARLY_ALL: std::ops::RangeInclusive<i64> = 50..=150;

fn sum(object: &Object, list: &str, index: usize, weights: &[Option<i32>]) -> Option<Diagnostic> {
    let sum: i64 = weights.iter().map(|weight| i64::from(weight.unwrap_or_default())).sum();
    if weights.len() < 2 || sum == 100 || !NEARLY_ALL.contains(&sum) {
        return None;
    }
    let message = format!("the weights add up to {sum}, and each is a share of that");
    let field = format!("spec.{list}[{index}].route");
    Some(
        found(&codes::UNEVEN_WEIGHTS, object, field, message)
            .help("let them add up to 100, to read them as percentages"),
    )
}
