//! How a host is picked: `lb_policy`, or the typed `load_balancing_policy` that stands above it.

use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3 as proto;
use meltemi_envoy::config::cluster::v3::LoadBalancingPolicy;
use meltemi_envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy as LbPolicyField, LeastRequestLbConfig,
    RoundRobinLbConfig,
};
use meltemi_envoy::config::core::v3::RuntimeDouble;
use meltemi_envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use meltemi_envoy::extensions::load_balancing_policies::random::v3::Random;
use meltemi_envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;

use crate::extension::unpack;
use crate::ledger::{At, harmless, refuse};
use crate::program::LbPolicy;

/// `choice_count` when it is not set, and the least one.
const CHOICE_COUNT: u32 = 2;

/// Compiles the policy of a cluster.
pub(super) fn policy(at: &At<'_>, message: &proto::Cluster) -> Option<LbPolicy> {
    let original_dst = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32);
    let is_original_dst = message.cluster_discovery_type == Some(original_dst);
    if let Some(typed) = &message.load_balancing_policy {
        // ORIGINAL_DST has its own balancer, whatever is named.
        let policy = typed_policy(&at.field("load_balancing_policy"), typed)?;
        return Some(if is_original_dst { LbPolicy::ClusterProvided } else { policy });
    }
    let config = message.lb_config.as_ref();
    let policy = match (at.choice("lb_policy", message.lb_policy)?, config) {
        (LbPolicyField::RoundRobin, None) => LbPolicy::RoundRobin,
        (LbPolicyField::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
            let RoundRobinLbConfig { slow_start_config } = config;
            refuse!(at.field("round_robin_lb_config"); slow_start_config);
            LbPolicy::RoundRobin
        }
        (LbPolicyField::LeastRequest, None) => LbPolicy::LeastRequest { choice_count: CHOICE_COUNT },
        (LbPolicyField::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
            least_request_config(&at.field("least_request_lb_config"), config)
        }
        (LbPolicyField::Random, None) => LbPolicy::Random,
        (LbPolicyField::ClusterProvided, None) if is_original_dst => LbPolicy::ClusterProvided,
        (LbPolicyField::ClusterProvided, _) if !is_original_dst => {
            return at.field("lb_policy").none("CLUSTER_PROVIDED needs a cluster that provides a balancer");
        }
        (LbPolicyField::RingHash | LbPolicyField::Maglev, _) => {
            return at.field("lb_policy").none("not supported yet");
        }
        (LbPolicyField::LoadBalancingPolicyConfig, _) => {
            return at.field("load_balancing_policy").none("must be set");
        }
        (_, Some(_)) => return at.field("lb_config").none("not supported with this lb_policy"),
        (LbPolicyField::ClusterProvided, None) => LbPolicy::ClusterProvided,
    };
    if is_original_dst && policy != LbPolicy::ClusterProvided {
        return at.field("lb_policy").none("must be CLUSTER_PROVIDED for an ORIGINAL_DST cluster");
    }
    Some(policy)
}

fn least_request_config(at: &At<'_>, message: &LeastRequestLbConfig) -> LbPolicy {
    let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = message;
    refuse!(at; slow_start_config);
    check_bias(at, active_request_bias.as_ref());
    LbPolicy::LeastRequest { choice_count: choices(at, *choice_count) }
}

/// The first policy of the list that is known, as in Envoy; it is refused when it asks for too much.
fn typed_policy(at: &At<'_>, message: &LoadBalancingPolicy) -> Option<LbPolicy> {
    let mut unknown = Vec::new();
    for (i, policy) in message.policies.iter().enumerate() {
        let at = at.item("policies", i);
        let at = at.field("typed_extension_config");
        let config = policy.typed_extension_config.as_ref();
        let Some(any) = config.and_then(|config| config.typed_config.as_ref()) else {
            return at.field("typed_config").none("must be set");
        };
        match known_policy(&at.field("typed_config"), any) {
            Some(known) => return known,
            None => unknown.push(any.message_name()),
        }
    }
    at.field("policies").none(format_args!("none is supported: {}", unknown.join(", ")))
}

/// `None` when the type is not known; `Some(None)` when it was rejected.
fn known_policy(at: &At<'_>, any: &Any) -> Option<Option<LbPolicy>> {
    if any.is::<RoundRobin>() {
        return Some(unpack(at, any).map(|message: RoundRobin| {
            let RoundRobin { slow_start_config, locality_lb_config } = &message;
            refuse!(at; slow_start_config, locality_lb_config);
            LbPolicy::RoundRobin
        }));
    }
    if any.is::<Random>() {
        return Some(unpack(at, any).map(|message: Random| {
            let Random { locality_lb_config } = &message;
            refuse!(at; locality_lb_config);
            LbPolicy::Random
        }));
    }
    if any.is::<LeastRequest>() {
        return Some(unpack(at, any).map(|message: LeastRequest| least_request(at, &message)));
    }
    None
}

fn least_request(at: &At<'_>, message: &LeastRequest) -> LbPolicy {
    let LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = message;
    refuse!(at; slow_start_config, locality_lb_config, selection_method);
    at.refuse_true("enable_full_scan", *enable_full_scan);
    check_bias(at, active_request_bias.as_ref());
    LbPolicy::LeastRequest { choice_count: choices(at, *choice_count) }
}

fn choices(at: &At<'_>, count: Option<u32>) -> u32 {
    at.bounded("choice_count", count, CHOICE_COUNT, (CHOICE_COUNT, u32::MAX))
}

/// The weight of a host is divided by its active requests; other exponents than 1 are not supported.
fn check_bias(at: &At<'_>, bias: Option<&RuntimeDouble>) {
    let Some(RuntimeDouble { default_value, runtime_key }) = bias else { return };
    harmless!(RuntimeKey; runtime_key);
    if *default_value != 1.0 {
        at.field("active_request_bias").field("default_value").reject("not supported yet: only 1.0");
    }
}
