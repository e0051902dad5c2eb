use std::sync::Arc;
use std::time::Duration;

use meltemi_compile::program::{HealthCheck, HealthCheckKind, Locality, Pace, TcpHealthCheck};

use super::*;
use crate::health::events::Events;
use crate::health::probe::Target;
use crate::stats::Registry;
use crate::upstream::shared::{ClusterState, HostStates, Member};
use crate::upstream::transport::Transport;

fn check() -> HealthCheck {
    let second = Duration::from_secs(1);
    HealthCheck {
        timeout: second,
        pace: Pace {
            interval: second,
            unhealthy_interval: second,
            unhealthy_edge_interval: second,
            healthy_edge_interval: second,
            no_traffic_interval: second,
            no_traffic_healthy_interval: second,
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
        },
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        reuse_connection: true,
        event_logs: Vec::new(),
        always_log_failures: false,
        always_log_success: false,
        transport_socket_match_criteria: None,
        kind: HealthCheckKind::Tcp(TcpHealthCheck::default()),
    }
}

/// A session of a host that was not checked yet.
fn session() -> Session {
    let cluster = Arc::new(ClusterState::new(&"c".into(), None));
    let address = ([127, 0, 0, 1], 1).into();
    let member = Member { address, state: cluster.host(address) };
    cluster.put_flag(&member.state, HealthFlag::FailedActiveHc, true);
    cluster.put_flag(&member.state, HealthFlag::PendingActiveHc, true);
    let check = Arc::new(check());
    Session {
        events: Events::new(&Arc::from([]), &check.kind, "c", address, &Locality::default()),
        check,
        target: Target { address, transport: Transport::new(Arc::default(), cluster.tls(), "") },
        cluster,
        member,
        authority: "c".into(),
        ends_ejection: true,
        registry: Registry::new(),
        hosts: Arc::new(HostStates::default()),
    }
}

impl Session {
    fn has(&self, flag: HealthFlag) -> bool {
        self.member.state.flags.has(flag)
    }

    fn healthy(&self) -> u64 {
        self.cluster.checks.healthy.get()
    }
}

#[test]
fn the_first_pass_makes_a_host_healthy_at_once() {
    let session = session();
    let mut judge = Judge::new(&session);
    assert_eq!(judge.passed(false), Transition::Changed);
    assert!(!session.has(HealthFlag::FailedActiveHc) && !session.has(HealthFlag::PendingActiveHc));
    assert!(session.member.state.checks.is_first_done());
    assert_eq!(session.healthy(), 1);
    assert_eq!(judge.passed(false), Transition::Unchanged);
}

#[test]
fn failures_of_the_network_need_their_number_and_others_do_not() {
    let session = session();
    let mut judge = Judge::new(&session);
    judge.passed(false);
    assert_eq!(judge.failed(&Failure::NETWORK), Transition::Pending);
    assert!(!session.has(HealthFlag::FailedActiveHc));
    judge.passed(false);
    assert_eq!(judge.failed(&Failure::TIMEOUT), Transition::Pending, "a pass ends the row");
    assert_eq!(judge.failed(&Failure::TIMEOUT), Transition::Changed);
    assert!(session.has(HealthFlag::FailedActiveHc) && session.has(HealthFlag::ActiveHcTimeout));
    assert_eq!(judge.failed(&Failure::NETWORK), Transition::Unchanged);
    assert!(!session.has(HealthFlag::ActiveHcTimeout));
    assert_eq!(session.healthy(), 0);
    assert_eq!(judge.passed(false), Transition::Pending);
    assert_eq!(judge.passed(false), Transition::Changed);
    assert_eq!(judge.failed(&Failure::ACTIVE), Transition::Changed, "an answer that is bad counts at once");
    assert_eq!(session.cluster.checks.network_failure.get(), 4);
    assert_eq!(session.cluster.checks.failure.get(), 5);
}

#[test]
fn a_retriable_answer_needs_its_number_too() {
    let session = session();
    let mut judge = Judge::new(&session);
    judge.passed(false);
    let retriable = Failure { may_pass_later: true, ..Failure::ACTIVE };
    assert_eq!(judge.failed(&retriable), Transition::Pending);
    assert_eq!(judge.failed(&retriable), Transition::Changed);
}

#[test]
fn degraded_comes_and_goes_with_each_pass() {
    let session = session();
    let mut judge = Judge::new(&session);
    judge.passed(true);
    assert!(session.has(HealthFlag::DegradedActiveHc));
    assert_eq!(judge.passed(true), Transition::Unchanged);
    assert_eq!(judge.passed(false), Transition::Changed);
    assert!(!session.has(HealthFlag::DegradedActiveHc));
    assert_eq!(session.cluster.checks.degraded.get(), 0);
}

#[test]
fn who_asks_to_be_left_out_comes_back_with_its_passes() {
    let session = session();
    let mut judge = Judge::new(&session);
    judge.passed(false);
    session.cluster.fail_passively(&session.member.state);
    judge.failed(&Failure::PASSIVE);
    assert!(session.member.state.is_excluded());
    assert_eq!(session.cluster.checks.passive_failure.get(), 1);
    judge.passed(false);
    assert!(session.member.state.is_excluded());
    judge.passed(false);
    assert!(!session.member.state.is_excluded() && !session.has(HealthFlag::FailedActiveHc));
}

#[test]
fn a_pass_ends_an_ejection() {
    let session = session();
    let mut judge = Judge::new(&session);
    session.cluster.put_flag(&session.member.state, HealthFlag::FailedOutlierCheck, true);
    judge.failed(&Failure::NETWORK);
    assert!(session.has(HealthFlag::FailedOutlierCheck));
    judge.passed(false);
    judge.passed(false);
    assert!(!session.has(HealthFlag::FailedOutlierCheck));
}
