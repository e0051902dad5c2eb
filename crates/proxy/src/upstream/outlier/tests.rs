use std::time::Duration;

use meltemi_compile::program::RateDetection;
use tokio::time::Instant;

use super::*;
use crate::upstream::shared::{ClusterState, HealthFlag, Member};

fn detection() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 3,
        consecutive_gateway_failure: 2,
        consecutive_local_origin_failure: 2,
        split_external_local_origin_errors: false,
        enforcing_percent: [100; 7],
        success_rate: RateDetection { minimum_hosts: 5, request_volume: 10, bound: 1900 },
        failure_percentage: RateDetection { minimum_hosts: 5, request_volume: 1000, bound: 85 },
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(100),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 100,
        always_eject_one_host: false,
        successful_active_health_check_uneject_host: true,
    }
}

/// A cluster of some hosts.
struct World {
    cluster: ClusterState,
    members: Vec<Member>,
    detection: OutlierDetection,
}

impl World {
    fn new(hosts: u16, detection: OutlierDetection) -> World {
        let cluster = ClusterState::new(&"c".into(), None);
        cluster.outlier.hosts.store(hosts.into(), Ordering::Relaxed);
        let member = |port| {
            let address = ([127, 0, 0, 1], port).into();
            Member { address, state: cluster.host(address) }
        };
        let members = (1..=hosts).map(member).collect();
        World { cluster, members, detection }
    }

    fn see(&self, host: usize, outcome: Outcome) {
        let member = &self.members[host];
        for ejection in member.state.outlier.take(outcome, &self.detection).into_iter().flatten() {
            ejection::in_a_row(&member.subject(&self.cluster), &self.detection, ejection);
        }
    }

    async fn interval(&self) {
        tokio::time::advance(self.detection.interval).await;
        sweep(&self.cluster, &self.detection, &self.members, Instant::now());
    }

    fn ejected(&self) -> Vec<usize> {
        let is_out = |i: &usize| self.members[*i].state.flags.has(HealthFlag::FailedOutlierCheck);
        (0..self.members.len()).filter(is_out).collect()
    }

    fn multiplier(&self, host: usize) -> u32 {
        self.members[host].state.outlier.ejections().multiplier
    }
}

#[test]
fn the_row_of_failures_is_broken_by_a_success() {
    let world = World::new(2, detection());
    for status in [500, 500, 200, 500, 500] {
        world.see(0, Outcome::Status(status));
    }
    assert_eq!(world.ejected(), [0; 0]);
    world.see(0, Outcome::Status(500));
    assert_eq!(world.ejected(), [0]);
    assert_eq!(world.cluster.outlier.totals.ejections_enforced_consecutive_5xx.get(), 1);
}

#[test]
fn a_gateway_row_is_broken_by_another_server_error() {
    let world = World::new(2, detection());
    world.see(0, Outcome::Status(503));
    world.see(0, Outcome::Status(500));
    assert_eq!(world.ejected(), [0; 0]);
    world.see(1, Outcome::TimedOut);
    world.see(1, Outcome::ConnectFailed);
    assert_eq!(world.ejected(), [1]);
    assert_eq!(world.cluster.outlier.totals.ejections_enforced_consecutive_gateway_failure.get(), 1);
}

#[test]
fn with_the_split_answers_and_connections_have_rows_of_their_own() {
    let world = World::new(2, OutlierDetection { split_external_local_origin_errors: true, ..detection() });
    world.see(0, Outcome::ConnectFailed);
    world.see(0, Outcome::Status(500));
    world.see(0, Outcome::Connected);
    world.see(0, Outcome::ConnectFailed);
    assert_eq!(world.ejected(), [0; 0]);
    world.see(0, Outcome::TimedOut);
    assert_eq!(world.ejected(), [0]);
    assert_eq!(world.cluster.outlier.totals.ejections_enforced_consecutive_local_origin_failure.get(), 1);
}

#[test]
fn too_many_ejections_overflow() {
    let world = World::new(3, OutlierDetection { max_ejection_percent: 50, ..detection() });
    for host in [0, 1] {
        (0..3).for_each(|_| world.see(host, Outcome::Status(500)));
    }
    assert_eq!(world.ejected(), [0]);
    assert_eq!(world.cluster.outlier.totals.ejections_overflow.get(), 1);
    assert_eq!(world.cluster.outlier.totals.ejections_active.get(), 1);
}

