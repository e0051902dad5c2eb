//! Who of a set of hosts may be picked, worked out once: priorities, health, localities, hash tables.
//!
//! A [`Layout`] follows from endpoints, health and configuration alone and is shared by all workers; whose turn it is
//! belongs to a worker (`turns`). Source: Envoy's `HostSetImpl`, `LoadBalancerBase`, `LocalityWrr` and
//! `ThreadAwareLoadBalancerBase`.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_compile::load_balancing::{LbPolicy, LoadBalancing, LocalityLb, ZoneAware};
use meltemi_compile::program::{Endpoints, Host, Locality};

use super::hashing::{Hashing, Member};
use super::priority_load::{LevelCounts, LevelWeights, Loads};
use crate::upstream::shared::Health;

/// What a layout is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) config: &'a LoadBalancing,
    pub(crate) endpoints: &'a Endpoints,
    /// By number of the host: priorities one after the other.
    pub(crate) fitness: &'a [Fitness],
    /// Where this proxy runs, when the bootstrap says so.
    pub(crate) home: Option<&'a Locality>,
}

/// What health makes of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fitness {
    pub(crate) health: Health,
    /// It does not count when the fit part of a priority is worked out.
    pub(crate) is_excluded: bool,
}

/// The hosts that may be picked.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) loads: Loads,
    pub(crate) levels: Vec<Level>,
    /// Hosts that are picked from together.
    pub(crate) groups: Vec<Group>,
    /// Localities that are picked from by weight: group and weight of each.
    pub(crate) weighted: Vec<Vec<(u32, f64)>>,
}

/// One priority.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) panic: bool,
    /// For traffic of healthy hosts; in panic all hosts.
    pub(crate) healthy: Choice,
    /// For traffic of degraded hosts.
    pub(crate) degraded: Choice,
    /// Healthy hosts by locality, as they are routed to by zones.
    pub(crate) zones: Option<Zones>,
}

/// How a host is found in a priority.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Nobody may be picked.
    Nobody,
    /// Among the hosts of this group.
    Group(u32),
    /// First one of the localities of this entry of [`Layout::weighted`].
    Weighted(u32),
    /// By hash.
    Hash(Hashing),
}

/// Hosts that are picked from together.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) key: GroupKey,
    /// Numbers of the hosts.
    pub(crate) hosts: Box<[u32]>,
    /// All have the same weight.
    pub(crate) is_even: bool,
}

/// What a group stands for: whose turn it is survives a change of its members.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    pub(crate) priority: usize,
    /// `None` in panic.
    pub(crate) health: Option<Health>,
    pub(crate) locality: Option<Arc<Locality>>,
}

/// Healthy hosts of a priority by locality.
#[derive(Debug)]
pub(crate) struct Zones {
    pub(crate) config: ZoneAware,
    /// Healthy hosts of all localities.
    pub(crate) healthy: u64,
    /// The own one first when there is one, the others in order; also those whose hosts are all unfit.
    pub(crate) localities: Vec<Zone>,
}

/// A locality, its healthy hosts and their group.
#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) locality: Arc<Locality>,
    pub(crate) is_home: bool,
    pub(crate) healthy: u64,
    pub(crate) group: u32,
}

/// Hosts of one priority, by number.
struct Members<'a> {
    plan: Plan<'a>,
    priority: usize,
    /// The locality weights in force, if any.
    weights: Option<BTreeMap<Arc<Locality>, u32>>,
    hosts: Vec<(u32, &'a Host)>,
}

impl Layout {
    /// The layout of all hosts that `is_member` takes; `weights` gives the locality weights of a priority.
    pub(crate) fn new(
        plan: Plan<'_>,
        is_member: &dyn Fn(u32) -> bool,
        weights: &dyn Fn(usize) -> Option<BTreeMap<Arc<Locality>, u32>>,
    ) -> Layout {
        let mut next = 0_u32;
        let mut levels: Vec<Members<'_>> = Vec::new();
        for (priority, hosts) in plan.endpoints.priorities.iter().enumerate() {
            let numbered = (next..).zip(hosts).filter(|(number, _)| is_member(*number)).collect();
            next += hosts.len() as u32;
            levels.push(Members { plan, priority, weights: weights(priority), hosts: numbered });
        }
        if levels.is_empty() {
            levels.push(Members { plan, priority: 0, weights: None, hosts: Vec::new() });
        }
        let counts: Vec<LevelCounts> = levels.iter().map(Members::counts).collect();
        let loads = Loads::new(
            &counts,
            plan.endpoints.overprovisioning_factor_percent,
            plan.config.panic_threshold_percent,
        );
        let mut layout = Layout { loads, levels: Vec::new(), groups: Vec::new(), weighted: Vec::new() };
        for members in &levels {
            let level = layout.level(members);
            layout.levels.push(level);
        }
        layout
    }

