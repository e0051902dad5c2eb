//! References of VirtualServices.

use meltemi_api::istio::Destination;
use meltemi_api::{Diagnostic, codes};

use crate::config::{GatewayName, ServerHost, VirtualService};
use crate::host::Host;
use crate::mesh::Snapshot;
use crate::scope::destination_rule;
use crate::service::Service;

pub(super) fn check(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) {
    let all = &snapshot.config.virtual_services;
    for (age, virtual_service) in all.iter().enumerate() {
        let older: Vec<&VirtualService> = all.iter().take(age).map(|v| &**v).collect();
        gateways(snapshot, virtual_service, diagnostics);
        unmatched_hosts(snapshot, virtual_service, diagnostics);
        duplicate_hosts(&older, virtual_service, diagnostics);
        for (destination, field) in destinations(virtual_service) {
            diagnostics.extend(broken(snapshot, virtual_service, destination, &field));
        }
    }
}

fn gateways(snapshot: &Snapshot, virtual_service: &VirtualService, diagnostics: &mut Vec<Diagnostic>) {
    for (name, field) in gateway_references(virtual_service) {
        let gateway = GatewayName::resolve(name, virtual_service.namespace());
        if gateway.is_mesh() || snapshot.config.gateways.contains_key(&gateway) {
            continue;
        }
        let diagnostic = Diagnostic::new(&codes::UNKNOWN_GATEWAY, format!("there is no Gateway `{gateway}`"));
        let help = "create the Gateway, or write `namespace/name` for one in another namespace";
        diagnostics.push(diagnostic.at(&virtual_service.object, field).help(help));
    }
}

fn gateway_references(virtual_service: &VirtualService) -> Vec<(&String, String)> {
    let spec = virtual_service.spec();
    let mut lists = vec![(&spec.gateways, "spec".to_owned())];
    for (i, route) in spec.http.iter().enumerate() {
        let matches = route.matches.iter().enumerate();
        lists.extend(matches.map(|(j, m)| (&m.gateways, format!("spec.http[{i}].match[{j}]"))));
    }
    for (i, route) in spec.tcp.iter().enumerate() {
        let matches = route.matches.iter().enumerate();
        lists.extend(matches.map(|(j, m)| (&m.gateways, format!("spec.tcp[{i}].match[{j}]"))));
    }
    for (i, route) in spec.tls.iter().enumerate() {
        let matches = route.matches.iter().enumerate();
        lists.extend(matches.map(|(j, m)| (&m.gateways, format!("spec.tls[{i}].match[{j}]"))));
    }
    let mut references = Vec::new();
    for (names, at) in lists {
        references.extend(names.iter().enumerate().map(|(i, name)| (name, format!("{at}.gateways[{i}]"))));
    }
    references
}

/// A host that none of the known gateways accepts is reachable through none of them.
fn unmatched_hosts(snapshot: &Snapshot, virtual_service: &VirtualService, diagnostics: &mut Vec<Diagnostic>) {
    let known: Vec<_> =
        virtual_service.gateways.iter().filter_map(|name| snapshot.config.gateways.get(name)).collect();
    if known.is_empty() || virtual_service.is_bound_to(&GatewayName::mesh()) {
        return;
    }
    let accepted: Vec<ServerHost> = known
        .iter()
        .flat_map(|g| {
            g.spec().servers.iter().flat_map(|s| &s.hosts).map(|h| ServerHost::parse(h, &g.name.namespace))
        })
        .collect();
    for (i, host) in virtual_service.hosts.iter().enumerate() {
        if accepted.iter().any(|a| a.admit(virtual_service.namespace(), host).is_some()) {
            continue;
        }
        let message = format!("no server of the named gateways accepts the host `{host}`");
        diagnostics.push(
            Diagnostic::new(&codes::UNMATCHED_HOST, message)
                .at(&virtual_service.object, format!("spec.hosts[{i}]"))
                .help("add the host to `servers[].hosts` of the Gateway, or correct it here"),
        );
    }
}

/// In the mesh the older of two VirtualServices has a host to itself.
fn duplicate_hosts(
    older: &[&VirtualService],
    virtual_service: &VirtualService,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mesh = GatewayName::mesh();
    if !virtual_service.is_bound_to(&mesh) {
        return;
    }
    let meets = |other: &VirtualService| {
        other.export_to.reaches(virtual_service.namespace())
            || virtual_service.export_to.reaches(other.namespace())
    };
    for (i, host) in virtual_service.hosts.iter().enumerate() {
        let claims =
            |other: &&&VirtualService| other.is_bound_to(&mesh) && meets(other) && other.hosts.contains(host);
        let Some(first) = older.iter().find(claims) else { continue };
        let message = format!("`{host}` already belongs to {}, which is older", first.object.id);
        diagnostics.push(
            Diagnostic::new(&codes::DUPLICATE_HOST, message)
                .at(&virtual_service.object, format!("spec.hosts[{i}]"))
                .help("put the routes of both into one VirtualService"),
        );
    }
}

