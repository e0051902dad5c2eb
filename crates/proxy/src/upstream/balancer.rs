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
pub(crate) mod subset;
mod turns;
mod zone;

use std::sync::Arc;
use std::time::Instant;

use meltemi_compile::load_balancing::LoadBalancing;
use meltemi_compile::metadata_match::MetadataMatch;

use self::layout::{Layout, Plan};
use self::subset::{SubsetLayouts, SubsetViews};
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
    /// What the subset must hold.
    pub(crate) metadata: Option<&'a MetadataMatch>,
    /// Priorities that `previous_priorities` leaves out.
    pub(crate) tried_priorities: &'a [u32],
    /// `update_frequency` of `previous_priorities`.
    pub(crate) priority_update_frequency: usize,
}

/// Who may be picked of a cluster.
#[derive(Debug)]
pub(crate) enum ClusterLayout {
    /// Of all hosts.
    Whole(Arc<Layout>),
    /// Of some, by their metadata.
    Subsets(Arc<SubsetLayouts>),
}

impl ClusterLayout {
    /// Works out everything.
    pub(crate) fn new(plan: Plan<'_>) -> ClusterLayout {
        if let Some(subsets) = &plan.config.subsets {
            return ClusterLayout::Subsets(Arc::new(SubsetLayouts::new(plan, subsets)));
        }
        let weights = |priority: usize| plan.endpoints.locality_weights.get(priority).cloned();
        ClusterLayout::Whole(Arc::new(Layout::new(plan, &|_| true, &weights)))
    }

    /// Statistics of the hash tables by their names below `cluster.<name>`.
    pub(crate) fn table_sizes(&self) -> Vec<(&'static str, u64)> {
        match self {
            ClusterLayout::Whole(layout) => layout.table_sizes(),
            ClusterLayout::Subsets(_) => Vec::new(),
        }
    }
}

/// The balancer of a worker for a cluster.
#[derive(Debug)]
pub(crate) enum Balancer {
    /// Over all hosts.
    Whole(View),
    /// Over subsets.
    Subsets(SubsetViews),
}

impl Balancer {
    /// A balancer over a layout; whose turn it is goes on from `old`.
    pub(crate) fn new<H: Candidate>(
        config: &LoadBalancing,
        layout: &ClusterLayout,
        hosts: &[H],
        old: Option<&Balancer>,
    ) -> Balancer {
        match (layout, &config.subsets, old) {
            (ClusterLayout::Subsets(layouts), Some(subsets), old) => {
                let old = match old {
                    Some(Balancer::Subsets(views)) => Some(views),
                    _ => None,
                };
                Balancer::Subsets(SubsetViews::new(config.policy, subsets, Arc::clone(layouts), hosts, old))
            }
            (ClusterLayout::Whole(layout), _, Some(Balancer::Whole(old))) => {
                Balancer::Whole(View::new(config.policy, Arc::clone(layout), hosts, Some(old)))
            }
            (ClusterLayout::Whole(layout), ..) => {
                Balancer::Whole(View::new(config.policy, Arc::clone(layout), hosts, None))
            }
            (ClusterLayout::Subsets(_), None, _) => {
                unreachable!("invariant: a layout is made from the configuration that it is used with")
            }
        }
    }

    /// The next host, or `None` when nobody may be picked.
    pub(crate) fn pick<H: Candidate>(
        &mut self,
        hosts: &[H],
        asked: &Asked<'_>,
        counts: &ClusterCounts,
    ) -> Option<u32> {
        match self {
            Balancer::Whole(view) => view.pick(hosts, asked, counts),
            Balancer::Subsets(views) => views.pick(hosts, asked, counts),
        }
    }

    /// Whether zones may matter here.
    pub(crate) fn knows_zones(&self) -> bool {
        matches!(self, Balancer::Whole(view) if view.layout.levels[0].zones.is_some())
    }

    /// This cluster as the peers of the proxy.
    pub(crate) fn peers(&self) -> Option<Peers> {
        match self {
            Balancer::Whole(view) => Peers::new(&view.layout.levels[0]),
            Balancer::Subsets(_) => None,
        }
    }

    /// Routes by zones from now on, given the proxy's peers.
    pub(crate) fn route_by_zones(&mut self, peers: Option<&Peers>, counts: &ClusterCounts) {
        let Balancer::Whole(view) = self else { return };
        let zones = view.layout.levels[0].zones.as_ref();
        view.zones = zones.zip(peers).and_then(|(zones, peers)| ZoneRouting::new(zones, peers, counts));
    }
}

#[cfg(test)]
mod tests;
