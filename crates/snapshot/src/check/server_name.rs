//! TLS routes through gateways that ask for a server name which an older one on the same port has.
//!
//! Source: Istio `pilot/pkg/networking/core/gateway.go` (`buildGatewayNetworkFiltersFromTLSRoutes`): such a condition is
//! left out whole.

use std::collections::BTreeMap;

use meltemi_api::istio::{TlsMatchAttributes, TlsMode};
use meltemi_api::{Diagnostic, ObjectId, codes};

use crate::config::{GatewayName, ServerKind, VirtualService};
use crate::gateway::{GatewayServer, MergedPort};
use crate::mesh::Snapshot;

/// What is left out on a port.
pub(super) fn check(snapshot: &Snapshot, port: &MergedPort) -> Vec<Diagnostic> {
    let mut owners: BTreeMap<&str, &ObjectId> = BTreeMap::new();
    let mut found = Vec::new();
    for server in port.encrypted.iter().filter(|server| routes_by_name(server)) {
        for virtual_service in snapshot.config.virtual_services.iter().filter(|v| is_for(v, server)) {
            for (field, condition) in conditions(virtual_service, server) {
                let object = &virtual_service.object;
                let taken = condition.sni_hosts.iter().find_map(|n| Some((n, *owners.get(n.as_str())?)));
                if let Some((name, owner)) = taken {
                    let message =
                        format!("`{name}` on port {} already leads where {owner} says", port.number);
                    let diagnostic = Diagnostic::new(&codes::SERVER_NAME_TAKEN, message);
                    // Through a second server of the same hosts the same condition comes again.
                    found.extend((*owner != object.id).then(|| diagnostic.at(object, field)));
                    continue;
                }
                owners.extend(condition.sni_hosts.iter().map(|name| (name.as_str(), &object.id)));
            }
        }
    }
    found
}

fn routes_by_name(server: &GatewayServer) -> bool {
    let mode = server.spec().tls.as_ref().map(|tls| tls.mode());
    server.kind() == ServerKind::TlsPassthrough && mode != Some(TlsMode::AutoPassthrough)
}

fn is_for(virtual_service: &VirtualService, server: &GatewayServer) -> bool {
    let accepted = server.hosts();
    let is_admitted = |host| accepted.iter().any(|a| a.admit(virtual_service.namespace(), host).is_some());
    virtual_service.is_bound_to(&server.gateway.name) && virtual_service.hosts.iter().any(is_admitted)
}

/// The conditions that hold for the server, each with its place.
fn conditions<'a>(
    virtual_service: &'a VirtualService,
    server: &GatewayServer,
) -> Vec<(String, &'a TlsMatchAttributes)> {
    let namespace = virtual_service.namespace();
    let holds = |condition: &TlsMatchAttributes| {
        let gateways = &condition.gateways;
        let is_named = || GatewayName::resolve_all(gateways, namespace).contains(&server.gateway.name);
        condition.port.is_none_or(|port| port == u32::from(server.port()))
            && (gateways.is_empty() || is_named())
    };
    let rules = virtual_service.spec().tls.iter().enumerate();
    let all = rules.flat_map(|(i, rule)| {
        let conditions = rule.matches.iter().enumerate();
        conditions.map(move |(j, condition)| (format!("spec.tls[{i}].match[{j}].sniHosts"), condition))
    });
    all.filter(|(_, condition)| holds(condition)).collect()
}
