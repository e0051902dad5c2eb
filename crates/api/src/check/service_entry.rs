//! Rules across one ServiceEntry.

use std::net::IpAddr;

use super::{at_most_one, not_empty, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{Resolution, ServiceEntry};
use crate::syntax;

pub(crate) fn service_entry(entry: &ServiceEntry, decoder: &mut Decoder) {
    not_empty(decoder, &entry.hosts, "hosts", "");
    not_empty(decoder, &entry.ports, "ports", "");
    unique(decoder, entry.hosts.iter().enumerate(), |index| format!("hosts[{index}]"));
    unique(decoder, entry.ports.iter().map(|port| port.number).enumerate(), |index| {
        format!("ports[{index}].number")
    });
    let names = entry.ports.iter().map(|port| port.name.as_str()).enumerate();
    unique(decoder, names.filter(|(_, name)| !name.is_empty()), |index| format!("ports[{index}].name"));
    at_most_one(
        decoder,
        &[
            ("endpoints", !entry.endpoints.is_empty()),
            ("workloadSelector", entry.workload_selector.is_some()),
        ],
    );
    for (index, _) in entry.hosts.iter().enumerate().filter(|(_, host)| *host == "*") {
        let message = "a service cannot have the host `*`".to_owned();
        decoder.report_below(&format!("hosts[{index}]"), &codes::BAD_HOST, message, "use `*.` and a domain");
    }
    resolution(entry, decoder);
    endpoint_ports(entry, decoder);
}

fn resolution(entry: &ServiceEntry, decoder: &mut Decoder) {
    match entry.resolution.unwrap_or_default() {
        Resolution::None => {
            if !entry.endpoints.is_empty() {
                let message = "endpoints have no meaning with resolution NONE".to_owned();
                let help = "use STATIC for addresses, DNS for names";
                decoder.report_below("endpoints", &codes::CONFLICTING_FIELDS, message, help);
            }
        }
        Resolution::Static => static_endpoints(entry, decoder),
        Resolution::Dns | Resolution::DnsRoundRobin => dns_endpoints(entry, decoder),
        Resolution::DynamicDns => {
            let message = "resolution DYNAMIC_DNS is not supported yet".to_owned();
            decoder.report_below("resolution", &codes::UNSUPPORTED_VALUE, message, "");
        }
    }
}

fn static_endpoints(entry: &ServiceEntry, decoder: &mut Decoder) {
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        let address = endpoint.address.as_deref().unwrap_or_default();
        if syntax::workload_address(address).is_ok() && address.parse::<IpAddr>().is_err() {
            let message = format!("`{address}` is a name, and resolution STATIC takes IP addresses only");
            let field = format!("endpoints[{index}].address");
            decoder.report_below(&field, &codes::BAD_ADDRESS, message, "use resolution DNS for names");
        }
    }
}

fn dns_endpoints(entry: &ServiceEntry, decoder: &mut Decoder) {
    let round_robin = entry.resolution == Some(Resolution::DnsRoundRobin);
    if round_robin && entry.endpoints.len() > 1 {
        let message = "resolution DNS_ROUND_ROBIN takes one endpoint only".to_owned();
        decoder.report_below(
            "endpoints[1]",
            &codes::CONFLICTING_FIELDS,
            message,
            "use resolution DNS for several",
        );
    }
    if !entry.endpoints.is_empty() || entry.workload_selector.is_some() {
        return;
    }
    for (index, host) in entry.hosts.iter().enumerate().filter(|(_, host)| host.starts_with("*.")) {
        let message = format!("the wildcard `{host}` cannot be resolved by DNS");
        let help = "list `endpoints`, or use resolution NONE";
        decoder.report_below(&format!("hosts[{index}]"), &codes::BAD_HOST, message, help);
    }
}

fn endpoint_ports(entry: &ServiceEntry, decoder: &mut Decoder) {
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        for name in endpoint.ports.keys() {
            if entry.ports.iter().any(|port| port.name == *name) {
                continue;
            }
            let mut field = format!("endpoints[{index}].ports");
            crate::span::push_key(&mut field, name);
            let help = syntax::did_you_mean(name, entry.ports.iter().map(|port| port.name.as_str()));
            let message = format!("the service has no port named `{name}`");
            decoder.report_below(&field, &codes::BAD_NAME, message, &help);
        }
    }
}
