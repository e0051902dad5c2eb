//! Which host of a cluster gets the next request: priorities, panic, and the policies.
//!
//! Plain data: an index per worker, no sockets. Source: Envoy's `load_balancer_impl` (priority load with
//! overprovisioning, panic threshold, round-robin with an earliest-deadline-first schedule when weights differ,
//! power of N choices).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use meltemi_compile::load_balancing::{LbPolicy, LeastRequest};

use crate::random;

/// What a balancer must know of a host.
pub(crate) trait Candidate {
    /// `load_balancing_weight`.
    fn weight(&self) -> u32;
    /// Healthy by discovery and not ejected.
    fn is_healthy(&self) -> bool;
    /// Requests in flight, over all workers.
    fn active_requests(&self) -> u32;
}

/// How hosts are spread over priorities, and where the turn is.
#[derive(Debug)]
pub(crate) struct Balancer {
    policy: LbPolicy,
    panic_threshold_percent: f64,
    overprovisioning_percent: u32,
    priorities: Vec<Priority>,
}

/// One priority level.
#[derive(Debug)]
struct Priority {
    /// Hosts that may be picked: the healthy ones, or all in panic.
    eligible: Vec<usize>,
    /// Percent of traffic.
    load: u32,
    turn: Turn,
}

/// State of the policy within one level.
#[derive(Debug)]
enum Turn {
    /// All weights are equal: the next index.
    Index(usize),
    /// Earliest deadline first.
    Edf(Edf),
}

impl Balancer {
    /// A balancer over `levels` (hosts by priority, as indices into `hosts`).
    pub(crate) fn new<H: Candidate>(
        policy: LbPolicy,
        panic_threshold_percent: f64,
        overprovisioning_percent: u32,
        hosts: &[H],
        levels: &[Vec<usize>],
    ) -> Balancer {
        let mut balancer =
            Balancer { policy, panic_threshold_percent, overprovisioning_percent, priorities: Vec::new() };
        balancer.refresh(hosts, levels);
        balancer
    }

    /// Works out anew who is eligible, after hosts or their health changed. Whose turn it is stays where the
    /// weights are equal, so that updates do not favour the first host.
    pub(crate) fn refresh<H: Candidate>(&mut self, hosts: &[H], levels: &[Vec<usize>]) {
        let healthy: Vec<Vec<usize>> = levels
            .iter()
            .map(|level| level.iter().copied().filter(|&i| hosts[i].is_healthy()).collect())
            .collect();
        let spread = Spread::new(self, levels, &healthy);
        let old = std::mem::take(&mut self.priorities);
        let mut old = old.into_iter().map(|p| p.turn);
        self.priorities = levels
            .iter()
            .zip(healthy)
            .enumerate()
            .map(|(p, (all, healthy))| {
                let eligible = if spread.panic[p] { all.clone() } else { healthy };
                let turn = self.policy_turn(hosts, &eligible, old.next());
                Priority { eligible, load: spread.load[p], turn }
            })
            .collect();
    }

    fn policy_turn<H: Candidate>(&self, hosts: &[H], eligible: &[usize], old: Option<Turn>) -> Turn {
        let even = eligible.windows(2).all(|pair| hosts[pair[0]].weight() == hosts[pair[1]].weight());
        if even || matches!(self.policy, LbPolicy::Random | LbPolicy::ClusterProvided) {
            return match old {
                Some(Turn::Index(next)) => Turn::Index(next),
                _ => Turn::Index(random::below(eligible.len())),
            };
        }
        Turn::Edf(Edf::new(eligible.iter().map(|&i| (i, self.edf_weight(&hosts[i])))))
    }

    /// The next host, or `None` when there is none at all.
    pub(crate) fn pick<H: Candidate>(&mut self, hosts: &[H]) -> Option<usize> {
        let level = self.pick_priority()?;
        let policy = self.policy;
        let Priority { eligible, turn, .. } = &mut self.priorities[level];
        match (turn, policy) {
            (_, _) if eligible.is_empty() => None,
            (Turn::Edf(edf), _) => edf.pick(|host| weight_now(policy, &hosts[host])),
            (
                Turn::Index(_),
                LbPolicy::Random | LbPolicy::ClusterProvided | LbPolicy::RingHash(_) | LbPolicy::Maglev(_),
            ) => Some(eligible[random::below(eligible.len())]),
            (Turn::Index(_), LbPolicy::LeastRequest(LeastRequest { choice_count, .. })) => {
                Some(least_busy(hosts, eligible, choice_count.unwrap_or(2)))
            }
            (Turn::Index(next), LbPolicy::RoundRobin { .. }) => {
                let host = eligible[*next % eligible.len()];
                *next = next.wrapping_add(1);
                Some(host)
            }
        }
    }

    /// Whose turn it is in each level, for the balancer of the next generation.
    pub(crate) fn turns(&self) -> Vec<usize> {
        let next = |priority: &Priority| match priority.turn {
            Turn::Index(next) => next,
            Turn::Edf(_) => 0,
        };
        self.priorities.iter().map(next).collect()
    }

