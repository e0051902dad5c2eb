//! The TCP proxy.
//!
//! Source: `envoy.extensions.filters.network.tcp_proxy.v3`.

use std::time::Duration;

use meltemi_envoy::extensions::filters::network::tcp_proxy::v3 as proto;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::weighted_cluster::ClusterWeight;

use crate::access_log::{Place, access_logs};
use crate::ledger::{At, refuse};
use crate::program::{Name, TcpProxy};

/// `idle_timeout` when it is not set.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Compiles a TCP proxy.
pub(crate) fn tcp_proxy(at: &At<'_>, message: &proto::TcpProxy, istio_stats: bool) -> Option<TcpProxy> {
    let proto::TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = message;
    refuse!(at; on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, backoff_options);
    refuse!(at; hash_policy, tunneling_config, max_downstream_connection_duration, proxy_protocol_tlvs);
    refuse!(at; max_downstream_connection_duration_jitter_percentage, proxy_protocol_tlv_merge_policy);
    refuse!(at; access_log_flush_interval, flush_access_log_on_connected, access_log_options);
    refuse!(at; upstream_connect_mode, max_early_data_bytes);
    at.refuse_true("check_drain_close", *check_drain_close);
    at.required("stat_prefix", stat_prefix);
    Some(TcpProxy {
        stat_prefix: stat_prefix.as_str().into(),
        clusters: clusters(at, cluster_specifier.as_ref())?,
        idle_timeout: at.timeout("idle_timeout", idle_timeout, Some(IDLE_TIMEOUT)),
        max_connect_attempts: at.bounded("max_connect_attempts", *max_connect_attempts, 1, (1, u32::MAX)),
        access_log: access_logs(at, access_log, Place::Filter),
        istio_stats,
    })
}

fn clusters(at: &At<'_>, specifier: Option<&ClusterSpecifier>) -> Option<Vec<(Name, u32)>> {
    let weighted = match specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            at.required("cluster", name);
            return Some(vec![(name.as_str().into(), 1)]);
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted,
        None => return at.none("a cluster specifier must be set"),
    };
    let at = at.field("weighted_clusters");
    let clusters = at.each("clusters", &weighted.clusters, |at, message| {
        let ClusterWeight { name, weight, metadata_match } = message;
        refuse!(at; metadata_match);
        at.required("name", name);
        if *weight == 0 {
            at.field("weight").reject("must be at least 1");
        }
        Some((Name::from(name.as_str()), *weight))
    });
    let total: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if clusters.is_empty() {
        at.field("clusters").reject("must have at least one");
    }
    if total > u64::from(u32::MAX) {
        at.field("clusters").reject(format_args!("sum of weights {total} exceeds {}", u32::MAX));
    }
    Some(clusters)
}
