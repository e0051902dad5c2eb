//! Instruction counts of host picks; `scripts/bench-micro` runs these under callgrind.

use std::hint::black_box;

use meltemi_compile::load_balancing::LbPolicy;

use super::{Asked, ClusterCounts, LEAST_REQUEST, ROUND_ROBIN, UP, World};
use crate::random::micro_iterations;

/// Picks one of ten healthy hosts.
fn pick(policy: LbPolicy) {
    let world = World::new(policy, &[&[UP; 10]]);
    let mut balancer = world.balancer(None);
    let (asked, counts) = (Asked::default(), ClusterCounts::default());
    for _ in 0..micro_iterations() {
        assert!(black_box(balancer.pick(black_box(&world.hosts), &asked, &counts)).is_some());
    }
}

#[test]
#[ignore = "an instruction count"]
fn host_pick_round_robin() {
    pick(ROUND_ROBIN);
}

#[test]
#[ignore = "an instruction count"]
fn host_pick_least_request() {
    pick(LEAST_REQUEST);
}

#[test]
#[ignore = "an instruction count"]
fn host_pick_random() {
    pick(LbPolicy::Random);
}
