//! Which endpoints a proxy prefers by where it and they run: priorities, and weights of localities.
//!
//! Source: Istio `pilot/pkg/networking/core/loadbalancer`, `LocalityMatch` and `LbPriority` of `networking/util`.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_api::istio::{Distribute, Failover, LoadBalancerSettings, LocalityLbSetting, ZoneAwareLbSetting};
use meltemi_envoy::config::endpoint::v3::{LbEndpoint, LocalityLbEndpoints};
use meltemi_snapshot::{Endpoint, MeshConfig};

/// Labels that say where something runs. Proxies and endpoints have them by their locality, whatever else they say.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
/// The network; endpoints of another one are never nearer than those of the own.
const NETWORK: &str = "topology.istio.io/network";

/// `region/zone/subzone`, of which parts may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// The region.
    pub region: String,
    /// The zone in it.
    pub zone: String,
    /// The part of the zone.
    pub subzone: String,
}

impl Locality {
    /// Reads `region/zone/subzone`; what is missing is empty.
    pub fn parse(text: &str) -> Locality {
        let mut parts = text.split('/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        Locality { region: part(), zone: part(), subzone: part() }
    }

    /// Whether a rule's locality stands for this one: `*` and missing parts stand for all.
    fn is_in(&self, rule: &str) -> bool {
        let rule = Locality::parse(rule);
        let holds = |own: &str, asked: &str| asked == "*" || own == asked;
        holds(&self.region, &rule.region)
            && (rule.zone.is_empty() || holds(&self.zone, &rule.zone))
            && (rule.subzone.is_empty() || holds(&self.subzone, &rule.subzone))
    }

    /// How far another one is: 0 the same, 1 the same zone, 2 the same region, 3 elsewhere.
    fn distance(&self, other: &Locality) -> u32 {
        match (self.region == other.region, self.zone == other.zone, self.subzone == other.subzone) {
            (false, ..) => 3,
            (true, false, _) => 2,
            (true, true, false) => 1,
            (true, true, true) => 0,
        }
    }

    fn label(&self, name: &str) -> Option<&str> {
        let part = match name {
            REGION => &self.region,
            ZONE => &self.zone,
            SUBZONE => &self.subzone,
            _ => return None,
        };
        Some(part.as_str()).filter(|part| !part.is_empty())
    }
}

/// What is in force for a cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Setting<'a> {
    /// Localities are not looked at.
    Off,
    /// By locality; `None` where only the default is in force.
    Locality(Option<&'a LocalityLbSetting>),
    /// Zones are balanced by the proxy, regions here.
    ZoneAware(&'a ZoneAwareLbSetting),
}

impl<'a> Setting<'a> {
    /// The rule's word counts, then the mesh's.
    pub(crate) fn of(mesh: &'a MeshConfig, rule: Option<&'a LoadBalancerSettings>) -> Setting<'a> {
        let wire = mesh.wire();
        let levels = [
            rule.map(|rule| (rule.zone_aware_lb_setting.as_ref(), rule.locality_lb_setting.as_ref())),
            wire.map(|mesh| (mesh.zone_aware_lb_setting.as_ref(), mesh.locality_lb_setting.as_ref())),
        ];
        for (zone_aware, locality) in levels.into_iter().flatten() {
            match (zone_aware, locality) {
                (Some(setting), _) => return Setting::ZoneAware(setting),
                (None, Some(setting)) if setting.enabled == Some(false) => return Setting::Off,
                (None, Some(setting)) => return Setting::Locality(Some(setting)),
                (None, None) => {}
            }
        }
        Setting::Locality(None)
    }
}

/// A proxy that wants its endpoints in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preference<'a> {
    pub(crate) setting: Setting<'a>,
    /// Where the proxy runs.
    pub(crate) locality: &'a Locality,
    /// The proxy's labels.
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// Endpoints that are down are noticed, so that others can stand in for them.
    pub(crate) fails_over: bool,
}

/// Endpoints of one locality, each beside what it was made from.
pub(crate) struct Group<'a> {
    pub(crate) message: LocalityLbEndpoints,
    pub(crate) members: Vec<&'a Endpoint>,
    pub(crate) locality: Locality,
}

