//! One supervised process: started, restarted with back-off, stopped. Each runs in a process group of its own and dies
//! with `up`. Leaves out why it is restarted from outside (probes, reconciliation).
//!
//! Source: Kubernetes `restartPolicy: Always`; the pauses are shorter (100 ms to 10 s instead of 10 s to 5 min),
//! because the person who broke it is looking.

mod child;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use meltemi_identity::SpiffeId;
use meltemi_runtime::backoff::{Backoff, jitter};
use meltemi_runtime::task::{self, Task};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::credentials::Credentials;
use crate::limits::{RESTART_BASE, RESTART_MAX, STABLE_RUN};
use crate::mark;
use crate::reaper::Registrar;
use child::Child;

/// How to start a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Added to the environment of `up`.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: PathBuf,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// Who it is: every start gets a new one-time credential for this on its standard input.
    pub(crate) identity: Option<SpiffeId>,
    /// Whether its standard output comes back as [`Notice::Line`]s instead.
    pub(crate) returns_lines: bool,
}

/// What a unit tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It runs, as this process.
    Started(u32),
    /// It ended, or could not be started; it starts again after the pause.
    Ended {
        /// How.
        why: String,
        /// Whether a restart was asked for.
        was_asked: bool,
        pause: Duration,
    },
    /// A line of its standard output.
    Line(String),
}

/// Where a unit's notices go, with the name of the unit.
pub(crate) type Notices = mpsc::Sender<(String, Notice)>;

/// What all units of a mesh share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// The mark of the mesh.
    pub(crate) mesh: String,
    pub(crate) registrar: Registrar,
    pub(crate) notices: Notices,
    pub(crate) credentials: Arc<Credentials>,
}

#[derive(Debug)]
enum Order {
    Restart(Launch, Duration),
    Stop(Duration, oneshot::Sender<()>),
}

/// A supervised process. Dropping it abandons the supervision, not the process; call [`Unit::stop`].
#[derive(Debug)]
pub(crate) struct Unit {
    orders: mpsc::Sender<Order>,
    _task: Task<()>,
}

impl Unit {
    /// Starts it and keeps it running.
    pub(crate) fn start(name: String, launch: Launch, shared: Shared) -> Unit {
        let (orders, receiver) = mpsc::channel(8);
        let supervisor = Supervisor { name, launch, shared, orders: receiver };
        Unit { orders, _task: task::spawn("unit", supervisor.run()) }
    }

    /// Ends the process and starts it anew, as `launch` says; the pause before it is that of a crash.
    pub(crate) async fn restart(&self, launch: Launch, grace: Duration) {
        self.restarter().restart(launch, grace).await;
    }

    /// Somebody else who may restart it.
    pub(crate) fn restarter(&self) -> Restarter {
        Restarter(self.orders.clone())
    }

    /// Asks the process to end, kills what is left after `grace`, and completes when nothing is left.
    pub(crate) async fn stop(self, grace: Duration) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(grace, done)).await.is_ok() {
            let _ = stopped.await;
        }
    }
}

/// The right to restart a unit.
#[derive(Debug, Clone)]
pub(crate) struct Restarter(mpsc::Sender<Order>);

impl Restarter {
    /// As [`Unit::restart`].
    pub(crate) async fn restart(&self, launch: Launch, grace: Duration) {
        // A unit that was stopped meanwhile takes no orders any more.
        let _ = self.0.send(Order::Restart(launch, grace)).await;
    }
}

struct Supervisor {
    name: String,
    launch: Launch,
    shared: Shared,
    orders: mpsc::Receiver<Order>,
}

impl Supervisor {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RESTART_BASE, RESTART_MAX);
        loop {
            let started = Instant::now();
            let end = self.run_once().await;
            if started.elapsed() >= STABLE_RUN {
                backoff.reset();
            }
            let (why, was_asked) = match end {
                End::Stopped(done) => {
                    let _ = done.send(());
                    return;
                }
                End::Abandoned => return,
                End::Because(why) => (why, false),
                End::Restart => ("was asked to end".to_owned(), true),
            };
            let pause = backoff.next_pause(jitter());
            self.tell(Notice::Ended { why, was_asked, pause }).await;
            if !self.pause(pause).await {
                return;
            }
        }
    }

    /// One life of the process.
    async fn run_once(&mut self) -> End {
        let mark = mark::of_unit(&self.shared.mesh, &self.name);
        let credential = self.launch.identity.as_ref().map(|id| self.shared.credentials.mint(id));
        let mut child = match credential.transpose().and_then(|c| Child::spawn(&self.launch, &mark, c)) {
            Ok(child) => child,
            Err(error) => return End::Because(format!("{}: {error}", self.launch.command[0])),
        };
        let pid = child.pid();
        self.shared.registrar.started(pid).await;
        let lines = child.lines(self.name.clone(), self.shared.notices.clone());
        self.tell(Notice::Started(pid)).await;
        let end = tokio::select! {
            status = child.ended() => {
                child.kill_rest();
                End::Because(status)
            }
            order = self.orders.recv() => self.obey(order, &mut child).await,
        };
        self.shared.registrar.ended(pid).await;
        drop(lines);
        end
    }

    async fn obey(&mut self, order: Option<Order>, child: &mut Child) -> End {
        match order {
            None => End::Abandoned,
            Some(Order::Stop(grace, done)) => {
                child.stop(grace).await;
                End::Stopped(done)
            }
            Some(Order::Restart(launch, grace)) => {
                child.stop(grace).await;
                self.launch = launch;
                End::Restart
            }
        }
    }

    /// Whether to go on after the pause.
    async fn pause(&mut self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep(end.saturating_duration_since(Instant::now())) => return true,
                order = self.orders.recv() => match order {
                    None => return false,
                    Some(Order::Stop(_, done)) => {
                        let _ = done.send(());
                        return false;
                    }
                    // It was about to start anyway; now it starts as it should be.
                    Some(Order::Restart(launch, _)) => self.launch = launch,
                },
            }
        }
    }

    async fn tell(&self, notice: Notice) {
        // The receiver is gone only when `up` is about to exit.
        let _ = self.shared.notices.send((self.name.clone(), notice)).await;
    }
}

enum End {
    Because(String),
    Restart,
    Stopped(oneshot::Sender<()>),
    Abandoned,
}

#[cfg(test)]
mod tests;
