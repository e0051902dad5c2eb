//! Probes of a replica's program: when to ask, and what a row of answers means. How to ask is in `ask`.
//!
//! `up` asks the program itself at ADDRESS:$PORT, not through its sidecar, so a broken sidecar never restarts a healthy
//! program. Source: Kubernetes "Configure Liveness, Readiness and Startup Probes" and the kubelet's prober worker.
//! Differs: until a replica is ready for the first time its readiness is asked every 100 ms at least, so that a mesh
//! starts fast; the first probe is not delayed at random.

mod ask;

use std::net::SocketAddr;
use std::time::Duration;

use meltemi_api::kubernetes::Probe;
use tokio::sync::mpsc;
use tokio::time::sleep;

pub(crate) use ask::Target;

/// How often readiness is asked before the first success.
const EAGER_PERIOD: Duration = Duration::from_millis(100);

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Whether the program has started.
    Startup,
    /// Whether it gets traffic.
    Readiness,
    /// Whether it goes on.
    Liveness,
    /// Whether a process of the mesh itself (proxy, control plane) is ready.
    Mesh,
}

/// When to ask, and how many answers in a row count; Kubernetes' defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) successes: u32,
    pub(crate) failures: u32,
}

impl Schedule {
    /// As the manifest says.
    pub(crate) fn of(probe: &Probe) -> Schedule {
        let seconds = |value: Option<u32>, default| Duration::from_secs(value.unwrap_or(default).into());
        Schedule {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: probe.success_threshold.unwrap_or(1),
            failures: probe.failure_threshold.unwrap_or(3),
        }
    }
}

/// Counts answers in a row.
#[derive(Debug)]
struct Tally {
    successes: u32,
    failures: u32,
    /// The last answer and how often it came.
    row: (bool, u32),
}

impl Tally {
    fn new(schedule: &Schedule) -> Tally {
        Tally { successes: schedule.successes, failures: schedule.failures, row: (false, 0) }
    }

    /// The verdict, once enough answers agree.
    fn add(&mut self, answer: bool) -> Option<bool> {
        let (last, count) = self.row;
        self.row = (answer, if last == answer { count.saturating_add(1) } else { 1 });
        let needed = if answer { self.successes } else { self.failures };
        (self.row.1 >= needed).then_some(answer)
    }
}

/// Who is asked: one life of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The unit.
    pub(crate) unit: String,
    /// The process, so that a verdict about an earlier one is known as such.
    pub(crate) pid: u32,
}

/// What a probe found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// About whom.
    pub(crate) subject: Subject,
    /// Of which probe.
    pub(crate) purpose: Purpose,
    /// Good or bad.
    pub(crate) is_good: bool,
    /// The last answer, for people.
    pub(crate) detail: String,
}

/// Somebody who can be asked.
pub(crate) trait Ask {
    /// Asks once; `Err` says what was wrong.
    fn ask(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// Runs the probes of a container that has just started, in Kubernetes' order: startup first, then readiness and
/// liveness side by side. Ends when liveness or startup fails, or when nobody listens; never otherwise.
pub(crate) async fn watch(target: Target, report: Report) {
    let container = &target.container;
    if let Some(probe) = &container.startup_probe {
        let Some(asker) = target.asker(probe) else { return };
        if !startup(&asker, Schedule::of(probe), &report).await {
            return;
        }
    }
    let readiness = async {
        let asker = container.readiness_probe.as_ref().and_then(|probe| Some((target.asker(probe)?, probe)));
        match asker {
            Some((asker, probe)) => readiness(&asker, Schedule::of(probe), Purpose::Readiness, &report).await,
            None => {
                report.send(Purpose::Readiness, Ok(())).await;
                std::future::pending().await
            }
        }
    };
    let liveness = async {
        let asker = container.liveness_probe.as_ref().and_then(|probe| Some((target.asker(probe)?, probe)));
        match asker {
            Some((asker, probe)) => liveness(&asker, Schedule::of(probe), &report).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = readiness => {}
        () = liveness => {}
    }
}

/// Watches a process of the mesh itself by an HTTP path that answers with success while it is ready.
pub(crate) async fn watch_mesh(socket: SocketAddr, path: &'static str, report: Report) {
    let second = Duration::from_secs(1);
    let schedule = Schedule {
        initial_delay: Duration::ZERO,
        period: second,
        timeout: second,
        successes: 1,
        failures: 3,
    };
    readiness(&ask::http(socket, path), schedule, Purpose::Mesh, &report).await;
}

/// Where verdicts about one subject go.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) subject: Subject,
    pub(crate) verdicts: mpsc::Sender<Verdict>,
}

impl Report {
    /// Whether anybody listens.
    async fn send(&self, purpose: Purpose, answer: Result<(), String>) -> bool {
        let is_good = answer.is_ok();
        let detail = answer.err().unwrap_or_else(|| "ok".to_owned());
        self.verdicts.send(Verdict { subject: self.subject.clone(), purpose, is_good, detail }).await.is_ok()
    }
}

/// Asks until the startup probe has succeeded or failed for good; whether it succeeded.
async fn startup(asker: &impl Ask, schedule: Schedule, report: &Report) -> bool {
    let mut tally = Tally::new(&schedule);
    sleep(schedule.initial_delay).await;
    loop {
        let answer = within(asker, schedule.timeout).await;
        if let Some(is_good) = tally.add(answer.is_ok()) {
            return report.send(Purpose::Startup, answer).await && is_good;
        }
        sleep(schedule.period).await;
    }
}

/// Tells every change of readiness; a program counts as not ready before the first verdict.
async fn readiness(asker: &impl Ask, schedule: Schedule, purpose: Purpose, report: &Report) {
    let mut tally = Tally::new(&schedule);
    let mut is_ready = false;
    let mut was_ever_ready = false;
    sleep(schedule.initial_delay).await;
    loop {
        let answer = within(asker, schedule.timeout).await;
        let verdict = tally.add(answer.is_ok());
        if let Some(is_good) = verdict.filter(|is_good| *is_good != is_ready) {
            is_ready = is_good;
            was_ever_ready |= is_good;
            if !report.send(purpose, answer).await {
                return;
            }
        }
        let period = if was_ever_ready { schedule.period } else { schedule.period.min(EAGER_PERIOD) };
        sleep(period).await;
    }
}

/// Ends with the verdict that the program is dead.
async fn liveness(asker: &impl Ask, schedule: Schedule, report: &Report) {
    let mut tally = Tally::new(&schedule);
    sleep(schedule.initial_delay).await;
    loop {
        let answer = within(asker, schedule.timeout).await;
        if tally.add(answer.is_ok()) == Some(false) {
            report.send(Purpose::Liveness, answer).await;
            return;
        }
        sleep(schedule.period).await;
    }
}

async fn within(asker: &impl Ask, limit: Duration) -> Result<(), String> {
    match tokio::time::timeout(limit, asker.ask()).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

#[cfg(test)]
mod tests;
