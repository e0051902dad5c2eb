//! Services without anybody behind them, and services whose host another one has.

use std::sync::Arc;

use meltemi_api::{Diagnostic, Spec, codes};

use crate::check::Workloads;
use crate::mesh::Snapshot;
use crate::scope::say_the_same;
use crate::service::{Registry, Service};

pub(super) fn check(snapshot: &Snapshot, workloads: &Workloads<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let mut before: Option<&Arc<Service>> = None;
    for service in snapshot.services.iter() {
        nobody_behind(snapshot, workloads, service, diagnostics);
        let first = before.filter(|before| before.host == service.host).unwrap_or(service);
        taken_host(first, service, diagnostics);
        before = Some(first);
    }
}

fn nobody_behind(
    snapshot: &Snapshot,
    workloads: &Workloads<'_>,
    service: &Service,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let object = &service.object;
    let field = match &object.spec {
        Spec::Service(_) => "spec.selector",
        // One finding for all hosts.
        Spec::ServiceEntry(spec) if spec.hosts.first().is_some_and(|host| host == service.host.as_str()) => {
            "spec.workloadSelector.labels"
        }
        _ => return,
    };
    let has_endpoints = || service.ports.iter().any(|p| !snapshot.endpoints.of(service, p.number).is_empty());
    let is_known = || !workloads.select(&service.namespace, &service.selector).is_empty();
    if service.selector.is_empty() || has_endpoints() || is_known() {
        return;
    }
    let labels: Vec<String> = service.selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let message = format!("no workload has the labels {}", labels.join(", "));
    diagnostics.push(
        Diagnostic::new(&codes::NO_ENDPOINTS, message)
            .at(object, field)
            .help("start a workload with these labels, or correct them; until then requests get 503"),
    );
}

/// A host in several namespaces is as it should be: each sees its own.
fn taken_host(first: &Service, service: &Service, diagnostics: &mut Vec<Diagnostic>) {
    if first.object.id == service.object.id || service.registry == Registry::Kubernetes {
        return;
    }
    let host = &service.host;
    let (message, help) = match first.registry {
        Registry::Kubernetes if first.namespace == service.namespace => (
            format!("`{host}` is {}", first.object.id),
            "give the ServiceEntry another host; nobody sees it under this one",
        ),
        Registry::Kubernetes => (
            format!("`{host}` is {}", first.object.id),
            "give the ServiceEntry another host; only its own namespace sees it under this one",
        ),
        Registry::External if first.namespace == service.namespace && !say_the_same(first, service) => (
            format!("`{host}` already belongs to {}, which is older", first.object.id),
            "make resolution, labels, workloadSelector and exportTo the same, so that the ports are put together",
        ),
        Registry::External => return,
    };
    let Spec::ServiceEntry(spec) = &service.object.spec else { return };
    let index = spec.hosts.iter().position(|name| name == host.as_str()).unwrap_or_default();
    let field = format!("spec.hosts[{index}]");
    diagnostics.push(Diagnostic::new(&codes::HOST_TAKEN, message).at(&service.object, field).help(help));
}
