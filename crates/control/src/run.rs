//! Wiring: binds, starts the tasks, and ends them.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use meltemi_runtime::{drain, logging, signal, task};
use meltemi_sources::files;
use meltemi_translate::Options;
use tokio::net::TcpListener;

use crate::ControlPlaneArgs;
use crate::admin::{self, Subject};
use crate::limits::SHUTDOWN;
use crate::mesh::{self, Mesh, Outlets};
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::reports::{self, Printer};

/// A control plane whose addresses are bound, and which does not serve yet.
pub struct ControlPlane {
    paths: Vec<PathBuf>,
    is_strict: bool,
    xds: TcpListener,
    admin: TcpListener,
    proxies: Arc<Proxies>,
    metrics: Arc<Metrics>,
    reports: reports::Reports,
    printer: Printer,
}

/// Runs a control plane as a process: logs, signals, and [`ControlPlane`] until `SIGTERM` or `SIGINT`, on which
/// it ends with success.
///
/// # Errors
/// If an address cannot be bound, a configuration path does not exist, or logs or signals cannot be set up.
pub async fn run(args: ControlPlaneArgs) -> anyhow::Result<ExitCode> {
    logging::init(args.log_level).context("set up logs")?;
    let mut signals = signal::Shutdown::listen().context("listen to signals")?;
    let control_plane = ControlPlane::bind(&args, io::stdout()).await?;
    let stop = async move {
        let cause = signals.requested().await;
        tracing::info!(signal = %cause, "shutting down");
    };
    control_plane.serve(stop).await?;
    Ok(ExitCode::SUCCESS)
}

impl ControlPlane {
    /// Binds the addresses; what is found and refused will be written to `out`.
    ///
    /// # Errors
    /// If an address cannot be bound, or a configuration path does not exist.
    pub async fn bind(
        args: &ControlPlaneArgs,
        out: impl Write + Send + 'static,
    ) -> anyhow::Result<ControlPlane> {
        for path in &args.config {
            // An empty mesh would take away everything that the proxies have; without a control plane they keep it.
            path.metadata().with_context(|| format!("read the configuration {}", path.display()))?;
        }
        let xds = TcpListener::bind(args.xds_address)
            .await
            .with_context(|| format!("bind the xDS address {}", args.xds_address))?;
        let admin = TcpListener::bind(args.admin_address)
            .await
            .with_context(|| format!("bind the admin address {}", args.admin_address))?;
        let metrics = Arc::new(Metrics::new());
        let (reports, printer) = reports::start(wants_color(args), Arc::clone(&metrics), out)
            .context("start the printing thread")?;
        let options = Options { access_log_file: args.access_log_file.clone() };
        let proxies = Arc::new(Proxies::new(options, reports.clone(), Arc::clone(&metrics)));
        let paths = args.config.iter().chain(&args.state).cloned().collect();
        Ok(ControlPlane { paths, is_strict: args.strict, xds, admin, proxies, metrics, reports, printer })
    }

    /// Where proxies connect, with the real port.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn xds_address(&self) -> io::Result<SocketAddr> {
        self.xds.local_addr()
    }

    /// Where the admin interface is, with the real port.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `stop` completes. Proxies that connect before the mesh is loaded wait: answering them with
    /// nothing would take away what they have.
    ///
    /// # Errors
    /// If a server ends by itself.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let xds = self.xds.local_addr().context("the xDS address")?;
        let admin = self.admin.local_addr().context("the admin address")?;
        tracing::info!(%xds, %admin, "control plane starts");
        let (trigger, signal) = drain::channel();
        let (batches, _watch) = files::watch(self.paths).context("watch the files")?;
        let outlets = Outlets {
            proxies: Arc::clone(&self.proxies),
            reports: self.reports,
            metrics: Arc::clone(&self.metrics),
        };
        let mesh = task::spawn("mesh", mesh::run(batches, Mesh::new(self.is_strict), outlets));
        let xds = task::spawn("xds server", serve_xds(self.xds, Arc::clone(&self.proxies), signal.clone()));
        let subject = Subject { proxies: self.proxies, metrics: self.metrics };
        let admin = task::spawn("admin server", serve_admin(self.admin, subject, signal));
        let mut servers = Box::pin(async { tokio::try_join!(flat(xds), flat(admin)).map(drop) });
        let outcome = tokio::select! {
            () = stop => {
                trigger.fire();
                tokio::time::timeout(SHUTDOWN, &mut servers).await.unwrap_or(Ok(()))
            }
            ended = &mut servers => ended.context("a server has ended"),
            ended = mesh => Err(anyhow::anyhow!("the mesh has ended: {ended:?}")),
        };
        drop(servers);
        self.printer.finish();
        outcome
    }
}

async fn flat(server: task::Task<anyhow::Result<()>>) -> anyhow::Result<()> {
    server.await?
}

async fn serve_xds(
    listener: TcpListener,
    proxies: Arc<Proxies>,
    mut drain: drain::Signal,
) -> anyhow::Result<()> {
    let loaded = proxies.loaded();
    tokio::select! {
        () = loaded => {}
        () = drain.started() => return Ok(()),
    }
    meltemi_xds::server::serve(listener, proxies, drain).await.context("serve xDS")
}

async fn serve_admin(
    listener: TcpListener,
    subject: Subject,
    mut drain: drain::Signal,
) -> anyhow::Result<()> {
    axum::serve(listener, admin::router(subject))
        .with_graceful_shutdown(async move { drain.started().await })
        .await
        .context("serve the admin interface")
}

/// Colour is wanted on a terminal, and where `FORCE_COLOR` asks for it.
fn wants_color(args: &ControlPlaneArgs) -> bool {
    match args.force_color.as_str() {
        "" => io::stdout().is_terminal(),
        "0" => false,
        _ => true,
    }
}