impl Preference<'_> {
    /// Gives priorities and weights to the groups.
    pub(crate) fn apply(&self, mut groups: Vec<Group<'_>>) -> Vec<LocalityLbEndpoints> {
        match self.setting {
            Setting::Off => {}
            Setting::Locality(Some(setting)) if !setting.distribute.is_empty() => {
                self.distribute(&setting.distribute, &mut groups);
            }
            Setting::Locality(setting) if self.fails_over => {
                let (failover, priority) = setting
                    .map_or((&[][..], &[][..]), |s| (s.failover.as_slice(), s.failover_priority.as_slice()));
                if !priority.is_empty() {
                    groups = self.by_labels(groups, priority);
                }
                if priority.is_empty() || !failover.is_empty() {
                    self.by_distance(failover, &mut groups);
                }
            }
            Setting::Locality(_) => {}
            Setting::ZoneAware(setting) if setting.enabled == Some(false) => {}
            Setting::ZoneAware(setting) => {
                if !setting.failover_priority.is_empty() {
                    groups = self.by_labels(groups, &setting.failover_priority);
                }
                self.by_region(&setting.failover, &mut groups);
            }
        }
        groups.into_iter().map(|group| group.message).collect()
    }

    /// The first entry for the proxy's locality counts. Localities that it does not name get nothing.
    fn distribute(&self, entries: &[Distribute], groups: &mut [Group<'_>]) {
        let Some(entry) = entries.iter().find(|entry| self.locality.is_in(&entry.from)) else { return };
        let mut unnamed: BTreeSet<usize> = (0..groups.len()).collect();
        for (locality, weight) in &entry.to {
            let named: Vec<usize> =
                unnamed.iter().copied().filter(|index| groups[*index].locality.is_in(locality)).collect();
            let own = |group: &Group<'_>| u64::from(group.message.load_balancing_weight.unwrap_or(1));
            let total: u64 = named.iter().map(|index| own(&groups[*index])).sum();
            for index in named {
                unnamed.remove(&index);
                let share = (own(&groups[index]) * u64::from(*weight)).div_ceil(total.max(1));
                if let Some(share) = u32::try_from(share).ok().filter(|share| *share > 0) {
                    groups[index].message.load_balancing_weight = Some(share);
                }
            }
        }
        for index in unnamed {
            groups[index].message.lb_endpoints.clear();
            groups[index].members.clear();
        }
    }

    /// The nearer first; of other regions the one that stands in for the proxy's.
    fn by_distance(&self, failover: &[Failover], groups: &mut [Group<'_>]) {
        /// Distances there are.
        const LEVELS: u32 = 5;
        let stand_in = failover.iter().find(|entry| entry.from == self.locality.region);
        for group in groups.iter_mut() {
            let distance = match self.locality.distance(&group.locality) {
                3 if stand_in.is_some_and(|entry| entry.to != group.locality.region) => 4,
                distance => distance,
            };
            group.message.priority = group.message.priority * LEVELS + distance;
        }
        compact(groups);
    }

    /// The proxy's region, then the one that stands in for it, then the rest.
    fn by_region(&self, failover: &[Failover], groups: &mut [Group<'_>]) {
        /// Distances there are.
        const LEVELS: u32 = 3;
        let stand_in = failover.iter().find(|entry| entry.from == self.locality.region);
        for group in groups.iter_mut() {
            let distance = match &group.locality.region {
                region if *region == self.locality.region => 0,
                region if stand_in.is_some_and(|entry| entry.to == *region) => 1,
                _ => 2,
            };
            group.message.priority = group.message.priority * LEVELS + distance;
        }
        compact(groups);
    }

    /// The more labels an endpoint shares with the proxy, in their order, the sooner it is chosen.
    fn by_labels<'e>(&self, groups: Vec<Group<'e>>, labels: &[String]) -> Vec<Group<'e>> {
        let is_labelled = !self.labels.is_empty() || *self.locality != Locality::default();
        if !is_labelled {
            return groups;
        }
        let mut split = groups.into_iter().flat_map(|group| self.split(group, labels)).collect::<Vec<_>>();
        compact(&mut split);
        split
    }

    fn split<'e>(&self, group: Group<'e>, labels: &[String]) -> Vec<Group<'e>> {
        let mut by_priority: BTreeMap<u32, Vec<(&'e Endpoint, LbEndpoint)>> = BTreeMap::new();
        for (member, message) in group.members.iter().zip(group.message.lb_endpoints) {
            let priority = self.label_priority(member, &group.locality, labels);
            by_priority.entry(priority).or_default().push((*member, message));
        }
        let part = |(priority, members): (u32, Vec<(&'e Endpoint, LbEndpoint)>)| {
            let (members, lb_endpoints): (Vec<_>, Vec<_>) = members.into_iter().unzip();
            let weight = members.iter().fold(0u32, |sum, member| sum.saturating_add(member.weight));
            Group {
                message: LocalityLbEndpoints {
                    locality: group.message.locality.clone(),
                    lb_endpoints,
                    priority,
                    load_balancing_weight: Some(weight),
                    ..Default::default()
                },
                members,
                locality: group.locality.clone(),
            }
        };
        by_priority.into_iter().map(part).collect()
    }

    fn label_priority(&self, member: &Endpoint, locality: &Locality, labels: &[String]) -> u32 {
        let lowest = u32::try_from(labels.len()).unwrap_or(u32::MAX);
        let mut elsewhere = 0;
        for (index, label) in (0u32..).zip(labels) {
            let (name, wanted) = match label.split_once('=') {
                Some((name, value)) => (name, value),
                None => (label.as_str(), label_of(self.labels, self.locality, label)),
            };
            if wanted == label_of(&member.labels, locality, name) {
                continue;
            }
            if index == 0 && name == NETWORK {
                elsewhere = lowest;
                continue;
            }
            return lowest - index + elsewhere;
        }
        elsewhere
    }
}

fn label_of<'a>(labels: &'a BTreeMap<String, String>, locality: &'a Locality, name: &str) -> &'a str {
    locality.label(name).or_else(|| labels.get(name).map(String::as_str)).unwrap_or_default()
}

/// Envoy wants priorities without gaps.
fn compact(groups: &mut [Group<'_>]) {
    let used: BTreeSet<u32> = groups.iter().map(|group| group.message.priority).collect();
    let rank: BTreeMap<u32, u32> = used.into_iter().zip(0..).collect();
    for group in groups {
        group.message.priority = rank[&group.message.priority];
    }
}
