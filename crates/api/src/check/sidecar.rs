//! Rules across one Sidecar.

use super::{not_empty, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{CaptureMode, IstioIngressListener, ServerTlsSettings, Sidecar};

pub(crate) fn sidecar(sidecar: &Sidecar, decoder: &mut Decoder) {
    let selects = sidecar.workload_selector.as_ref().is_some_and(|selector| !selector.labels.is_empty());
    if !selects && !sidecar.ingress.is_empty() {
        let message = "`ingress` needs a `workloadSelector`".to_owned();
        let help = "inbound listeners belong to one workload; select it by its labels";
        decoder.report_below("ingress", &codes::MISSING_FIELD, message, help);
    }
    capture_modes(sidecar, decoder);
    let ports = sidecar.ingress.iter().map(|listener| listener.port.number).enumerate();
    unique(decoder, ports, |index| format!("ingress[{index}].port.number"));
    for (index, listener) in sidecar.egress.iter().enumerate() {
        not_empty(decoder, &listener.hosts, &format!("egress[{index}].hosts"), "write `*/*` for all");
        if listener.port.is_none() && listener.bind.is_some() {
            let message = "`bind` has no meaning without `port`".to_owned();
            decoder.report_below(&format!("egress[{index}].bind"), &codes::CONFLICTING_FIELDS, message, "");
        }
    }
    egress_order(sidecar, decoder);
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

/// Callers connect to the listeners themselves; nothing is captured.
fn capture_modes(sidecar: &Sidecar, decoder: &mut Decoder) {
    let ingress = sidecar.ingress.iter().map(|listener| ("ingress", listener.capture_mode)).enumerate();
    let egress = sidecar.egress.iter().map(|listener| ("egress", listener.capture_mode)).enumerate();
    for (index, (list, mode)) in ingress.chain(egress) {
        if mode == Some(CaptureMode::Iptables) {
            let message = "capture by iptables is not supported yet".to_owned();
            decoder.report_below(
                &format!("{list}[{index}].captureMode"),
                &codes::UNSUPPORTED_VALUE,
                message,
                "",
            );
        }
    }
}

/// A sidecar terminates TLS with certificates from files only, and knows nothing of redirects.
pub(crate) fn ingress_listener(listener: &IstioIngressListener, decoder: &mut Decoder) {
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
