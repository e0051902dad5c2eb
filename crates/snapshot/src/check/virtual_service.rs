//! References of VirtualServices.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_api::{Diagnostic, Object, Spec, codes, istio};

use crate::config::{self, GatewayName, ServerHost, VirtualService};
use crate::host::{CLUSTER_DOMAIN, Host};
use crate::mesh::Snapshot;
use crate::route::{Destination, broken_delegates};
use crate::service::Service;

pub(super) fn check(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) {
    let all = &snapshot.config.virtual_services;
    for (age, virtual_service) in all.iter().enumerate() {
        let older: Vec<&VirtualService> = all.iter().take(age).map(|v| &**v).collect();
        gateways(snapshot, virtual_service, diagnostics);
        unmatched_hosts(snapshot, virtual_service, diagnostics);
        duplicate_hosts(&older, virtual_service, diagnostics);
        destinations(snapshot, virtual_service, diagnostics);
    }
    delegations(snapshot, diagnostics);
}

/// Delegates, and who delegates to them.
fn delegations(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) {
    let mesh = &snapshot.config.mesh;
    let delegates = config::delegates(snapshot.objects(), mesh);
    let mut used = BTreeSet::new();
    let all = snapshot.objects().filter_map(|object| match &object.spec {
        Spec::VirtualService(spec) => Some((object, spec)),
        _ => None,
    });
    let all: Vec<(&Arc<Object>, &istio::VirtualService)> = all.collect();
    for (object, spec) in &all {
        diagnostics.extend(broken_delegates(object, spec, &delegates));
        for delegate in spec.http.iter().filter_map(|route| route.delegate.as_ref()) {
            let namespace = delegate.namespace.as_deref().filter(|n| !n.is_empty());
            used.insert((namespace.unwrap_or(&object.id.namespace), delegate.name.as_str()));
        }
    }
    for (object, spec) in all.into_iter().filter(|(_, spec)| spec.hosts.is_empty()) {
        let alone = VirtualService::new(object, spec, mesh, &delegates);
        destinations(snapshot, &alone, diagnostics);
        if !used.contains(&(&*object.id.namespace, &*object.id.name)) {
            let message = "it has no `hosts`, and no VirtualService delegates to it";
            let help = "name the hosts whose requests are routed, or delegate to it";
            let unused = Diagnostic::new(&codes::UNUSED_DELEGATE, message);
            diagnostics.push(unused.at(object, "spec").help(help));
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

/// Those that the object itself names; those of its delegates are told of the delegates.
fn destinations(snapshot: &Snapshot, virtual_service: &VirtualService, diagnostics: &mut Vec<Diagnostic>) {
    for destination in virtual_service.rules.destinations() {
        if destination.written.object.id == virtual_service.object.id {
            diagnostics.extend(broken(snapshot, virtual_service, destination));
        }
    }
}

/// What is wrong with a destination: an unknown host, else its port and its subset.
fn broken(
    snapshot: &Snapshot,
    virtual_service: &VirtualService,
    destination: &Destination,
) -> Vec<Diagnostic> {
    let (host, field) = (&destination.host, &destination.written.field);
    let known = snapshot.services.of_host(host).iter();
    let Some(service) = known.into_iter().find(|s| s.export_to.reaches(virtual_service.namespace())) else {
        let home = format!(".{}.svc.{CLUSTER_DOMAIN}", virtual_service.namespace());
        let short = host.as_str().strip_suffix(&home).map(Host::new);
        let is_short = short.is_some_and(|short| !snapshot.services.of_host(&short).is_empty());
        let help = match is_short {
            // As in Istio: a name without dots is completed, the host of a ServiceEntry is not.
            true => {
                "a name without dots is a Service of the namespace; give the ServiceEntry a host with dots"
            }
            false => "correct the name, or add a Service or a ServiceEntry",
        };
        let diagnostic =
            Diagnostic::new(&codes::UNKNOWN_DESTINATION, format!("there is no service `{host}`"))
                .at(&virtual_service.object, format!("{field}.host"))
                .help(format!("{help}; until then these requests get 503"));
        return vec![diagnostic];
    };
    let port = unknown_port(snapshot, virtual_service, destination, service);
    port.into_iter().chain(unknown_subset(snapshot, virtual_service, destination, service)).collect()
}

fn unknown_port(
    snapshot: &Snapshot,
    virtual_service: &VirtualService,
    destination: &Destination,
    service: &Service,
) -> Option<Diagnostic> {
    let field = &destination.written.field;
    let ports: Vec<String> = service.ports.iter().map(|p| p.number.to_string()).collect();
    let is_known = |number: u32| service.ports.iter().any(|p| u32::from(p.number) == number);
    let (number, at) = match destination.port {
        Some(port) => (u32::from(port), format!("{field}.port.number")),
        None if service.ports.len() == 1 => return None,
        // Without a port it is the one that was called, which only a gateway's servers tell here.
        None => (unknown_gateway_port(snapshot, virtual_service, is_known)?, field.clone()),
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
) -> Option<Diagnostic> {
    let (subset, field) = (destination.subset.as_str(), &destination.written.field);
    let namespace = virtual_service.namespace();
    let for_some = snapshot.config.destination_rules.for_some_workloads(namespace, &service.host);
    if for_some.into_iter().any(|rule| rule.subset(subset).is_some()) {
        return None;
    }
    let rule = snapshot.destination_rule(namespace, service);
    let names: Vec<&str> =
        rule.map_or(Vec::new(), |r| r.subsets()).into_iter().map(|(_, _, s)| s.name.as_str()).collect();
    if subset.is_empty() || names.contains(&subset) {
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
