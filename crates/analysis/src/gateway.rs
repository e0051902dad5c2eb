//! Gateways without workloads, without Services, without Secrets, and in each other's way.
//!
//! Source: Istio `pkg/config/analysis/analyzers/gateway`.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_api::istio::{Gateway, Server, ServerTlsSettings};
use meltemi_api::kubernetes::PortRef;
use meltemi_api::{Diagnostic, Object, Spec};
use meltemi_snapshot::labels_match;

use crate::catalogue::{
    CONFLICTING_GATEWAYS, DUPLICATE_CERTIFICATE, GATEWAY_PORT, INVALID_CREDENTIAL,
    REFERENCED_RESOURCE_NOT_FOUND,
};
use crate::finding::found;
use crate::mesh::{Labels, Mesh, SYSTEM, full_name, selector_text};

fn all<'a>(mesh: &Mesh<'a>) -> Vec<(&'a Arc<Object>, &'a Gateway)> {
    let gateways = mesh.objects().filter_map(|object| match &object.spec {
        Spec::Gateway(spec) => Some((object, spec)),
        _ => None,
    });
    gateways.collect()
}

/// The workloads of Gateways, and the Services that lead to them.
pub(crate) fn workloads(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for (object, gateway) in all(mesh) {
        let is_provided = mesh.is_provided(&gateway.selector);
        let mut selected = mesh.select_anywhere(&gateway.selector).peekable();
        if selected.peek().is_none() {
            if !is_provided {
                let selector = selector_text(&gateway.selector);
                let message = format!("no workload has the labels {selector}");
                let help = "correct the selector; `meltemi up` starts a gateway for any";
                let finding = found(&REFERENCED_RESOURCE_NOT_FOUND, object, "spec.selector", message);
                findings.push(finding.help(help));
            }
            continue;
        }
        if is_provided {
            continue;
        }
        let mut ports = BTreeSet::new();
        for workload in selected {
            service_ports(mesh, workload.namespace, workload.labels, &mut ports);
        }
        for (index, server) in
            gateway.servers.iter().enumerate().filter(|(_, s)| !ports.contains(&s.port.number))
        {
            let message = format!("no Service leads to port {} of the gateway", server.port.number);
            let field = format!("spec.servers[{index}].port.number");
            findings.push(found(&GATEWAY_PORT, object, field, message).help("add the port to its Service"));
        }
    }
}

/// The ports by which Services lead to a workload, on either side.
fn service_ports(mesh: &Mesh<'_>, namespace: &str, labels: &Labels, ports: &mut BTreeSet<u32>) {
    for object in mesh.objects().filter(|object| &*object.id.namespace == namespace) {
        let Spec::Service(service) = &object.spec else { continue };
        if !labels_match(&service.selector, labels) {
            continue;
        }
        let tcp = service.ports.iter().filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
        for port in tcp {
            ports.insert(port.port);
            if let Some(PortRef::Number(target)) = &port.target_port {
                ports.insert(*target);
            }
        }
    }
}

/// The Secrets that servers name.
pub(crate) fn secrets(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for (object, gateway) in all(mesh) {
        let workload = mesh.select_anywhere(&gateway.selector).next().map(|workload| workload.namespace);
        let provided = mesh.is_provided(&gateway.selector).then_some(SYSTEM);
        // Without a workload there is no place to look, and that has been reported.
        let Some(own) = workload.or(provided) else { continue };
        for (index, server) in gateway.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            let list = !tls.credential_names.is_empty();
            for (position, name) in tls.credentials().iter().enumerate() {
                let below =
                    if list { format!("credentialNames[{position}]") } else { "credentialName".to_owned() };
                let field = format!("spec.servers[{index}].tls.{below}");
                findings.extend(secret(mesh, object, own, name, field));
            }
        }
    }
}

