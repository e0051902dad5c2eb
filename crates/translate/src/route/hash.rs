//! What a request is known by where a DestinationRule sends all of its kind to one host.
//!
//! Source: Istio `hashForService`, `HashForHTTPDestination`, `ConsistentHashToHashPolicy`.

use meltemi_api::istio::{ConsistentHashLb, HashCookie, LoadBalancerSettings, TrafficPolicy};
use meltemi_envoy::config::route::v3::route_action::HashPolicy;
use meltemi_envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};
use meltemi_snapshot::Service;
use meltemi_snapshot::route::Destination;

use crate::context::Context;
use crate::message::duration;

/// For a destination of a rule. The settings of a port count only where the destination names it.
pub(super) fn of_destination<'a>(
    context: &Context<'a>,
    destination: &Destination,
) -> Option<&'a ConsistentHashLb> {
    let service = context.scope.service(&destination.host)?;
    let rule = context.scope.destination_rule(service)?;
    let subset = rule.subset(&destination.subset).and_then(|subset| subset.traffic_policy.as_ref());
    let at_port = |policy: Option<&'a TrafficPolicy>| of_port(policy?, destination.port?);
    at_port(subset)
        .or_else(|| of_settings(subset?.load_balancer.as_ref()))
        .or_else(|| at_port(rule.traffic_policy()))
        .or_else(|| of_settings(rule.traffic_policy()?.load_balancer.as_ref()))
}

/// For a port of a service that no rule speaks of.
pub(super) fn of_service<'a>(
    context: &Context<'a>,
    service: &Service,
    port: u16,
) -> Option<&'a ConsistentHashLb> {
    let policy = context.scope.destination_rule(service)?.traffic_policy()?;
    of_port(policy, port).or_else(|| of_settings(policy.load_balancer.as_ref()))
}

fn of_port(policy: &TrafficPolicy, port: u16) -> Option<&ConsistentHashLb> {
    let settings = policy.port_level_settings.iter().find(|s| s.port.number == u32::from(port));
    of_settings(settings?.load_balancer.as_ref())
}

fn of_settings(settings: Option<&LoadBalancerSettings>) -> Option<&ConsistentHashLb> {
    settings?.consistent_hash.as_ref()
}

/// As the router reads it; `None` where it says no key.
pub(super) fn policy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let specifier = if let Some(name) = &hash.http_header_name {
        PolicySpecifier::Header(Header { header_name: name.clone(), ..Default::default() })
    } else if let Some(wire) = &hash.http_cookie {
        PolicySpecifier::Cookie(cookie(wire))
    } else if let Some(source_ip) = hash.use_source_ip {
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip })
    } else {
        let name = hash.http_query_parameter_name.clone()?;
        PolicySpecifier::QueryParameter(QueryParameter { name })
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..Default::default() })
}

fn cookie(wire: &HashCookie) -> Cookie {
    let attributes = wire.attributes.iter().map(|attribute| CookieAttribute {
        name: attribute.name.clone(),
        value: attribute.value.clone().unwrap_or_default(),
    });
    Cookie {
        name: wire.name.clone(),
        ttl: wire.ttl.map(duration),
        path: wire.path.clone().unwrap_or_default(),
        attributes: attributes.collect(),
    }
}
