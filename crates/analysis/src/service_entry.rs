//! ServiceEntries that contradict each other, and TCP ports without an address.
//!
//! Source: Istio `pkg/config/analysis/analyzers/serviceentry`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_api::{Diagnostic, Object, Spec};

use crate::catalogue::{ADDRESSES_REQUIRED, CONFLICTING_SERVICE_ENTRIES};
use crate::finding::found;
use crate::hosts::{ALL, scopes};
use crate::mesh::{Mesh, full_name};

/// A port of a host as a namespace sees it.
type Place<'a> = (String, &'a str, u32);

/// Entries that give a port of a host different protocols.
pub(crate) fn protocols(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    let mut places: BTreeMap<Place<'_>, Vec<(&Arc<Object>, String)>> = BTreeMap::new();
    for object in mesh.objects() {
        let Spec::ServiceEntry(entry) = &object.spec else { continue };
        for scope in scopes(&entry.export_to, &object.id.namespace) {
            for (host, port) in
                entry.hosts.iter().flat_map(|host| entry.ports.iter().map(move |port| (host, port)))
            {
                let protocol = port.protocol.as_deref().unwrap_or_default().to_ascii_uppercase();
                places.entry((scope.clone(), host, port.number)).or_default().push((object, protocol));
            }
        }
    }
    let mut reported = BTreeSet::new();
    for ((scope, host, port), own) in &places {
        let everywhere = if scope == ALL { None } else { places.get(&(ALL.to_owned(), *host, *port)) };
        let all: Vec<_> = own.iter().chain(everywhere.into_iter().flatten()).collect();
        let protocols: BTreeSet<&str> = all.iter().map(|(_, protocol)| protocol.as_str()).collect();
        if protocols.len() < 2 {
            continue;
        }
        let names: BTreeSet<String> = all.iter().map(|(object, _)| full_name(object)).collect();
        let (names, protocols) = (joined(names.iter().map(String::as_str)), joined(protocols));
        for (object, _) in all.iter().filter(|(object, _)| reported.insert(object.id.clone())) {
            let message = format!("port {port} of `{host}` has the protocols {protocols} in {names}");
            let finding = found(&CONFLICTING_SERVICE_ENTRIES, object, "spec.ports", message);
            findings.push(finding.help("give it the same protocol everywhere"));
        }
    }
}

fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// TCP ports of entries without addresses: a listener for them is for every address, so that two of them collide.
pub(crate) fn addresses(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Spec::ServiceEntry(entry) = &object.spec else { continue };
        if !entry.addresses.is_empty() || !object.status.addresses.is_empty() {
            continue;
        }
        for (index, port) in entry.ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or_default();
            if !protocol.is_empty() && !protocol.eq_ignore_ascii_case("TCP") {
                continue;
            }
            let message = format!("port {} is TCP, and the entry has no `addresses`", port.number);
            let finding = found(&ADDRESSES_REQUIRED, object, format!("spec.ports[{index}]"), message);
            findings.push(finding.help("add `addresses`, or a protocol that tells hosts apart: HTTP, TLS"));
        }
    }
}