    /// Goes on from the turns of the generation before.
    pub(crate) fn resume(&mut self, turns: &[usize]) {
        for (priority, turn) in self.priorities.iter_mut().zip(turns) {
            if let Turn::Index(next) = &mut priority.turn {
                *next = *turn;
            }
        }
    }

    fn pick_priority(&self) -> Option<usize> {
        if self.priorities.len() == 1 {
            return Some(0);
        }
        let mut point = random::below(100) as u32;
        self.priorities.iter().position(|priority| {
            let here = point < priority.load;
            point = point.saturating_sub(priority.load);
            here
        })
    }

    fn edf_weight<H: Candidate>(&self, host: &H) -> f64 {
        weight_now(self.policy, host)
    }
}

/// Weight in the schedule; least-request divides it by the load (`active_request_bias` 1).
fn weight_now<H: Candidate>(policy: LbPolicy, host: &H) -> f64 {
    let weight = f64::from(host.weight().max(1));
    match policy {
        LbPolicy::LeastRequest(_) => weight / f64::from(host.active_requests().saturating_add(1)),
        _ => weight,
    }
}

fn least_busy<H: Candidate>(hosts: &[H], eligible: &[usize], choice_count: u32) -> usize {
    let mut best = eligible[random::below(eligible.len())];
    for _ in 1..choice_count {
        let other = eligible[random::below(eligible.len())];
        if hosts[other].active_requests() < hosts[best].active_requests() {
            best = other;
        }
    }
    best
}

/// Load and panic of every priority.
#[derive(Debug)]
struct Spread {
    load: Vec<u32>,
    panic: Vec<bool>,
}

impl Spread {
    fn new(balancer: &Balancer, levels: &[Vec<usize>], healthy: &[Vec<usize>]) -> Spread {
        let availability: Vec<u32> = levels
            .iter()
            .zip(healthy)
            .map(|(all, healthy)| {
                available_percent(healthy.len(), all.len(), balancer.overprovisioning_percent)
            })
            .collect();
        let total = availability.iter().sum::<u32>().min(100);
        let panic = levels
            .iter()
            .zip(healthy)
            .map(|(all, healthy)| total < 100 && is_panic(balancer, healthy.len(), all.len()))
            .collect();
        let load = if total == 0 { load_by_size(levels) } else { load_by_health(&availability, total) };
        Spread { load, panic }
    }
}

fn available_percent(healthy: usize, all: usize, overprovisioning_percent: u32) -> u32 {
    if all == 0 {
        return 0;
    }
    (healthy as u64 * u64::from(overprovisioning_percent) / all as u64).min(100) as u32
}

fn is_panic(balancer: &Balancer, healthy: usize, all: usize) -> bool {
    let percent = if all == 0 { 0.0 } else { 100.0 * healthy as f64 / all as f64 };
    percent < balancer.panic_threshold_percent
}

fn load_by_health(availability: &[u32], total: u32) -> Vec<u32> {
    let mut left = 100;
    let mut load: Vec<u32> = availability
        .iter()
        .map(|percent| {
            let share = (percent * 100 / total).min(left);
            left -= share;
            share
        })
        .collect();
    // What rounding left over goes to the first level that has any.
    if let Some(first) = load.iter_mut().find(|share| **share > 0) {
        *first += left;
    }
    load
}

fn load_by_size(levels: &[Vec<usize>]) -> Vec<u32> {
    let all: usize = levels.iter().map(Vec::len).sum();
    if all == 0 {
        return levels.iter().enumerate().map(|(p, _)| if p == 0 { 100 } else { 0 }).collect();
    }
    let mut load: Vec<u32> = levels.iter().map(|level| (level.len() * 100 / all) as u32).collect();
    let left = 100 - load.iter().sum::<u32>();
    if let Some(first) = load.iter_mut().find(|share| **share > 0) {
        *first += left;
    }
    load
}

/// A weighted schedule: each pick moves a host's deadline on by the reciprocal of its weight.
#[derive(Debug)]
struct Edf {
    queue: BinaryHeap<Entry>,
    order: u64,
}

#[derive(Debug, PartialEq)]
struct Entry {
    deadline: f64,
    order: u64,
    host: usize,
}

impl Edf {
    fn new(hosts: impl ExactSizeIterator<Item = (usize, f64)>) -> Edf {
        let mut edf = Edf { queue: BinaryHeap::with_capacity(hosts.len()), order: 0 };
        let weights: Vec<(usize, f64)> = hosts.collect();
        weights.iter().for_each(|&(host, weight)| edf.push(1.0 / weight, host));
        // Start somewhere, so that workers which start together do not all favour the same hosts.
        for _ in 0..random::below(weights.len()) {
            edf.pick(|host| weights.iter().find(|(i, _)| *i == host).map_or(1.0, |(_, weight)| *weight));
        }
        edf
    }

    fn push(&mut self, deadline: f64, host: usize) {
        self.order += 1;
        self.queue.push(Entry { deadline, order: self.order, host });
    }

    fn pick(&mut self, weight: impl Fn(usize) -> f64) -> Option<usize> {
        let first = self.queue.pop()?;
        self.push(first.deadline + 1.0 / weight(first.host), first.host);
        Some(first.host)
    }
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        // Reversed: the heap gives the greatest, the schedule wants the earliest.
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
