//! Rules across one Gateway.

use std::collections::BTreeMap;

use super::{not_empty, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{Gateway, Port, Server, ServerTlsSettings};

pub(crate) fn gateway(gateway: &Gateway, decoder: &mut Decoder) {
    not_empty(decoder, &gateway.servers, "servers", "");
    super::label_keys(&gateway.selector, "selector", decoder);
    name(decoder);
    let ports = gateway.servers.iter().map(|server| server.port.name.as_str()).enumerate();
    unique(decoder, ports.filter(|(_, name)| !name.is_empty()), |index| {
        format!("servers[{index}].port.name")
    });
    let names = gateway.servers.iter().enumerate();
    let names = names.filter_map(|(index, server)| Some((index, server.name.as_deref()?)));
    shared_names(decoder, names);
}

/// The name becomes a part of the names of routes, which has no dots.
fn name(decoder: &mut Decoder) {
    if decoder.object.as_ref().is_some_and(|id| id.name.contains('.')) {
        let message = "the name of a Gateway has no dots".to_owned();
        decoder
            .within("", |d| d.report_below("metadata.name", &codes::BAD_NAME, message, "write `-` instead"));
    }
}

/// Servers may share a name, but then they share the statistics under it.
fn shared_names<'a>(decoder: &mut Decoder, names: impl Iterator<Item = (usize, &'a str)>) {
    let mut first = BTreeMap::new();
    for (index, name) in names.filter(|(_, name)| !name.is_empty()) {
        let Some(earlier) = first.get(name) else {
            first.insert(name, index);
            continue;
        };
        let message = format!("servers[{earlier}] has this name too, so their statistics are one");
        decoder.warn_below(&format!("servers[{index}].name"), &codes::DUPLICATE_NAME, message, "");
    }
}

/// A port of a server.
pub(crate) fn gateway_port(port: &Port, decoder: &mut Decoder) {
    if port.target_port.is_some_and(|target| target > 0) {
        let message = "the port of a Gateway has no `targetPort`".to_owned();
        let help = "the Service in front of the gateway says which port of the workload is meant";
        decoder.report_below("targetPort", &codes::CONFLICTING_FIELDS, message, help);
    }
}

pub(crate) fn server(server: &Server, decoder: &mut Decoder) {
    not_empty(decoder, &server.hosts, "hosts", "name the hosts, or `*` for all");
    let protocol = server.port.protocol.to_ascii_uppercase();
    let Some(tls) = &server.tls else {
        if matches!(protocol.as_str(), "HTTPS" | "TLS") {
            let message = format!("a server with protocol {protocol} needs `tls`");
            decoder.report_below("tls", &codes::MISSING_FIELD, message, "");
        }
        return;
    };
    match protocol.as_str() {
        "HTTPS" | "TLS" => encrypted(tls, &protocol, decoder),
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "GRPC_WEB" => plain_http(tls, decoder),
        _ => {
            let message = format!("a server with protocol {protocol} has no TLS");
            decoder.report_below("tls", &codes::CONFLICTING_FIELDS, message, "use protocol TLS or HTTPS");
        }
    }
}

fn encrypted(tls: &ServerTlsSettings, protocol: &str, decoder: &mut Decoder) {
    if tls.https_redirect == Some(true) {
        let message = format!("what comes by {protocol} is encrypted already");
        decoder.report_below("tls.httpsRedirect", &codes::NO_USE, message, "it is for protocol HTTP");
    }
}

/// Only the redirect to https is for a server without encryption.
fn plain_http(tls: &ServerTlsSettings, decoder: &mut Decoder) {
    if !tls.mode().is_passthrough() {
        let message = format!("a server that speaks plain HTTP has no TLS mode {}", tls.mode().as_str());
        decoder.report_below("tls.mode", &codes::CONFLICTING_FIELDS, message, "use protocol HTTPS");
    }
    let certificates = [
        ("serverCertificate", tls.server_certificate.is_some()),
        ("privateKey", tls.private_key.is_some()),
        ("caCertificates", tls.ca_certificates.is_some()),
    ];
    for (field, _) in certificates.into_iter().filter(|(_, is_set)| *is_set) {
        let message = format!("a server that speaks plain HTTP has no `{field}`");
        decoder.report_below(
            &format!("tls.{field}"),
            &codes::CONFLICTING_FIELDS,
            message,
            "use protocol HTTPS",
        );
    }
}
