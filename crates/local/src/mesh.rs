//! The loop that owns a running mesh: it takes in what processes, probes, manifests and signals say, and keeps
//! processes, the file of replicas and the terminal in step with it. Leaves out how each of those works.

mod reconcile;
mod shutdown;
mod summary;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use meltemi_api::{Diagnostic, Object, ObjectId};
use meltemi_runtime::signal::Shutdown;
use meltemi_runtime::task::{self, Task};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::credentials::Credentials;
use crate::instance::{APP, App, Instance};
use crate::limits::{CONTROL_PLANE_START, ENDPOINT_PROPAGATION, EVENT_QUEUE, SCAN_PERIOD, STATE_DEBOUNCE};
use crate::manifests::Manifests;
use crate::mark;
use crate::plan::{Memory, Plan, documents};
use crate::preflight::GatewayPorts;
use crate::probe::{self, Report, Subject, Verdict};
use crate::programs::Programs;
use crate::reaper::{Reaper, Registrar};
use crate::state::{StateDir, write_atomically};
use crate::terminal::{Happening, Terminal};
use crate::unit::{Notice, Shared, Unit};

/// The control plane's unit.
const CONTROL_PLANE: &str = "control-plane";

/// What a mesh is started with.
pub(crate) struct Setup {
    pub(crate) programs: Programs,
    pub(crate) state: StateDir,
    pub(crate) manifests: Manifests,
    pub(crate) memory: Memory,
    pub(crate) plan: Plan,
    pub(crate) gateway_ports: GatewayPorts,
    pub(crate) terminal: Terminal,
    pub(crate) wait_ready: Duration,
}

/// A running mesh.
struct Mesh {
    programs: Programs,
    state: StateDir,
    manifests: Manifests,
    memory: Memory,
    plan: Plan,
    terminal: Terminal,
    mesh: String,
    shared: Shared,
    verdicts: mpsc::Sender<Verdict>,
    departures: mpsc::Sender<String>,
    /// Whether the manifests could not be read at the last look.
    is_blind: bool,
    /// Whether the manifests have changed and are not followed yet.
    is_behind: bool,
    _reaper: Reaper,

    instances: BTreeMap<String, Instance>,
    /// Instances that are on their way out, and still hold their address.
    leaving: BTreeSet<String>,
    /// By Deployment.
    rollouts: BTreeMap<ObjectId, Rollout>,
    gateway_ports: GatewayPorts,
    control: Control,
    /// Findings already told.
    told: Vec<Diagnostic>,
    /// When the file of replicas is due, if it is out of date.
    state_due: Option<Instant>,
    /// When every proxy has heard of what was written last.
    heard_due: Option<Instant>,
    /// When the table is printed at the latest; `None` once it is.
    summary_due: Option<Instant>,
}

/// Replicas of one Deployment on their way to a new pod template, one at a time.
#[derive(Default)]
struct Rollout {
    waiting: VecDeque<(String, App)>,
    /// Who was restarted last, until it is ready.
    current: Option<(String, Task<()>)>,
}

#[derive(Default)]
struct Control {
    unit: Option<Unit>,
    pid: Option<u32>,
    probes: Option<Task<()>>,
    is_ready: bool,
    restarts: u32,
    /// When proxies are started although the control plane is not ready; `None` once they are.
    proxies_due: Option<Instant>,
}

struct Inbox {
    notices: mpsc::Receiver<(String, Notice)>,
    verdicts: mpsc::Receiver<Verdict>,
    departures: mpsc::Receiver<String>,
}

/// Runs the mesh until somebody asks it to stop. Must run on the main thread: the kernel ends the children when the
/// thread that started them ends.
pub(crate) async fn run(setup: Setup) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let (mut mesh, mut inbox) = Mesh::new(setup)?;
    mesh.begin().await?;
    let why = mesh.serve(&mut inbox, &mut stop).await;
    mesh.shut_down(why, inbox, &mut stop).await;
    Ok(ExitCode::SUCCESS)
}

/// Everything that asks `up` to end.
struct Stop {
    shutdown: Shutdown,
    hangup: unix::Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Stop> {
        let shutdown = Shutdown::listen().context("listening for signals")?;
        let hangup = unix::signal(SignalKind::hangup()).context("listening for signals")?;
        Ok(Stop { shutdown, hangup })
    }

