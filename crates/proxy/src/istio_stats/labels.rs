//! Label sets of Istio's metrics, rendered once per series.

use std::collections::BTreeMap;

use meltemi_compile::program::{ClusterService, Name, Reporter};
use meltemi_envoy::config::core::v3::Node;

use crate::record::{RecordView, RequestRecord, ResponseFlags};
use crate::stats::prometheus;

const UNKNOWN: &str = "unknown";

/// A workload as labels name it.
#[derive(Debug, Clone, Default)]
struct Workload {
    workload: Option<String>,
    namespace: Option<String>,
    app: Option<String>,
    version: Option<String>,
    canonical_service: Option<String>,
    canonical_revision: Option<String>,
    cluster: Option<String>,
}

/// What labels say of the own node, from its metadata.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    own: Workload,
    is_router: bool,
    service_cluster: Box<str>,
}

impl NodeFacts {
    /// Reads the metadata keys that Istio's agent writes.
    pub fn new(node: &Node) -> NodeFacts {
        let fields = node.metadata.as_ref().map(|metadata| &metadata.fields);
        let text = |key: &str| fields.and_then(|fields| string(fields.get(key)?));
        let labels: BTreeMap<&str, String> = fields
            .and_then(|fields| structure(fields.get("LABELS")?))
            .into_iter()
            .flat_map(|labels| labels.fields.iter())
            .filter_map(|(key, value)| Some((key.as_str(), string(value)?)))
            .collect();
        let label = |keys: &[&str]| keys.iter().find_map(|key| labels.get(key).cloned());
        let workload = text("WORKLOAD_NAME");
        let canonical_service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
            .or_else(|| workload.clone());
        let canonical_revision =
            label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
                .or_else(|| workload.as_ref().map(|_| "latest".to_owned()));
        let own = Workload {
            namespace: text("NAMESPACE"),
            app: label(&["app"]),
            version: label(&["version"]),
            canonical_service,
            canonical_revision,
            cluster: text("CLUSTER_ID"),
            workload,
        };
        NodeFacts {
            own,
            is_router: node.id.starts_with("router~"),
            service_cluster: node.cluster.as_str().into(),
        }
    }

    /// `node.cluster`.
    pub(crate) fn service_cluster(&self) -> &str {
        &self.service_cluster
    }

    /// Whether the `Host` header stands for a service that is not known: as Istio configures its filter, only on
    /// the outbound side of sidecars, where the workload itself chose the header.
    pub(super) fn falls_back_to_host(&self, reporter: Reporter) -> bool {
        reporter == Reporter::Source && !self.is_router
    }
}