    /// Statistics of the hash tables: of the last priority, as Envoy's gauges.
    pub(crate) fn table_sizes(&self) -> Vec<(&'static str, u64)> {
        match self.levels.last().map(|level| &level.healthy) {
            Some(Choice::Hash(hashing)) => hashing.sizes(),
            _ => Vec::new(),
        }
    }

    fn level(&mut self, members: &Members<'_>) -> Level {
        let panic = self.loads.panic[members.priority];
        let policy = &members.plan.config.policy;
        if policy.is_hashing() {
            let hosts = members.normalized(panic);
            let choice = || Hashing::new(policy, &hosts).map_or(Choice::Nobody, Choice::Hash);
            // Degraded hosts are not in the table, in Envoy neither.
            return Level { panic, healthy: choice(), degraded: choice(), zones: None };
        }
        if panic {
            let fails = matches!(members.plan.config.locality, LocalityLb::ZoneAware(zone) if zone.fail_traffic_on_panic);
            let healthy = if fails { Choice::Nobody } else { Choice::Group(self.group(members, None, None)) };
            return Level { panic, healthy, degraded: Choice::Nobody, zones: None };
        }
        let healthy = self.choice(members, Health::Healthy);
        let degraded = match self.loads.degraded[members.priority] {
            0 if self.levels.is_empty() && self.loads.healthy.len() == 1 => Choice::Nobody,
            _ => self.choice(members, Health::Degraded),
        };
        let zones = self.zones(members);
        Level { panic, healthy, degraded, zones }
    }

    fn choice(&mut self, members: &Members<'_>, health: Health) -> Choice {
        if members.plan.config.locality == LocalityLb::Weighted
            && let Some(weights) = &members.weights
        {
            let effective = members.effective_weights(weights, health);
            if !effective.is_empty() {
                let each = effective.into_iter();
                let entries = each
                    .map(|(locality, weight)| (self.group(members, Some(health), Some(locality)), weight))
                    .collect();
                self.weighted.push(entries);
                return Choice::Weighted(self.weighted.len() as u32 - 1);
            }
        }
        Choice::Group(self.group(members, Some(health), None))
    }

    fn group(
        &mut self,
        members: &Members<'_>,
        health: Option<Health>,
        locality: Option<&Arc<Locality>>,
    ) -> u32 {
        let fitting = members.hosts.iter().filter(|(number, host)| {
            health.is_none_or(|health| members.plan.fitness[*number as usize].health == health)
                && locality.is_none_or(|locality| host.locality == *locality)
        });
        let mut is_even = true;
        let mut weight = None;
        let mut hosts = Vec::new();
        for (number, host) in fitting {
            is_even &= *weight.get_or_insert(host.weight) == host.weight;
            hosts.push(*number);
        }
        let key = GroupKey { priority: members.priority, health, locality: locality.cloned() };
        self.groups.push(Group { key, hosts: hosts.into(), is_even });
        self.groups.len() as u32 - 1
    }

    /// Only the first priority is routed by zones.
    fn zones(&mut self, members: &Members<'_>) -> Option<Zones> {
        let LocalityLb::ZoneAware(config) = members.plan.config.locality else { return None };
        let home = members.plan.home?;
        if members.priority != 0 {
            return None;
        }
        let mut counts: BTreeMap<&Arc<Locality>, u64> = BTreeMap::new();
        for (number, host) in &members.hosts {
            let is_healthy = members.plan.fitness[*number as usize].health == Health::Healthy;
            *counts.entry(&host.locality).or_default() += u64::from(is_healthy);
        }
        let mut localities: Vec<Zone> = counts
            .into_iter()
            .map(|(locality, healthy)| Zone {
                locality: Arc::clone(locality),
                is_home: **locality == *home,
                healthy,
                group: self.group(members, Some(Health::Healthy), Some(locality)),
            })
            .collect();
        localities.sort_by_key(|zone| !zone.is_home);
        let healthy = localities.iter().map(|zone| zone.healthy).sum();
        Some(Zones { config, healthy, localities })
    }
}

