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
    let encrypted = matches!(protocol.as_str(), "HTTPS" | "TLS");
    if encrypted {
        let message = format!("servers with protocol {protocol} are not supported yet");
        decoder.report_below("port.protocol", &codes::UNSUPPORTED_VALUE, message, "");
    }
    if encrypted && server.tls.is_none() {
        let message = format!("a server with protocol {protocol} needs `tls`");
        decoder.report_below("tls", &codes::MISSING_FIELD, message, "");
    }
    let redirect = server.tls.as_ref().is_some_and(|tls| tls.https_redirect == Some(true));
    if redirect && protocol != "HTTP" {
        let message = format!("`httpsRedirect` needs protocol HTTP, not {protocol}");
        decoder.report_below("tls.httpsRedirect", &codes::CONFLICTING_FIELDS, message, "");
    }
}

pub(crate) fn server_tls(tls: &ServerTlsSettings, decoder: &mut Decoder) {
    if let Some(mode) = tls.mode {
        let message = format!("TLS mode {} is not supported yet", mode.as_str());
        decoder.report_below("mode", &codes::UNSUPPORTED_VALUE, message, "");
    }
    if tls.credential_name.is_some() {
        let message = "certificates of gateways are not supported yet".to_owned();
        decoder.report_below("credentialName", &codes::UNSUPPORTED_FIELD, message, "");
    }
}
