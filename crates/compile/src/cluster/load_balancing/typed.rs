//! `envoy.extensions.load_balancing_policies.*`.

use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::LoadBalancingPolicy;
use meltemi_envoy::config::core::v3::RuntimeDouble;
use meltemi_envoy::extensions::load_balancing_policies::cluster_provided::v3::ClusterProvided;
use meltemi_envoy::extensions::load_balancing_policies::common::v3 as common;
use meltemi_envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use meltemi_envoy::extensions::load_balancing_policies::least_request::v3 as least_request_proto;
use meltemi_envoy::extensions::load_balancing_policies::least_request::v3::least_request::SelectionMethod;
use meltemi_envoy::extensions::load_balancing_policies::maglev::v3 as maglev_proto;
use meltemi_envoy::extensions::load_balancing_policies::random::v3::Random;
use meltemi_envoy::extensions::load_balancing_policies::ring_hash::v3 as ring_hash_proto;
use meltemi_envoy::extensions::load_balancing_policies::ring_hash::v3::ring_hash::HashFunction as FunctionField;
use meltemi_envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;

use meltemi_envoy::extensions::load_balancing_policies::subset::v3::Subset;

use super::{percent, subset, whole_percent};
use crate::extension::unpack;
use crate::ledger::{At, harmless, refuse};
use crate::load_balancing::{
    ConsistentHashing, HashFunction, LbPolicy, LeastRequest, LocalityLb, Maglev, RingHash, SlowStart,
    Subsets, ZoneAware,
};

/// `choice_count` when it is not set, and the least one.
const CHOICE_COUNT: u32 = 2;
/// `minimum_ring_size` when it is not set.
const MINIMUM_RING_SIZE: u64 = 1024;
/// The largest ring that Envoy takes, and `maximum_ring_size` when it is not set.
const MAXIMUM_RING_SIZE: u64 = 8 << 20;
/// `table_size` when it is not set.
const TABLE_SIZE: u64 = 65537;
/// The largest table that Envoy takes.
const MAX_TABLE_SIZE: u64 = 5_000_011;
/// The least `hash_balance_factor`: no host can have less than the average.
const MIN_BALANCE_FACTOR: u32 = 100;

type Compiled = Option<(LbPolicy, LocalityLb)>;

/// A policy with the subsets that it may stand in.
pub(super) type WithSubsets = Option<(LbPolicy, LocalityLb, Option<Subsets>)>;

/// The first policy of the list that is known, as in Envoy; it is refused when it asks for too much.
pub(super) fn first_known(at: &At<'_>, message: &LoadBalancingPolicy) -> WithSubsets {
    let mut unknown = Vec::new();
    for (i, policy) in message.policies.iter().enumerate() {
        let at = at.item("policies", i);
        let at = at.field("typed_extension_config");
        let config = policy.typed_extension_config.as_ref();
        let Some(any) = config.and_then(|config| config.typed_config.as_ref()) else {
            return at.field("typed_config").none("must be set");
        };
        let at = at.field("typed_config");
        if any.is::<Subset>() {
            return unpack(&at, any).and_then(|message| subset::compile(&at, &message));
        }
        match known(&at, any) {
            Some(known) => return known.map(|(policy, locality)| (policy, locality, None)),
            None => unknown.push(any.message_name()),
        }
    }
    at.field("policies").none(format_args!("none is supported: {}", unknown.join(", ")))
}

/// `None` when the type is not known; `Some(None)` when it was rejected.
fn known(at: &At<'_>, any: &Any) -> Option<Compiled> {
    if any.is::<RoundRobin>() {
        return Some(unpack(at, any).and_then(|message| round_robin(at, &message)));
    }
    if any.is::<least_request_proto::LeastRequest>() {
        return Some(unpack(at, any).and_then(|message| least_request(at, &message)));
    }
    if any.is::<Random>() {
        return Some(unpack(at, any).and_then(|message| random(at, &message)));
    }
    if any.is::<ring_hash_proto::RingHash>() {
        return Some(unpack(at, any).and_then(|message| ring_hash(at, &message)));
    }
    if any.is::<maglev_proto::Maglev>() {
        return Some(unpack(at, any).and_then(|message| maglev(at, &message)));
    }
    if any.is::<ClusterProvided>() {
        let ClusterProvided {} = unpack(at, any)?;
        return Some(Some((LbPolicy::ClusterProvided, LocalityLb::ZoneAware(ZoneAware::default()))));
    }
    None
}

