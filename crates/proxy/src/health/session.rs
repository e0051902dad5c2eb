//! The checks of one host: a probe, a verdict, a pause, and so on for as long as the host is there.

use std::sync::Arc;

use meltemi_compile::program::{HealthCheck, Transition};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::events::Events;
use super::judge::{Failure, Judge, Outcome};
use super::probe::{Probe, Target};
use crate::random;
use crate::stats::Registry;
use crate::upstream::shared::{ClusterState, HostStates, Member};

/// What a session is about.
pub(super) struct Session {
    pub(super) check: Arc<HealthCheck>,
    pub(super) cluster: Arc<ClusterState>,
    pub(super) member: Member,
    pub(super) target: Target,
    /// The authority of checks over HTTP.
    pub(super) authority: Box<str>,
    pub(super) events: Events,
    /// A success ends an ejection (`successful_active_health_check_uneject_host`).
    pub(super) ends_ejection: bool,
    pub(super) registry: Arc<Registry>,
    /// Told of what configuration waits for.
    pub(super) hosts: Arc<HostStates>,
}

/// What ended a pause.
enum Wake {
    Due,
    /// The host asked by its answers to be left out.
    Passive,
    /// The connection that is kept between checks was closed.
    Closed,
}

impl Session {
    /// Checks until it is dropped.
    pub(super) async fn run(self) {
        let pace = &self.check.pace;
        let mut probe = Probe::new(&self.check, self.target.clone(), &self.authority);
        let mut judge = Judge::new(&self);
        sleep(pace.first_pause(random::next())).await;
        loop {
            let (passed, transition) = self.check_once(&mut probe, &mut judge).await;
            let mut due = Instant::now() + self.pause(passed, transition);
            loop {
                let wake = tokio::select! {
                    () = sleep_until(due) => Wake::Due,
                    () = self.member.state.checks.failed_passively() => Wake::Passive,
                    () = probe.closed() => Wake::Closed,
                };
                match wake {
                    Wake::Due => break,
                    Wake::Passive => _ = judge.failed(&Failure::PASSIVE),
                    Wake::Closed => {
                        probe.close();
                        let transition = judge.failed(&Failure::NETWORK);
                        due = Instant::now() + self.pause(false, transition);
                    }
                }
            }
        }
    }

    async fn check_once(&self, probe: &mut Probe<'_>, judge: &mut Judge<'_>) -> (bool, Transition) {
        self.cluster.checks.attempt.inc();
        let outcome = match timeout(self.check.timeout, probe.check(&self.cluster.checks)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                probe.close();
                Outcome::Failed(Failure::TIMEOUT)
            }
        };
        match outcome {
            Outcome::Passed { degraded } => (true, judge.passed(degraded)),
            Outcome::Failed(failure) => (false, judge.failed(&failure)),
        }
    }

    fn pause(&self, passed: bool, transition: Transition) -> std::time::Duration {
        let had_traffic = self.registry.had_upstream_connections(&self.cluster.name);
        self.check.pace.pause(passed, transition, had_traffic, random::next())
    }
}
