//! The other side of a call, as labels name it.

use super::*;
use crate::peer::{Interned, Peer, Workload};
use crate::tls::TlsFacts;

const CALLER: &str = "spiffe://cluster.local/ns/proved/sa/web";
const CALLED: &str = "spiffe://cluster.local/ns/shop/sa/frontend";

fn web() -> Peer {
    Interned::new(Workload {
        workload: Some("web-v3".into()),
        namespace: Some("said".into()),
        app: Some("web".into()),
        version: Some("v3".into()),
        canonical_service: Some("web".into()),
        canonical_revision: Some("latest".into()),
        cluster: Some("west".into()),
    })
}

/// A request over TLS in which these certificates were shown.
fn over_tls(is_validated: bool) -> RequestRecord {
    let mut record = record();
    let connection = Rc::make_mut(&mut record.connection);
    connection.tls = Some(Rc::new(TlsFacts::shown(CALLER, CALLED, is_validated)));
    record
}

fn counted(reporter: Reporter, records: &[RequestRecord]) -> String {
    let registry = Registry::new();
    let reporter = IstioReporter::new(registry.worker(0), node("sidecar~1"), reporter);
    for record in records {
        reporter.request(&record.view(Some(&head("h")), None, None));
    }
    registry.istio_metrics("0")
}

#[test]
fn a_server_names_its_caller() {
    let mut record = over_tls(true);
    record.downstream_peer = Some(web());
    let page = counted(Reporter::Destination, &[record.clone(), record]);
    let labels = [
        "source_workload=\"web-v3\",source_workload_namespace=\"proved\"",
        "source_principal=\"spiffe://cluster.local/ns/proved/sa/web\",source_app=\"web\",source_version=\"v3\"",
        "source_canonical_service=\"web\",source_canonical_revision=\"latest\",source_cluster=\"west\"",
        "destination_principal=\"spiffe://cluster.local/ns/shop/sa/frontend\"",
        "connection_security_policy=\"mutual_tls\"",
    ];
    assert_eq!(value(&page, "istio_requests_total", &labels), Some(2), "{page}");
}

#[test]
fn a_certificate_that_was_not_verified_proves_nothing() {
    let mut record = over_tls(false);
    record.downstream_peer = Some(web());
    let page = counted(Reporter::Destination, &[record]);
    let labels = [
        "source_workload=\"web-v3\",source_workload_namespace=\"said\",source_principal=\"unknown\"",
        "connection_security_policy=\"none\"",
    ];
    assert_eq!(value(&page, "istio_requests_total", &labels), Some(1), "{page}");
}

#[test]
fn a_caller_that_says_nothing_is_known_by_its_certificate() {
    let page = counted(Reporter::Destination, &[over_tls(true)]);
    let labels = [
        "source_workload=\"unknown\",source_workload_namespace=\"proved\"",
        "source_principal=\"spiffe://cluster.local/ns/proved/sa/web\",source_app=\"unknown\"",
        "connection_security_policy=\"mutual_tls\"",
    ];
    assert_eq!(value(&page, "istio_requests_total", &labels), Some(1), "{page}");
}

/// What the server says of itself counts before what the control plane says of the endpoint; a peer of a request is none of
/// the response.
#[test]
fn a_client_names_whom_it_called() {
    let registry = Registry::new();
    let stats = registry.worker(0);
    let reporter = IstioReporter::new(stats.clone(), node("sidecar~1"), Reporter::Source);
    let cluster = stats.cluster(&cluster("outbound|80||h.default.svc"));
    let mut record = record();
    record.host = Some(cluster.host(&host()));
    record.cluster = Some(cluster);
    record.downstream_peer = Some(web());
    reporter.request(&record.view(Some(&head("h")), None, None));
    record.upstream_tls = Some(Rc::new(TlsFacts::shown(CALLER, CALLED, true)));
    record.upstream_peer = Some(web());
    reporter.request(&record.view(Some(&head("h")), None, None));
    let page = registry.istio_metrics("0");
    let by_endpoint = ["destination_workload=\"reviews-v2\"", "destination_app=\"unknown\""];
    assert_eq!(value(&page, "istio_requests_total", &by_endpoint), Some(1), "{page}");
    let by_itself = [
        "source_principal=\"spiffe://cluster.local/ns/shop/sa/frontend\"",
        "destination_workload=\"web-v3\",destination_workload_namespace=\"proved\"",
        "destination_principal=\"spiffe://cluster.local/ns/proved/sa/web\",destination_app=\"web\"",
        "connection_security_policy=\"unknown\"",
    ];
    assert_eq!(value(&page, "istio_requests_total", &by_itself), Some(1), "{page}");
}

/// Connections and forgotten peers come anew, the series stay.
#[test]
fn equal_peers_count_in_one_series() {
    let registry = Registry::new();
    let reporter = IstioReporter::new(registry.worker(0), node("sidecar~1"), Reporter::Destination);
    for _ in 0..3 {
        let mut record = over_tls(true);
        record.downstream_peer = Some(web());
        reporter.request(&record.view(Some(&head("h")), None, None));
        reporter.tcp(&record).opened.inc();
    }
    assert_eq!((reporter.requests.borrow().len(), reporter.tcp.borrow().len()), (1, 1));
}
