//! Label sets of Istio's metrics, rendered once per series.

use meltemi_compile::program::{ClusterService, Name, Reporter};

use super::PeerKey;
use crate::peer::{NodeFacts, Principals, Workload};
use crate::record::{RecordView, RequestRecord, ResponseFlags};
use crate::stats::prometheus;

const UNKNOWN: &str = "unknown";

/// A call whose labels are written.
#[derive(Clone, Copy)]
pub(super) struct Flow<'a> {
    pub(super) record: &'a RequestRecord,
    pub(super) peer: &'a PeerKey,
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
    flow: Flow<'_>,
    grpc: Option<Option<u8>>,
) -> String {
    let record = flow.record;
    let mut labels = Labels::flow(node, reporter, Some(flow));
    labels.add("request_protocol", if grpc.is_some() { "grpc" } else { "http" });
    labels.add("response_code", &record.response_code.to_string());
    labels.add("grpc_response_status", &grpc.flatten().map(|status| status.to_string()).unwrap_or_default());
    labels.add_flags(record.flags);
    labels.end(reporter, Some(flow))
}

/// Labels of requests that found no room.
pub(super) fn request_overflow(node: &NodeFacts, reporter: Reporter) -> String {
    let mut labels = Labels::flow(node, reporter, None);
    for name in ["request_protocol", "response_code", "grpc_response_status", "response_flags"] {
        labels.add(name, UNKNOWN);
    }
    labels.end(reporter, None)
}

/// Labels of a TCP connection.
pub(super) fn tcp(node: &NodeFacts, reporter: Reporter, flow: Flow<'_>) -> String {
    let mut labels = Labels::flow(node, reporter, Some(flow));
    labels.add("request_protocol", "tcp");
    labels.add_flags(flow.record.flags);
    labels.end(reporter, Some(flow))
}

/// Labels of TCP connections that found no room.
pub(super) fn tcp_overflow(node: &NodeFacts, reporter: Reporter) -> String {
    let mut labels = Labels::flow(node, reporter, None);
    labels.add("request_protocol", "tcp");
    labels.add("response_flags", UNKNOWN);
    labels.end(reporter, None)
}

/// Label text in the making: `name="value",…`.
struct Labels(String);

impl Labels {
    /// The labels of both kinds of metrics: reporter, source, destination, service.
    fn flow(node: &NodeFacts, reporter: Reporter, flow: Option<Flow<'_>>) -> Labels {
        let peer = flow.map(|flow| flow.workload(reporter)).unwrap_or_default();
        let principals = flow.map(Flow::principals).unwrap_or_default();
        let (theirs, ours) = (principals.peer.as_deref(), principals.local.as_deref());
        let mut labels = Labels(String::with_capacity(1024));
        let destination = match reporter {
            Reporter::Source => {
                labels.add("reporter", "source");
                labels.add_workload("source", node.own(), ours);
                labels.add_workload("destination", &peer, theirs);
                &peer
            }
            Reporter::Destination => {
                labels.add("reporter", "destination");
                labels.add_workload("source", &peer, theirs);
                labels.add_workload("destination", node.own(), ours);
                node.own()
            }
        };
        labels.add_service(flow, destination);
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

    fn add_workload(&mut self, side: &str, of: &Workload, principal: Option<&str>) {
        let parts = [
            ("workload", of.workload.as_deref()),
            ("workload_namespace", of.namespace.as_deref()),
            ("principal", principal),
            ("app", of.app.as_deref()),
            ("version", of.version.as_deref()),
            ("canonical_service", of.canonical_service.as_deref()),
            ("canonical_revision", of.canonical_revision.as_deref()),
            ("cluster", of.cluster.as_deref()),
        ];
        for (part, value) in parts {
            self.add_or_unknown(&format!("{side}_{part}"), value);
        }
    }

    fn add_service(&mut self, flow: Option<Flow<'_>>, destination: &Workload) {
        let cluster = flow.and_then(|flow| flow.record.cluster.as_deref());
        let host = flow.and_then(|flow| flow.peer.host.as_deref());
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
    fn end(mut self, reporter: Reporter, flow: Option<Flow<'_>>) -> String {
        let policy = match (reporter, flow.map(Flow::principals)) {
            (Reporter::Source, _) | (_, None) => UNKNOWN,
            (_, Some(Principals { peer: Some(_), local: Some(_) })) => "mutual_tls",
            _ => "none",
        };
        self.add("connection_security_policy", policy);
        self.0
    }
}

impl Flow<'_> {
    /// The workload at the other end. Its namespace is that of its principal, if it has one: that is proved.
    fn workload(self, reporter: Reporter) -> Workload {
        let told = self.peer.peer.as_ref().map(|peer| peer.value().clone());
        let endpoint = || {
            let host = self.record.host.as_deref().filter(|_| reporter == Reporter::Source)?;
            host.workload.as_deref().map(Workload::of_endpoint)
        };
        let mut workload = told.or_else(endpoint).unwrap_or_default();
        let principals = self.principals();
        if let Some(proved) = principals.peer.as_deref().and_then(namespace) {
            workload.namespace = Some(proved.into());
        }
        workload
    }

    fn principals(self) -> Principals {
        self.peer.principals.as_ref().map(|principals| principals.value().clone()).unwrap_or_default()
    }
}

/// The namespace in `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn namespace(principal: &str) -> Option<&str> {
    let (_, rest) = principal.split_once("/ns/")?;
    rest.split('/').next().filter(|namespace| !namespace.is_empty())
}
