//! How a cluster picks a host: policies, hashing, slow start, localities.
//!
//! Source: Istio `pilot/pkg/networking/core/cluster_traffic_policy.go` (`applyLoadBalancer`), `loadbalancer`
//! (`ApplyToCluster`).

use meltemi_api::istio::{ConsistentHashLb, LoadBalancerSettings, SimpleLb, Warmup};
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use meltemi_envoy::config::cluster::v3::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
    SlowStartConfig,
};
use meltemi_envoy::config::core::v3::RuntimeDouble;
use meltemi_envoy::r#type::v3::Percent;

use crate::endpoint::Setting;
use crate::message::duration;

/// `minimumRingSize` where nobody says another.
const RING_SIZE: u64 = 1024;

/// `warmup.minimumPercent` and `warmup.aggression` where nobody says others.
const WARMUP_PERCENT: f64 = 10.0;
const WARMUP_AGGRESSION: f64 = 1.0;

/// Envoy wants the name of a runtime key; nobody can set one of this name.
const NO_RUNTIME_KEY: &str = "(";

/// Writes the settings into the cluster. One that dials the address that was asked for has nothing to pick from.
pub(super) fn apply(settings: Option<&LoadBalancerSettings>, cluster: &mut Cluster) {
    if cluster.lb_policy == LbPolicy::ClusterProvided as i32 {
        return;
    }
    let slow_start = settings.and_then(slow_start);
    match settings.and_then(|settings| settings.simple).unwrap_or_default() {
        SimpleLb::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin as i32;
            cluster.lb_config = slow_start.map(|slow_start| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow_start) })
            });
        }
        SimpleLb::Random => cluster.lb_policy = LbPolicy::Random as i32,
        // A gateway cannot pass through, so it balances.
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest | SimpleLb::Passthrough => {
            cluster.lb_policy = LbPolicy::LeastRequest as i32;
            cluster.lb_config = slow_start.map(|slow_start| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow_start),
                    ..Default::default()
                })
            });
        }
    }
    if let Some(hash) = settings.and_then(|settings| settings.consistent_hash.as_ref()) {
        consistent_hash(hash, cluster);
    }
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    if let Some(Warmup { duration: window, minimum_percent, aggression }) = &settings.warmup {
        return Some(SlowStartConfig {
            slow_start_window: window.map(duration),
            aggression: Some(RuntimeDouble {
                default_value: aggression.unwrap_or(WARMUP_AGGRESSION),
                runtime_key: NO_RUNTIME_KEY.to_owned(),
            }),
            min_weight_percent: Some(Percent { value: minimum_percent.unwrap_or(WARMUP_PERCENT) }),
        });
    }
    let window = settings.warmup_duration_secs?;
    Some(SlowStartConfig { slow_start_window: Some(duration(window)), ..Default::default() })
}

fn consistent_hash(hash: &ConsistentHashLb, cluster: &mut Cluster) {
    let size = |size: Option<i64>| size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0);
    let ring = |minimum: u64| {
        LbConfig::RingHashLbConfig(RingHashLbConfig {
            minimum_ring_size: Some(minimum),
            ..Default::default()
        })
    };
    let (policy, config) = match (&hash.maglev, &hash.ring_hash) {
        (Some(maglev), _) => {
            let table = |size| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(size) });
            (LbPolicy::Maglev, size(maglev.table_size).map(table))
        }
        (None, Some(ring_hash)) => (LbPolicy::RingHash, size(ring_hash.minimum_ring_size).map(ring)),
        (None, None) => (LbPolicy::RingHash, Some(ring(size(hash.minimum_ring_size).unwrap_or(RING_SIZE)))),
    };
    cluster.lb_policy = policy as i32;
    // The settings of the policy before it are of no use to it.
    cluster.lb_config = config;
}

/// Writes what the proxy has to know of localities into the cluster; `fails_over`: the cluster notices endpoints that are
/// down. Weights of localities disturb policies that look at load, so they count only where somebody asks for it.
pub(super) fn localities(setting: Setting<'_>, fails_over: bool, cluster: &mut Cluster) {
    let specifier = match setting {
        Setting::Locality(Some(setting))
            if !setting.distribute.is_empty()
                || fails_over && !(setting.failover.is_empty() && setting.failover_priority.is_empty()) =>
        {
            LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})
        }
        Setting::ZoneAware(setting) => {
            let is_off = setting.enabled == Some(false);
            LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
                routing_enabled: is_off.then_some(Percent { value: 0.0 }),
                min_cluster_size: setting.min_cluster_size.map(u64::from),
                ..Default::default()
            })
        }
        Setting::Off | Setting::Locality(_) => return,
    };
    cluster.common_lb_config.get_or_insert_default().locality_config_specifier = Some(specifier);
}
