//! How a cluster gets its hosts: `type` and the fields that belong to each.

use std::sync::Arc;
use std::time::Duration;

use meltemi_envoy::config::cluster::v3 as proto;
use meltemi_envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, RefreshRate,
};
use meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment;

use crate::config_source::ads;
use crate::endpoint;
use crate::ledger::At;
use crate::program::{Discovery, DnsFamily, DnsTargets, Endpoints};

mod resolver;

/// `dns_refresh_rate` when it is not set.
const DNS_REFRESH: Duration = Duration::from_secs(5);
/// `max_interval` of `dns_failure_refresh_rate` when it is not set, in base intervals.
const MAX_FAILURE_FACTOR: u32 = 10;
/// Envoy refuses a faster one.
const MIN_DNS_REFRESH: Duration = Duration::from_millis(1);

/// What was found.
pub(super) struct Found {
    pub(super) discovery: Discovery,
    /// Of `STATIC` clusters.
    pub(super) endpoints: Option<Endpoints>,
    /// Of `EDS` clusters.
    pub(super) initial_fetch_timeout: Option<Duration>,
}

impl From<Discovery> for Found {
    fn from(discovery: Discovery) -> Found {
        Found { discovery, endpoints: None, initial_fetch_timeout: None }
    }
}

/// Compiles the discovery of a cluster.
pub(super) fn compile(at: &At<'_>, message: &proto::Cluster) -> Option<Found> {
    let kind = match &message.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => at.choice("type", *kind)?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return at.field("cluster_type").none(format_args!("not supported yet: {}", custom.name));
        }
        None => DiscoveryType::Static,
    };
    let assignment = message.load_assignment.as_ref();
    match kind {
        DiscoveryType::Eds | DiscoveryType::OriginalDst if assignment.is_some() => {
            at.field("load_assignment").reject("must not be set for this type");
        }
        DiscoveryType::Eds => {}
        _ if message.eds_cluster_config.is_some() => {
            at.field("eds_cluster_config").reject("cannot be set in a non-EDS cluster");
        }
        _ => {}
    }
    match kind {
        DiscoveryType::Static => static_hosts(at, assignment),
        DiscoveryType::Eds => eds(at, message),
        DiscoveryType::StrictDns => {
            dns_targets(at, message).map(|targets| Discovery::StrictDns(Arc::new(targets)).into())
        }
        DiscoveryType::LogicalDns => {
            let mut targets = dns_targets(at, message)?;
            if targets.names.len() != 1 {
                return at.field("load_assignment").none("LOGICAL_DNS clusters must have a single endpoint");
            }
            // The one host is of the first priority, whatever the message says.
            let priorities = &targets.template.priorities;
            let first = priorities.iter().position(|hosts| !hosts.is_empty()).unwrap_or(0);
            targets.template.priorities.drain(..first);
            targets.template.locality_weights.drain(..first);
            Some(Discovery::LogicalDns(Arc::new(targets)).into())
        }
        DiscoveryType::OriginalDst => Some(Discovery::OriginalDst.into()),
    }
}

/// Without an assignment the cluster has no host, as Istio's `BlackHoleCluster`.
fn static_hosts(at: &At<'_>, assignment: Option<&ClusterLoadAssignment>) -> Option<Found> {
    let none = ClusterLoadAssignment::default();
    let endpoints = endpoint::hosts(&at.field("load_assignment"), assignment.unwrap_or(&none))?;
    Some(Found { endpoints: Some(endpoints), ..Discovery::Static.into() })
}

fn eds(at: &At<'_>, message: &proto::Cluster) -> Option<Found> {
    let Some(EdsClusterConfig { eds_config, service_name }) = &message.eds_cluster_config else {
        return at.field("eds_cluster_config").none("cannot create an EDS cluster without an EDS config");
    };
    let at = at.field("eds_cluster_config");
    let initial_fetch_timeout = ads(&at.field("eds_config"), eds_config.as_ref());
    let name = if service_name.is_empty() { &message.name } else { service_name };
    Some(Found { initial_fetch_timeout, ..Discovery::Eds(name.as_str().into()).into() })
}

fn dns_targets(at: &At<'_>, message: &proto::Cluster) -> Option<DnsTargets> {
    let Some(assignment) = &message.load_assignment else {
        return at.field("load_assignment").none("must be set: it names what to resolve");
    };
    let refresh = at.duration("dns_refresh_rate", &message.dns_refresh_rate);
    if refresh.is_some_and(|rate| rate <= MIN_DNS_REFRESH) {
        at.field("dns_refresh_rate").reject("must be longer than 1ms");
    }
    let refresh = refresh.unwrap_or(DNS_REFRESH);
    let family = match at.choice("dns_lookup_family", message.dns_lookup_family)? {
        DnsLookupFamily::Auto => DnsFamily::Auto,
        DnsLookupFamily::V4Only => DnsFamily::V4Only,
        DnsLookupFamily::V6Only => DnsFamily::V6Only,
        DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
        DnsLookupFamily::All => DnsFamily::All,
    };
    let (template, names) = endpoint::names(&at.field("load_assignment"), assignment)?;
    Some(DnsTargets {
        template,
        names,
        refresh,
        respect_ttl: message.respect_dns_ttl,
        failure_refresh: failure_refresh(at, message.dns_failure_refresh_rate.as_ref()),
        jitter: at.duration("dns_jitter", &message.dns_jitter).unwrap_or_default(),
        family,
        resolver: resolver::compile(at, message)?,
    })
}

fn failure_refresh(at: &At<'_>, message: Option<&RefreshRate>) -> Option<(Duration, Duration)> {
    let RefreshRate { base_interval, max_interval } = message?;
    let at = at.field("dns_failure_refresh_rate");
    let Some(base) = at.positive("base_interval", base_interval) else {
        return at.field("base_interval").none("must be longer than 1ms");
    };
    let max = at.positive("max_interval", max_interval).unwrap_or(base * MAX_FAILURE_FACTOR);
    if max < base {
        at.reject("must have max_interval greater than or equal to the base_interval");
    }
    Some((base, max))
}
