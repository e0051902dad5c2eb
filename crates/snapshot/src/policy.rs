//! The traffic policy that is in force for one port and subset of a service.
//!
//! Source: Istio `MergeSubsetTrafficPolicy`, `GetPortLevelTrafficPolicy`, `applyDefaultTrafficPolicy`: each block of the
//! subset replaces the rule's, and the settings of a port replace all blocks of their level, also with nothing. The mesh's
//! blocks come below the rule's.

use meltemi_api::istio::{
    ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, PortTrafficPolicy,
    ProxyProtocol, RetryBudget, Subset, TrafficPolicy,
};

use crate::destination_rule::DestinationRule;
use crate::mesh_config::MeshConfig;

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
    /// The PROXY header before every connection.
    pub proxy_protocol: Option<&'a ProxyProtocol>,
    /// Retries by share of the requests.
    pub retry_budget: Option<&'a RetryBudget>,
}

impl<'a> Policy<'a> {
    /// The policy for a port of the hosts of `rule`, for all of them or for a subset, without what the mesh says.
    pub fn of(rule: Option<&'a DestinationRule>, subset: Option<&'a Subset>, port: u16) -> Policy<'a> {
        Policy::above(Policy::default(), rule, subset, port)
    }

    /// As [`Policy::of`], with what the mesh says in place of blocks that the rule does not have.
    pub fn in_mesh(
        mesh: &'a MeshConfig,
        rule: Option<&'a DestinationRule>,
        subset: Option<&'a Subset>,
        port: u16,
    ) -> Policy<'a> {
        let defaults = mesh.wire().and_then(|wire| wire.default_traffic_policy.as_ref());
        let below = Policy {
            connection_pool: defaults.and_then(|policy| policy.connection_pool.as_ref()),
            outlier_detection: defaults.and_then(|policy| policy.outlier_detection.as_ref()),
            ..Policy::default()
        };
        Policy::above(below, rule, subset, port)
    }

    fn above(
        below: Policy<'a>,
        rule: Option<&'a DestinationRule>,
        subset: Option<&'a Subset>,
        port: u16,
    ) -> Policy<'a> {
        let Some(rule) = rule else { return below };
        let own = rule.traffic_policy().map_or(Policy::default(), |policy| match settings_of(policy, port) {
            Some(settings) => Policy::default().at_port(settings),
            None => Policy::blocks(policy),
        });
        let own = below.overridden_by(own);
        let Some(policy) = subset.and_then(|s| s.traffic_policy.as_ref()) else { return own };
        match settings_of(policy, port) {
            Some(settings) => own.at_port(settings),
            None => own.overridden_by(Policy::blocks(policy)),
        }
    }

    fn blocks(policy: &'a TrafficPolicy) -> Policy<'a> {
        Policy {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            tls: policy.tls.as_ref(),
            proxy_protocol: policy.proxy_protocol.as_ref(),
            retry_budget: policy.retry_budget.as_ref(),
        }
    }

    fn overridden_by(self, other: Policy<'a>) -> Policy<'a> {
        Policy {
            load_balancer: other.load_balancer.or(self.load_balancer),
            connection_pool: other.connection_pool.or(self.connection_pool),
            outlier_detection: other.outlier_detection.or(self.outlier_detection),
            tls: other.tls.or(self.tls),
            proxy_protocol: other.proxy_protocol.or(self.proxy_protocol),
            retry_budget: other.retry_budget.or(self.retry_budget),
        }
    }

    /// With the blocks that a port has settings for, also where they say nothing.
    fn at_port(self, settings: &'a PortTrafficPolicy) -> Policy<'a> {
        Policy {
            load_balancer: settings.load_balancer.as_ref(),
            connection_pool: settings.connection_pool.as_ref(),
            outlier_detection: settings.outlier_detection.as_ref(),
            tls: settings.tls.as_ref(),
            ..self
        }
    }
}

fn settings_of(policy: &TrafficPolicy, port: u16) -> Option<&PortTrafficPolicy> {
    policy.port_level_settings.iter().find(|settings| settings.port.number == u32::from(port))
}
