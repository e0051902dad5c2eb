//! The TCP proxy: which cluster a connection goes to, and for how long.
//!
//! Source: `envoy.extensions.filters.network.tcp_proxy.v3`. Leaves out: on-demand clusters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use meltemi_envoy::config::core::v3::BackoffStrategy;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3 as proto;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::weighted_cluster::ClusterWeight;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TcpAccessLogOptions,
};
use meltemi_envoy::r#type::v3::hash_policy::PolicySpecifier;
use meltemi_envoy::r#type::v3::{HashPolicy, Percent, hash_policy};

use crate::access_log::access_logs;
use crate::ledger::{At, refuse};
use crate::metadata_match::{MetadataMatch, metadata_match};
use crate::program::{AccessLog, Name};

mod tunneling;

pub use tunneling::{TUNNEL_RESPONSE_HEADERS, TUNNEL_RESPONSE_TRAILERS, Tunneling};

/// `idle_timeout` when it is not set.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// `backoff_options.max_interval` when it is not set, as a multiple of the base interval.
const MAX_BACKOFF_FACTOR: u32 = 10;

/// `access_log_flush_interval` must be at least so long.
const MIN_FLUSH_INTERVAL: Duration = Duration::from_millis(1);

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Debug)]
pub struct TcpProxy {
    /// `stat_prefix`.
    pub stat_prefix: Name,
    /// `cluster` (one entry, weight 1) or `weighted_clusters`.
    pub clusters: Vec<TcpCluster>,
    /// `metadata_match`, for a cluster that another filter chose.
    pub metadata_match: Option<MetadataMatch>,
    /// `idle_timeout`, default 1 h; `None` is off (0).
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`; `None` is off.
    pub max_downstream_connection_duration: Option<Duration>,
    /// `max_downstream_connection_duration_jitter_percentage`, 0 to 100: how much longer a connection may live.
    pub max_downstream_connection_duration_jitter_percent: f64,
    /// `max_connect_attempts`, default 1.
    pub max_connect_attempts: u32,
    /// `backoff_options`: pauses between the attempts; none by default.
    pub backoff: Option<Backoff>,
    /// `hash_policy`, at most one.
    pub hash_policy: Option<TcpHashPolicy>,
    /// `access_log`.
    pub access_log: Vec<Arc<AccessLog>>,
    /// `access_log_options`.
    pub log_options: TcpLogOptions,
    /// `tunneling_config`.
    pub tunneling: Option<Tunneling>,
    /// The `istio.stats` network filter stands before this one: report `istio_tcp_*`.
    pub istio_stats: bool,
}

/// A cluster that connections may go to.
#[derive(Debug)]
pub struct TcpCluster {
    /// `cluster` or `name`.
    pub name: Name,
    /// `weight`.
    pub weight: u32,
    /// `metadata_match` of the proxy and of the entry, which wins where both name a key.
    pub metadata_match: Option<MetadataMatch>,
}

/// `envoy.config.core.v3.BackoffStrategy`: exponential with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// `base_interval`.
    pub base: Duration,
    /// `max_interval`, default ten times the base.
    pub max: Duration,
}

impl Backoff {
    /// The longest pause before attempt `number` (the first retry is 1); the pause is a random share of it.
    pub fn ceiling(&self, number: u32) -> Duration {
        let factor = 2_u32.checked_pow(number.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max)
    }
}

/// `envoy.type.v3.HashPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpHashPolicy {
    /// `source_ip`.
    SourceIp,
    /// `filter_state`: the object of that key, when it can be hashed.
    FilterState(Box<str>),
}

impl TcpHashPolicy {
    /// The key of a client address: XXH64 of its text, as Envoy's.
    pub fn of_address(address: IpAddr) -> u64 {
        TcpHashPolicy::of_text(&address.to_string())
    }

    /// The key of an object of filter state: XXH64 of its text.
    pub fn of_text(text: &str) -> u64 {
        xxhash_rust::xxh64::xxh64(text.as_bytes(), 0)
    }
}

/// When a connection is logged besides at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpLogOptions {
    /// `access_log_flush_interval`: again and again while it lives.
    pub flush_interval: Option<Duration>,
    /// `flush_access_log_on_connected`: when the upstream connection is there.
    pub on_connected: bool,
    /// `flush_access_log_on_start`: when it begins.
    pub on_start: bool,
}

/// Compiles a TCP proxy.
pub(crate) fn tcp_proxy(at: &At<'_>, message: &proto::TcpProxy, istio_stats: bool) -> Option<TcpProxy> {
    let proto::TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match: criteria,
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
    refuse!(at; on_demand, downstream_idle_timeout, upstream_idle_timeout);
    refuse!(at; proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy);
    refuse!(at; upstream_connect_mode, max_early_data_bytes);
    at.refuse_true("check_drain_close", *check_drain_close);
    at.required("stat_prefix", stat_prefix);
    let deprecated = TcpAccessLogOptions {
        access_log_flush_interval: *access_log_flush_interval,
        flush_access_log_on_connected: *flush_access_log_on_connected,
        flush_access_log_on_start: false,
    };
    let metadata_match = metadata_match(at, criteria);
    let max_duration = "max_downstream_connection_duration";
    Some(TcpProxy {
        stat_prefix: stat_prefix.as_str().into(),
        clusters: clusters(at, cluster_specifier.as_ref(), metadata_match.as_ref())?,
        metadata_match,
        idle_timeout: at.timeout("idle_timeout", idle_timeout, Some(IDLE_TIMEOUT)),
        max_downstream_connection_duration: at
            .at_least_a_millisecond(max_duration, max_downstream_connection_duration),
        max_downstream_connection_duration_jitter_percent: at.percent(
            "max_downstream_connection_duration_jitter_percentage",
            max_downstream_connection_duration_jitter_percentage,
        ),
        max_connect_attempts: at.bounded("max_connect_attempts", *max_connect_attempts, 1, (1, u32::MAX)),
        backoff: backoff_options.as_ref().and_then(|options| backoff(&at.field("backoff_options"), options)),
        hash_policy: hash(at, hash_policy),
        access_log: access_logs(at, access_log),
        log_options: log_options(at, access_log_options.as_ref(), deprecated),
        tunneling: match tunneling_config {
            Some(message) => Some(tunneling::tunneling(&at.field("tunneling_config"), message)?),
            None => None,
        },
        istio_stats,
    })
}

