//! Rules across one Sidecar.

use super::{not_empty, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy, OutboundTrafficPolicyMode,
    ServerTlsSettings, Sidecar,
};

pub(crate) fn sidecar(sidecar: &Sidecar, decoder: &mut Decoder) {
    let ports = sidecar.ingress.iter().map(|listener| listener.port.number).enumerate();
    unique(decoder, ports, |index| format!("ingress[{index}].port.number"));
    for (index, listener) in sidecar.egress.iter().enumerate() {
        not_empty(decoder, &listener.hosts, &format!("egress[{index}].hosts"), "write `*/*` for all");
        egress_port(listener, index, decoder);
    }
    egress_order(sidecar, decoder);
    super::egress::egress(sidecar, decoder);
    let policy = sidecar.outbound_traffic_policy.as_ref();
    if policy.and_then(|policy| policy.mode) == Some(OutboundTrafficPolicyMode::AllowAnyDynamicDns) {
        let message = "only MeshConfig has the mode ALLOW_ANY_DYNAMIC_DNS".to_owned();
        decoder.report_below("outboundTrafficPolicy.mode", &codes::BAD_ENUM, message, "write ALLOW_ANY");
    }
}

/// The listener without port takes what the others leave, so there is one, and it comes last.
fn egress_order(sidecar: &Sidecar, decoder: &mut Decoder) {
    let Some(catch_all) = sidecar.egress.iter().position(|listener| listener.port.is_none()) else { return };
    for index in catch_all + 1..sidecar.egress.len() {
        let message =
            format!("`egress[{catch_all}]` has no port and so must be the only such one, and the last");
        decoder.report_below(
            &format!("egress[{index}]"),
            &codes::CONFLICTING_FIELDS,
            message,
            "move it further up",
        );
    }
}

/// Only a Unix socket has no port.
fn egress_port(listener: &IstioEgressListener, index: usize, decoder: &mut Decoder) {
    let Some(port) = &listener.port else { return };
    let is_socket = listener.bind.as_deref().is_some_and(|bind| bind.starts_with("unix://"));
    match (port.number == 0, is_socket) {
        (true, false) => {
            let message = "port 0 needs a Unix socket to listen on".to_owned();
            let field = format!("egress[{index}].port.number");
            decoder.report_below(
                &field,
                &codes::OUT_OF_RANGE,
                message,
                "write a port, or `bind: unix:///path`",
            );
        }
        (false, true) => {
            let message = "a Unix socket has no port".to_owned();
            let field = format!("egress[{index}].port.number");
            decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, "write 0");
        }
        _ => {}
    }
    if is_socket {
        socket_is_for_envoy(&format!("egress[{index}].bind"), decoder);
    }
    if is_socket && listener.capture_mode == Some(CaptureMode::Iptables) {
        let message = "nothing is redirected to a Unix socket".to_owned();
        let field = format!("egress[{index}].captureMode");
        decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, "write NONE or leave it out");
    }
}

/// Meltemi's own proxy has TCP sockets only.
fn socket_is_for_envoy(field: &str, decoder: &mut Decoder) {
    let message = "only a stock Envoy uses Unix sockets; Meltemi's own proxy does not yet".to_owned();
    decoder.report_below(field, &codes::NO_EFFECT_YET, message, "use an IP address and a port");
}

/// A proxy for what nobody knows is for sidecars that let it out.
pub(crate) fn outbound_traffic_policy(policy: &OutboundTrafficPolicy, decoder: &mut Decoder) {
    let Some(proxy) = &policy.egress_proxy else { return };
    if policy.mode != Some(OutboundTrafficPolicyMode::AllowAny) {
        let message = "`egressProxy` needs mode ALLOW_ANY".to_owned();
        decoder.report_below("egressProxy", &codes::CONFLICTING_FIELDS, message, "");
    }
    if proxy.port.is_none() {
        let message = "`egressProxy` needs a `port`".to_owned();
        decoder.report_below("egressProxy.port", &codes::MISSING_FIELD, message, "");
    }
}

/// A sidecar terminates TLS with certificates from files only, and knows nothing of redirects.
pub(crate) fn ingress_listener(listener: &IstioIngressListener, decoder: &mut Decoder) {
    if listener.port.number == 0 {
        let message = "an inbound listener needs a port".to_owned();
        decoder.report_below("port.number", &codes::OUT_OF_RANGE, message, "");
    }
    if listener.bind.as_deref().is_some_and(|bind| bind.starts_with("unix://")) {
        let message = "an inbound listener cannot be on a Unix socket".to_owned();
        decoder.report_below("bind", &codes::BAD_ADDRESS, message, "write an IP address");
    }
    if listener.default_endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("unix://")) {
        socket_is_for_envoy("defaultEndpoint", decoder);
    }
    let Some(tls) = &listener.tls else { return };
    let protocol = listener.port.protocol.as_deref().unwrap_or_default().to_ascii_uppercase();
    if !matches!(protocol.as_str(), "HTTPS" | "TLS") {
        let message = "`tls` needs protocol HTTPS or TLS".to_owned();
        decoder.report_below("port.protocol", &codes::CONFLICTING_FIELDS, message, "");
    }
    not_for_sidecars(tls, decoder);
    if !tls.mode().is_passthrough() && !tls.mode().is_of_mesh() {
        return;
    }
    let message = format!("a sidecar does not know TLS mode {} on ingress", tls.mode().as_str());
    decoder.report_below("tls.mode", &codes::CONFLICTING_FIELDS, message, "use SIMPLE or MUTUAL");
}

fn not_for_sidecars(tls: &ServerTlsSettings, decoder: &mut Decoder) {
    let fields = [
        ("httpsRedirect", tls.https_redirect == Some(true)),
        ("credentialName", tls.credential_name.is_some()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("caCertCredentialName", tls.ca_cert_credential_name.is_some()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
    ];
    for (field, _) in fields.into_iter().filter(|(_, is_set)| *is_set) {
        let message = format!("a sidecar has no `{field}` on ingress");
        decoder.report_below(&format!("tls.{field}"), &codes::UNSUPPORTED_FIELD, message, "");
    }
}
