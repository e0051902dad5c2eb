//! From the command line to a running proxy, and back down.
//!
//! The main thread runs a single-threaded runtime for configuration, DNS, admin and signals; workers are threads
//! of their own. The way down: `/ready` fails and clients are asked to go while new connections are still
//! accepted, until nobody has come or been connected for a second, at most for `--drain-time-s`; then listeners
//! close, what is still under way may finish for a few seconds, and the process ends with 0. Static listeners do
//! not count when there are dynamic ones: probes and scrapes come by them for as long as the process lives. This
//! is the drain of Istio's agent (`EXIT_ON_ZERO_ACTIVE_CONNECTIONS`), done here so that the proxy needs no agent
//! around it. A second signal ends the process at once; so does `/quitquitquit`, as in Envoy.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use meltemi_compile::Rejection;
use meltemi_compile::program::{Locality, Name};
use meltemi_envoy::config::bootstrap::v3::Bootstrap;
use meltemi_runtime::logging;
use meltemi_runtime::signal::Shutdown;
use meltemi_runtime::task;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::access_log::{FlushPolicy, LogSink, LogWriter};
use crate::admin::{self, Admin};
use crate::admission::Admission;
use crate::bootstrap::{self, Start};
use crate::command_line::{Mode, ProxyArgs};
use crate::config::{Configurator, Setup, Store};
use crate::departure::Asking;
use crate::istio_stats::NodeFacts;
use crate::lifecycle::{Lifecycle, State};
use crate::stats::Registry;
use crate::tls::Contexts;
use crate::upstream::shared::HostStates;
use crate::worker::{self, Command, WorkerContext, WorkerHandle};

/// For how long nobody may have come or be connected before the drain ends early. It is also the shortest drain,
/// so that load balancers in front notice the failing readiness.
const QUIET: Duration = Duration::from_secs(1);

/// How long requests may go on after listeners are closed.
const MAX_FINISH: Duration = Duration::from_secs(5);

/// How often the way down looks whether connections are left.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// How long `--mode init_only` waits for the control plane.
const MAX_INIT: Duration = Duration::from_secs(60);

