//! How a host is picked: `lb_policy` with its `lb_config`, or the typed `load_balancing_policy` that stands above them.
//!
//! The old fields become the typed messages, as in Envoy, and those are compiled (`typed`).

use std::time::Duration;

use meltemi_envoy::config::cluster::v3 as proto;
use meltemi_envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, LbConfig, LbPolicy as LbPolicyField,
    OriginalDstLbConfig,
};
use meltemi_envoy::r#type::v3::Percent;

use crate::ledger::{At, harmless, refuse};
use crate::load_balancing::{LbPolicy, LoadBalancing, LocalityLb, OriginalDst, ZoneAware};

mod legacy;
mod subset;
mod typed;

/// `healthy_panic_threshold` when it is not set.
const PANIC_THRESHOLD_PERCENT: u32 = 50;

/// `cleanup_interval` when it is not set.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);
/// `http_header_name` when it is not set.
const ORIGINAL_DST_HEADER: &str = "x-envoy-original-dst-host";

/// Compiles all fields of a cluster that concern the choice of a host.
pub(super) fn compile(at: &At<'_>, message: &proto::Cluster) -> Option<LoadBalancing> {
    let common = message.common_lb_config.clone().unwrap_or_default();
    let panic_threshold_percent = common_fields(&at.field("common_lb_config"), &common);
    let (policy, locality, subsets) = match &message.load_balancing_policy {
        Some(typed) => typed::first_known(&at.field("load_balancing_policy"), typed)?,
        None => {
            let (policy, locality) = legacy(at, message, &common)?;
            let config = message.lb_subset_config.as_ref().map(subset::legacy);
            let at = at.field("lb_subset_config");
            (policy, locality, config.and_then(|config| subset::subsets(&at, &config)))
        }
    };
    let is_type =
        |kind: DiscoveryType| message.cluster_discovery_type == Some(ClusterDiscoveryType::Type(kind as i32));
    let is_original_dst = is_type(DiscoveryType::OriginalDst);
    if !is_original_dst {
        let cleanup_interval = &message.cleanup_interval;
        harmless!(OtherPolicy; cleanup_interval);
    }
    let by_hostname = common.consistent_hashing_lb_config.is_some_and(|hash| hash.use_hostname_for_hashing);
    if by_hostname && !is_type(DiscoveryType::StrictDns) {
        at.field("common_lb_config").field("consistent_hashing_lb_config").reject(
            "Cannot use hostname for consistent hashing loadbalancing for cluster of this type: only STRICT_DNS",
        );
    }
    if !is_original_dst && policy == LbPolicy::ClusterProvided {
        return at.field("lb_policy").none("CLUSTER_PROVIDED needs a cluster that provides a balancer");
    }
    if is_original_dst && policy != LbPolicy::ClusterProvided && message.load_balancing_policy.is_none() {
        return at.field("lb_policy").none("must be CLUSTER_PROVIDED for an ORIGINAL_DST cluster");
    }
    Some(LoadBalancing {
        // ORIGINAL_DST has its own balancer, whatever is named.
        policy: if is_original_dst { LbPolicy::ClusterProvided } else { policy },
        locality,
        panic_threshold_percent,
        close_connections_on_host_set_change: common.close_connections_on_host_set_change,
        subsets: subsets.filter(|_| !is_original_dst),
        original_dst: if is_original_dst { original_dst(at, message) } else { None },
    })
}

/// The balancer of `ORIGINAL_DST` clusters.
fn original_dst(at: &At<'_>, message: &proto::Cluster) -> Option<OriginalDst> {
    let cleanup_interval = at.positive("cleanup_interval", &message.cleanup_interval);
    let none = OriginalDstLbConfig::default();
    let config = match &message.lb_config {
        Some(LbConfig::OriginalDstLbConfig(config)) => config,
        _ => &none,
    };
    let at = at.field("original_dst_lb_config");
    let OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override, metadata_key } =
        config;
    refuse!(at; metadata_key);
    if !use_http_header && !http_header_name.is_empty() {
        at.field("http_header_name").reject("needs use_http_header");
    }
    let name = if http_header_name.is_empty() { ORIGINAL_DST_HEADER } else { http_header_name };
    Some(OriginalDst {
        header: at.header_name("http_header_name", name).filter(|_| *use_http_header),
        port: upstream_port_override.and_then(|port| at.port("upstream_port_override", port)),
        cleanup_interval: cleanup_interval.unwrap_or(CLEANUP_INTERVAL),
    })
}

/// Reads what stands beside every policy; gives the panic threshold.
fn common_fields(at: &At<'_>, message: &CommonLbConfig) -> u32 {
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        // Read by the cluster.
        ignore_new_hosts_until_first_hc: _,
        close_connections_on_host_set_change: _,
        override_host_status,
        // Read by `legacy`; a typed policy brings its own, as in Envoy.
        consistent_hashing_lb_config: _,
        locality_config_specifier: _,
    } = message;
    harmless!(Batching; update_merge_window);
    harmless!(NoHostOverride; override_host_status);
    whole_percent(&at.field("healthy_panic_threshold"), healthy_panic_threshold, PANIC_THRESHOLD_PERCENT)
}

fn legacy(at: &At<'_>, message: &proto::Cluster, common: &CommonLbConfig) -> Option<(LbPolicy, LocalityLb)> {
    let config = message.lb_config.as_ref();
    let policy = at.choice("lb_policy", message.lb_policy)?;
    harmless!(OtherPolicy; config);
    match policy {
        LbPolicyField::RoundRobin => {
            let config = match config {
                Some(LbConfig::RoundRobinLbConfig(config)) => config.clone(),
                _ => Default::default(),
            };
            typed::round_robin(&at.field("round_robin_lb_config"), &legacy::round_robin(config, common))
        }
        LbPolicyField::LeastRequest => {
            let config = match config {
                Some(LbConfig::LeastRequestLbConfig(config)) => config.clone(),
                _ => Default::default(),
            };
            typed::least_request(&at.field("least_request_lb_config"), &legacy::least_request(config, common))
        }
        LbPolicyField::Random => typed::random(at, &legacy::random(common)),
        LbPolicyField::RingHash => {
            let config = match config {
                Some(LbConfig::RingHashLbConfig(config)) => *config,
                _ => Default::default(),
            };
            typed::ring_hash(&at.field("ring_hash_lb_config"), &legacy::ring_hash(config, common))
        }
        LbPolicyField::Maglev => {
            let config = match config {
                Some(LbConfig::MaglevLbConfig(config)) => *config,
                _ => Default::default(),
            };
            typed::maglev(&at.field("maglev_lb_config"), &legacy::maglev(config, common))
        }
        LbPolicyField::ClusterProvided => {
            Some((LbPolicy::ClusterProvided, LocalityLb::ZoneAware(ZoneAware::default())))
        }
        LbPolicyField::LoadBalancingPolicyConfig => at.field("load_balancing_policy").none("must be set"),
    }
}

/// A percentage in whole numbers; Envoy cuts off the rest.
fn whole_percent(at: &At<'_>, message: &Option<Percent>, default: u32) -> u32 {
    percent(at, message).map_or(default, |percent| percent as u32)
}

fn percent(at: &At<'_>, message: &Option<Percent>) -> Option<f64> {
    let Percent { value } = (*message)?;
    if !(0.0..=100.0).contains(&value) {
        at.field("value").reject("must be between 0 and 100");
    }
    Some(value)
}
