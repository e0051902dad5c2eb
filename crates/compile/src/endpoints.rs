//! The hosts of a cluster, as data.
//!
//! Source: `envoy.config.endpoint.v3`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meltemi_envoy::config::core::v3::{HealthStatus, Metadata};
use prost_types::value::Kind;

use crate::health_check::HostCheck;

/// `policy.overprovisioning_factor` when it is not set.
const OVERPROVISIONING_PERCENT: u32 = 140;

/// The namespace of metadata that balancing reads.
const ENVOY_LB: &str = "envoy.lb";

/// The hosts of a cluster (`envoy.config.endpoint.v3.ClusterLoadAssignment`).
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoints {
    /// Hosts by priority (0 first), localities flattened in order.
    pub priorities: Vec<Vec<Host>>,
    /// `load_balancing_weight` of the localities of each priority; those without are not there.
    pub locality_weights: Vec<BTreeMap<Arc<Locality>, u32>>,
    /// `policy.overprovisioning_factor` in percent, default 140.
    pub overprovisioning_factor_percent: u32,
    /// `policy.weighted_priority_health`: a priority is as healthy as the weights of its hosts, not their number.
    pub weighted_priority_health: bool,
    /// `policy.drop_overloads`: how many requests to refuse, in parts per million.
    pub drop_overload_ppm: u32,
    /// Digest of the encoded message.
    pub digest: u64,
}

impl Default for Endpoints {
    fn default() -> Endpoints {
        Endpoints {
            priorities: Vec::new(),
            locality_weights: Vec::new(),
            overprovisioning_factor_percent: OVERPROVISIONING_PERCENT,
            weighted_priority_health: false,
            drop_overload_ppm: 0,
            digest: 0,
        }
    }
}

/// One address that requests can go to.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Address and port.
    pub address: SocketAddr,
    /// `endpoint.additional_addresses`, for happy eyeballs.
    pub additional_addresses: Vec<SocketAddr>,
    /// `load_balancing_weight`, default 1.
    pub weight: u32,
    /// `health_status`.
    pub health: HealthStatus,
    /// `hostname`, may be empty.
    pub hostname: Box<str>,
    /// `metadata`.
    pub metadata: Option<Arc<Metadata>>,
    /// `metadata` of its locality.
    pub locality_metadata: Option<Arc<Metadata>>,
    /// `metadata.filter_metadata.istio.workload`, Istio's `workload;namespace;canonical;revision;cluster`.
    pub workload: Option<Box<str>>,
    /// Where it runs.
    pub locality: Arc<Locality>,
    /// `health_check_config`.
    pub check: Option<Box<HostCheck>>,
}

impl Default for Host {
    /// A healthy host of weight 1 at no address.
    fn default() -> Host {
        Host {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            additional_addresses: Vec::new(),
            weight: 1,
            health: HealthStatus::Unknown,
            hostname: Box::default(),
            metadata: None,
            locality_metadata: None,
            workload: None,
            locality: Arc::default(),
            check: None,
        }
    }
}

impl Host {
    /// Whether discovery lets it have requests as any other.
    pub fn is_healthy(&self) -> bool {
        matches!(self.health, HealthStatus::Unknown | HealthStatus::Healthy)
    }

    /// What stands for it in a hash table: `hash_key` of its `envoy.lb` metadata, else its hostname if wanted, else its
    /// address.
    pub fn hash_key(&self, use_hostname: bool) -> String {
        match self.lb_text("hash_key").filter(|key| !key.is_empty()) {
            Some(key) => key.to_owned(),
            None if use_hostname => self.hostname.to_string(),
            None => self.address.to_string(),
        }
    }

    /// Whether it runs something new on trial: `canary` of its `envoy.lb` metadata.
    pub fn is_canary(&self) -> bool {
        matches!(
            self.lb_metadata("canary").and_then(|value| value.kind.as_ref()),
            Some(Kind::BoolValue(true))
        )
    }

    fn lb_text(&self, key: &str) -> Option<&str> {
        match self.lb_metadata(key)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text),
            _ => None,
        }
    }

    /// A value of its `envoy.lb` metadata.
    pub fn lb_metadata(&self, key: &str) -> Option<&prost_types::Value> {
        self.metadata.as_ref()?.filter_metadata.get(ENVOY_LB)?.fields.get(key)
    }
}

/// `envoy.config.core.v3.Locality`; ordered as Envoy orders localities.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// `region`.
    pub region: Box<str>,
    /// `zone`.
    pub zone: Box<str>,
    /// `sub_zone`.
    pub sub_zone: Box<str>,
}

/// `region/zone/sub_zone`, without the empty parts at the end.
impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}/{}/{}", self.region, self.zone, self.sub_zone);
        f.write_str(text.trim_end_matches('/'))
    }
}