/// Runs `meltemi proxy` until it is asked to stop.
///
/// # Errors
/// If the bootstrap cannot be read or used; the text names every resource and field that is refused.
pub fn run(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    if args.encode_bootstrap {
        bootstrap::write_encoded(&args)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.reject_unknown_dynamic_fields {
        anyhow::bail!("--reject-unknown-dynamic-fields is not supported: such fields are passed over");
    }
    let logging = logging::init(args.effective_log_level()?).ok();
    let start = bootstrap::start(bootstrap::read_apart(&args)?).map_err(|refused| refusal(&refused))?;
    for (field, reason) in &start.notes {
        tracing::info!(field, reason, "bootstrap: the field has no effect");
    }
    for option in args.without_effect() {
        tracing::debug!(option, "command line: the option has no effect");
    }
    if args.mode == Mode::Validate {
        let name =
            args.config_path.as_deref().map_or("--config-yaml".into(), |path| path.display().to_string());
        println!("configuration '{name}' OK");
        return Ok(ExitCode::SUCCESS);
    }
    // Local: active health checks speak HTTP, whose connections stay on one thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .context("start the main runtime")?;
    runtime.block_on(serve(args, start, logging))
}

fn refusal(refused: &[Rejection]) -> anyhow::Error {
    let lines: Vec<String> = refused.iter().map(|rejection| format!("  {rejection}")).collect();
    anyhow::anyhow!("the bootstrap is refused:\n{}", lines.join("\n"))
}

/// The threads that serve, and what they share.
struct Workers {
    handles: Vec<WorkerHandle>,
    hosts: Arc<HostStates>,
    registry: Arc<Registry>,
    logs: LogSink,
    tls: Arc<Contexts>,
}

async fn serve(args: ProxyArgs, start: Start, logging: Option<logging::Handle>) -> anyhow::Result<ExitCode> {
    let mut shutdown = Shutdown::listen().context("install signal handlers")?;
    let policy = FlushPolicy {
        interval: Duration::from_millis(args.file_flush_interval_msec),
        min_bytes: usize::try_from(args.file_flush_min_size_kb).unwrap_or(64) << 10,
    };
    let (writer, logs) = LogWriter::spawn(policy).context("start the access log writer")?;
    let concurrency = args.concurrency.map_or_else(cpus, |n| n as usize);
    let lifecycle = Arc::new(Lifecycle::default());
    let mut workers = Workers::spawn(concurrency, &start, logs, &lifecycle)?;
    let (quit, mut quit_asked) = mpsc::channel(1);
    let running = start_configuration(&args, start, logging, &workers, Arc::clone(&lifecycle), quit).await?;
    let exit = if args.mode == Mode::InitOnly {
        initialized(&lifecycle).await
    } else {
        tokio::select! {
            cause = shutdown.requested() => {
                tracing::info!(%cause, "draining");
                lifecycle.drain();
                let drain_time = Duration::from_secs(u64::from(args.drain_time_s));
                tokio::select! {
                    () = workers.drain(drain_time, &running.store) => ExitCode::SUCCESS,
                    cause = shutdown.requested() => {
                        tracing::warn!(%cause, "asked again: ending at once");
                        ExitCode::FAILURE
                    }
                }
            }
            // Without an admin interface nobody can ask, and the channel is closed from the start.
            Some(()) = quit_asked.recv() => {
                tracing::info!("asked to quit by the admin interface");
                ExitCode::SUCCESS
            }
            // A proxy that serves with fewer threads than it was told to would hide that; its supervisor starts it anew.
            id = workers.first_ended() => {
                tracing::error!(worker = id, "a worker ended; so does the process");
                ExitCode::FAILURE
            }
        }
    };
    drop(running);
    workers.stop();
    writer.finish();
    tracing::info!("exiting");
    Ok(exit)
}

/// The tasks of the main thread; they end when this is dropped.
struct Running {
    store: Arc<Mutex<Store>>,
    _configurator: task::Task<()>,
    _admin: Option<task::Task<()>>,
    _signals: task::Task<()>,
}

/// `SIGUSR1` reopens access logs, as log rotation asks for it, and `SIGHUP` does nothing, as in Envoy. Both would
/// end the process if nobody took them.
fn watch_signals(logs: LogSink) -> anyhow::Result<task::Task<()>> {
    let mut reopen = signal(SignalKind::user_defined1()).context("take SIGUSR1")?;
    let mut hangup = signal(SignalKind::hangup()).context("take SIGHUP")?;
    Ok(task::spawn("signals", async move {
        loop {
            tokio::select! {
                _ = reopen.recv() => logs.reopen(),
                _ = hangup.recv() => tracing::debug!("SIGHUP has no effect"),
            }
        }
    }))
}

async fn start_configuration(
    args: &ProxyArgs,
    start: Start,
    logging: Option<logging::Handle>,
    workers: &Workers,
    lifecycle: Arc<Lifecycle>,
    quit: mpsc::Sender<()>,
) -> anyhow::Result<Running> {
    let Start { message, store, dynamic, admin: address, stats_config, .. } = start;
    let store = Arc::new(Mutex::new(store));
    let commands: Vec<_> = workers.handles.iter().map(|worker| worker.commands.clone()).collect();
    let setup = Setup {
        store: Arc::clone(&store),
        workers: commands.clone(),
        dynamic,
        lifecycle: Arc::clone(&lifecycle),
        registry: Arc::clone(&workers.registry),
        hosts: Arc::clone(&workers.hosts),
        secrets: Arc::clone(workers.tls.secrets()),
        drain: args.drain_policy(),
    };
    let configurator = Configurator::new(setup).map_err(|refused| refusal(&refused))?;
    let admin = Admin {
        store: Arc::clone(&store),
        addresses: configurator.addresses(),
        registry: Arc::clone(&workers.registry),
        hosts: Arc::clone(&workers.hosts),
        lifecycle,
        logging,
        logs: workers.logs.clone(),
        bootstrap: message,
        args: args.clone(),
        concurrency: workers.handles.len(),
        workers: commands,
        quit,
        stats_config,
        counters_before: Default::default(),
        started: SystemTime::now(),
        draining: Default::default(),
    };
    let admin = match address {
        Some(address) => Some(start_admin(address, admin, args).await?),
        None => None,
    };
    Ok(Running {
        store,
        _configurator: task::spawn("config", configurator.run()),
        _admin: admin,
        _signals: watch_signals(workers.logs.clone())?,
    })
}

async fn start_admin(address: SocketAddr, admin: Admin, args: &ProxyArgs) -> anyhow::Result<task::Task<()>> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("bind the admin interface to {address}"))?;
    let local = listener.local_addr().context("address of the admin interface")?;
    if let Some(path) = &args.admin_address_path {
        std::fs::write(path, local.to_string()).with_context(|| format!("write {}", path.display()))?;
    }
    tracing::info!(address = %local, "admin interface");
    Ok(task::spawn("admin", admin::serve(listener, Arc::new(admin))))
}

