//! Labels of namespaces about injection of sidecars. In a cluster they decide who gets one; `meltemi up` gives one to all.
//!
//! Source: Istio `pkg/config/analysis/analyzers/injection`.

use meltemi_api::{Diagnostic, Spec};

use crate::catalogue::{NAMESPACE_NOT_INJECTED, POD_MISSING_PROXY, SEVERAL_INJECTION_LABELS};
use crate::finding::found;
use crate::mesh::{INJECT, INJECTION, Mesh, SYSTEM, pods};

/// The label that names the revision of the control plane whose sidecars the pods get.
const REVISION: &str = "istio.io/rev";

/// The label of namespaces in ambient mode.
const MODE: &str = "istio.io/dataplane-mode";

pub(crate) fn namespaces(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects().filter(|object| &*object.id.name != SYSTEM) {
        let Spec::Namespace(_) = &object.spec else { continue };
        let labels = &object.meta.labels;
        let injection = labels.get(INJECTION).map(String::as_str);
        let others = [REVISION, MODE].into_iter().filter(|key| labels.contains_key(*key));
        let counted = others.filter(|_| injection.is_none_or(|value| value == "enabled"));
        let all: Vec<&str> = injection.map(|_| INJECTION).into_iter().chain(counted).collect();
        if all.len() > 1 {
            let message = format!("the labels {} contradict each other", all.join(", "));
            let finding = found(&SEVERAL_INJECTION_LABELS, object, "metadata.labels", message);
            findings.push(finding.help("keep one of them"));
        }
        let is_ambient = labels.get(MODE).is_some_and(|value| value == "ambient");
        if !is_ambient && injection.unwrap_or_default().is_empty() && !labels.contains_key(REVISION) {
            let message = "in a cluster the pods of this namespace get no sidecars".to_owned();
            let help = "label it `istio-injection: enabled`, or `disabled` to say that it is meant";
            findings.push(found(&NAMESPACE_NOT_INJECTED, object, "metadata.name", message).help(help));
        }
    }
}

/// Pods as they run, without the sidecar that the label of their namespace promises.
pub(crate) fn without_sidecar(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Spec::Pod(pod) = &object.spec else { continue };
        let labels = mesh.namespace_labels(&object.id.namespace);
        let is_promised =
            labels.and_then(|labels| labels.get(INJECTION)).is_some_and(|value| value == "enabled");
        let own = object.meta.labels.get(INJECT).or_else(|| object.meta.annotations.get(INJECT));
        let is_refused = own.is_some_and(|value| value.eq_ignore_ascii_case("false"));
        let has_proxy = pods(object).is_some_and(|pods| pods.has_proxy);
        if is_promised && !is_refused && !has_proxy && pod.host_network != Some(true) {
            let message = "the pod has no sidecar, and its namespace is to have them".to_owned();
            findings
                .push(found(&POD_MISSING_PROXY, object, "spec.containers", message).help("start it anew"));
        }
    }
}