fn clusters(
    at: &At<'_>,
    specifier: Option<&ClusterSpecifier>,
    criteria: Option<&MetadataMatch>,
) -> Option<Vec<TcpCluster>> {
    let weighted = match specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            at.required("cluster", name);
            let metadata_match = criteria.cloned();
            return Some(vec![TcpCluster { name: name.as_str().into(), weight: 1, metadata_match }]);
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted,
        None => return at.none("a cluster specifier must be set"),
    };
    let at = at.field("weighted_clusters");
    let clusters = at.each("clusters", &weighted.clusters, |at, message| {
        let ClusterWeight { name, weight, metadata_match: own } = message;
        let metadata_match = match (criteria, metadata_match(at, own)) {
            (Some(all), Some(own)) => Some(all.merged(&own)),
            (all, own) => own.or_else(|| all.cloned()),
        };
        at.required("name", name);
        if *weight == 0 {
            at.field("weight").reject("must be at least 1");
        }
        Some(TcpCluster { name: name.as_str().into(), weight: *weight, metadata_match })
    });
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if clusters.is_empty() {
        at.field("clusters").reject("must have at least one");
    }
    if total > u64::from(u32::MAX) {
        at.field("clusters").reject(format_args!("sum of weights {total} exceeds {}", u32::MAX));
    }
    Some(clusters)
}

fn backoff(at: &At<'_>, message: &BackoffStrategy) -> Option<Backoff> {
    let BackoffStrategy { base_interval, max_interval } = message;
    if base_interval.is_none() {
        at.field("base_interval").reject("must be set");
    }
    let base = at.at_least_a_millisecond("base_interval", base_interval)?;
    let max =
        at.positive("max_interval", max_interval).unwrap_or_else(|| base.saturating_mul(MAX_BACKOFF_FACTOR));
    if max < base {
        at.field("max_interval").reject("must be greater than or equal to the base_interval");
    }
    Some(Backoff { base, max })
}

fn hash(at: &At<'_>, policies: &[HashPolicy]) -> Option<TcpHashPolicy> {
    if policies.len() > 1 {
        at.field("hash_policy").reject("at most one");
    }
    let HashPolicy { policy_specifier } = policies.first()?;
    let at = &at.item("hash_policy", 0);
    match policy_specifier {
        Some(PolicySpecifier::SourceIp(hash_policy::SourceIp {})) => Some(TcpHashPolicy::SourceIp),
        Some(PolicySpecifier::FilterState(hash_policy::FilterState { key })) => {
            at.field("filter_state").required("key", key);
            Some(TcpHashPolicy::FilterState(key.as_str().into()))
        }
        None => at.none("a policy specifier must be set"),
    }
}

/// The options, in their message or in the deprecated fields; Envoy does not take both.
fn log_options(
    at: &At<'_>,
    message: Option<&TcpAccessLogOptions>,
    deprecated: TcpAccessLogOptions,
) -> TcpLogOptions {
    if message.is_some() && deprecated != TcpAccessLogOptions::default() {
        at.field("access_log_options")
            .reject("Only one of access_log_options or its deprecated equivalents may be set");
    }
    let TcpAccessLogOptions {
        access_log_flush_interval,
        flush_access_log_on_connected,
        flush_access_log_on_start,
    } = message.copied().unwrap_or(deprecated);
    TcpLogOptions {
        flush_interval: at.at_least_a_millisecond("access_log_flush_interval", &access_log_flush_interval),
        on_connected: flush_access_log_on_connected,
        on_start: flush_access_log_on_start,
    }
}

impl At<'_> {
    /// A duration that Envoy wants to be a millisecond or longer.
    fn at_least_a_millisecond(
        &self,
        field: &'static str,
        value: &Option<prost_types::Duration>,
    ) -> Option<Duration> {
        let duration = self.duration(field, value)?;
        if duration < MIN_FLUSH_INTERVAL {
            return self.field(field).none("must be at least 0.001s");
        }
        Some(duration)
    }

    /// A percentage; absent is 0.
    fn percent(&self, field: &'static str, value: &Option<Percent>) -> f64 {
        let percent = value.as_ref().map_or(0.0, |percent| percent.value);
        if !(0.0..=100.0).contains(&percent) {
            self.field(field).reject(format_args!("{percent} is not between 0 and 100"));
        }
        percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_maximum() {
        let backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) };
        let ceilings: Vec<u128> = (1..=5).map(|number| backoff.ceiling(number).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1000]);
        assert_eq!(backoff.ceiling(40), backoff.max);
    }

    #[test]
    fn an_address_hashes_by_its_text() {
        let address = |text: &str| TcpHashPolicy::of_address(text.parse().unwrap());
        assert_eq!(address("127.0.0.1"), xxhash_rust::xxh64::xxh64(b"127.0.0.1", 0));
        assert_eq!(address("::1"), xxhash_rust::xxh64::xxh64(b"::1", 0));
    }
}
