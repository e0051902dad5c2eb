//! What the balancers promise: exact turns, exact weights, priorities and panic as Envoy has them.

mod micro;

use std::collections::BTreeMap;

use meltemi_compile::load_balancing::{LbPolicy, LeastRequest, LocalityLb, ZoneAware};
use meltemi_compile::program::{Endpoints, Host, Locality};

use super::layout::Fitness;
use super::*;
use crate::upstream::shared::Health;

#[derive(Debug, Clone, Copy)]
struct Fake {
    weight: u32,
    health: Health,
    active: u32,
    zone: &'static str,
}

const ROUND_ROBIN: LbPolicy = LbPolicy::RoundRobin { slow_start: None };
const LEAST_REQUEST: LbPolicy = LbPolicy::LeastRequest(LeastRequest {
    choice_count: Some(2),
    active_request_bias: 1.0,
    slow_start: None,
});
const UP: Fake = Fake { weight: 1, health: Health::Healthy, active: 0, zone: "" };
const DOWN: Fake = Fake { health: Health::Unhealthy, ..UP };
const DEGRADED: Fake = Fake { health: Health::Degraded, ..UP };

impl Candidate for Fake {
    fn weight(&self) -> u32 {
        self.weight
    }
    fn active_requests(&self) -> u32 {
        self.active
    }
    fn healthy_since(&self) -> Option<Instant> {
        None
    }
}

/// A cluster of fakes.
struct World {
    config: LoadBalancing,
    hosts: Vec<Fake>,
    levels: Vec<usize>,
    weights: BTreeMap<&'static str, u32>,
    home: Option<Locality>,
}

fn zone(name: &str) -> Locality {
    Locality { zone: name.into(), ..Locality::default() }
}

impl World {
    /// Hosts by priority.
    fn new(policy: LbPolicy, levels: &[&[Fake]]) -> World {
        World {
            config: LoadBalancing {
                policy,
                locality: LocalityLb::ZoneAware(ZoneAware::default()),
                panic_threshold_percent: 50,
                close_connections_on_host_set_change: false,
                subsets: None,
                original_dst: None,
            },
            hosts: levels.concat(),
            levels: levels.iter().map(|level| level.len()).collect(),
            weights: BTreeMap::new(),
            home: None,
        }
    }

    fn layout(&self) -> ClusterLayout {
        let mut hosts = self.hosts.iter().map(|fake| Host {
            weight: fake.weight,
            locality: Arc::new(zone(fake.zone)),
            ..Host::default()
        });
        let priorities = self.levels.iter().map(|count| hosts.by_ref().take(*count).collect()).collect();
        let endpoints = Endpoints { priorities, ..Endpoints::default() };
        let fitness: Vec<Fitness> =
            self.hosts.iter().map(|fake| Fitness { health: fake.health, is_excluded: false }).collect();
        let plan =
            Plan { config: &self.config, endpoints: &endpoints, fitness: &fitness, home: self.home.as_ref() };
        let weights: BTreeMap<_, _> =
            self.weights.iter().map(|(name, weight)| (Arc::new(zone(name)), *weight)).collect();
        ClusterLayout::Whole(Arc::new(Layout::new(plan, &|_| true, &|_| Some(weights.clone()))))
    }

    fn balancer(&self, old: Option<&Balancer>) -> Balancer {
        Balancer::new(&self.config, &self.layout(), &self.hosts, old)
    }

    fn counts(&self, picks: usize) -> Vec<usize> {
        self.counts_of(&mut self.balancer(None), picks)
    }

    fn counts_of(&self, balancer: &mut Balancer, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; self.hosts.len()];
        for _ in 0..picks {
            if let Some(host) = balancer.pick(&self.hosts, &Asked::default(), &ClusterCounts::default()) {
                counts[host as usize] += 1;
            }
        }
        counts
    }
}

fn counts(policy: LbPolicy, levels: &[&[Fake]], picks: usize) -> Vec<usize> {
    World::new(policy, levels).counts(picks)
}

