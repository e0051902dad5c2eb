//! Ports of Services whose names do not say what is spoken.
//!
//! Source: Istio `pkg/config/analysis/analyzers/service`.

use meltemi_api::kubernetes::ServiceType;
use meltemi_api::{Diagnostic, Spec};
use meltemi_snapshot::Protocol;

use crate::catalogue::{EXTERNAL_NAME_PORT, PORT_NAME};
use crate::finding::found;
use crate::mesh::{Labels, Mesh};

/// The label of Services that a gateway controller made.
const MANAGED: &str = "gateway.istio.io/managed";

pub(crate) fn port_names(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Spec::Service(service) = &object.spec else { continue };
        if is_of_istio(&object.meta.labels) || object.meta.labels.contains_key(MANAGED) {
            continue;
        }
        let is_external = service.service_type == Some(ServiceType::ExternalName);
        for (index, port) in service.ports.iter().enumerate() {
            let number = u16::try_from(port.port).unwrap_or_default();
            let name = port.name.as_deref();
            let protocol = Protocol::of_service_port(
                port.protocol.as_deref(),
                port.app_protocol.as_deref(),
                name,
                number,
            );
            let is_told = protocol != Protocol::Unsupported && !(is_external && name == Some("tcp"));
            if is_told {
                continue;
            }
            let field = format!("spec.ports[{index}]");
            let help = "name it after its protocol (`http`, `grpc-api`, `tcp-db`), or set `appProtocol`";
            let (code, message) = match is_external {
                true => {
                    (&EXTERNAL_NAME_PORT, "the port of an ExternalName service does not tell its protocol")
                }
                false => {
                    (&PORT_NAME, "the port does not tell its protocol, which is found out from the traffic")
                }
            };
            findings.push(found(code, object, field, message.to_owned()).help(help));
        }
    }
}

/// Whether an object is part of Istio's own installation.
pub(crate) fn is_of_istio(labels: &Labels) -> bool {
    labels.contains_key("istio") || labels.get("release").is_some_and(|value| value == "istio")
}
