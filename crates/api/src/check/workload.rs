//! Rules across one WorkloadEntry or WorkloadGroup.

use super::{at_least_one, at_most_one};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{ReadinessProbe, WorkloadEntry, WorkloadGroup};

/// What the address of a Unix socket begins with.
const UNIX: &str = "unix://";

/// An entry of another network may be reached through that network's gateway alone.
pub(crate) fn workload_entry(entry: &WorkloadEntry, decoder: &mut Decoder) {
    let address = entry.address.as_deref().unwrap_or_default();
    let has_network = entry.network.as_deref().is_some_and(|network| !network.is_empty());
    if address.is_empty() && !has_network {
        let message = "required field `address` is missing".to_owned();
        decoder.report_below("address", &codes::MISSING_FIELD, message, "");
    }
    super::label_keys(&entry.labels, "labels", decoder);
    for name in entry.ports.keys() {
        if let Err(flaw) = crate::syntax::port_name(name) {
            let mut field = "ports".to_owned();
            crate::span::push_key(&mut field, name);
            decoder.report_below(&field, flaw.code, flaw.message, &flaw.help);
        }
    }
    if address.starts_with(UNIX) && !entry.ports.is_empty() {
        let message = "a Unix socket has no ports".to_owned();
        decoder.report_below("ports", &codes::CONFLICTING_FIELDS, message, "remove `ports`");
    }
}

/// Instances are known by WorkloadEntries that somebody writes.
pub(crate) fn workload_group(_: &WorkloadGroup, decoder: &mut Decoder) {
    let message = "workload instances do not register by themselves yet".to_owned();
    let help = "write a WorkloadEntry for each of them";
    decoder.report_below("", &codes::NO_EFFECT_YET, message, help);
}

pub(crate) fn readiness_probe(probe: &ReadinessProbe, decoder: &mut Decoder) {
    let ways = [
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("exec", probe.exec.is_some()),
        ("grpc", probe.grpc.is_some()),
    ];
    at_least_one(decoder, &ways);
    at_most_one(decoder, &ways);
}