/// Whether a count is what `picks` trials of this probability give, within four standard deviations.
fn is_likely(count: usize, picks: usize, probability: f64) -> bool {
    let mean = picks as f64 * probability;
    (count as f64 - mean).abs() <= 4.0 * (mean * (1.0 - probability)).sqrt()
}

#[test]
fn round_robin_gives_every_host_the_same() {
    assert_eq!(counts(ROUND_ROBIN, &[&[UP; 3]], 300), [100, 100, 100]);
}

#[test]
fn round_robin_keeps_to_weights_within_one_pick() {
    let counts = counts(ROUND_ROBIN, &[&[UP, Fake { weight: 3, ..UP }]], 400);
    assert!(counts[0].abs_diff(100) <= 1 && counts[1].abs_diff(300) <= 1, "{counts:?}");
}

#[test]
fn the_turn_survives_a_new_layout() {
    let world = World::new(ROUND_ROBIN, &[&[UP; 4]]);
    let mut balancer = world.balancer(None);
    let mut counts = [0; 4];
    for _ in 0..40 {
        let picked = balancer.pick(&world.hosts, &Asked::default(), &ClusterCounts::default());
        counts[picked.unwrap() as usize] += 1;
        balancer = world.balancer(Some(&balancer));
    }
    assert_eq!(counts, [10; 4]);
}

#[test]
fn least_request_prefers_the_idle_host() {
    let counts = counts(LEAST_REQUEST, &[&[Fake { active: 50, ..UP }, UP]], 1000);
    assert!(is_likely(counts[0], 1000, 0.25), "the busy one only when both draws hit it: {counts:?}");
}

#[test]
fn a_full_scan_finds_the_least_busy_and_is_fair_among_equals() {
    let policy = LbPolicy::LeastRequest(LeastRequest {
        choice_count: None,
        active_request_bias: 1.0,
        slow_start: None,
    });
    let counts = counts(policy, &[&[Fake { active: 1, ..UP }, UP, UP]], 1000);
    assert_eq!(counts[0], 0);
    assert!(is_likely(counts[1], 1000, 0.5), "{counts:?}");
}

#[test]
fn least_request_divides_weights_by_load_to_the_power_of_the_bias() {
    let policy = |bias| {
        LbPolicy::LeastRequest(LeastRequest {
            choice_count: Some(2),
            active_request_bias: bias,
            slow_start: None,
        })
    };
    let hosts = [Fake { active: 3, weight: 4, ..UP }, UP];
    for (bias, share) in [(0.0, 800), (1.0, 500), (0.5, 667)] {
        let counts = counts(policy(bias), &[&hosts], 1000);
        assert!(counts[0].abs_diff(share) <= 2, "{counts:?} with bias {bias}");
    }
}

#[test]
fn random_reaches_all_whatever_the_weights() {
    let counts = counts(LbPolicy::Random, &[&[UP, UP, UP, Fake { weight: 9, ..UP }]], 4000);
    assert!(counts.iter().all(|n| is_likely(*n, 4000, 0.25)), "{counts:?}");
}

#[test]
fn an_unhealthy_host_gets_nothing_while_enough_are_healthy() {
    assert_eq!(counts(ROUND_ROBIN, &[&[UP, DOWN, UP]], 100), [50, 0, 50]);
}

#[test]
fn below_the_panic_threshold_all_hosts_are_used() {
    assert_eq!(counts(ROUND_ROBIN, &[&[UP, DOWN, DOWN]], 99), [33, 33, 33]);
    assert_eq!(counts(ROUND_ROBIN, &[&[DOWN, DOWN]], 10), [5, 5]);
}

#[test]
fn traffic_may_fail_in_panic() {
    let mut world = World::new(ROUND_ROBIN, &[&[UP, DOWN, DOWN]]);
    let zones = ZoneAware { fail_traffic_on_panic: true, ..ZoneAware::default() };
    world.config.locality = LocalityLb::ZoneAware(zones);
    assert_eq!(world.counts(10), [0, 0, 0]);
}

