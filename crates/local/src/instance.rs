//! One running replica or gateway: its two processes, their probes, and whether it gets traffic. Leaves out what should
//! run and what others must be told (`mesh`).

use std::net::SocketAddr;
use std::time::Duration;

use meltemi_agent::READINESS_PORT;
use meltemi_runtime::task::{self, Task};
use tokio::sync::mpsc;

use crate::limits::{ENDPOINT_PROPAGATION, SHUTDOWN_STEP};
use crate::plan::Workload;
use crate::probe::{self, Purpose, Report, Subject, Target, Verdict};
use crate::programs::ProxyLaunch;
use crate::unit::{Launch, Shared, Unit};

/// Suffixes of unit names.
pub(crate) const PROXY: &str = "proxy";
pub(crate) const APP: &str = "app";

/// The program of a replica.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// What it is made from; when this changes, it must be restarted. What else reaches its environment (the services of
    /// the namespace) is as it was when the program started, as in a pod.
    pub(crate) template: Workload,
    pub(crate) launch: Launch,
    pub(crate) target: Target,
    pub(crate) grace: Duration,
}

/// One process of an instance.
#[derive(Debug, Default)]
struct Process {
    unit: Option<Unit>,
    pid: Option<u32>,
    is_ready: bool,
    restarts: u32,
    probes: Option<Task<()>>,
}

/// A replica with its sidecar, or a gateway (which has no program).
#[derive(Debug)]
pub(crate) struct Instance {
    name: String,
    address: std::net::IpAddr,
    app: Option<App>,
    proxy_launch: ProxyLaunch,
    program: Process,
    proxy: Process,
    /// Out of the endpoints, because it is about to be stopped or restarted.
    is_withdrawn: bool,
    was_ready: bool,
}

impl Instance {
    /// Not started yet.
    pub(crate) fn new(
        name: String,
        address: std::net::IpAddr,
        app: Option<App>,
        proxy_launch: ProxyLaunch,
    ) -> Instance {
        Instance {
            name,
            address,
            app,
            proxy_launch,
            program: Process::default(),
            proxy: Process::default(),
            is_withdrawn: false,
            was_ready: false,
        }
    }

    /// Starts the program, if it has one.
    pub(crate) fn start_app(&mut self, shared: &Shared) {
        if let Some(app) = &self.app {
            let unit = Unit::start(format!("{}/{APP}", self.name), app.launch.clone(), shared.clone());
            self.program.unit = Some(unit);
        }
    }

