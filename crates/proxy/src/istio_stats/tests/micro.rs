//! Instruction counts of what a request adds to the statistics; `scripts/bench-micro` runs these under callgrind.

use std::hint::black_box;
use std::time::Duration;

use super::{IstioReporter, Registry, Reporter, cluster, head, host, node, record};
use crate::random::micro_iterations;

/// What the connection manager, the cluster and the host count of a request that was answered at the first attempt.
#[test]
#[ignore = "an instruction count"]
fn statistics_of_envoy() {
    let registry = Registry::new();
    let stats = registry.worker(0);
    let http = stats.http(&"h".into());
    let cluster = stats.cluster(&cluster("outbound|80||h.default.svc"));
    let host = cluster.host(&host());
    for _ in 0..micro_iterations() {
        let (downstream, upstream) = black_box((&http.counts, &cluster.counts));
        downstream.downstream_rq_total.inc();
        downstream.downstream_rq_http1_total.inc();
        downstream.downstream_rq_active.inc();
        downstream.rq_total.inc();
        upstream.upstream_rq_total.inc();
        upstream.upstream_rq_active.inc();
        host.counts.rq_total.inc();
        host.counts.rq_active.inc();
        cluster.codes.record(200);
        upstream.upstream_rq_time.record_millis(Duration::from_millis(3));
        host.counts.rq_success.inc();
        host.counts.rq_active.dec();
        upstream.upstream_rq_active.dec();
        http.codes.record(200);
        downstream.downstream_rq_time.record_millis(Duration::from_millis(3));
        downstream.downstream_rq_active.dec();
    }
    assert!(http.codes.completed.get() > 0);
}

/// Istio's metrics of a request: the series is found by its labels.
#[test]
#[ignore = "an instruction count"]
fn statistics_of_istio() {
    let registry = Registry::new();
    let stats = registry.worker(0);
    let reporter = IstioReporter::new(stats.clone(), node("sidecar~1"), Reporter::Source);
    let cluster = stats.cluster(&cluster("outbound|80||h.default.svc"));
    let mut record = record();
    record.host = Some(cluster.host(&host()));
    record.cluster = Some(cluster);
    let head = head("h");
    for _ in 0..micro_iterations() {
        reporter.request(black_box(&record.view(Some(&head), None, None)));
    }
    assert!(!registry.istio_metrics("0").is_empty());
}
