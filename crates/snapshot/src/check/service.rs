//! Services without anybody behind them.

use meltemi_api::{Diagnostic, Spec, codes};

use crate::check::Workloads;
use crate::mesh::Snapshot;

pub(super) fn check(snapshot: &Snapshot, workloads: &Workloads<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for object in snapshot.objects() {
        let (selector, field) = match &object.spec {
            Spec::Service(spec) => (&spec.selector, "spec.selector"),
            Spec::ServiceEntry(spec) => match &spec.workload_selector {
                Some(selector) => (&selector.labels, "spec.workloadSelector.labels"),
                None => continue,
            },
            _ => continue,
        };
        if selector.is_empty() || !workloads.select(&object.id.namespace, selector).is_empty() {
            continue;
        }
        let labels: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let message = format!("no workload has the labels {}", labels.join(", "));
        diagnostics.push(
            Diagnostic::new(&codes::NO_ENDPOINTS, message)
                .at(object, field)
                .help("start a workload with these labels, or correct them; until then requests get 503"),
        );
    }
}
