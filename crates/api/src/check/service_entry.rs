//! Rules across one ServiceEntry.

use std::net::IpAddr;

use super::{at_most_one, not_empty, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{Resolution, ServiceEntry};
use crate::syntax;

/// What the address of a Unix socket begins with.
const UNIX: &str = "unix://";

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
    super::visibility::export_to(&entry.export_to, true, decoder);
    several_hosts(entry, decoder);
    half_wildcards(entry, decoder);
    resolution(entry, decoder);
    endpoint_ports(entry, decoder);
}

/// A wildcard within a label is one only where names are looked up as they are called.
fn half_wildcards(entry: &ServiceEntry, decoder: &mut Decoder) {
    if entry.resolution == Some(Resolution::DynamicDns) {
        return;
    }
    let halves = entry.hosts.iter().enumerate();
    for (index, host) in halves.filter(|(_, host)| host.starts_with("*-")) {
        let message = format!("`{host}` is matched by what comes before its first dot only with DYNAMIC_DNS");
        decoder.report_below(&format!("hosts[{index}]"), &codes::DOUBTFUL, message, "use `*.` and a domain");
    }
}

/// A stream of bytes says no name, so that nobody could tell which of the hosts is meant.
fn several_hosts(entry: &ServiceEntry, decoder: &mut Decoder) {
    if entry.hosts.len() < 2 || entry.resolution.unwrap_or_default() == Resolution::None {
        return;
    }
    let names_host = |protocol: &str| {
        let protocol = protocol.to_ascii_uppercase();
        ["HTTP", "HTTP2", "HTTPS", "HTTP_PROXY", "GRPC", "GRPC-WEB", "TLS"].contains(&protocol.as_str())
    };
    let silent = |port: &crate::istio::ServicePort| !names_host(port.protocol.as_deref().unwrap_or_default());
    if let Some(index) = entry.ports.iter().position(silent) {
        let message = "several hosts need a protocol that says which of them is meant".to_owned();
        let help = "use HTTP or TLS, resolution NONE, or a ServiceEntry for each host";
        decoder.report_below(&format!("ports[{index}].protocol"), &codes::CONFLICTING_FIELDS, message, help);
    }
}

fn resolution(entry: &ServiceEntry, decoder: &mut Decoder) {
    match entry.resolution.unwrap_or_default() {
        Resolution::None => {
            if !entry.endpoints.is_empty() {
                let message = "endpoints have no meaning with resolution NONE".to_owned();
                let help = "use STATIC for addresses, DNS for names";
                decoder.report_below("endpoints", &codes::CONFLICTING_FIELDS, message, help);
            }
            if entry.workload_selector.is_some() {
                let message = "with resolution NONE nothing looks at the selected workloads".to_owned();
                decoder.report_below("workloadSelector", &codes::NO_USE, message, "use resolution STATIC");
            }
        }
        Resolution::Static => static_endpoints(entry, decoder),
        Resolution::Dns | Resolution::DnsRoundRobin => dns_endpoints(entry, decoder),
        Resolution::DynamicDns => dynamic_dns(entry, decoder),
    }
    addresses(entry, decoder);
}

/// Names behind a block of addresses would have to be told apart by address.
fn addresses(entry: &ServiceEntry, decoder: &mut Decoder) {
    if matches!(entry.resolution.unwrap_or_default(), Resolution::None | Resolution::Static) {
        return;
    }
    for (index, address) in entry.addresses.iter().enumerate().filter(|(_, address)| address.contains('/')) {
        let message = format!("the block `{address}` needs resolution NONE or STATIC");
        let help = "list single addresses, or change `resolution`";
        decoder.report_below(&format!("addresses[{index}]"), &codes::CONFLICTING_FIELDS, message, help);
    }
}

fn static_endpoints(entry: &ServiceEntry, decoder: &mut Decoder) {
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        let address = endpoint.address.as_deref().unwrap_or_default();
        let field = format!("endpoints[{index}].address");
        if address.starts_with(UNIX) {
            if entry.ports.len() > 1 {
                let message = "a Unix socket is the endpoint of one port only".to_owned();
                let help = "write a ServiceEntry for each port";
                decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, help);
            }
        } else if syntax::workload_address(address).is_ok() && address.parse::<IpAddr>().is_err() {
            let message = format!("`{address}` is a name, and resolution STATIC takes IP addresses only");
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
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        if endpoint.address.as_deref().is_some_and(|address| address.starts_with(UNIX)) {
            let message = "a Unix socket cannot be resolved by DNS".to_owned();
            let field = format!("endpoints[{index}].address");
            decoder.report_below(&field, &codes::BAD_ADDRESS, message, "use resolution STATIC");
        }
    }
    if !entry.endpoints.is_empty() || entry.workload_selector.is_some() {
        return;
    }
    for (index, host) in
        entry.hosts.iter().enumerate().filter(|(_, host)| host.starts_with('*') && *host != "*")
    {
        let message = format!("the wildcard `{host}` cannot be resolved by DNS");
        let help = "list `endpoints`, or use resolution NONE or DYNAMIC_DNS";
        decoder.report_below(&format!("hosts[{index}]"), &codes::BAD_HOST, message, help);
    }
}

/// The name is in each request, so that only wildcards make sense, and only protocols that say a name.
fn dynamic_dns(entry: &ServiceEntry, decoder: &mut Decoder) {
    for (index, host) in entry.hosts.iter().enumerate().filter(|(_, host)| !host.starts_with('*')) {
        let message = format!("resolution DYNAMIC_DNS takes wildcards only, and `{host}` is none");
        let help = "use resolution DNS for a single name";
        decoder.report_below(&format!("hosts[{index}]"), &codes::BAD_HOST, message, help);
    }
    let fields =
        [("addresses", entry.addresses.is_empty()), ("endpoints", entry.endpoints.is_empty())].into_iter();
    for (field, _) in fields.filter(|(_, is_empty)| !is_empty) {
        let message = format!("`{field}` cannot be set with resolution DYNAMIC_DNS");
        let help = "the address is found from the name in each request";
        decoder.report_below(field, &codes::CONFLICTING_FIELDS, message, help);
    }
    for (index, port) in entry.ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or_default().to_ascii_uppercase();
        if !["HTTP", "HTTP2", "GRPC", "TLS"].contains(&protocol.as_str()) {
            let message = "resolution DYNAMIC_DNS needs a protocol that says the name".to_owned();
            let help = "use HTTP, HTTP2, GRPC or TLS";
            let field = format!("ports[{index}].protocol");
            decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, help);
        }
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
