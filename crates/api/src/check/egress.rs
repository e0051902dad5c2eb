//! Rules across the outbound listeners of one Sidecar.

use std::collections::{BTreeMap, BTreeSet};

use super::unique;
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{IstioEgressListener, IstioIngressListener, Sidecar};

pub(crate) fn egress(sidecar: &Sidecar, decoder: &mut Decoder) {
    let says_nothing = sidecar.egress.is_empty()
        && sidecar.ingress.is_empty()
        && sidecar.outbound_traffic_policy.is_none()
        && decoder.spans.get("spec.inboundConnectionPool").is_none();
    if says_nothing {
        let message = "the Sidecar says nothing".to_owned();
        let help = "give it `egress`, `ingress`, `outboundTrafficPolicy` or `inboundConnectionPool`";
        decoder.report_below("", &codes::MISSING_FIELD, message, help);
    }
    let numbers = sidecar.egress.iter().enumerate();
    let numbers = numbers.filter_map(|(index, listener)| Some((index, listener.port.as_ref()?.number)));
    unique(decoder, numbers.filter(|(_, number)| *number > 0), |index| {
        format!("egress[{index}].port.number")
    });
    for (index, listener) in sidecar.egress.iter().enumerate() {
        hosts(listener, index, decoder);
    }
    for (index, listener) in sidecar.ingress.iter().enumerate() {
        http_pool(listener, index, decoder);
    }
}

/// Hosts that others of the same list cover.
fn hosts(listener: &IstioEgressListener, index: usize, decoder: &mut Decoder) {
    let own = decoder.object.as_ref().map_or_else(String::new, |id| id.namespace.to_string());
    let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let help = "remove one of them";
    for (position, entry) in listener.hosts.iter().enumerate() {
        let Some((namespace, host)) = entry.split_once('/').filter(|(n, _)| !n.starts_with('~')) else {
            continue;
        };
        let namespace = if namespace == "." { own.as_str() } else { namespace };
        let before = known.entry(namespace).or_default();
        let is_doubled =
            if host == "*" { !before.is_empty() } else { before.contains(host) || before.contains("*") };
        if is_doubled {
            let message = format!("`{entry}` and an earlier host of the list cover each other");
            decoder.report_below(
                &format!("egress[{index}].hosts[{position}]"),
                &codes::DOUBTFUL,
                message,
                help,
            );
        }
        before.insert(host);
    }
    if known.len() > 1 && known.get("*").is_some_and(|hosts| hosts.contains("*")) {
        let message = "`*/*` covers all other hosts of the list".to_owned();
        decoder.report_below(&format!("egress[{index}].hosts"), &codes::DOUBTFUL, message, help);
    }
}

/// Limits of HTTP for a port that does not speak it.
fn http_pool(listener: &IstioIngressListener, index: usize, decoder: &mut Decoder) {
    let protocol = listener.port.protocol.as_deref().unwrap_or_default().to_ascii_uppercase();
    let is_http = protocol.starts_with("HTTP") && protocol != "HTTPS" || protocol.starts_with("GRPC");
    let field = format!("ingress[{index}].connectionPool.http");
    if !is_http && decoder.spans.get(&format!("spec.{field}")).is_some() {
        let message = format!("protocol {protocol} has no use for limits of HTTP");
        decoder.report_below(&field, &codes::NO_USE, message, "remove it");
    }
}
