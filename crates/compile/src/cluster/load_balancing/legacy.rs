//! The old `*_lb_config` of a cluster as the typed messages that replaced them.

use meltemi_envoy::config::cluster::v3::cluster::common_lb_config::{
    ConsistentHashingLbConfig as OldHashing, LocalityConfigSpecifier as OldLocality,
    LocalityWeightedLbConfig, ZoneAwareLbConfig as OldZoneAware,
};
use meltemi_envoy::config::cluster::v3::cluster::ring_hash_lb_config::HashFunction as OldFunction;
use meltemi_envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
    SlowStartConfig as OldSlowStart,
};
use meltemi_envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig as Weighted, ZoneAwareLbConfig,
};
use meltemi_envoy::extensions::load_balancing_policies::common::v3::{
    ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig,
};
use meltemi_envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use meltemi_envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use meltemi_envoy::extensions::load_balancing_policies::random::v3::Random;
use meltemi_envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;
use meltemi_envoy::extensions::load_balancing_policies::ring_hash::v3::ring_hash::HashFunction;
use meltemi_envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;

pub(super) fn round_robin(message: RoundRobinLbConfig, common: &CommonLbConfig) -> RoundRobin {
    let RoundRobinLbConfig { slow_start_config } = message;
    RoundRobin { slow_start_config: slow_start_config.map(slow_start), locality_lb_config: locality(common) }
}

pub(super) fn least_request(message: LeastRequestLbConfig, common: &CommonLbConfig) -> LeastRequest {
    let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = message;
    LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config: slow_start_config.map(slow_start),
        locality_lb_config: locality(common),
        ..LeastRequest::default()
    }
}

pub(super) fn random(common: &CommonLbConfig) -> Random {
    Random { locality_lb_config: locality(common) }
}

pub(super) fn ring_hash(message: RingHashLbConfig, common: &CommonLbConfig) -> RingHash {
    let RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size } = message;
    // Numbers that neither enum knows stay as they are, and are refused where the typed message is read.
    let hash_function = match OldFunction::try_from(hash_function) {
        Ok(OldFunction::XxHash) => HashFunction::XxHash as i32,
        Ok(OldFunction::MurmurHash2) => HashFunction::MurmurHash2 as i32,
        Err(_) => i32::MAX,
    };
    RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        consistent_hashing_lb_config: hashing(common),
        locality_weighted_lb_config: locality_weighted(common),
        ..RingHash::default()
    }
}

pub(super) fn maglev(message: MaglevLbConfig, common: &CommonLbConfig) -> Maglev {
    let MaglevLbConfig { table_size } = message;
    Maglev {
        table_size,
        consistent_hashing_lb_config: hashing(common),
        locality_weighted_lb_config: locality_weighted(common),
    }
}

fn slow_start(message: OldSlowStart) -> SlowStartConfig {
    let OldSlowStart { slow_start_window, aggression, min_weight_percent } = message;
    SlowStartConfig { slow_start_window, aggression, min_weight_percent }
}

fn hashing(common: &CommonLbConfig) -> Option<ConsistentHashingLbConfig> {
    let OldHashing { use_hostname_for_hashing, hash_balance_factor } = common.consistent_hashing_lb_config?;
    Some(ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor, hash_policy: Vec::new() })
}

fn locality_weighted(common: &CommonLbConfig) -> Option<Weighted> {
    match common.locality_config_specifier {
        Some(OldLocality::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => Some(Weighted {}),
        // Hashing knows no zones, in Envoy neither.
        Some(OldLocality::ZoneAwareLbConfig(_)) | None => None,
    }
}

fn locality(common: &CommonLbConfig) -> Option<LocalityLbConfig> {
    let specifier = match common.locality_config_specifier? {
        OldLocality::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}) => {
            LocalityConfigSpecifier::LocalityWeightedLbConfig(Weighted {})
        }
        OldLocality::ZoneAwareLbConfig(zone_aware) => {
            let OldZoneAware { routing_enabled, min_cluster_size, fail_traffic_on_panic } = zone_aware;
            LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
                ..ZoneAwareLbConfig::default()
            })
        }
    };
    Some(LocalityLbConfig { locality_config_specifier: Some(specifier) })
}
