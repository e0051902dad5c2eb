//! Series and labels, as Prometheus reads them.

mod micro;
mod peers;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use meltemi_compile::program::{Host, Reporter};
use meltemi_envoy::config::core::v3::Node;
use meltemi_http::{Headers, RequestHead, Text, Version};
use prost_types::value::Kind;

use super::{IstioReporter, NodeFacts};
use crate::record::{ConnectionInfo, RequestRecord, ResponseFlags};
use crate::stats::Registry;
use crate::stats::prometheus::tests::cluster;

const ADDRESS: &str = "127.0.0.1:80";

fn text(text: &str) -> prost_types::Value {
    prost_types::Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn structure<const N: usize>(fields: [(&str, prost_types::Value); N]) -> prost_types::Struct {
    prost_types::Struct { fields: fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect() }
}

fn node(id: &str) -> Arc<NodeFacts> {
    let labels = structure([("app", text("frontend")), ("version", text("v1"))]);
    let metadata = structure([
        ("WORKLOAD_NAME", text("frontend")),
        ("NAMESPACE", text("shop")),
        ("CLUSTER_ID", text("Kubernetes")),
        ("LABELS", prost_types::Value { kind: Some(Kind::StructValue(labels)) }),
    ]);
    Arc::new(NodeFacts::new(&Node { id: id.to_owned(), metadata: Some(metadata), ..Node::default() }))
}

fn record() -> RequestRecord {
    let address: SocketAddr = ADDRESS.parse().expect("address");
    let connection = ConnectionInfo::new(1, address, address, "l".into());
    let mut record = RequestRecord::new(Rc::new(connection), 1, Some(Version::Http11));
    record.response_code = 200;
    record.bytes_sent = 700;
    record
}

fn head(host: &str) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, "/");
    head.authority = Some(Text::from(host.to_owned()));
    head
}

fn host() -> Host {
    Host {
        address: ADDRESS.parse().expect("address"),
        workload: Some("reviews-v2;books;reviews;v2;remote".into()),
        ..Host::default()
    }
}

/// The value of `metric` whose labels hold all of these.
fn value(page: &str, metric: &str, labels: &[&str]) -> Option<u64> {
    let line = page.lines().find(|line| {
        line.starts_with(&format!("{metric}{{")) && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_client_names_itself_the_service_and_the_endpoints_workload() {
    let registry = Registry::new();
    let stats = registry.worker(0);
    let reporter = IstioReporter::new(stats.clone(), node("sidecar~1"), Reporter::Source);
    let cluster = stats.cluster(&cluster("outbound|80||h.default.svc"));
    let mut record = record();
    record.host = Some(cluster.host(&host()));
    record.cluster = Some(cluster);
    for _ in 0..3 {
        reporter.request(&record.view(Some(&head("h")), None, None));
    }
    let page = registry.istio_metrics("0");
    let labels = [
        "reporter=\"source\"",
        "source_workload=\"frontend\",source_workload_namespace=\"shop\",source_principal=\"unknown\"",
        "source_app=\"frontend\",source_version=\"v1\",source_canonical_service=\"frontend\"",
        "source_canonical_revision=\"v1\",source_cluster=\"Kubernetes\"",
        "destination_workload=\"reviews-v2\",destination_workload_namespace=\"books\"",
        "destination_canonical_service=\"reviews\",destination_canonical_revision=\"v2\",destination_cluster=\"remote\"",
        "destination_service=\"h.default.svc\",destination_service_name=\"h\"",
        "destination_service_namespace=\"default\"",
        "request_protocol=\"http\",response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\"",
        "connection_security_policy=\"unknown\"",
    ];
    assert_eq!(value(&page, "istio_requests_total", &labels), Some(3), "{page}");
    let bucket = [&labels[..], &["le=\"1000\""]].concat();
    assert_eq!(value(&page, "istio_response_bytes_bucket", &bucket), Some(3), "{page}");
    assert_eq!(value(&page, "istio_response_bytes_sum", &labels), Some(2100), "{page}");
}

#[test]
fn a_server_names_itself_as_destination_and_says_that_the_connection_is_plain() {
    let registry = Registry::new();
    let reporter = IstioReporter::new(registry.worker(0), node("sidecar~1"), Reporter::Destination);
    reporter.request(&record().view(Some(&head("h")), None, None));
    let page = registry.istio_metrics("0");
    let labels = [
        "reporter=\"destination\"",
        "source_workload=\"unknown\"",
        "destination_workload=\"frontend\"",
        "destination_service=\"unknown\"",
        "connection_security_policy=\"none\"",
    ];
    assert_eq!(value(&page, "istio_requests_total", &labels), Some(1), "{page}");
}

#[test]
fn grpc_calls_carry_their_status() {
    let registry = Registry::new();
    let reporter = IstioReporter::new(registry.worker(0), node("sidecar~1"), Reporter::Source);
    let mut head = head("h");
    head.headers
        .append(HeaderName::from_static("content-type"), HeaderValue::from_static("application/grpc+proto"));
    let mut trailers = Headers::new();
    trailers.append(HeaderName::from_static("grpc-status"), HeaderValue::from_static("14"));
    reporter.request(&record().view(Some(&head), None, Some(&trailers)));
    let page = registry.istio_metrics("0");
    let labels = ["request_protocol=\"grpc\"", "grpc_response_status=\"14\""];
    assert_eq!(value(&page, "istio_requests_total", &labels), Some(1), "{page}");
}

#[test]
fn only_the_outbound_side_of_a_sidecar_believes_the_host_header() {
    for (id, reporter, expected) in [
        ("sidecar~1", Reporter::Source, "destination_service=\"evil.example\""),
        ("router~1", Reporter::Source, "destination_service=\"unknown\""),
        ("sidecar~1", Reporter::Destination, "destination_service=\"unknown\""),
    ] {
        let registry = Registry::new();
        let reporter = IstioReporter::new(registry.worker(0), node(id), reporter);
        reporter.request(&record().view(Some(&head("evil.example")), None, None));
        let page = registry.istio_metrics("0");
        assert_eq!(value(&page, "istio_requests_total", &[expected]), Some(1), "{page}");
    }
}

#[test]
fn clients_cannot_grow_the_table_without_end() {
    let registry = Registry::new();
    let reporter = IstioReporter::new(registry.worker(0), node("sidecar~1"), Reporter::Source);
    let record = record();
    for index in 0..super::MAX_SERIES + 5 {
        reporter.request(&record.view(Some(&head(&format!("h{index}"))), None, None));
    }
    assert_eq!(reporter.requests.borrow().len(), super::MAX_SERIES + 1);
    let page = registry.istio_metrics("0");
    assert_eq!(value(&page, "istio_requests_total", &["response_code=\"unknown\""]), Some(5));
}

#[test]
fn a_connection_is_opened_in_one_series_and_closed_with_its_flags() {
    let registry = Registry::new();
    let reporter = IstioReporter::new(registry.worker(0), node("sidecar~1"), Reporter::Source);
    let mut record = record();
    reporter.tcp(&record).opened.inc();
    record.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
    reporter.tcp(&record).closed.inc();
    let page = registry.istio_metrics("0");
    let open = value(
        &page,
        "istio_tcp_connections_opened_total",
        &["response_flags=\"-\"", "request_protocol=\"tcp\""],
    );
    assert_eq!(
        (open, value(&page, "istio_tcp_connections_closed_total", &["response_flags=\"UF\""])),
        (Some(1), Some(1))
    );
}
