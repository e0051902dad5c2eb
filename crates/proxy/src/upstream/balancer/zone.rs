//! Zone-aware routing: requests stay in the proxy's own locality as far as hosts there can take their part.
//!
//! It needs the proxy's own cluster (`cluster_manager.local_cluster_name`), whose hosts are its peers. Source: Envoy's
//! `ZoneAwareLoadBalancerBase`.

use std::sync::Arc;

use meltemi_compile::program::Locality;

use super::layout::{Level, Zones};
use crate::random;
use crate::stats::ClusterCounts;

/// One whole in the unit of shares.
const WHOLE: u64 = 10_000;

/// How the first priority is routed.
#[derive(Debug, PartialEq)]
pub(crate) enum ZoneRouting {
    /// All to the own locality.
    Direct,
    /// A part to the own locality, the rest to those that have more hosts than their part.
    Residual {
        /// Of [`WHOLE`].
        home: u64,
        /// Running sums of what each locality can take besides.
        capacity: Vec<u64>,
    },
    /// Nobody: the peers are in panic, and `fail_traffic_on_panic` is set.
    Nobody,
}

/// The proxy's own cluster, as far as zones go.
#[derive(Debug)]
pub(crate) struct Peers {
    panic: bool,
    healthy: u64,
    localities: Vec<PeerZone>,
}

/// The peers of one locality.
#[derive(Debug)]
struct PeerZone {
    locality: Arc<Locality>,
    is_home: bool,
    healthy: u64,
}

impl Peers {
    /// Those of the first priority.
    pub(crate) fn new(level: &Level) -> Option<Peers> {
        let zones = level.zones.as_ref()?;
        let localities = zones.localities.iter().map(|zone| PeerZone {
            locality: Arc::clone(&zone.locality),
            is_home: zone.is_home,
            healthy: zone.healthy,
        });
        Some(Peers { panic: level.panic, healthy: zones.healthy, localities: localities.collect() })
    }
}

impl ZoneRouting {
    /// How to route to `upstream`, given the peers; `None` when zones do not matter.
    pub(crate) fn new(upstream: &Zones, local: &Peers, counts: &ClusterCounts) -> Option<ZoneRouting> {
        counts.lb_recalculate_zone_structures.inc();
        if upstream.localities.len() < 2 || local.localities.len() < 2 {
            return None;
        }
        if !local.localities.iter().any(|peers| peers.is_home) {
            counts.lb_local_cluster_not_ok.inc();
            return None;
        }
        if upstream.healthy < upstream.config.min_cluster_size {
            counts.lb_zone_cluster_too_small.inc();
            return None;
        }
        if local.panic {
            counts.lb_local_cluster_not_ok.inc();
            return upstream.config.fail_traffic_on_panic.then_some(ZoneRouting::Nobody);
        }
        Some(ZoneRouting::shares(upstream, local))
    }

    fn shares(upstream: &Zones, local: &Peers) -> ZoneRouting {
        let share = |count: u64, total: u64| (count * WHOLE).checked_div(total).unwrap_or(0);
        let shares: Vec<(u64, u64)> = upstream
            .localities
            .iter()
            .map(|zone| {
                let peers = local.localities.iter().find(|peers| peers.locality == zone.locality);
                let local_share = match zone.healthy {
                    0 => 0,
                    _ => share(peers.map_or(0, |peers| peers.healthy), local.healthy),
                };
                (local_share, share(zone.healthy, upstream.healthy))
            })
            .collect();
        let is_home = upstream.localities[0].is_home;
        let (local_share, upstream_share) = shares[0];
        if is_home && upstream_share > 0 && upstream_share >= local_share {
            return ZoneRouting::Direct;
        }
        let home = match is_home {
            true => share(upstream_share, local_share),
            false => 0,
        };
        let mut sum = 0;
        let residual = shares.iter().enumerate().map(|(i, (local_share, upstream_share))| {
            if i > 0 || !is_home {
                sum += upstream_share.saturating_sub(*local_share);
            }
            sum
        });
        ZoneRouting::Residual { home, capacity: residual.collect() }
    }

    /// The group to pick from; `all` holds the healthy hosts of all localities.
    pub(crate) fn group(&self, level: &Level, all: u32, counts: &ClusterCounts) -> Option<u32> {
        let Some(zones) = &level.zones else { return Some(all) };
        let enabled = u64::from(zones.config.routing_enabled_percent);
        if enabled < 100 && random::below(100) as u64 >= enabled {
            return Some(all);
        }
        let zone = match self {
            ZoneRouting::Nobody => return None,
            ZoneRouting::Direct => {
                counts.lb_zone_routing_all_directly.inc();
                0
            }
            ZoneRouting::Residual { home, capacity } => residual(*home, capacity, counts),
        };
        Some(zones.localities[zone].group)
    }
}

fn residual(home: u64, capacity: &[u64], counts: &ClusterCounts) -> usize {
    if (random::below(WHOLE as usize) as u64) < home {
        counts.lb_zone_routing_sampled.inc();
        return 0;
    }
    counts.lb_zone_routing_cross_zone.inc();
    let whole = capacity.last().copied().unwrap_or(0);
    if whole == 0 {
        counts.lb_zone_no_capacity_left.inc();
        return random::below(capacity.len());
    }
    let point = random::below(whole as usize) as u64;
    capacity.partition_point(|sum| *sum <= point)
}
