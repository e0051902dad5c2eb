//! What the balancers promise: exact turns, exact weights, priorities and panic as Envoy has them.

use super::*;

#[derive(Debug, Clone, Copy)]
struct Fake {
    weight: u32,
    healthy: bool,
    active: u32,
}

const ROUND_ROBIN: LbPolicy = LbPolicy::RoundRobin { slow_start: None };
const LEAST_REQUEST: LbPolicy = LbPolicy::LeastRequest(LeastRequest {
    choice_count: Some(2),
    active_request_bias: 1.0,
    slow_start: None,
});
const UP: Fake = Fake { weight: 1, healthy: true, active: 0 };
const DOWN: Fake = Fake { weight: 1, healthy: false, active: 0 };

impl Candidate for Fake {
    fn weight(&self) -> u32 {
        self.weight
    }
    fn is_healthy(&self) -> bool {
        self.healthy
    }
    fn active_requests(&self) -> u32 {
        self.active
    }
}

fn counts(policy: LbPolicy, hosts: &[Fake], levels: &[Vec<usize>], picks: usize) -> Vec<usize> {
    let mut balancer = Balancer::new(policy, 50.0, 140, hosts, levels);
    let mut counts = vec![0; hosts.len()];
    for _ in 0..picks {
        if let Some(host) = balancer.pick(hosts) {
            counts[host] += 1;
        }
    }
    counts
}

#[test]
fn round_robin_gives_every_host_the_same() {
    assert_eq!(counts(ROUND_ROBIN, &[UP; 3], &[vec![0, 1, 2]], 300), [100, 100, 100]);
}

#[test]
fn round_robin_keeps_to_weights_within_one_pick() {
    let hosts = [Fake { weight: 1, ..UP }, Fake { weight: 3, ..UP }];
    let counts = counts(ROUND_ROBIN, &hosts, &[vec![0, 1]], 400);
    assert!(counts[0].abs_diff(100) <= 1 && counts[1].abs_diff(300) <= 1, "{counts:?}");
}

#[test]
fn the_turn_survives_a_refresh() {
    let hosts = [UP; 4];
    let levels = [vec![0, 1, 2, 3]];
    let mut balancer = Balancer::new(ROUND_ROBIN, 50.0, 140, &hosts, &levels);
    let mut counts = [0; 4];
    for _ in 0..40 {
        counts[balancer.pick(&hosts).unwrap()] += 1;
        balancer.refresh(&hosts, &levels);
    }
    assert_eq!(counts, [10; 4]);
}

#[test]
fn least_request_prefers_the_idle_host() {
    let hosts = [Fake { active: 50, ..UP }, UP];
    let counts = counts(LEAST_REQUEST, &hosts, &[vec![0, 1]], 1000);
    // The busy one is taken only when both draws hit it: one in four.
    assert!((150..350).contains(&counts[0]), "{counts:?}");
}

#[test]
fn random_reaches_all() {
    let counts = counts(LbPolicy::Random, &[UP; 4], &[vec![0, 1, 2, 3]], 4000);
    assert!(counts.iter().all(|n| (800..1200).contains(n)), "{counts:?}");
}

#[test]
fn an_unhealthy_host_gets_nothing_while_enough_are_healthy() {
    assert_eq!(counts(ROUND_ROBIN, &[UP, DOWN, UP], &[vec![0, 1, 2]], 100), [50, 0, 50]);
}

#[test]
fn below_the_panic_threshold_all_hosts_are_used() {
    assert_eq!(counts(ROUND_ROBIN, &[UP, DOWN, DOWN], &[vec![0, 1, 2]], 99), [33, 33, 33]);
    assert_eq!(counts(ROUND_ROBIN, &[DOWN, DOWN], &[vec![0, 1]], 10), [5, 5]);
}

#[test]
fn traffic_spills_to_the_next_priority_when_health_with_overprovisioning_is_short() {
    // 2 of 4 healthy: 50 % x 1.4 = 70 % stay, 30 % spill.
    let hosts = [UP, UP, DOWN, DOWN, UP];
    let counts = counts(ROUND_ROBIN, &hosts, &[vec![0, 1, 2, 3], vec![4]], 10_000);
    assert!((2700..3300).contains(&counts[4]), "{counts:?}");
    assert_eq!(counts[2] + counts[3], 0);
}

#[test]
fn no_host_is_no_pick() {
    let hosts: [Fake; 0] = [];
    assert_eq!(Balancer::new(ROUND_ROBIN, 50.0, 140, &hosts, &[]).pick(&hosts), None);
    assert_eq!(Balancer::new(ROUND_ROBIN, 50.0, 140, &hosts, &[vec![]]).pick(&hosts), None);
}
