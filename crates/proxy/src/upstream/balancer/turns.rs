//! Whose turn it is: the part of balancing that changes with every pick, and that a worker has for itself.
//!
//! Source: Envoy's `EdfLoadBalancerBase`, `RoundRobinLoadBalancer`, `LeastRequestLoadBalancer` and
//! `RandomLoadBalancer`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use meltemi_compile::load_balancing::{LbPolicy, LeastRequest};

use super::edf::Edf;
use super::hashing::Busy;
use super::layout::{Choice, Group, GroupKey, Layout, Level};
use super::priority_load::Loads;
use super::slow_start;
use super::zone::ZoneRouting;
use super::{Asked, Candidate};
use crate::random;
use crate::stats::ClusterCounts;

/// A layout and the turns in it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) layout: Arc<Layout>,
    policy: LbPolicy,
    /// By group.
    turns: Vec<Turn>,
    /// By entry of [`Layout::weighted`].
    localities: Vec<Edf>,
    /// Routing by zones in the first priority, when it is possible.
    pub(crate) zones: Option<ZoneRouting>,
    /// The only priority that gets traffic, when there is no choice.
    sole: Option<usize>,
}

/// Whose turn it is in a group.
#[derive(Debug)]
enum Turn {
    /// All are alike: the next index.
    Next(usize),
    /// By weight.
    Edf(Edf),
}

impl View {
    /// The turns in a layout, going on from those before.
    pub(crate) fn new<H: Candidate>(
        policy: LbPolicy,
        layout: Arc<Layout>,
        hosts: &[H],
        old: Option<&View>,
    ) -> View {
        let before: HashMap<&GroupKey, usize> = old.map(View::nexts).unwrap_or_default();
        let now = Instant::now();
        let turns = layout
            .groups
            .iter()
            .map(|group| match by_weight(policy, group, hosts, now) {
                Some(edf) => Turn::Edf(edf),
                None => Turn::Next(
                    before.get(&group.key).copied().unwrap_or_else(|| random::below(group.hosts.len())),
                ),
            })
            .collect();
        let localities = layout
            .weighted
            .iter()
            .map(|entries| Edf::new((0..).zip(entries).map(|(i, (_, weight))| (i, *weight))))
            .collect();
        let sole = layout.loads.sole();
        View { layout, policy, turns, localities, zones: None, sole }
    }

    fn nexts(&self) -> HashMap<&GroupKey, usize> {
        let groups = self.layout.groups.iter().zip(&self.turns);
        groups
            .filter_map(|(group, turn)| match turn {
                Turn::Next(next) => Some((&group.key, *next)),
                Turn::Edf(_) => None,
            })
            .collect()
    }

    /// The next host, or `None` when nobody may be picked.
    pub(crate) fn pick<H: Candidate>(
        &mut self,
        hosts: &[H],
        asked: &Asked<'_>,
        counts: &ClusterCounts,
    ) -> Option<u32> {
        if self.policy.is_hashing() {
            return self.pick_by_hash(hosts, asked, counts);
        }
        let left = match asked.tried_priorities {
            [] => None,
            tried => self.layout.loads.without(tried, asked.priority_update_frequency),
        };
        self.pick_in_turn(hosts, left.as_ref(), counts)
    }

