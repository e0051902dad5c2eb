//! PeerAuthentications that do not apply, and DestinationRules that contradict those that do.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::istio::ClientTlsMode;
use meltemi_api::{Diagnostic, Object, codes};

use crate::mesh::Snapshot;
use crate::peer_authentication::MtlsMode;
use crate::service::Service;

pub(super) fn check(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) {
    let root = &*snapshot.config.mesh.root_namespace;
    let mut first: BTreeMap<_, &Arc<Object>> = BTreeMap::new();
    for (object, policy) in snapshot.config.peer_authentications.iter() {
        let labels = policy.labels();
        if labels.is_some() && &*object.id.namespace == root {
            let message = format!("PeerAuthentications of {root} are for the whole mesh and select nothing");
            let help = "put it into the namespace of the workloads";
            let diagnostic = Diagnostic::new(&codes::IGNORED_SELECTOR, message);
            diagnostics.push(diagnostic.at(object, "spec.selector").help(help));
            continue;
        }
        let earlier = *first.entry((&object.id.namespace, labels)).or_insert(object);
        if earlier.id != object.id {
            let message = format!("{} is older and for the same workloads", earlier.id);
            let diagnostic = Diagnostic::new(&codes::DUPLICATE_PEER_AUTHENTICATION, message);
            diagnostics
                .push(diagnostic.at(object, "spec.selector").help("put both into one PeerAuthentication"));
        }
    }
    contradictions(snapshot, diagnostics);
    ingress(snapshot, diagnostics);
}

/// TLS of the user's own on a port where mutual TLS is spoken: the port has one TLS or the other.
fn ingress(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) {
    let policies = &snapshot.config.peer_authentications;
    for sidecar in &snapshot.config.sidecars {
        let Some(labels) = sidecar.selector() else { continue };
        let mtls = policies.of_workload(&sidecar.object.id.namespace, labels);
        for (index, listener) in sidecar.spec().ingress.iter().enumerate().filter(|(_, l)| l.tls.is_some()) {
            let port = u16::try_from(listener.port.number).unwrap_or_default();
            let mode = mtls.at_port(port);
            if mode == MtlsMode::Disable {
                continue;
            }
            let message = format!(
                "port {port} speaks the mesh's mutual TLS ({}), so its own TLS has no use",
                mode.as_str()
            );
            let help = "set `portLevelMtls` of the port to DISABLE in a PeerAuthentication of the workload";
            let diagnostic = Diagnostic::new(&codes::NO_USE, message);
            diagnostics.push(diagnostic.at(&sidecar.object, format!("spec.ingress[{index}].tls")).help(help));
        }
    }
}

/// Rules for all ports of a service that its workloads do not let in.
fn contradictions(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) {
    for rule in &snapshot.config.destination_rules {
        let Some((object, settings)) = rule
            .specs()
            .find_map(|(object, spec)| Some((object, spec.traffic_policy.as_ref()?.tls.as_ref()?)))
        else {
            continue;
        };
        let services = snapshot.services.iter().filter(|s| rule.host.covers(&s.host) && !s.external);
        let modes: Vec<MtlsMode> = services.flat_map(|service| modes(snapshot, service)).collect();
        let everywhere = |mode| !modes.is_empty() && modes.iter().all(|m| *m == mode);
        let (theirs, ours) = match settings.mode.unwrap_or_default() {
            ClientTlsMode::Disable | ClientTlsMode::Simple if everywhere(MtlsMode::Strict) => {
                ("demand", "lets clients do without")
            }
            ClientTlsMode::IstioMutual if everywhere(MtlsMode::Disable) => ("do not speak", "demands"),
            _ => continue,
        };
        let message = format!("the workloads of `{}` {theirs} mutual TLS, and this {ours} it", rule.host);
        let help = "change the PeerAuthentication or the mode here; until then connections fail";
        let diagnostic = Diagnostic::new(&codes::NOT_MUTUAL, message);
        diagnostics.push(diagnostic.at(object, "spec.trafficPolicy.tls.mode").help(help));
    }
}

/// What is in force for every endpoint of a service that has a sidecar.
fn modes(snapshot: &Snapshot, service: &Service) -> Vec<MtlsMode> {
    let policies = &snapshot.config.peer_authentications;
    let endpoints = service.ports.iter().flat_map(|port| snapshot.endpoints.of(service, port.number));
    let own = endpoints.filter(|endpoint| endpoint.has_mtls);
    own.map(|e| policies.of_workload(&e.namespace, &e.labels).at_port(e.port)).collect()
}
