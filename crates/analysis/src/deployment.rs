//! Deployments that several Services lead to, and containers that run as the proxy's user.
//!
//! Source: Istio `pkg/config/analysis/analyzers/deployment`.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_api::kubernetes::{PortRef, Service};
use meltemi_api::{Diagnostic, Object, Spec};
use meltemi_snapshot::labels_match;

use crate::catalogue::{CONFLICTING_TARGET_PORTS, SEVERAL_SERVICES};
use crate::finding::found;
use crate::mesh::{Mesh, full_name};

pub(crate) fn services(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Spec::Deployment(deployment) = &object.spec else { continue };
        let here = |workload: &&crate::mesh::Workload<'_>| {
            workload.namespace == &*object.id.namespace && workload.name == *object.id.name
        };
        if mesh.workloads.iter().find(here).is_some_and(|workload| !workload.is_in_mesh) {
            continue;
        }
        let labels = &deployment.template.metadata.labels;
        let selecting: Vec<(&Object, &Service)> = mesh
            .objects()
            .filter(|other| other.id.namespace == object.id.namespace)
            .filter_map(|other| match &other.spec {
                Spec::Service(spec) if !spec.selector.is_empty() && labels_match(&spec.selector, labels) => {
                    Some((&**other, spec))
                }
                _ => None,
            })
            .collect();
        protocols(object, &selecting, findings);
        target_ports(object, &selecting, findings);
    }
}

/// A port that is TCP for one Service and UDP for another.
fn protocols(object: &Object, services: &[(&Object, &Service)], findings: &mut Vec<Diagnostic>) {
    let mut by_port: BTreeMap<u32, BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
    for (service, spec) in services {
        for port in &spec.ports {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            by_port.entry(port.port).or_default().entry(protocol).or_default().insert(full_name(service));
        }
    }
    for (port, protocols) in by_port.iter().filter(|(_, protocols)| protocols.len() > 1) {
        let names: BTreeSet<&str> = protocols.values().flatten().map(String::as_str).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("the Services {names} give port {port} different protocols");
        findings.push(found(&SEVERAL_SERVICES, object, "spec.template.metadata.labels", message));
    }
}

/// A port of the Deployment that Services reach by different ports of theirs.
fn target_ports(object: &Object, services: &[(&Object, &Service)], findings: &mut Vec<Diagnostic>) {
    let mut by_target: BTreeMap<String, BTreeMap<u32, String>> = BTreeMap::new();
    for (service, spec) in services {
        for port in &spec.ports {
            let target = match &port.target_port {
                Some(PortRef::Name(name)) => name.clone(),
                Some(PortRef::Number(number)) => number.to_string(),
                None => port.port.to_string(),
            };
            by_target.entry(target).or_default().insert(port.port, full_name(service));
        }
    }
    for (target, ports) in by_target.iter().filter(|(_, ports)| ports.len() > 1) {
        let names: BTreeSet<&str> = ports.values().map(String::as_str).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let numbers = ports.keys().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let message = format!("the Services {names} lead to its port {target} by different ports: {numbers}");
        findings.push(found(&CONFLICTING_TARGET_PORTS, object, "spec.template.metadata.labels", message));
    }
}
