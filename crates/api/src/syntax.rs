//! The syntax of leaves: pure functions from the text of a scalar to what is wrong with it. One list per concern;
//! leaves out rules that need more than one field (`check.rs`).
//!
//! Source: Istio's `pkg/config/validation` and Kubernetes' `apimachinery/pkg/util/validation`.

mod header_value;
mod host;
mod locality;
mod number;
mod policy;
mod spelling;
mod text;
mod time;
mod tls;

pub(crate) use header_value::{header_text, header_value};
pub(crate) use host::{
    bind, cluster_ip, default_endpoint, destination_host, egress_host, host, ip, ip_or_cidr, namespaced_host,
    sidecar_bind, tunnel_host, workload_address,
};
pub(crate) use locality::{failover_label, locality, region};
pub(crate) use number::{
    at_least_one, locality_weight, maglev_size, not_negative, percent, port, port_or_zero, positive,
    redirect_code, response_status, ring_size, weight, whole_percent,
};
pub(crate) use policy::{
    at_most_64_kib, at_most_256, at_most_2048, http_uri, module_url, path_template, port_text,
    service_account, sha256_hex, strict_header_name, trust_domain_pattern,
};
pub(crate) use spelling::{did_you_mean, is_close};
pub use text::decode_base64;
pub(crate) use text::{
    base64, container_port_name, cors_method, credential_name, dns_label, dns_name, env_name, export_to,
    field_path, gateway_reference, header_name, label_key, label_value, not_empty, port_name, probe_scheme,
    protocol, regex, regex_or_any, retry_on, subset_name, transport_protocol, tunnel_protocol,
};
pub(crate) use time::{duration, duration_or_zero, parse_duration, timestamp, unix_seconds, whole_seconds};
pub(crate) use tls::{certificate_hash, path, server_name, spki_pin, trust_domain};

use crate::codes::Code;

/// What is wrong with the text of a leaf.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) code: &'static Code,
    pub(crate) message: String,
    pub(crate) help: String,
}

impl Flaw {
    fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: String::new() }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

/// What a leaf check says.
type Verdict = Result<(), Flaw>;

#[cfg(test)]
mod tests;