#[test]
fn traffic_spills_to_the_next_priority_when_health_with_overprovisioning_is_short() {
    // 2 of 4 healthy: 50 % x 1.4 = 70 % stay, 30 % spill.
    let counts = counts(ROUND_ROBIN, &[&[UP, UP, DOWN, DOWN], &[UP]], 10_000);
    assert!(is_likely(counts[4], 10_000, 0.3), "{counts:?}");
    assert_eq!(counts[2] + counts[3], 0);
}

#[test]
fn degraded_hosts_take_what_healthy_ones_cannot() {
    // 1 of 4 healthy: 35 %; 3 degraded: the rest.
    let counts = counts(ROUND_ROBIN, &[&[UP, DEGRADED, DEGRADED, DEGRADED]], 10_000);
    assert!(is_likely(counts[0], 10_000, 0.35), "{counts:?}");
}

#[test]
fn localities_get_their_weight_less_what_is_missing_of_them() {
    let at = |zone, health| Fake { zone, health, ..UP };
    let hosts = [
        at("a", Health::Healthy),
        at("b", Health::Healthy),
        at("b", Health::Unhealthy),
        at("c", Health::Healthy),
    ];
    let mut world = World::new(ROUND_ROBIN, &[&hosts]);
    world.config.locality = LocalityLb::Weighted;
    world.weights = BTreeMap::from([("a", 30), ("b", 100)]);
    // Half of b, overprovisioned, is 70; c has no weight.
    let counts = world.counts(1000);
    assert!(counts[0].abs_diff(300) <= 1 && counts[1].abs_diff(700) <= 1, "{counts:?}");
    assert_eq!(counts[2] + counts[3], 0);
    world.weights.clear();
    assert_eq!(world.counts(300), [100, 100, 0, 100], "without weights localities mean nothing");
}

#[test]
fn requests_stay_in_the_zone_as_far_as_it_can_take_them() {
    let at = |zone| Fake { zone, ..UP };
    let mut upstream = World::new(ROUND_ROBIN, &[&[at("a"), at("a"), at("b"), at("b"), at("b"), at("b")]]);
    upstream.home = Some(zone("a"));
    let routed = |peers: &[Fake]| {
        let mut local = World::new(ROUND_ROBIN, &[peers]);
        local.home = Some(zone("a"));
        let counts = ClusterCounts::default();
        let mut balancer = upstream.balancer(None);
        balancer.route_by_zones(local.balancer(None).peers().as_ref(), &counts);
        let picked = upstream.counts_of(&mut balancer, 6000);
        picked[0] + picked[1]
    };
    assert_eq!(
        routed(&[at("a"), at("b"), at("b"), at("b")]),
        6000,
        "a quarter of the peers, a third of the hosts"
    );
    let half = routed(&[at("a"), at("b")]);
    assert!(is_likely(half, 6000, 0.6666), "a third of the hosts for half of the peers: {half}");
    let alone = routed(&[at("a")]);
    assert!(is_likely(alone, 6000, 1.0 / 3.0) || alone == 2000, "one zone of peers is no zone: {alone}");
}

#[test]
fn tried_priorities_are_left_out() {
    let world = World::new(ROUND_ROBIN, &[&[UP], &[UP]]);
    let mut world = world;
    // With half of the first down there is a choice of priorities.
    world.hosts = vec![UP, UP];
    let mut balancer = world.balancer(None);
    let asked = Asked { tried_priorities: &[0], priority_update_frequency: 1, ..Asked::default() };
    assert_eq!(balancer.pick(&world.hosts, &asked, &ClusterCounts::default()), Some(1));
}

#[test]
fn no_host_is_no_pick() {
    assert_eq!(counts(ROUND_ROBIN, &[], 1), [0; 0]);
    assert_eq!(counts(ROUND_ROBIN, &[&[]], 1), [0; 0]);
}
