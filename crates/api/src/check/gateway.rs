//! Rules across one Gateway.

use super::{not_empty, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{Gateway, Server, ServerTlsSettings};

pub(crate) fn gateway(gateway: &Gateway, decoder: &mut Decoder) {
    not_empty(decoder, &gateway.servers, "servers", "");
    let ports = gateway.servers.iter().map(|server| server.port.name.as_str()).enumerate();
    unique(decoder, ports.filter(|(_, name)| !name.is_empty()), |index| {
        format!("servers[{index}].port.name")
    });
    let names = gateway.servers.iter().enumerate();
    let names = names.filter_map(|(index, server)| Some((index, server.name.as_deref()?)));
    unique(decoder, names, |index| format!("servers[{index}].name"));
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
        let message = format!("`httpsRedirect` needs protocol HTTP, not {protocol}");
        decoder.report_below("tls.httpsRedirect", &codes::CONFLICTING_FIELDS, message, "");
    }
}

/// Only the redirect to https is for a server without encryption.
fn plain_http(tls: &ServerTlsSettings, decoder: &mut Decoder) {
    if !tls.mode().is_passthrough() {
        let message = format!("a server that speaks plain HTTP has no TLS mode {}", tls.mode().as_str());
        decoder.report_below("tls.mode", &codes::CONFLICTING_FIELDS, message, "use protocol HTTPS");
    }
}
