//! The hosts of a cluster.
//!
//! Source: `envoy.config.endpoint.v3`.

use std::collections::HashSet;

use meltemi_envoy::config::core::v3::{HealthStatus, Locality, Metadata};
use meltemi_envoy::config::endpoint::v3 as proto;
use meltemi_envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use prost_types::value::Kind;

use crate::ledger::{At, harmless, refuse};
use crate::program::{Endpoints, Host};
use crate::scalar::{digest, host_port, socket_addr};

/// `overprovisioning_factor` when it is not set.
const OVERPROVISIONING_PERCENT: u32 = 140;
/// The highest priority that Envoy takes.
const MAX_PRIORITY: u32 = 128;

/// Compiles the endpoints of an EDS resource.
pub(crate) fn compile(at: &At<'_>, message: &proto::ClusterLoadAssignment) -> Option<Endpoints> {
    at.required("cluster_name", &message.cluster_name);
    hosts(at, message)
}

/// Compiles endpoints that are addresses.
pub(crate) fn hosts(at: &At<'_>, message: &proto::ClusterLoadAssignment) -> Option<Endpoints> {
    let overprovisioning_factor_percent = policy(at, message);
    let mut priorities: Vec<Vec<Host>> = Vec::new();
    let mut seen = HashSet::new();
    for (i, group) in message.endpoints.iter().enumerate() {
        let at = at.item("endpoints", i);
        let priority = locality_priority(&at, group) as usize;
        if priorities.len() <= priority {
            priorities.resize_with(priority + 1, Vec::new);
        }
        let locality = locality_text(group.locality.as_ref());
        let hosts = at.each("lb_endpoints", &group.lb_endpoints, |at, member| host(at, member, &locality));
        // Of an address that is there twice, the first counts.
        priorities[priority].extend(hosts.into_iter().filter(|host| seen.insert(host.address)));
    }
    Some(Endpoints { priorities, overprovisioning_factor_percent, digest: digest(message) })
}

/// Compiles endpoints that are names to resolve: host, port, weight.
pub(crate) fn names(
    at: &At<'_>,
    message: &proto::ClusterLoadAssignment,
) -> Option<Vec<(Box<str>, u16, u32)>> {
    policy(at, message);
    let mut targets = Vec::new();
    for (i, group) in message.endpoints.iter().enumerate() {
        let at = at.item("endpoints", i);
        if locality_priority(&at, group) != 0 {
            at.field("priority").reject("not supported yet for names");
        }
        targets.extend(at.each("lb_endpoints", &group.lb_endpoints, |at, member| {
            let (endpoint, weight, _) = lb_endpoint(at, member)?;
            let at = at.field("endpoint");
            let (name, port) = host_port(&at.field("address"), &endpoint.address)?;
            Some((Box::from(name), port, weight))
        }));
    }
    Some(targets)
}

/// Reads all but the endpoints; gives the overprovisioning factor.
fn policy(at: &At<'_>, message: &proto::ClusterLoadAssignment) -> u32 {
    let proto::ClusterLoadAssignment { cluster_name: _, endpoints: _, named_endpoints, policy } = message;
    refuse!(at; named_endpoints);
    let Some(policy) = policy else { return OVERPROVISIONING_PERCENT };
    let at = at.field("policy");
    let proto::cluster_load_assignment::Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = policy;
    refuse!(at; drop_overloads, endpoint_stale_after, weighted_priority_health);
    at.bounded("overprovisioning_factor", *overprovisioning_factor, OVERPROVISIONING_PERCENT, (1, u32::MAX))
}

/// Reads all of a locality but its endpoints; gives the priority.
fn locality_priority(at: &At<'_>, message: &proto::LocalityLbEndpoints) -> u32 {
    let proto::LocalityLbEndpoints {
        locality: _,
        metadata,
        lb_endpoints: _,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = message;
    refuse!(at; lb_config, proximity);
    harmless!(LocalityWeight; load_balancing_weight);
    harmless!(Metadata; metadata);
    let priority = at.bounded("priority", Some(*priority), 0, (0, MAX_PRIORITY));
    priority.min(MAX_PRIORITY)
}

/// `region/zone/sub_zone`, without the empty parts at the end.
fn locality_text(locality: Option<&Locality>) -> Box<str> {
    let Some(Locality { region, zone, sub_zone }) = locality else { return "".into() };
    format!("{region}/{zone}/{sub_zone}").trim_end_matches('/').into()
}

/// Reads all of an endpoint but its address: the endpoint, its weight, whether it may be picked.
fn lb_endpoint<'m>(at: &At<'_>, message: &'m proto::LbEndpoint) -> Option<(&'m proto::Endpoint, u32, bool)> {
    let proto::LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = message;
    harmless!(Metadata; metadata);
    let healthy = match at.choice("health_status", *health_status)? {
        HealthStatus::Unknown | HealthStatus::Healthy => true,
        HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => false,
        HealthStatus::Degraded => return at.field("health_status").none("not supported yet: DEGRADED"),
    };
    let weight = at.bounded("load_balancing_weight", *load_balancing_weight, 1, (1, u32::MAX));
    let endpoint = match host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) => return at.field("endpoint_name").none("not supported yet"),
        None => return at.field("endpoint").none("must be set"),
    };
    let at = at.field("endpoint");
    let proto::Endpoint {
        address: _,
        health_check_config,
        hostname: _,
        additional_addresses,
        observability_name,
    } = endpoint;
    refuse!(at; additional_addresses);
    harmless!(NoHealthChecks; health_check_config);
    harmless!(StatsOnly; observability_name);
    Some((endpoint, weight, healthy))
}

fn host(at: &At<'_>, message: &proto::LbEndpoint, locality: &str) -> Option<Host> {
    let (endpoint, weight, healthy) = lb_endpoint(at, message)?;
    let at = at.field("endpoint");
    Some(Host {
        address: socket_addr(&at.field("address"), &endpoint.address)?,
        weight,
        healthy,
        hostname: endpoint.hostname.as_str().into(),
        workload: message.metadata.as_ref().and_then(workload),
        locality: locality.into(),
    })
}

/// Reads `filter_metadata.istio.workload`.
fn workload(metadata: &Metadata) -> Option<Box<str>> {
    match metadata.filter_metadata.get("istio")?.fields.get("workload")?.kind.as_ref()? {
        Kind::StringValue(workload) => Some(workload.as_str().into()),
        _ => None,
    }
}
