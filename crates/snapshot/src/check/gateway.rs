//! Servers of Gateways that get in each other's way, and those that are not supported yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Diagnostic, Severity, codes};

use crate::config::{Gateway, oldest_first};
use crate::mesh::Snapshot;
use crate::protocol::Protocol;

pub(super) fn check(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) {
    let mut gateways: Vec<&Arc<Gateway>> = snapshot.config.gateways.values().collect();
    gateways.sort_by(|a, b| oldest_first(&a.object, &b.object));
    let mut taken = BTreeMap::new();
    for gateway in gateways {
        for (index, server) in gateway.spec().servers.iter().enumerate() {
            let field = format!("spec.servers[{index}].port.protocol");
            if !Gateway::is_plaintext(server) {
                let message =
                    format!("gateway servers with protocol {} are not supported yet", server.port.protocol);
                let diagnostic = Diagnostic::new(&codes::UNSUPPORTED_VALUE, message);
                let help = "this server is not opened; the others of the object are";
                diagnostics
                    .push(diagnostic.severity(Severity::Warning).at(&gateway.object, &*field).help(help));
            }
            let is_http = Protocol::parse(&server.port.protocol).is_http();
            let place = (&gateway.spec().selector, server.port.number, server.bind.as_deref());
            let (first, kind) = taken.entry(place).or_insert((&gateway.object.id, is_http));
            if *kind != is_http {
                let message =
                    format!("port {} already speaks another protocol for {first}", server.port.number);
                diagnostics.push(Diagnostic::new(&codes::PORT_CONFLICT, message).at(&gateway.object, field));
            }
        }
    }
}
