//! The traffic policy that is in force for one port and subset of a service.
//!
//! Source: Istio `MergeTrafficPolicy`: each block of the subset replaces the rule's, and the settings of a port
//! replace all blocks of their level, also with nothing.

use meltemi_api::istio::{
    ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, PortTrafficPolicy,
    Subset, TrafficPolicy,
};

use crate::config::DestinationRule;

/// The blocks in force; a block that is absent has Istio's defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Policy<'a> {
    /// How a host is picked.
    pub load_balancer: Option<&'a LoadBalancerSettings>,
    /// Limits.
    pub connection_pool: Option<&'a ConnectionPoolSettings>,
    /// When a host is taken out.
    pub outlier_detection: Option<&'a OutlierDetection>,
    /// TLS towards the endpoints; absent: automatic.
    pub tls: Option<&'a ClientTlsSettings>,
}

impl<'a> Policy<'a> {
    /// The policy for a port of the hosts of `rule`, for all of them or for a subset.
    pub fn of(rule: Option<&'a DestinationRule>, subset: Option<&'a Subset>, port: u16) -> Policy<'a> {
        let Some(rule) = rule else { return Policy::default() };
        let own = rule.traffic_policy().map_or(Policy::default(), |p| Policy::blocks(p).at_port(p, port));
        let Some(policy) = subset.and_then(|s| s.traffic_policy.as_ref()) else { return own };
        own.overridden_by(Policy::blocks(policy)).at_port(policy, port)
    }

    fn blocks(policy: &'a TrafficPolicy) -> Policy<'a> {
        Policy {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            tls: policy.tls.as_ref(),
        }
    }

    fn overridden_by(self, other: Policy<'a>) -> Policy<'a> {
        Policy {
            load_balancer: other.load_balancer.or(self.load_balancer),
            connection_pool: other.connection_pool.or(self.connection_pool),
            outlier_detection: other.outlier_detection.or(self.outlier_detection),
            tls: other.tls.or(self.tls),
        }
    }

    fn at_port(self, policy: &'a TrafficPolicy, port: u16) -> Policy<'a> {
        let settings = policy.port_level_settings.iter().find(|s| s.port.number == u32::from(port));
        settings.map_or(self, |s: &PortTrafficPolicy| Policy {
            load_balancer: s.load_balancer.as_ref(),
            connection_pool: s.connection_pool.as_ref(),
            outlier_detection: s.outlier_detection.as_ref(),
            tls: s.tls.as_ref(),
        })
    }
}
