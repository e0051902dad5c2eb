//! The hosts of a cluster.
//!
//! Source: `envoy.config.endpoint.v3`.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meltemi_envoy::config::core::v3::{Locality as LocalityField, Metadata};
use meltemi_envoy::config::endpoint::v3 as proto;
use meltemi_envoy::config::endpoint::v3::cluster_load_assignment::policy::DropOverload;
use meltemi_envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use prost_types::value::Kind;

use crate::endpoints::{Endpoints, Host, Locality};
use crate::health_check::HostCheck;
use crate::ledger::{At, harmless, refuse};
use crate::scalar::{digest, fraction_ppm, host_port, socket_addr};

/// The highest priority that Envoy takes.
const MAX_PRIORITY: u32 = 128;

/// Compiles the endpoints of an EDS resource.
pub(crate) fn compile(at: &At<'_>, message: &proto::ClusterLoadAssignment) -> Option<Endpoints> {
    at.required("cluster_name", &message.cluster_name);
    hosts(at, message)
}

/// Compiles endpoints that are addresses.
pub(crate) fn hosts(at: &At<'_>, message: &proto::ClusterLoadAssignment) -> Option<Endpoints> {
    hosts_at(at, message, &mut |at, endpoint| socket_addr(&at.field("address"), &endpoint.address))
}

/// Compiles endpoints that are names to resolve. In place of its address a host has the index of its name, as an IPv4
/// address, and the port.
pub(crate) fn names(
    at: &At<'_>,
    message: &proto::ClusterLoadAssignment,
) -> Option<(Endpoints, Vec<Box<str>>)> {
    let mut names: Vec<Box<str>> = Vec::new();
    let mut endpoints = hosts_at(at, message, &mut |at, endpoint| {
        let (name, port) = host_port(&at.field("address"), &endpoint.address)?;
        at.refuse("additional_addresses", &endpoint.additional_addresses);
        let index = Ipv4Addr::from(u32::try_from(names.len()).ok()?);
        names.push(name.into());
        Some(SocketAddr::from((index, port)))
    })?;
    for host in endpoints.priorities.iter_mut().flatten().filter(|host| host.hostname.is_empty()) {
        host.hostname = name_of(host, &names).into();
    }
    Some((endpoints, names))
}

fn name_of<'n>(host: &Host, names: &'n [Box<str>]) -> &'n str {
    match host.address.ip() {
        IpAddr::V4(index) => &names[u32::from(index) as usize],
        IpAddr::V6(_) => "",
    }
}

/// Finds the address of an endpoint.
type AddressOf<'a> = dyn FnMut(&At<'_>, &proto::Endpoint) -> Option<SocketAddr> + 'a;

/// What the hosts of a locality share.
struct Place {
    locality: Arc<Locality>,
    metadata: Option<Arc<Metadata>>,
}

fn hosts_at(
    at: &At<'_>,
    message: &proto::ClusterLoadAssignment,
    address_of: &mut AddressOf<'_>,
) -> Option<Endpoints> {
    let mut endpoints = Endpoints { digest: digest(message), ..policy(at, message) };
    let mut seen = HashSet::new();
    for (i, group) in message.endpoints.iter().enumerate() {
        let at = at.item("endpoints", i);
        let priority = locality_priority(&at, group) as usize;
        if endpoints.priorities.len() <= priority {
            endpoints.priorities.resize_with(priority + 1, Vec::new);
            endpoints.locality_weights.resize_with(priority + 1, BTreeMap::new);
        }
        let locality = Arc::new(group.locality.as_ref().map_or_else(Locality::default, locality));
        if let (Some(weight), true) = (group.load_balancing_weight, group.locality.is_some()) {
            at.bounded("load_balancing_weight", Some(weight), 1, (1, u32::MAX));
            endpoints.locality_weights[priority].insert(Arc::clone(&locality), weight);
        }
        let place = Place { locality, metadata: group.metadata.clone().map(Arc::new) };
        let hosts =
            at.each("lb_endpoints", &group.lb_endpoints, |at, member| host(at, member, &place, address_of));
        // Of an address that is there twice, the first counts.
        endpoints.priorities[priority].extend(hosts.into_iter().filter(|host| seen.insert(host.address)));
    }
    check_weights(at, &endpoints);
    Some(endpoints)
}

/// Sums of weights must fit into 32 bits, as in Envoy.
fn check_weights(at: &At<'_>, endpoints: &Endpoints) {
    for hosts in &endpoints.priorities {
        if exceeds_u32(hosts.iter().map(|host| host.weight)) {
            at.field("endpoints").reject(format_args!(
                "The sum of weights of all upstream hosts in a locality exceeds {}",
                u32::MAX
            ));
        }
    }
    for weights in &endpoints.locality_weights {
        if exceeds_u32(weights.values().copied()) {
            at.field("endpoints").reject(format_args!(
                "The sum of weights of all localities at the same priority exceeds {}",
                u32::MAX
            ));
        }
    }
}

fn exceeds_u32(weights: impl IntoIterator<Item = u32>) -> bool {
    weights.into_iter().try_fold(0_u32, u32::checked_add).is_none()
}