    /// Cancel safe.
    async fn requested(&mut self) -> String {
        tokio::select! {
            cause = self.shutdown.requested() => cause.to_string(),
            _ = self.hangup.recv() => "SIGHUP".to_owned(),
        }
    }
}

impl Mesh {
    fn new(setup: Setup) -> anyhow::Result<(Mesh, Inbox)> {
        let (notices, notices_inbox) = mpsc::channel(EVENT_QUEUE);
        let (verdicts, verdicts_inbox) = mpsc::channel(EVENT_QUEUE);
        let (departures, departures_inbox) = mpsc::channel(EVENT_QUEUE);
        let mesh = mark::fresh();
        let (reaper, registrar) = start_reaper(&setup.programs, &mesh)?;
        let Setup { programs, state, manifests, memory, plan, gateway_ports, terminal, wait_ready } = setup;
        let credentials =
            Credentials::start(&state.credential_key()).context("writing the key of credentials")?;
        let credentials = Arc::new(credentials);
        let inbox = Inbox { notices: notices_inbox, verdicts: verdicts_inbox, departures: departures_inbox };
        let mesh = Mesh {
            programs,
            state,
            manifests,
            memory,
            plan,
            terminal,
            shared: Shared { mesh: mesh.clone(), registrar, notices, credentials },
            mesh,
            verdicts,
            departures,
            is_blind: false,
            is_behind: false,
            _reaper: reaper,
            instances: BTreeMap::new(),
            leaving: BTreeSet::new(),
            rollouts: BTreeMap::new(),
            gateway_ports,
            control: Control::default(),
            told: Vec::new(),
            state_due: None,
            heard_due: None,
            summary_due: Some(Instant::now() + wait_ready),
        };
        Ok((mesh, inbox))
    }

    /// Starts the control plane and the programs; the proxies follow when the control plane is ready.
    async fn begin(&mut self) -> anyhow::Result<()> {
        task::spawn("logs", crate::logs::keep_bounded(self.state.root().join("logs"))).detach();
        self.write_state();
        self.begin_log(CONTROL_PLANE, &["control-plane"])?;
        let launch = self.programs.control_plane(&self.state);
        self.control.unit = Some(Unit::start(CONTROL_PLANE.to_owned(), launch, self.shared.clone()));
        self.control.proxies_due = Some(Instant::now() + CONTROL_PLANE_START);
        self.reconcile().await;
        Ok(())
    }