    /// The hash chooses the priority too.
    fn pick_by_hash<H: Candidate>(
        &self,
        hosts: &[H],
        asked: &Asked<'_>,
        counts: &ClusterCounts,
    ) -> Option<u32> {
        let (priority, _) = self.layout.loads.choose(asked.hash);
        let level = &self.layout.levels[priority];
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

    /// `loads` stand in for those of the layout.
    fn pick_in_turn<H: Candidate>(
        &mut self,
        hosts: &[H],
        loads: Option<&Loads>,
        counts: &ClusterCounts,
    ) -> Option<u32> {
        let View { layout, policy, turns, localities, zones, sole } = self;
        let (priority, is_degraded) = match (loads, sole) {
            (Some(loads), _) => loads.choose(random::next()),
            (None, Some(priority)) => (*priority, false),
            (None, None) => layout.loads.choose(random::next()),
        };
        let level: &Level = &layout.levels[priority];
        if level.panic {
            counts.lb_healthy_panic.inc();
        }
        let choice = if is_degraded { &level.degraded } else { &level.healthy };
        let group = match choice {
            Choice::Nobody | Choice::Hash(_) => return None,
            Choice::Weighted(entry) => {
                let entries = &layout.weighted[*entry as usize];
                let picked = localities[*entry as usize].pick(|i| entries[i as usize].1)?;
                entries[picked as usize].0
            }
            Choice::Group(group) => match zones {
                Some(zones) if priority == 0 && !level.panic && !is_degraded => {
                    zones.group(level, *group, counts)?
                }
                _ => *group,
            },
        };
        let members = &layout.groups[group as usize].hosts;
        match &mut turns[group as usize] {
            _ if members.is_empty() => None,
            Turn::Edf(edf) => edf.pick(|host| weight_now(*policy, &hosts[host as usize])),
            Turn::Next(next) => Some(unweighted(*policy, hosts, members, next)),
        }
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

fn unweighted<H: Candidate>(policy: LbPolicy, hosts: &[H], members: &[u32], next: &mut usize) -> u32 {
    match policy {
        LbPolicy::RoundRobin { .. } => {
            let host = members[*next % members.len()];
            *next = next.wrapping_add(1);
            host
        }
        LbPolicy::LeastRequest(LeastRequest { choice_count: Some(choices), .. }) => {
            least_busy(hosts, members, choices)
        }
        LbPolicy::LeastRequest(LeastRequest { choice_count: None, .. }) => least_busy_of_all(hosts, members),
        LbPolicy::Random | LbPolicy::RingHash(_) | LbPolicy::Maglev(_) | LbPolicy::ClusterProvided => {
            members[random::below(members.len())]
        }
    }
}

fn least_busy<H: Candidate>(hosts: &[H], members: &[u32], choices: u32) -> u32 {
    let mut best = members[random::below(members.len())];
    for _ in 1..choices {
        let other = members[random::below(members.len())];
        if hosts[other as usize].active_requests() < hosts[best as usize].active_requests() {
            best = other;
        }
    }
    best
}

/// Of several that are equally idle one at random.
fn least_busy_of_all<H: Candidate>(hosts: &[H], members: &[u32]) -> u32 {
    let (mut best, mut least, mut ties) = (members[0], u32::MAX, 0);
    for &member in members {
        let active = hosts[member as usize].active_requests();
        if active < least || ties == 0 {
            (best, least, ties) = (member, active, 1);
        } else if active == least {
            ties += 1;
            if random::below(ties) == 0 {
                best = member;
            }
        }
    }
    best
}

/// A schedule where weights differ, or some hosts still start slowly.
fn by_weight<H: Candidate>(policy: LbPolicy, group: &Group, hosts: &[H], now: Instant) -> Option<Edf> {
    if group.hosts.len() < 2 || matches!(policy, LbPolicy::Random | LbPolicy::ClusterProvided) {
        return None;
    }
    let is_starting = policy.slow_start().is_some_and(|slow_start| {
        hosts.iter().any(|host| slow_start::is_starting(slow_start, host.healthy_since(), now))
    });
    if group.is_even && !is_starting {
        return None;
    }
    Some(Edf::new(group.hosts.iter().map(|&host| (host, weight_now(policy, &hosts[host as usize])))))
}

/// Weight in the schedule; least-request divides it by the load.
fn weight_now<H: Candidate>(policy: LbPolicy, host: &H) -> f64 {
    let mut weight = f64::from(host.weight().max(1));
    if let LbPolicy::LeastRequest(LeastRequest { active_request_bias: bias, .. }) = policy {
        let load = f64::from(host.active_requests()) + 1.0;
        weight /= if bias == 1.0 { load } else { load.powf(bias) };
    }
    match policy.slow_start() {
        Some(slow_start) => weight * slow_start::factor(slow_start, host.healthy_since(), Instant::now()),
        None => weight,
    }
}