/// Reads all but the endpoints.
fn policy(at: &At<'_>, message: &proto::ClusterLoadAssignment) -> Endpoints {
    let proto::ClusterLoadAssignment { cluster_name: _, endpoints: _, named_endpoints, policy } = message;
    refuse!(at; named_endpoints);
    let Some(policy) = policy else { return Endpoints::default() };
    let at = at.field("policy");
    let proto::cluster_load_assignment::Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = policy;
    refuse!(at; endpoint_stale_after);
    let factor = at.bounded("overprovisioning_factor", *overprovisioning_factor, 0, (1, u32::MAX));
    let defaults = Endpoints::default();
    Endpoints {
        overprovisioning_factor_percent: if factor == 0 {
            defaults.overprovisioning_factor_percent
        } else {
            factor
        },
        weighted_priority_health: *weighted_priority_health,
        drop_overload_ppm: drop_overload(&at, drop_overloads),
        ..defaults
    }
}

/// Envoy supports one category, whose name does not matter.
fn drop_overload(at: &At<'_>, messages: &[DropOverload]) -> u32 {
    if messages.len() > 1 {
        at.field("drop_overloads").reject(format_args!(
            "Cluster drop_overloads config has {} categories. Envoy only support one.",
            messages.len()
        ));
    }
    let Some(DropOverload { category, drop_percentage }) = messages.first() else { return 0 };
    let at = at.item("drop_overloads", 0);
    at.required("category", category);
    drop_percentage.as_ref().map_or(0, |percent| fraction_ppm(&at.field("drop_percentage"), percent))
}

/// Reads all of a locality but its endpoints; gives the priority.
fn locality_priority(at: &At<'_>, message: &proto::LocalityLbEndpoints) -> u32 {
    let proto::LocalityLbEndpoints {
        locality: _,
        // Of each host, for transport sockets.
        metadata: _,
        lb_endpoints: _,
        load_balancing_weight: _,
        priority,
        proximity,
        lb_config,
    } = message;
    refuse!(at; lb_config);
    harmless!(Unimplemented; proximity);
    let priority = at.bounded("priority", Some(*priority), 0, (0, MAX_PRIORITY));
    priority.min(MAX_PRIORITY)
}

fn locality(message: &LocalityField) -> Locality {
    let LocalityField { region, zone, sub_zone } = message;
    Locality {
        region: region.as_str().into(),
        zone: zone.as_str().into(),
        sub_zone: sub_zone.as_str().into(),
    }
}

/// Reads all of an endpoint but its address, health and metadata: the endpoint, its weight.
fn lb_endpoint<'m>(at: &At<'_>, message: &'m proto::LbEndpoint) -> Option<(&'m proto::Endpoint, u32)> {
    let proto::LbEndpoint { health_status: _, metadata: _, load_balancing_weight, host_identifier } = message;
    let weight = at.bounded("load_balancing_weight", *load_balancing_weight, 1, (1, u32::MAX));
    let endpoint = match host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) => return at.field("endpoint_name").none("not supported yet"),
        None => return at.field("endpoint").none("must be set"),
    };
    let proto::Endpoint {
        address: _,
        health_check_config: _,
        hostname: _,
        additional_addresses: _,
        observability_name,
    } = endpoint;
    harmless!(StatsOnly; observability_name);
    Some((endpoint, weight))
}

fn host(
    at: &At<'_>,
    message: &proto::LbEndpoint,
    place: &Place,
    address_of: &mut AddressOf<'_>,
) -> Option<Host> {
    let health = at.choice("health_status", message.health_status)?;
    let (endpoint, weight) = lb_endpoint(at, message)?;
    let at = at.field("endpoint");
    let additional = at.each("additional_addresses", &endpoint.additional_addresses, |at, additional| {
        let proto::endpoint::AdditionalAddress { address } = additional;
        socket_addr(&at.field("address"), address)
    });
    Some(Host {
        address: address_of(&at, endpoint)?,
        additional_addresses: additional,
        weight,
        health,
        hostname: endpoint.hostname.as_str().into(),
        metadata: message.metadata.clone().map(Arc::new),
        workload: message.metadata.as_ref().and_then(workload),
        locality_metadata: place.metadata.clone(),
        locality: Arc::clone(&place.locality),
        check: host_check(&at, endpoint),
    })
}

/// Reads `health_check_config`; `None` when there is nothing special.
fn host_check(at: &At<'_>, endpoint: &proto::Endpoint) -> Option<Box<HostCheck>> {
    let at = at.field("health_check_config");
    let proto::endpoint::HealthCheckConfig { port_value, hostname, address, disable_active_health_check } =
        endpoint.health_check_config.as_ref()?;
    let port = at.port("port_value", *port_value)?;
    let of_endpoint = || socket_addr(&at, &endpoint.address);
    let base = match address {
        Some(_) => socket_addr(&at.field("address"), address),
        None if port != 0 => of_endpoint(),
        None => None,
    };
    let target = base.map(|base| SocketAddr::new(base.ip(), if port == 0 { base.port() } else { port }));
    Some(Box::new(HostCheck {
        address: target,
        hostname: hostname.as_str().into(),
        disabled: *disable_active_health_check,
    }))
}

/// Reads `filter_metadata.istio.workload`.
fn workload(metadata: &Metadata) -> Option<Box<str>> {
    match metadata.filter_metadata.get("istio")?.fields.get("workload")?.kind.as_ref()? {
        Kind::StringValue(workload) => Some(workload.as_str().into()),
        _ => None,
    }
}
