//! Which host of a cluster gets the next request.
//!
//! In two parts: what follows from endpoints, health and configuration (`layout`, shared by all workers and never built
//! while a request waits when that takes long: `crate::upstream::layouts`), and whose turn it is (`turns`, a worker's
//! own). Hosts are numbers here: their place in the priorities of the endpoints, one after the other. Source: Envoy's
//! `load_balancing_policies`.

mod edf;
pub(crate) mod hashing;
pub(crate) mod layout;
mod maglev;
mod mersenne;
mod priority_load;
mod ring;
mod slow_start;
mod turns;
mod zone;

use std::sync::Arc;
use std::time::Instant;

use meltemi_compile::load_balancing::LoadBalancing;

use self::hashing::Busy;
use self::layout::{Choice, Layout};
use self::turns::View;
use self::zone::{Peers, ZoneRouting};
use crate::stats::ClusterCounts;

/// What a balancer must know of a host at every pick.
pub(crate) trait Candidate {
    /// `load_balancing_weight`.
    fn weight(&self) -> u32;
    /// Requests in flight, over all workers.
    fn active_requests(&self) -> u32;
    /// Since when it may be picked, for slow start.
    fn healthy_since(&self) -> Option<Instant>;
}

/// What a request asks of a balancer.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Key of the policies by hash.
    pub(crate) hash: u64,
    /// How often the choice was turned down before.
    pub(crate) attempt: u32,
    /// Requests in flight in the cluster, for bounded load.
    pub(crate) cluster_active: u32,
    /// Priorities that `previous_priorities` leaves out.
    pub(crate) tried_priorities: &'a [u32],
    /// `update_frequency` of `previous_priorities`.
    pub(crate) priority_update_frequency: usize,
}

/// The balancer of a worker for a cluster.
#[derive(Debug)]
pub(crate) struct Balancer {
    view: View,
    is_hashing: bool,
}

impl Balancer {
    /// A balancer over a layout; whose turn it is goes on from `old`.
    pub(crate) fn new<H: Candidate>(
        config: &LoadBalancing,
        layout: Arc<Layout>,
        hosts: &[H],
        old: Option<&Balancer>,
    ) -> Balancer {
        let view = View::new(config.policy, layout, hosts, old.map(|old| &old.view));
        Balancer { view, is_hashing: config.policy.is_hashing() }
    }

    /// The next host, or `None` when nobody may be picked.
    pub(crate) fn pick<H: Candidate>(
        &mut self,
        hosts: &[H],
        asked: &Asked<'_>,
        counts: &ClusterCounts,
    ) -> Option<u32> {
        if self.is_hashing {
            return self.pick_by_hash(hosts, asked, counts);
        }
        let left = match asked.tried_priorities {
            [] => None,
            tried => self.view.layout.loads.without(tried, asked.priority_update_frequency),
        };
        self.view.pick(hosts, left.as_ref(), counts)
    }

    /// The hash chooses the priority too.
    fn pick_by_hash<H: Candidate>(
        &self,
        hosts: &[H],
        asked: &Asked<'_>,
        counts: &ClusterCounts,
    ) -> Option<u32> {
        let layout = &self.view.layout;
        let (priority, _) = layout.loads.choose(asked.hash);
        let level = &layout.levels[priority];
        if level.panic && asked.attempt == 0 {
            counts.lb_healthy_panic.inc();
        }
        match &level.healthy {
            Choice::Hash(hashing) => {
                let load = Load { hosts, cluster: asked.cluster_active };
                hashing.host(asked.hash, asked.attempt, &load)
            }
            Choice::Nobody | Choice::Group(_) | Choice::Weighted(_) => None,
        }
    }

    /// Whether zones may matter here.
    pub(crate) fn knows_zones(&self) -> bool {
        self.view.layout.levels[0].zones.is_some()
    }

    /// This cluster as the peers of the proxy.
    pub(crate) fn peers(&self) -> Option<Peers> {
        Peers::new(&self.view.layout.levels[0])
    }

    /// Routes by zones from now on, given the proxy's peers.
    pub(crate) fn route_by_zones(&mut self, peers: Option<&Peers>, counts: &ClusterCounts) {
        let zones = self.view.layout.levels[0].zones.as_ref();
        self.view.zones = zones.zip(peers).and_then(|(zones, peers)| ZoneRouting::new(zones, peers, counts));
    }
}

struct Load<'h, H> {
    hosts: &'h [H],
    cluster: u32,
}

impl<H: Candidate> Busy for Load<'_, H> {
    fn on_host(&self, host: u32) -> u32 {
        self.hosts[host as usize].active_requests()
    }

    fn on_cluster(&self) -> u32 {
        self.cluster
    }
}

#[cfg(test)]
mod tests;