#[test]
fn enforcement_is_by_chance() {
    let hosts = 10_000;
    let mut half = detection();
    half.enforcing_percent[0] = 30;
    let world = World::new(hosts, half);
    for host in 0..usize::from(hosts) {
        (0..3).for_each(|_| world.see(host, Outcome::Status(500)));
    }
    let enforced = world.ejected().len() as f64;
    // Standard deviation: sqrt(10000 x 0.3 x 0.7) = 46; 5 of them.
    assert!((enforced - 3000.0).abs() < 230.0, "{enforced}");
    assert_eq!(world.cluster.outlier.totals.ejections_detected_consecutive_5xx.get(), u64::from(hosts));
}

#[tokio::test(start_paused = true)]
async fn a_host_stays_away_longer_each_time_and_calms_down_slowly() {
    let world = World::new(2, detection());
    let mut intervals_away = Vec::new();
    for _ in 0..3 {
        (0..3).for_each(|_| world.see(0, Outcome::Status(500)));
        let mut intervals = 0;
        while !world.ejected().is_empty() {
            world.interval().await;
            intervals += 1;
        }
        intervals_away.push(intervals);
    }
    assert_eq!(intervals_away, [3, 6, 9]);
    assert_eq!(world.multiplier(0), 3);
    // The interval in which it came back is not a quiet one.
    world.interval().await;
    assert_eq!(world.multiplier(0), 2);
    world.interval().await;
    world.interval().await;
    assert_eq!(world.multiplier(0), 0);
}

#[tokio::test(start_paused = true)]
async fn a_success_rate_far_below_the_others_is_ejected() {
    let world = World::new(6, detection());
    for host in 0..6 {
        for request in 0..10 {
            let status = if host == 5 && request % 2 == 0 { 500 } else { 200 };
            world.see(host, Outcome::Status(status));
        }
    }
    world.interval().await;
    assert_eq!(world.ejected(), [5]);
    let normal = world.cluster.outlier.rates()[Origin::External as usize].expect("enough hosts");
    assert!((normal.average - 91.67).abs() < 0.01, "{normal:?}");
    assert_eq!(world.members[5].state.outlier.success_rate(Origin::External), 50.0);
    // Without requests there is nothing to compare.
    world.interval().await;
    assert_eq!(world.cluster.outlier.rates(), [None, None]);
    assert_eq!(world.members[0].state.outlier.success_rate(Origin::External), -1.0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_percentage_needs_its_volume_and_its_hosts() {
    let never = RateDetection { minimum_hosts: 100, request_volume: 1, bound: 0 };
    let percentage = RateDetection { minimum_hosts: 3, request_volume: 10, bound: 50 };
    let detection = OutlierDetection {
        consecutive_5xx: 0,
        consecutive_gateway_failure: 0,
        success_rate: never,
        failure_percentage: percentage,
        ..detection()
    };
    let world = World::new(3, detection);
    let requests = |failures: [u32; 3], all: u32| {
        for (host, failures) in failures.into_iter().enumerate() {
            (0..all).for_each(|n| world.see(host, Outcome::Status(if n < failures { 500 } else { 200 })));
        }
    };
    requests([9, 0, 0], 9);
    world.interval().await;
    assert_eq!(world.ejected(), [0; 0], "too few requests");
    requests([4, 5, 6], 10);
    world.interval().await;
    assert_eq!(world.ejected(), [1, 2]);
    assert_eq!(world.cluster.outlier.totals.ejections_enforced_failure_percentage.get(), 2);
}

#[test]
fn a_host_that_left_is_no_longer_counted() {
    let world = World::new(2, detection());
    (0..3).for_each(|_| world.see(0, Outcome::Status(500)));
    assert_eq!(world.cluster.outlier.totals.ejections_active.get(), 1);
    world.cluster.forget(world.members[0].address);
    assert_eq!(world.cluster.outlier.totals.ejections_active.get(), 0);
    assert!(!world.cluster.host(world.members[0].address).flags.has(HealthFlag::FailedOutlierCheck));
}
