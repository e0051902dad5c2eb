//! Names of clusters in statistics, where MeshConfig says how they are to be.
//!
//! Source: Istio `pilot/pkg/networking/telemetry/telemetry.go`.

use meltemi_snapshot::{Registry, Service, ServicePort};

/// Ends the name in the full name of a statistic.
const DELIMITER: char = ';';

/// What stands for the words of a pattern.
pub(crate) struct Names<'a> {
    pub(crate) service: &'a Service,
    pub(crate) port: &'a ServicePort,
    pub(crate) subset: &'a str,
    /// The port of the workload; 0 outbound.
    pub(crate) target: u16,
}

impl Names<'_> {
    /// A pattern with everything in place; empty for an empty pattern.
    pub(crate) fn fill(&self, pattern: &str) -> String {
        if pattern.is_empty() {
            return String::new();
        }
        let service = self.service;
        let is_kubernetes = service.registry == Registry::Kubernetes;
        let host = service.host.to_string();
        let short =
            if is_kubernetes { format!("{}.{}", service.name, service.namespace) } else { host.clone() };
        let name = if is_kubernetes { service.name.to_string() } else { host.clone() };
        let words = [
            ("%SERVICE%", short),
            ("%SERVICE_NAME%", name),
            ("%SERVICE_FQDN%", host),
            ("%SUBSET_NAME%", self.subset.to_owned()),
            ("%TARGET_PORT%", self.target.to_string()),
            ("%SERVICE_PORT%", self.port.number.to_string()),
            ("%SERVICE_PORT_NAME%", self.port.name.clone()),
        ];
        let mut filled =
            words.iter().fold(pattern.to_owned(), |text, (word, value)| text.replace(word, value));
        filled.push(DELIMITER);
        filled
    }
}