pub(super) fn round_robin(at: &At<'_>, message: &RoundRobin) -> Compiled {
    let RoundRobin { slow_start_config, locality_lb_config } = message;
    let slow_start = slow_start(&at.field("slow_start_config"), slow_start_config.as_ref());
    let locality = locality(&at.field("locality_lb_config"), locality_lb_config.as_ref());
    Some((LbPolicy::RoundRobin { slow_start }, locality))
}

pub(super) fn random(at: &At<'_>, message: &Random) -> Compiled {
    let Random { locality_lb_config } = message;
    Some((LbPolicy::Random, locality(&at.field("locality_lb_config"), locality_lb_config.as_ref())))
}

pub(super) fn least_request(at: &At<'_>, message: &least_request_proto::LeastRequest) -> Compiled {
    let least_request_proto::LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = message;
    let choices = at.bounded("choice_count", *choice_count, CHOICE_COUNT, (CHOICE_COUNT, u32::MAX));
    let method = at.choice::<SelectionMethod>("selection_method", *selection_method)?;
    // Envoy refuses the deprecated flag.
    at.refuse_true("enable_full_scan", *enable_full_scan);
    let policy = LbPolicy::LeastRequest(LeastRequest {
        choice_count: (method == SelectionMethod::NChoices).then_some(choices),
        active_request_bias: runtime_double(active_request_bias.as_ref())
            .filter(|bias| *bias >= 0.0)
            .unwrap_or(1.0),
        slow_start: slow_start(&at.field("slow_start_config"), slow_start_config.as_ref()),
    });
    Some((policy, locality(&at.field("locality_lb_config"), locality_lb_config.as_ref())))
}

pub(super) fn ring_hash(at: &At<'_>, message: &ring_hash_proto::RingHash) -> Compiled {
    let ring_hash_proto::RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = message;
    let function = match at.choice("hash_function", *hash_function)? {
        FunctionField::DefaultHash | FunctionField::XxHash => HashFunction::XxHash,
        FunctionField::MurmurHash2 => HashFunction::MurmurHash2,
    };
    let minimum = ring_size(at, "minimum_ring_size", *minimum_ring_size, MINIMUM_RING_SIZE);
    let maximum = ring_size(at, "maximum_ring_size", *maximum_ring_size, MAXIMUM_RING_SIZE);
    if minimum > maximum {
        at.field("minimum_ring_size")
            .reject(format_args!("ring hash: minimum_ring_size ({minimum}) > maximum_ring_size ({maximum})"));
    }
    // The fields beside the message count only without it.
    let old = common::ConsistentHashingLbConfig {
        use_hostname_for_hashing: *use_hostname_for_hashing,
        hash_balance_factor: *hash_balance_factor,
        hash_policy: Vec::new(),
    };
    let hashing = match consistent_hashing_lb_config {
        Some(message) => hashing(&at.field("consistent_hashing_lb_config"), message),
        None => hashing(at, &old),
    };
    let policy = LbPolicy::RingHash(RingHash {
        function,
        minimum_ring_size: minimum,
        maximum_ring_size: maximum,
        hashing,
    });
    Some((policy, weighted(locality_weighted_lb_config.as_ref())))
}

fn ring_size(at: &At<'_>, field: &'static str, size: Option<u64>, default: u64) -> u64 {
    let size = size.unwrap_or(default);
    if size > MAXIMUM_RING_SIZE {
        at.field(field).reject(format_args!("must not be more than {MAXIMUM_RING_SIZE}"));
    }
    size
}

