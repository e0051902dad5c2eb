//! How a host of a cluster is picked, as data; [`crate::program::Cluster::lb`] holds it.
//!
//! Source: `envoy.config.cluster.v3.Cluster` (`lb_policy`, `lb_config`, `common_lb_config`) and
//! `envoy.extensions.load_balancing_policies.*`, which say the same twice; Envoy turns the former into the latter,
//! and so does `cluster/load_balancing`. Leaves out the picking, which needs the hosts' state: `proxy`.

use std::time::Duration;

use http::HeaderName;

use crate::metadata_match::MetadataMatch;

/// Everything that decides which host of a cluster gets a request.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadBalancing {
    /// The policy among the hosts that may be picked.
    pub policy: LbPolicy,
    /// What the localities of hosts mean.
    pub locality: LocalityLb,
    /// `common_lb_config.healthy_panic_threshold` in whole percent as Envoy rounds it, default 50; 0 is off.
    pub panic_threshold_percent: u32,
    /// `common_lb_config.close_connections_on_host_set_change`.
    pub close_connections_on_host_set_change: bool,
    /// `lb_subset_config` with selectors, or the typed policy of the same name.
    pub subsets: Option<Subsets>,
    /// Of `ORIGINAL_DST` clusters.
    pub original_dst: Option<OriginalDst>,
}

/// `original_dst_lb_config` and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginalDst {
    /// `http_header_name`, when `use_http_header` is on: it names the host, if it is there.
    pub header: Option<HeaderName>,
    /// `upstream_port_override`.
    pub port: Option<u16>,
    /// `cleanup_interval`, default 5 s: hosts that were not used for so long are forgotten.
    pub cleanup_interval: Duration,
}

/// `envoy.extensions.load_balancing_policies.subset.v3.Subset`: hosts by what their `envoy.lb` metadata says.
#[derive(Debug, Clone, PartialEq)]
pub struct Subsets {
    /// `fallback_policy`.
    pub fallback: SubsetFallback,
    /// `default_subset`.
    pub default_subset: MetadataMatch,
    /// `subset_selectors`; at least one.
    pub selectors: Vec<SubsetSelector>,
    /// `allow_redundant_keys`.
    pub allow_redundant_keys: bool,
    /// `locality_weight_aware`.
    pub locality_weight_aware: bool,
    /// `scale_locality_weight`.
    pub scale_locality_weight: bool,
    /// `panic_mode_any`.
    pub panic_mode_any: bool,
    /// `list_as_any`: a host with a list is in the subset of each of its values.
    pub list_as_any: bool,
}

/// Where a request goes that has no subset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubsetFallback {
    /// Nowhere.
    NoFallback,
    /// To any host.
    AnyEndpoint,
    /// To the hosts of `default_subset`.
    DefaultSubset,
    /// To the subset of only these keys.
    Keys(Vec<Box<str>>),
}

/// `subset_selectors`: every combination of values of these keys is a subset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetSelector {
    /// Sorted.
    pub keys: Vec<Box<str>>,
    /// `single_host_per_subset`.
    pub single_host: bool,
    /// `fallback_policy`; `None` leaves it to that of the cluster.
    pub fallback: Option<SubsetFallback>,
}

/// The policy among the hosts that may be picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LbPolicy {
    /// In turn, weighted by earliest deadline first when weights differ.
    RoundRobin {
        /// `slow_start_config`.
        slow_start: Option<SlowStart>,
    },
    /// The least busy of some; by weight and load when weights differ.
    LeastRequest(LeastRequest),
    /// At random, whatever the weights.
    Random,
    /// A ring of hashes (`ketama`).
    RingHash(RingHash),
    /// A Maglev table.
    Maglev(Maglev),
    /// By the discovery itself (`ORIGINAL_DST`).
    ClusterProvided,
}

/// `envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastRequest {
    /// How many random hosts are compared, default 2; `None` compares all (`FULL_SCAN`).
    pub choice_count: Option<u32>,
    /// `active_request_bias`, default 1: the weight is divided by (requests + 1) to this power.
    pub active_request_bias: f64,
    /// `slow_start_config`.
    pub slow_start: Option<SlowStart>,
}

/// `envoy.extensions.load_balancing_policies.common.v3.SlowStartConfig`: new hosts get less for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// `slow_start_window`.
    pub window: Duration,
    /// `aggression`, default 1: the weight grows with time to the power of its reciprocal.
    pub aggression: f64,
    /// `min_weight_percent` as a part of one, default 0.1.
    pub min_weight: f64,
}

/// `envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RingHash {
    /// `hash_function`, default xxHash64.
    pub function: HashFunction,
    /// `minimum_ring_size`, default 1024.
    pub minimum_ring_size: u64,
    /// `maximum_ring_size`, default 8388608.
    pub maximum_ring_size: u64,
    /// `consistent_hashing_lb_config`.
    pub hashing: ConsistentHashing,
}

/// `hash_function`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFunction {
    /// `XX_HASH`, the 64-bit one.
    XxHash,
    /// `MURMUR_HASH_2`, as libstdc++ hashes strings.
    MurmurHash2,
}

/// `envoy.extensions.load_balancing_policies.maglev.v3.Maglev`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Maglev {
    /// `table_size`, a prime, default 65537.
    pub table_size: u32,
    /// `consistent_hashing_lb_config`.
    pub hashing: ConsistentHashing,
}

/// `envoy.extensions.load_balancing_policies.common.v3.ConsistentHashingLbConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsistentHashing {
    /// `use_hostname_for_hashing`: hosts stand in the table by hostname instead of address.
    pub use_hostname: bool,
    /// `hash_balance_factor`: most load of a host, in percent of the average.
    pub balance_factor: Option<u32>,
}

/// What the localities of hosts mean (`locality_config_specifier`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LocalityLb {
    /// `locality_weighted_lb_config`: first a locality by its weight, then a host of it.
    Weighted,
    /// `zone_aware_lb_config`, which is also the default. It acts only where the bootstrap names a local cluster.
    ZoneAware(ZoneAware),
}

/// `envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.ZoneAwareLbConfig`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ZoneAware {
    /// `routing_enabled` in whole percent, default 100.
    pub routing_enabled_percent: u32,
    /// `min_cluster_size`, default 6.
    pub min_cluster_size: u64,
    /// `fail_traffic_on_panic`.
    pub fail_traffic_on_panic: bool,
}

impl Default for ZoneAware {
    fn default() -> ZoneAware {
        ZoneAware { routing_enabled_percent: 100, min_cluster_size: 6, fail_traffic_on_panic: false }
    }
}

impl LbPolicy {
    /// Whether the policy picks from a table by hash.
    pub fn is_hashing(&self) -> bool {
        matches!(self, LbPolicy::RingHash(_) | LbPolicy::Maglev(_))
    }

    /// `slow_start_config` of the policies that have one.
    pub fn slow_start(&self) -> Option<&SlowStart> {
        match self {
            LbPolicy::RoundRobin { slow_start } => slow_start.as_ref(),
            LbPolicy::LeastRequest(LeastRequest { slow_start, .. }) => slow_start.as_ref(),
            LbPolicy::Random | LbPolicy::RingHash(_) | LbPolicy::Maglev(_) | LbPolicy::ClusterProvided => {
                None
            }
        }
    }
}