fn string(value: &prost_types::Value) -> Option<String> {
    match &value.kind {
        Some(prost_types::value::Kind::StringValue(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn structure(value: &prost_types::Value) -> Option<&prost_types::Struct> {
    match &value.kind {
        Some(prost_types::value::Kind::StructValue(fields)) => Some(fields),
        _ => None,
    }
}

/// Clusters that stand for no service and are named by themselves.
pub(super) fn is_catch_all(cluster: &Name) -> bool {
    matches!(
        &**cluster,
        "BlackHoleCluster"
            | "PassthroughCluster"
            | "InboundPassthroughCluster"
            | "InboundPassthroughClusterIpv4"
            | "InboundPassthroughClusterIpv6"
    )
}

/// `Some` for gRPC, with the status when there is one.
pub(super) fn grpc_status(view: &RecordView<'_>) -> Option<Option<u8>> {
    let content_type = view.request?.headers.get(&http::header::CONTENT_TYPE)?;
    let rest = content_type.as_bytes().strip_prefix(b"application/grpc")?;
    if !matches!(rest.first(), None | Some(b'+' | b';')) {
        return None;
    }
    let name = http::HeaderName::from_static("grpc-status");
    let status = [view.trailers, view.response].into_iter().flatten().find_map(|headers| headers.get(&name));
    Some(status.and_then(|value| value.to_str().ok()?.parse().ok()))
}

/// Labels of a request.
pub(super) fn request(
    node: &NodeFacts,
    reporter: Reporter,
    record: &RequestRecord,
    host: Option<&str>,
    grpc: Option<Option<u8>>,
) -> String {
    let mut labels = Labels::flow(node, reporter, Some(record), host);
    labels.add("request_protocol", if grpc.is_some() { "grpc" } else { "http" });
    labels.add("response_code", &record.response_code.to_string());
    labels.add("grpc_response_status", &grpc.flatten().map(|status| status.to_string()).unwrap_or_default());
    labels.add_flags(record.flags);
    labels.end(reporter)
}

/// Labels of requests that found no room.
pub(super) fn request_overflow(node: &NodeFacts, reporter: Reporter) -> String {
    let mut labels = Labels::flow(node, reporter, None, None);
    for name in ["request_protocol", "response_code", "grpc_response_status", "response_flags"] {
        labels.add(name, UNKNOWN);
    }
    labels.end(reporter)
}

/// Labels of a TCP connection.
pub(super) fn tcp(node: &NodeFacts, reporter: Reporter, record: &RequestRecord) -> String {
    let mut labels = Labels::flow(node, reporter, Some(record), None);
    labels.add("request_protocol", "tcp");
    labels.add_flags(record.flags);
    labels.end(reporter)
}

/// Labels of TCP connections that found no room.
pub(super) fn tcp_overflow(node: &NodeFacts, reporter: Reporter) -> String {
    let mut labels = Labels::flow(node, reporter, None, None);
    labels.add("request_protocol", "tcp");
    labels.add("response_flags", UNKNOWN);
    labels.end(reporter)
}

/// Label text in the making: `name="value",…`.
struct Labels(String);

impl Labels {
    /// The labels of both kinds of metrics: reporter, source, destination, service.
    fn flow(
        node: &NodeFacts,
        reporter: Reporter,
        record: Option<&RequestRecord>,
        host: Option<&str>,
    ) -> Labels {
        let endpoint = record.and_then(|r| r.host.as_deref()?.workload.as_deref());
        let unknown = Workload::default();
        let peer = endpoint.map(Workload::of_endpoint).unwrap_or_default();
        let (name, source, destination) = match reporter {
            Reporter::Source => ("source", &node.own, &peer),
            Reporter::Destination => ("destination", &unknown, &node.own),
        };
        let mut labels = Labels(String::with_capacity(1024));
        labels.add("reporter", name);
        labels.add_workload("source", source);
        labels.add_workload("destination", destination);
        labels.add_service(record, host, destination);
        labels
    }

    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        prometheus::push_label(&mut self.0, name, value);
    }

    fn add_or_unknown(&mut self, name: &str, value: Option<&str>) {
        self.add(name, value.unwrap_or(UNKNOWN));
    }

    fn add_workload(&mut self, side: &str, of: &Workload) {
        let parts = [
            ("workload", &of.workload),
            ("workload_namespace", &of.namespace),
            ("principal", &None),
            ("app", &of.app),
            ("version", &of.version),
            ("canonical_service", &of.canonical_service),
            ("canonical_revision", &of.canonical_revision),
            ("cluster", &of.cluster),
        ];
        for (part, value) in parts {
            self.add_or_unknown(&format!("{side}_{part}"), value.as_deref());
        }
    }

    fn add_service(&mut self, record: Option<&RequestRecord>, host: Option<&str>, destination: &Workload) {
        let cluster = record.and_then(|record| record.cluster.as_deref());
        let service: Option<&ClusterService> = cluster.and_then(|cluster| cluster.service.as_ref());
        let catch_all = cluster.map(|cluster| &cluster.name).filter(|name| is_catch_all(name));
        let service_host = service.map(|service| &*service.host).or(host);
        let name = service.map(|service| &*service.name).or(catch_all.map(|name| &**name)).or(host);
        let namespace = service.map(|service| &*service.namespace).or(destination.namespace.as_deref());
        self.add_or_unknown("destination_service", service_host);
        self.add_or_unknown("destination_service_name", name);
        self.add_or_unknown("destination_service_namespace", namespace);
    }

    fn add_flags(&mut self, flags: ResponseFlags) {
        let mut short = Vec::new();
        flags.write_short(&mut short);
        self.add("response_flags", &String::from_utf8_lossy(&short));
    }

    /// Ends with `connection_security_policy`, which the client side does not know.
    fn end(mut self, reporter: Reporter) -> String {
        self.add(
            "connection_security_policy",
            match reporter {
                Reporter::Source => UNKNOWN,
                Reporter::Destination => "none",
            },
        );
        self.0
    }
}

impl Workload {
    /// Reads `workload;namespace;canonical service;canonical revision;cluster`.
    fn of_endpoint(text: &str) -> Workload {
        let mut parts = text.split(';').map(|part| Some(part.to_owned()).filter(|part| !part.is_empty()));
        let mut next = || parts.next().flatten();
        Workload {
            workload: next(),
            namespace: next(),
            canonical_service: next(),
            canonical_revision: next(),
            cluster: next(),
            app: None,
            version: None,
        }
    }
}
