//! The health of hosts in `/stats`: who belongs to a cluster, and what checks found.

use meltemi_compile::program::{Cluster, Endpoints};

use crate::config::Store;
use crate::stats::{Sample, Value};
use crate::upstream::shared::{ClusterState, Health, HostStates, TotalKind};

/// `cluster.<name>.membership_*` and `cluster.<name>.outlier_detection.*` of every cluster in force.
pub(super) fn samples(store: &Store, hosts: &HostStates, samples: &mut Vec<Sample>) {
    let program = store.program();
    for cluster in program.clusters.values() {
        let state = hosts.cluster(cluster);
        let endpoints = program.endpoints.get(&cluster.name);
        membership(cluster, endpoints.map(|endpoints| &**endpoints), &state, samples);
        for (field, n) in state.layouts.table_sizes() {
            samples.push(sample(cluster, field, TotalKind::Gauge, n));
        }
        if cluster.outlier.is_some() {
            state.outlier.totals.visit(&mut |field, kind, n| {
                samples.push(sample(cluster, &format!("outlier_detection.{field}"), kind, n));
            });
        }
    }
}

fn membership(
    cluster: &Cluster,
    endpoints: Option<&Endpoints>,
    state: &ClusterState,
    samples: &mut Vec<Sample>,
) {
    let (mut total, mut healthy, mut degraded, mut excluded) = (0, 0, 0, 0);
    for host in endpoints.into_iter().flat_map(|endpoints| endpoints.priorities.iter().flatten()) {
        let checks = state.host(host.address);
        let discovered = Health::from(host.health);
        total += 1;
        healthy += u64::from(checks.health(discovered) == Health::Healthy);
        degraded += u64::from(checks.health(discovered) == Health::Degraded);
        excluded += u64::from(checks.is_excluded());
    }
    for (field, n) in [
        ("membership_total", total),
        ("membership_healthy", healthy),
        ("membership_degraded", degraded),
        ("membership_excluded", excluded),
    ] {
        samples.push(sample(cluster, field, TotalKind::Gauge, n));
    }
}

fn sample(cluster: &Cluster, field: &str, kind: TotalKind, n: u64) -> Sample {
    Sample {
        name: format!("cluster.{}.{field}", cluster.stat_name),
        metric: format!("cluster_{}", field.replace('.', "_")),
        labels: vec![("envoy_cluster_name", cluster.stat_name.to_string())],
        value: match kind {
            TotalKind::Counter => Value::Counter(n),
            TotalKind::Gauge => Value::Gauge(n),
        },
    }
}
