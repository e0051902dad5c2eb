//! DestinationRules that apply to nothing, and subsets that select nothing.

use std::collections::BTreeMap;

use meltemi_api::{Diagnostic, Spec, codes};

use crate::check::Workloads;
use crate::config::labels_match;
use crate::destination_rule::DestinationRule;
use crate::mesh::Snapshot;
use crate::service::Service;

pub(super) fn check(snapshot: &Snapshot, workloads: &Workloads<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for rule in &snapshot.config.destination_rules {
        duplicates(rule, diagnostics);
        let services: Vec<&Service> = snapshot
            .services
            .iter()
            .filter(|s| rule.host.covers(&s.host) && s.export_to.reaches(&rule.namespace))
            .map(|s| &**s)
            .collect();
        if services.is_empty() {
            diagnostics.extend(rule.objects.iter().map(|object| {
                Diagnostic::new(&codes::UNKNOWN_SERVICE, format!("there is no service `{}`", rule.host))
                    .at(object, "spec.host")
                    .help("correct the name, or add a Service or a ServiceEntry")
            }));
        } else {
            empty_subsets(rule, &services, workloads, diagnostics);
        }
    }
}

fn duplicates(rule: &DestinationRule, diagnostics: &mut Vec<Diagnostic>) {
    let Some((first, later)) = rule.objects.split_first() else { return };
    diagnostics.extend(later.iter().map(|object| {
        Diagnostic::new(&codes::DUPLICATE_RULE, format!("{} applies to `{}` too", first.id, rule.host))
            .at(object, "spec.host")
            .help("put both into one DestinationRule")
    }));
}

/// Only for services whose members are known by their labels; a service without any is reported itself.
fn empty_subsets(
    rule: &DestinationRule,
    services: &[&Service],
    workloads: &Workloads<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let members: Vec<&BTreeMap<String, String>> =
        services.iter().flat_map(|service| members(service, workloads)).collect();
    if members.is_empty() {
        return;
    }
    for (object, index, subset) in rule.subsets() {
        if members.iter().any(|labels| labels_match(&subset.labels, labels)) {
            continue;
        }
        let labels: Vec<String> = subset.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let message = format!("no workload of `{}` has the labels {}", rule.host, labels.join(", "));
        diagnostics.push(
            Diagnostic::new(&codes::EMPTY_SUBSET, message)
                .at(object, format!("spec.subsets[{index}].labels"))
                .help(
                    "correct the labels here or on the workload; until then requests for the subset get 503",
                ),
        );
    }
}

fn members<'a>(service: &'a Service, workloads: &Workloads<'a>) -> Vec<&'a BTreeMap<String, String>> {
    match &service.object.spec {
        Spec::Service(spec) => workloads.select(&service.namespace, &spec.selector),
        Spec::ServiceEntry(spec) => match &spec.workload_selector {
            Some(selector) => workloads.select(&service.namespace, &selector.labels),
            None => spec.endpoints.iter().map(|e| &e.labels).collect(),
        },
        _ => Vec::new(),
    }
}