/// `--mode init_only`: whether everything comes up.
async fn initialized(lifecycle: &Lifecycle) -> ExitCode {
    let deadline = Instant::now() + MAX_INIT;
    while lifecycle.state() != State::Live {
        if Instant::now() >= deadline {
            tracing::error!(state = lifecycle.state().as_str(), "not initialized in time");
            return ExitCode::FAILURE;
        }
        tokio::time::sleep(DRAIN_POLL).await;
    }
    ExitCode::SUCCESS
}

/// Where ejections are logged: `cluster_manager.outlier_detection.event_log_path`.
fn ejection_log(bootstrap: &Bootstrap) -> Option<&str> {
    let path = &bootstrap.cluster_manager.as_ref()?.outlier_detection.as_ref()?.event_log_path;
    (!path.is_empty()).then_some(path)
}

/// Where this proxy stands, for balancing by zones: `node.locality` and `cluster_manager.local_cluster_name`.
fn place(bootstrap: &Bootstrap) -> (Option<Locality>, Option<Name>) {
    let locality = bootstrap.node.as_ref().and_then(|node| node.locality.as_ref());
    let home = locality.map(|locality| Locality {
        region: locality.region.as_str().into(),
        zone: locality.zone.as_str().into(),
        sub_zone: locality.sub_zone.as_str().into(),
    });
    let manager = bootstrap.cluster_manager.as_ref();
    let name = manager.map(|manager| manager.local_cluster_name.as_str()).filter(|name| !name.is_empty());
    (home, name.map(Name::from))
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Workers {
    fn spawn(
        concurrency: usize,
        start: &Start,
        logs: LogSink,
        lifecycle: &Arc<Lifecycle>,
    ) -> anyhow::Result<Workers> {
        let hosts = Arc::new(HostStates::new(logs.clone(), ejection_log(&start.message)));
        let (home, local_cluster) = place(&start.message);
        hosts.set_place(home, local_cluster);
        let registry = Registry::new();
        let node = Arc::new(NodeFacts::new(start.message.node.as_ref().unwrap_or(&Default::default())));
        let mut handles = Vec::with_capacity(concurrency);
        let tls = Arc::clone(hosts.tls());
        tls.set_own_frame(node.frame().clone());
        let admission = start.max_downstream_connections.map(|limit| Arc::new(Admission::new(limit)));
        for id in 0..concurrency {
            let context = WorkerContext {
                id,
                hosts: Arc::clone(&hosts),
                stats: registry.worker(id),
                logs: logs.clone(),
                node: Arc::clone(&node),
                lifecycle: Arc::clone(lifecycle),
                admission: admission.clone(),
                tls: Arc::clone(&tls),
            };
            handles.push(worker::spawn(context).with_context(|| format!("start worker {id}"))?);
        }
        Ok(Workers { handles, hosts, registry, logs, tls })
    }

    /// Waits until a worker is gone although nobody asked it to go; gives its number.
    async fn first_ended(&mut self) -> usize {
        std::future::poll_fn(|cx| {
            let ended = self.handles.iter_mut().position(|worker| worker.poll_ended(cx).is_ready());
            ended.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.handles {
            // A worker that is gone has nothing to drain or stop.
            let _ = worker.commands.send(command());
        }
    }

    /// Asks clients to go and waits for it; see the module.
    async fn drain(&self, drain_time: Duration, store: &Mutex<Store>) {
        // Whoever stops the process does not wait for a ramp.
        self.tell(|| Command::Drain { inbound_only: false, asking: Asking::Always });
        let deadline = Instant::now() + drain_time;
        let mut accepted = self.traffic(store).1;
        let mut quiet_since = Instant::now();
        while Instant::now() < deadline && quiet_since.elapsed() < QUIET {
            tokio::time::sleep(DRAIN_POLL).await;
            let (open, total) = self.traffic(store);
            if open > 0 || total != accepted {
                accepted = total;
                quiet_since = Instant::now();
            }
        }
        self.tell(|| Command::StopListeners { inbound_only: false });
        tokio::time::sleep(DRAIN_POLL).await;
        let deadline = Instant::now() + MAX_FINISH;
        while self.traffic(store).0 > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Connections that are open, and all that ever were, on the listeners that the drain waits for.
    fn traffic(&self, store: &Mutex<Store>) -> (u64, u64) {
        let store = store.lock().unwrap_or_else(PoisonError::into_inner);
        let is_dynamic = |name: &Name| store.listeners().get(name).is_some_and(|entry| !entry.is_static);
        let any_dynamic = store.listeners().keys().any(is_dynamic);
        self.registry.downstream_connections(|name| !any_dynamic || is_dynamic(name))
    }

    fn stop(self) {
        self.tell(|| Command::Stop);
        for worker in self.handles {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}