fn secret(
    mesh: &Mesh<'_>,
    object: &Object,
    own: &str,
    credential: &str,
    field: String,
) -> Option<Diagnostic> {
    let parsed = meltemi_snapshot::CredentialName::parse(credential);
    let namespace = parsed.namespace.unwrap_or(own);
    let secrets = &mesh.snapshot.secrets;
    if secrets.get(namespace, parsed.name).is_none() {
        let message = format!("the Secret {namespace}/{} is not known", parsed.name);
        let help = "a gateway reads Secrets of the namespace that its workload runs in";
        return Some(found(&REFERENCED_RESOURCE_NOT_FOUND, object, field, message).help(help));
    }
    if secrets.key_pair(namespace, parsed.name).is_some() {
        return None;
    }
    let message = format!("the Secret {namespace}/{} holds no certificate with its key", parsed.name);
    Some(found(&INVALID_CREDENTIAL, object, field, message).help("it needs `tls.crt` and `tls.key`"))
}

/// Gateways of the same workload with the same certificate: a client may use one connection for the hosts of both.
pub(crate) fn certificates(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    let gateways = all(mesh);
    for (object, gateway) in &gateways {
        for (other, theirs) in gateways.iter().filter(|(other, _)| other.id != object.id) {
            let is_same = labels_match(&gateway.selector, &theirs.selector);
            let pairs = gateway.servers.iter().flat_map(|a| theirs.servers.iter().map(move |b| (a, b)));
            if !is_same || !pairs.clone().any(|(a, b)| have_same_certificate(a, b)) {
                continue;
            }
            let message = format!("{} has the same certificate on the same workloads", full_name(other));
            let help =
                "clients that use one HTTP/2 connection for both get 404; put the servers into one Gateway";
            findings.push(found(&DUPLICATE_CERTIFICATE, object, "metadata.name", message).help(help));
        }
    }
}

fn have_same_certificate(a: &Server, b: &Server) -> bool {
    let (Some(a), Some(b)) = (&a.tls, &b.tls) else { return false };
    let files = |tls: &ServerTlsSettings| Some((tls.server_certificate.clone()?, tls.private_key.clone()?));
    match (&a.credential_name, &b.credential_name) {
        (Some(a), Some(b)) => a == b,
        (None, None) => files(a).is_some() && files(a) == files(b),
        _ => false,
    }
}

/// Gateways that want the same host on the same port of the same workload.
pub(crate) fn conflicts(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    let gateways = all(mesh);
    for (object, gateway) in &gateways {
        for (index, server) in gateway.servers.iter().enumerate() {
            let others = gateways.iter().filter(|(other, _)| other.id != object.id);
            let conflicting: Vec<String> = others
                .filter(|(_, theirs)| share_workload(mesh, &gateway.selector, &theirs.selector))
                .filter(|(_, theirs)| theirs.servers.iter().any(|their| want_the_same(server, their)))
                .map(|(other, _)| full_name(other))
                .collect();
            if conflicting.is_empty() {
                continue;
            }
            let message = format!(
                "the hosts {} on port {} are on {} too",
                server.hosts.join(", "),
                server.port.number,
                conflicting.join(", ")
            );
            let finding =
                found(&CONFLICTING_GATEWAYS, object, format!("spec.servers[{index}].hosts"), message);
            findings.push(finding.help("keep each host in one Gateway"));
        }
    }
}

/// Whether two selectors are the same, or find a workload in common and one is part of the other.
fn share_workload(mesh: &Mesh<'_>, a: &Labels, b: &Labels) -> bool {
    let nested = labels_match(a, b) || labels_match(b, a);
    a == b || nested && mesh.workloads.iter().any(|w| labels_match(a, w.labels) && labels_match(b, w.labels))
}

fn want_the_same(a: &Server, b: &Server) -> bool {
    let same_bind = a.bind.as_deref().unwrap_or_default() == b.bind.as_deref().unwrap_or_default();
    a.port.number == b.port.number && same_bind && a.hosts.iter().any(|host| b.hosts.contains(host))
}