pub(super) fn maglev(at: &At<'_>, message: &maglev_proto::Maglev) -> Compiled {
    let maglev_proto::Maglev { table_size, consistent_hashing_lb_config, locality_weighted_lb_config } =
        message;
    let size = table_size.unwrap_or(TABLE_SIZE);
    if size > MAX_TABLE_SIZE {
        return at.field("table_size").none(format_args!("must not be more than {MAX_TABLE_SIZE}"));
    }
    if !is_prime(size) {
        return at.field("table_size").none("The table size of maglev must be prime number");
    }
    let hashing = consistent_hashing_lb_config
        .as_ref()
        .map(|message| hashing(&at.field("consistent_hashing_lb_config"), message))
        .unwrap_or_default();
    let policy = LbPolicy::Maglev(Maglev { table_size: u32::try_from(size).ok()?, hashing });
    Some((policy, weighted(locality_weighted_lb_config.as_ref())))
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

fn hashing(at: &At<'_>, message: &common::ConsistentHashingLbConfig) -> ConsistentHashing {
    let common::ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor, hash_policy } =
        message;
    refuse!(at; hash_policy);
    if hash_balance_factor.is_some_and(|factor| factor < MIN_BALANCE_FACTOR) {
        at.field("hash_balance_factor").reject(format_args!("must be at least {MIN_BALANCE_FACTOR}"));
    }
    ConsistentHashing { use_hostname: *use_hostname_for_hashing, balance_factor: *hash_balance_factor }
}

/// Hashing knows no zones; without weights the localities mean nothing.
fn weighted(message: Option<&LocalityWeightedLbConfig>) -> LocalityLb {
    match message {
        Some(LocalityWeightedLbConfig {}) => LocalityLb::Weighted,
        None => LocalityLb::ZoneAware(ZoneAware::default()),
    }
}

fn locality(at: &At<'_>, message: Option<&common::LocalityLbConfig>) -> LocalityLb {
    let default = LocalityLb::ZoneAware(ZoneAware::default());
    let Some(common::LocalityLbConfig { locality_config_specifier }) = message else { return default };
    match locality_config_specifier {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
            LocalityLb::Weighted
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(message)) => {
            LocalityLb::ZoneAware(zone_aware(&at.field("zone_aware_lb_config"), message))
        }
        None => default,
    }
}

fn zone_aware(at: &At<'_>, message: &ZoneAwareLbConfig) -> ZoneAware {
    let ZoneAwareLbConfig {
        routing_enabled,
        min_cluster_size,
        fail_traffic_on_panic,
        force_locality_direct_routing,
        force_local_zone,
        locality_basis,
    } = message;
    refuse!(at; force_locality_direct_routing, force_local_zone, locality_basis);
    let defaults = ZoneAware::default();
    ZoneAware {
        routing_enabled_percent: whole_percent(
            &at.field("routing_enabled"),
            routing_enabled,
            defaults.routing_enabled_percent,
        ),
        min_cluster_size: min_cluster_size.unwrap_or(defaults.min_cluster_size),
        fail_traffic_on_panic: *fail_traffic_on_panic,
    }
}

/// A window of 0 is none.
fn slow_start(at: &At<'_>, message: Option<&common::SlowStartConfig>) -> Option<SlowStart> {
    let common::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = message?;
    let window = at.positive("slow_start_window", slow_start_window)?;
    let min_weight = percent(&at.field("min_weight_percent"), min_weight_percent).unwrap_or(10.0) / 100.0;
    let aggression =
        runtime_double(aggression.as_ref()).filter(|aggression| *aggression > 0.0).unwrap_or(1.0);
    Some(SlowStart { window, aggression, min_weight })
}

fn runtime_double(message: Option<&RuntimeDouble>) -> Option<f64> {
    let RuntimeDouble { default_value, runtime_key } = message?;
    harmless!(RuntimeKey; runtime_key);
    Some(*default_value)
}