    async fn serve(&mut self, inbox: &mut Inbox, stop: &mut Stop) -> String {
        let mut scan = interval(SCAN_PERIOD);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let dues = [self.state_due, self.heard_due, self.summary_due, self.control.proxies_due];
            let due = dues.into_iter().flatten().min();
            tokio::select! {
                Some((unit, notice)) = inbox.notices.recv() => self.noticed(unit, notice).await,
                Some(verdict) = inbox.verdicts.recv() => self.judged(verdict).await,
                Some(instance) = inbox.departures.recv() => self.departed(&instance).await,
                _ = scan.tick() => self.rescan().await,
                () = until(due) => {}
                why = stop.requested() => return why,
            }
            self.settle().await;
        }
    }

    /// Does what has become due: after every event, whichever it was.
    async fn settle(&mut self) {
        let now = Instant::now();
        self.tell_readiness();
        if self.control.proxies_due.is_some_and(|due| self.control.is_ready || due <= now) {
            self.control.proxies_due = None;
            self.instances.values_mut().for_each(|instance| instance.start_proxy(&self.shared));
        }
        if self.state_due.is_some_and(|due| due <= now) {
            self.write_state();
        }
        if self.heard_due.is_some_and(|due| due <= now) {
            self.heard_due = None;
        }
        self.roll_out();
        if let Some(due) = self.summary_due {
            let (ready, all) = self.progress();
            let is_complete = ready == all && self.state_due.is_none() && self.heard_due.is_none();
            match is_complete || due <= now {
                true => self.summarise().await,
                false => self.terminal.progress(format!("starting: {ready} of {all} ready")),
            }
        }
    }

    async fn noticed(&mut self, unit: String, notice: Notice) {
        match notice {
            Notice::Line(line) => self.terminal.tell(&Happening::ControlPlane { line }),
            Notice::Started(pid) => {
                self.started(&unit, pid);
                self.terminal.tell(&Happening::Started { unit, pid });
            }
            Notice::Ended { why, was_asked, pause } => {
                let restarts = self.ended(&unit, was_asked);
                if !was_asked {
                    let restart_in_ms = pause.as_millis();
                    self.terminal.tell(&Happening::Ended { unit, why, restart_in_ms, restarts });
                }
            }
        }
    }

    fn started(&mut self, unit: &str, pid: u32) {
        if unit == CONTROL_PLANE {
            let report =
                Report { subject: Subject { unit: unit.to_owned(), pid }, verdicts: self.verdicts.clone() };
            let watch = probe::watch_mesh(self.programs.control_admin(), "/ready", report);
            self.control.pid = Some(pid);
            self.control.probes = Some(task::spawn("readiness", watch));
        } else if let Some((instance, process)) = self.part(unit) {
            let verdicts = self.verdicts.clone();
            if let Some(instance) = self.instances.get_mut(&instance) {
                instance.started(&process, pid, &verdicts);
            }
        }
    }

    fn ended(&mut self, unit: &str, was_asked: bool) -> u32 {
        if unit == CONTROL_PLANE {
            self.control.pid = None;
            self.control.is_ready = false;
            self.control.probes = None;
            self.control.restarts += 1;
            return self.control.restarts;
        }
        let Some((instance, process)) = self.part(unit) else { return 0 };
        self.instances.get_mut(&instance).map_or(0, |instance| instance.ended(&process, was_asked))
    }

    async fn judged(&mut self, verdict: Verdict) {
        if verdict.subject.unit == CONTROL_PLANE {
            self.control.is_ready = verdict.is_good && self.control.pid == Some(verdict.subject.pid);
            return;
        }
        let Some((name, process)) = self.part(&verdict.subject.unit) else { return };
        let Some(instance) = self.instances.get_mut(&name) else { return };
        if instance.judged(&process, &verdict) {
            let why = format!("its probe says: {}", verdict.detail);
            self.terminal.tell(&Happening::Restarting { unit: verdict.subject.unit, why });
            instance.restart_app().await;
        } else if process == APP && !verdict.is_good {
            self.terminal.tell(&Happening::NotReady { instance: name, why: verdict.detail });
        }
    }

    /// Instance and process of a unit's name, `<instance>/<process>`.
    fn part(&self, unit: &str) -> Option<(String, String)> {
        let (instance, process) = unit.rsplit_once('/')?;
        Some((instance.to_owned(), process.to_owned()))
    }

    /// Tells changes of readiness, and has them written for the control plane.
    fn tell_readiness(&mut self) {
        for (name, instance) in &mut self.instances {
            let Some(is_ready) = instance.readiness_change() else { continue };
            if is_ready {
                self.terminal.tell(&Happening::Ready { instance: name.clone() });
            }
            self.state_due.get_or_insert_with(|| Instant::now() + STATE_DEBOUNCE);
        }
    }

    /// Tells the control plane who is there and who is ready.
    fn write_state(&mut self) {
        self.state_due = None;
        self.heard_due = Some(Instant::now() + ENDPOINT_PROPAGATION);
        let ready =
            self.instances.iter().filter(|(_, instance)| instance.is_ready()).map(|(name, _)| name.clone());
        let text = documents(&self.plan, &ready.collect());
        if let Err(error) = write_atomically(&self.state.workloads_file(), &text) {
            tracing::error!(%error, "cannot write the file of replicas");
            self.state_due = Some(Instant::now() + SCAN_PERIOD);
        }
    }

    fn objects(&self) -> Vec<Arc<Object>> {
        self.manifests.objects()
    }
}

fn start_reaper(programs: &Programs, mesh: &str) -> anyhow::Result<(Reaper, Registrar)> {
    let (executable, mark) = (programs.executable.clone(), mesh.to_owned());
    let command = move || Programs::reaper(&executable, &mark);
    Reaper::start(command).context("starting the process that cleans up")
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => future::pending().await,
    }
}