/// Every destination with its path.
fn destinations(virtual_service: &VirtualService) -> Vec<(&Destination, String)> {
    let spec = virtual_service.spec();
    let mut found = Vec::new();
    for (i, route) in spec.http.iter().enumerate() {
        let weighted = route.route.iter().enumerate();
        found.extend(
            weighted.map(|(j, d)| (&d.destination, format!("spec.http[{i}].route[{j}].destination"))),
        );
        found.extend(route.mirror.iter().map(|d| (d, format!("spec.http[{i}].mirror"))));
        let mirrors = route.mirrors.iter().enumerate();
        found.extend(
            mirrors.map(|(j, m)| (&m.destination, format!("spec.http[{i}].mirrors[{j}].destination"))),
        );
    }
    for (i, route) in spec.tcp.iter().enumerate() {
        let weighted = route.route.iter().enumerate();
        found
            .extend(weighted.map(|(j, d)| (&d.destination, format!("spec.tcp[{i}].route[{j}].destination"))));
    }
    for (i, route) in spec.tls.iter().enumerate() {
        let weighted = route.route.iter().enumerate();
        found
            .extend(weighted.map(|(j, d)| (&d.destination, format!("spec.tls[{i}].route[{j}].destination"))));
    }
    found
}

/// What is wrong with a destination: an unknown host, else its port and its subset.
fn broken(
    snapshot: &Snapshot,
    virtual_service: &VirtualService,
    destination: &Destination,
    field: &str,
) -> Vec<Diagnostic> {
    let host = Host::resolve(&destination.host, virtual_service.namespace());
    let known = snapshot.services.of_host(&host).iter();
    let Some(service) = known.into_iter().find(|s| s.export_to.reaches(virtual_service.namespace())) else {
        let diagnostic =
            Diagnostic::new(&codes::UNKNOWN_DESTINATION, format!("there is no service `{host}`"))
                .at(&virtual_service.object, format!("{field}.host"))
                .help(
                    "correct the name, or add a Service or a ServiceEntry; until then these requests get 503",
                );
        return vec![diagnostic];
    };
    let port = unknown_port(snapshot, virtual_service, destination, service, field);
    port.into_iter().chain(unknown_subset(snapshot, virtual_service, destination, service, field)).collect()
}

fn unknown_port(
    snapshot: &Snapshot,
    virtual_service: &VirtualService,
    destination: &Destination,
    service: &Service,
    field: &str,
) -> Option<Diagnostic> {
    let ports: Vec<String> = service.ports.iter().map(|p| p.number.to_string()).collect();
    let is_known = |number: u32| service.ports.iter().any(|p| u32::from(p.number) == number);
    let (number, at) = match &destination.port {
        Some(port) => (port.number, format!("{field}.port.number")),
        None if service.ports.len() == 1 => return None,
        // Without a port it is the one that was called, which only a gateway's servers tell here.
        None => (unknown_gateway_port(snapshot, virtual_service, is_known)?, field.to_owned()),
    };
    if is_known(number) {
        return None;
    }
    let message = format!("`{}` has no port {number}", service.host);
    let help = format!("its ports are {}; until then these requests get 503", ports.join(", "));
    Some(Diagnostic::new(&codes::UNKNOWN_PORT, message).at(&virtual_service.object, at).help(help))
}

fn unknown_gateway_port(
    snapshot: &Snapshot,
    virtual_service: &VirtualService,
    is_known: impl Fn(u32) -> bool,
) -> Option<u32> {
    let gateways = virtual_service.gateways.iter().filter_map(|name| snapshot.config.gateways.get(name));
    gateways.flat_map(|g| &g.spec().servers).map(|s| s.port.number).find(|number| !is_known(*number))
}

fn unknown_subset(
    snapshot: &Snapshot,
    virtual_service: &VirtualService,
    destination: &Destination,
    service: &Service,
    field: &str,
) -> Option<Diagnostic> {
    let subset = destination.subset.as_deref().filter(|s| !s.is_empty())?;
    let rule = destination_rule(snapshot, virtual_service.namespace(), &service.host, &service.namespace);
    let names: Vec<&str> =
        rule.map_or(Vec::new(), |r| r.subsets()).into_iter().map(|(_, _, s)| s.name.as_str()).collect();
    if names.contains(&subset) {
        return None;
    }
    let help = match (rule, names.as_slice()) {
        (None, _) => {
            format!("no DestinationRule is in force for `{}`; add one with this subset", service.host)
        }
        (Some(_), []) => "its DestinationRule has no subsets; add this one".to_owned(),
        (Some(_), some) => format!("its subsets are {}", some.join(", ")),
    };
    let message = format!("`{}` has no subset `{subset}`", service.host);
    let diagnostic = Diagnostic::new(&codes::UNKNOWN_SUBSET, message);
    Some(
        diagnostic
            .at(&virtual_service.object, format!("{field}.subset"))
            .help(format!("{help}; until then these requests get 503")),
    )
}