    /// Starts the proxy; does nothing when it runs.
    pub(crate) fn start_proxy(&mut self, shared: &Shared) {
        if self.proxy.unit.is_none() {
            let launch = self.proxy_launch.launch.clone();
            self.proxy.unit = Some(Unit::start(format!("{}/{PROXY}", self.name), launch, shared.clone()));
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.is_withdrawn && self.proxy.is_ready && (self.app.is_none() || self.program.is_ready)
    }

    pub(crate) fn is_gateway(&self) -> bool {
        self.app.is_none()
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.program.restarts + self.proxy.restarts
    }

    /// Of the program; of the proxy for a gateway.
    pub(crate) fn pid(&self) -> Option<u32> {
        if self.is_gateway() { self.proxy.pid } else { self.program.pid }
    }

    /// Whether readiness has changed since this was last asked, and to what.
    pub(crate) fn readiness_change(&mut self) -> Option<bool> {
        let is_ready = self.is_ready();
        let changed = is_ready != self.was_ready;
        self.was_ready = is_ready;
        changed.then_some(is_ready)
    }

    /// A process of it started: its probes begin.
    pub(crate) fn started(&mut self, process: &str, pid: u32, verdicts: &mpsc::Sender<Verdict>) {
        let subject = Subject { unit: format!("{}/{process}", self.name), pid };
        let report = Report { subject, verdicts: verdicts.clone() };
        let probes = match (process, &self.app) {
            (APP, Some(app)) => task::spawn("probes", probe::watch(app.target.clone(), report)),
            _ => {
                let socket = SocketAddr::new(self.address, READINESS_PORT);
                task::spawn("readiness", probe::watch_mesh(socket, "/healthz/ready", report))
            }
        };
        if process == APP {
            self.is_withdrawn = false;
        }
        let process = self.process(process);
        process.pid = Some(pid);
        process.probes = Some(probes);
    }

    /// A process of it ended; how often that has happened by itself.
    pub(crate) fn ended(&mut self, process: &str, was_asked: bool) -> u32 {
        let process = self.process(process);
        process.pid = None;
        process.is_ready = false;
        process.probes = None;
        process.restarts = process.restarts.saturating_add(u32::from(!was_asked));
        process.restarts
    }

    /// Takes in what a probe found out; whether the program must be restarted.
    pub(crate) fn judged(&mut self, process: &str, verdict: &Verdict) -> bool {
        let process = self.process(process);
        if process.pid != Some(verdict.subject.pid) {
            return false;
        }
        match verdict.purpose {
            Purpose::Readiness | Purpose::Mesh => {
                process.is_ready = verdict.is_good;
                false
            }
            Purpose::Startup | Purpose::Liveness => !verdict.is_good,
        }
    }

    /// Ends the program and starts it again as it is. For one that its probes call dead: it gets no time to propagate.
    pub(crate) async fn restart_app(&mut self) {
        self.program.is_ready = false;
        self.program.probes = None;
        if let (Some(unit), Some(app)) = (&self.program.unit, &self.app) {
            unit.restart(app.launch.clone(), app.grace).await;
        }
    }

    /// Whether the program must be restarted to run as `app` says.
    pub(crate) fn differs(&self, app: Option<&App>) -> bool {
        match (&self.app, app) {
            (Some(own), Some(wanted)) => own.template != wanted.template,
            (own, wanted) => own.is_some() != wanted.is_some(),
        }
    }

    /// Runs the program anew as `app` says, once callers have heard that it is away.
    pub(crate) fn replace_app(&mut self, app: App) -> Option<Task<()>> {
        self.is_withdrawn = true;
        let (launch, grace) = (app.launch.clone(), app.grace);
        self.app = Some(app);
        let restart = self.program.unit.as_ref()?.restarter();
        Some(task::spawn("rollout", async move {
            tokio::time::sleep(ENDPOINT_PROPAGATION).await;
            restart.restart(launch, grace).await;
        }))
    }

    /// Whether the proxy must be restarted to run as `launch` says.
    pub(crate) fn proxy_differs(&self, launch: &ProxyLaunch) -> bool {
        self.proxy_launch != *launch
    }

    /// Restarts the proxy with its new bootstrap, which must be written already.
    pub(crate) async fn replace_proxy(&mut self, launch: ProxyLaunch) {
        self.proxy_launch = launch;
        if let Some(unit) = &self.proxy.unit {
            unit.restart(self.proxy_launch.launch.clone(), SHUTDOWN_STEP).await;
        }
    }

    /// Takes it out of the endpoints for good.
    pub(crate) fn withdraw(&mut self) {
        self.is_withdrawn = true;
    }

    /// Ends both processes, the program first: what it still has to say goes through the proxy.
    pub(crate) async fn leave(mut self) {
        tokio::time::sleep(ENDPOINT_PROPAGATION).await;
        let grace = self.app.as_ref().map_or(Duration::ZERO, |app| app.grace);
        if let Some(unit) = self.take_app() {
            unit.stop(grace).await;
        }
        if let Some(unit) = self.take_proxy() {
            unit.stop(SHUTDOWN_STEP).await;
        }
    }

    /// The program's process, to be stopped by the caller.
    pub(crate) fn take_app(&mut self) -> Option<Unit> {
        self.program.probes = None;
        self.program.unit.take()
    }

    /// The proxy's process, to be stopped by the caller.
    pub(crate) fn take_proxy(&mut self) -> Option<Unit> {
        self.proxy.probes = None;
        self.proxy.unit.take()
    }

    fn process(&mut self, process: &str) -> &mut Process {
        if process == APP { &mut self.program } else { &mut self.proxy }
    }
}
