//! The health of hosts in `/stats` and `/clusters`: who belongs to a cluster, and what checks found.

use meltemi_compile::program::{Cluster, Endpoints};
use meltemi_envoy::config::core::v3::HealthStatus;

use crate::config::Store;
use crate::stats::{Sample, Value};
use crate::upstream::shared::{ClusterState, Health, HealthFlag, HostState, HostStates, TotalKind};

/// `cluster.<name>.membership_*`, `.outlier_detection.*` and the like of every cluster in force.
pub(super) fn samples(store: &Store, hosts: &HostStates, samples: &mut Vec<Sample>) {
    let program = store.program();
    for cluster in program.clusters.values() {
        let state = hosts.cluster(cluster);
        let endpoints = program.endpoints.get(&cluster.name);
        membership(cluster, endpoints.map(|endpoints| &**endpoints), &state, samples);
        for (field, n) in state.layouts.table_sizes() {
            samples.push(sample(cluster, field, TotalKind::Gauge, n));
        }
        for name in cluster.transport_sockets.names() {
            let field = format!("{name}.total_match_count");
            samples.push(sample(cluster, &field, TotalKind::Counter, state.transport_socket_count(name)));
        }
        if cluster.health_check.is_some() {
            state.checks.visit(&mut |field, kind, n| {
                samples.push(sample(cluster, &format!("health_check.{field}"), kind, n));
            });
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
        labels: vec![("envoy_cluster_name".into(), cluster.stat_name.to_string())],
        value: match kind {
            TotalKind::Counter => Value::Counter(n),
            TotalKind::Gauge => Value::Gauge(n),
        },
        used: true,
    }
}

/// A flag with its names in the text and in the JSON form of `/clusters`.
type FlagNames = (HealthFlag, &'static str, &'static str);

/// The flags that Envoy shows before those of discovery, in its order.
const FAILED: [FlagNames; 2] = [
    (HealthFlag::FailedActiveHc, "/failed_active_hc", "failed_active_health_check"),
    (HealthFlag::FailedOutlierCheck, "/failed_outlier_check", "failed_outlier_check"),
];

const DEGRADED: FlagNames =
    (HealthFlag::DegradedActiveHc, "/degraded_active_hc", "failed_active_degraded_check");

/// And those after them.
const OTHERS: [FlagNames; 4] = [
    (HealthFlag::PendingDynamicRemoval, "/pending_dynamic_removal", "pending_dynamic_removal"),
    (HealthFlag::PendingActiveHc, "/pending_active_hc", "pending_active_hc"),
    (
        HealthFlag::ExcludedViaImmediateHcFail,
        "/excluded_via_immediate_hc_fail",
        "excluded_via_immediate_hc_fail",
    ),
    (HealthFlag::ActiveHcTimeout, "/active_hc_timeout", "active_hc_timeout"),
];

/// `health_flags` of the text form.
pub(super) fn flags_text(state: &HostState, discovered: HealthStatus) -> String {
    let shown = |(flag, text, _): &FlagNames| if state.flags.has(*flag) { *text } else { "" };
    let health = Health::from(discovered);
    let mut flags: String = FAILED.iter().map(shown).collect();
    let draining = discovered == HealthStatus::Draining;
    flags.push_str(if health == Health::Unhealthy && !draining { "/failed_eds_health" } else { "" });
    flags.push_str(shown(&DEGRADED));
    flags.push_str(if health == Health::Degraded { "/degraded_eds_health" } else { "" });
    flags.extend(OTHERS.iter().map(shown));
    flags.push_str(if draining { "/eds_status_draining" } else { "" });
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

/// The fields of `envoy.admin.v3.HostHealthStatus` that are true.
pub(super) fn flags(state: &HostState) -> impl Iterator<Item = &'static str> {
    let all = FAILED.iter().chain([&DEGRADED]).chain(&OTHERS);
    all.filter(|(flag, ..)| state.flags.has(*flag)).map(|(_, _, name)| *name)
}
