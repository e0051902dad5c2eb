//! Rules across one Sidecar.

use super::{not_empty, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{CaptureMode, Sidecar};

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
