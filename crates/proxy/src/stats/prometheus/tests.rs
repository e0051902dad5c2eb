//! The page as Prometheus reads it.

use meltemi_compile::program::{Cluster, ClusterService};

use super::envoy;
use crate::stats::Registry;
use crate::stats::{Sample, Value, text};

/// A static cluster as the compiler makes it.
pub(crate) fn cluster(name: &str) -> Cluster {
    let message = meltemi_envoy::config::cluster::v3::Cluster {
        name: name.to_owned(),
        load_assignment: Some(meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (mut cluster, _) = meltemi_compile::cluster(&message).expect("a plain cluster");
    cluster.service =
        Some(ClusterService { host: "h.default.svc".into(), name: "h".into(), namespace: "default".into() });
    cluster
}

#[test]
fn workers_are_summed_and_tags_are_taken_out() {
    let registry = Registry::new();
    let cluster = cluster("outbound|80||h");
    for (worker, status) in [(0, 200), (1, 200), (1, 503)] {
        let stats = registry.worker(worker).cluster(&cluster);
        stats.counts.upstream_rq_total.inc();
        stats.codes.record(status);
        stats.counts.upstream_rq_time.record(3);
    }
    let samples = registry.samples();
    let page = envoy(&samples);
    for line in [
        "# TYPE envoy_cluster_upstream_rq_total counter",
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"outbound|80||h\"} 3",
        "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|80||h\"} 2",
        "envoy_cluster_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"outbound|80||h\"} 1",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|80||h\",le=\"1\"} 0",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|80||h\",le=\"5\"} 3",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|80||h\",le=\"+Inf\"} 3",
        "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"outbound|80||h\"} 9",
        "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"outbound|80||h\"} 3",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    let text = text::lines(&samples);
    assert!(text.contains("cluster.outbound|80||h.upstream_rq_200: 2\n"), "{text}");
    assert!(text.contains("cluster.outbound|80||h.upstream_rq_5xx: 1\n"), "{text}");
}

#[test]
fn every_family_is_announced_once() {
    let registry = Registry::new();
    for name in ["a", "b"] {
        registry.worker(0).cluster(&cluster(name)).counts.upstream_cx_total.inc();
    }
    let page = envoy(&registry.samples());
    let mut types: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let all = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), all);
}

#[test]
fn labels_are_escaped_and_names_are_cleaned() {
    let sample = Sample {
        name: "x".into(),
        metric: "a-b.c".into(),
        labels: vec![("envoy_cluster_name".into(), "q\"\\\n".into())],
        value: Value::Gauge(1),
        used: true,
    };
    assert_eq!(
        envoy(&[sample]),
        "# TYPE envoy_a_b_c gauge\nenvoy_a_b_c{envoy_cluster_name=\"q\\\"\\\\\\n\"} 1\n"
    );
}

#[test]
fn statistics_survive_a_new_version_of_their_cluster_and_go_with_it() {
    let registry = Registry::new();
    let first = registry.worker(0).cluster(&cluster("a"));
    first.counts.upstream_rq_total.inc();
    let second = registry.worker(0).cluster(&cluster("a"));
    assert_eq!(second.counts.upstream_rq_total.get(), 1);
    drop((first, second));
    registry.prune();
    assert!(registry.samples().is_empty());
}