impl<'a> Members<'a> {
    fn counts(&self) -> LevelCounts {
        let mut counts = LevelCounts { all: self.hosts.len() as u64, ..LevelCounts::default() };
        let mut weights = LevelWeights::default();
        for (number, host) in &self.hosts {
            let fitness = self.plan.fitness[*number as usize];
            let weight = u64::from(host.weight);
            match fitness.is_excluded {
                true => counts.excluded += 1,
                false => weights.counted += weight,
            }
            match fitness.health {
                Health::Healthy => {
                    counts.healthy += 1;
                    weights.healthy += weight;
                }
                Health::Degraded => {
                    counts.degraded += 1;
                    weights.degraded += weight;
                }
                Health::Unhealthy => {}
            }
        }
        counts.weights = self.plan.endpoints.weighted_priority_health.then_some(weights);
        counts
    }

    /// Localities with hosts of this health: their weight, less what is missing of their hosts.
    fn effective_weights(
        &self,
        weights: &'a BTreeMap<Arc<Locality>, u32>,
        health: Health,
    ) -> Vec<(&'a Arc<Locality>, f64)> {
        let overprovisioning = f64::from(self.plan.endpoints.overprovisioning_factor_percent) / 100.0;
        let mut found = Vec::new();
        let mut counts: BTreeMap<&Locality, (u64, u64)> = BTreeMap::new();
        for (number, host) in &self.hosts {
            let fitness = self.plan.fitness[*number as usize];
            let (counted, fit) = counts.entry(&*host.locality).or_default();
            *counted += u64::from(!fitness.is_excluded);
            *fit += u64::from(fitness.health == health);
        }
        for (locality, weight) in weights {
            let (counted, fit) = counts.get(&**locality).copied().unwrap_or_default();
            if counted == 0 || fit == 0 || *weight == 0 {
                continue;
            }
            let available = (overprovisioning * fit as f64 / counted as f64).min(1.0);
            found.push((locality, f64::from(*weight) * available));
        }
        found
    }

    /// The hosts of a hash table, with weights that sum up to 1.
    fn normalized(&self, panic: bool) -> Vec<Member> {
        let is_in = |number: u32| panic || self.plan.fitness[number as usize].health == Health::Healthy;
        let hosts: Vec<(u32, &Host)> =
            self.hosts.iter().copied().filter(|(number, _)| is_in(*number)).collect();
        let is_weighted = self.plan.config.locality == LocalityLb::Weighted;
        let Some(weights) = self.weights.as_ref().filter(|_| is_weighted) else {
            return self.part(&hosts, 1.0);
        };
        let by_locality = self.by_locality(&hosts, weights);
        let sum: u64 = by_locality.iter().map(|(weight, _)| u64::from(*weight)).sum();
        by_locality
            .iter()
            .filter(|(weight, _)| *weight > 0)
            .flat_map(|(weight, hosts)| self.part(hosts, f64::from(*weight) / sum as f64))
            .collect()
    }

    /// Every locality of the priority with its weight, the own one first, also those without a fit host.
    fn by_locality(
        &self,
        hosts: &[(u32, &'a Host)],
        weights: &BTreeMap<Arc<Locality>, u32>,
    ) -> Vec<(u32, Vec<(u32, &'a Host)>)> {
        let mut all: BTreeMap<&Locality, Vec<(u32, &Host)>> =
            self.hosts.iter().map(|(_, host)| (&*host.locality, Vec::new())).collect();
        for (number, host) in hosts {
            all.entry(&*host.locality).or_default().push((*number, host));
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(locality, _)| self.plan.home != Some(*locality));
        all.into_iter()
            .map(|(locality, hosts)| (weights.get(locality).copied().unwrap_or(0), hosts))
            .collect()
    }

    fn part(&self, hosts: &[(u32, &Host)], part: f64) -> Vec<Member> {
        let use_hostname = match &self.plan.config.policy {
            LbPolicy::RingHash(config) => config.hashing.use_hostname,
            LbPolicy::Maglev(config) => config.hashing.use_hostname,
            _ => false,
        };
        let sum: u64 = hosts.iter().map(|(_, host)| u64::from(host.weight)).sum();
        let member = |(number, host): &(u32, &Host)| Member {
            host: *number,
            key: host.hash_key(use_hostname),
            weight: f64::from(host.weight) * part / sum as f64,
        };
        hosts.iter().map(member).collect()
    }
}
