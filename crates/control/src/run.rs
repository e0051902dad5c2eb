//! Wiring: binds, starts the tasks, and ends them.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use meltemi_api::Change;
use meltemi_runtime::{drain, logging, signal, task};
use meltemi_snapshot::MeshConfig;
use meltemi_sources::files;
use meltemi_translate::Options;
use meltemi_xds::server::Service;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::admin::{self, Subject};
use crate::ca::{self, Ca};
use crate::generations::Store;
use crate::limits::SHUTDOWN;
use crate::mesh::{self, Inlets, Mesh, Outlets};
use crate::metrics::Metrics;
use crate::orders::Orders;
use crate::proxies::Proxies;
use crate::reports::{self, Printer};
use crate::secure::{Acceptor, Settings};
use crate::trust::Trust;
use crate::{CaArgs, ControlPlaneArgs};

/// A control plane whose addresses are bound, and which does not serve yet.
pub struct ControlPlane {
    paths: Vec<PathBuf>,
    mesh: mesh::Settings,
    xds: TcpListener,
    admin: TcpListener,
    secure: Option<Secure>,
    proxies: Arc<Proxies>,
    metrics: Arc<Metrics>,
    reports: reports::Reports,
    printer: Printer,
}

/// The certificate authority and its TLS port, bound.
struct Secure {
    listener: TcpListener,
    ca: Arc<Ca>,
    trust: Trust,
    args: CaArgs,
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

/// The trust domain to run with. The mesh is not loaded yet, so MeshConfig is looked for by itself.
fn trust(args: &ControlPlaneArgs) -> anyhow::Result<Trust> {
    let loaded = files::load(&args.config).context("read MeshConfig")?;
    let objects: Vec<_> = loaded
        .changes
        .into_iter()
        .filter_map(|change| match change {
            Change::Put(object) => Some(object),
            _ => None,
        })
        .collect();
    Trust::of(&args.identity, &MeshConfig::build(&objects))
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
        if !args.xds_address.ip().is_loopback() && !args.allow_plaintext {
            let address = args.xds_address;
            bail!(
                "{address} is not loopback: plaintext xDS there needs --allow-plaintext (TLS is on --secure-address)"
            );
        }
        let xds = TcpListener::bind(args.xds_address)
            .await
            .with_context(|| format!("bind the xDS address {}", args.xds_address))?;
        let admin = TcpListener::bind(args.admin_address)
            .await
            .with_context(|| format!("bind the admin address {}", args.admin_address))?;
        let secure = match &args.identity.ca_directory {
            Some(directory) => Some(Secure::bind(args, directory).await?),
            None => None,
        };
        let metrics = Arc::new(Metrics::new());
        let (reports, printer) = reports::start(wants_color(args), Arc::clone(&metrics), out)
            .context("start the printing thread")?;
        let options = Options {
            access_log_file: args.access_log_file.clone(),
            identity: secure.as_ref().map(|secure| secure.trust.identity()),
            ..Options::default()
        };
        let proxies = Arc::new(Proxies::new(options, reports.clone(), Arc::clone(&metrics)));
        let paths = args.config.iter().chain(&args.state).cloned().collect();
        let directory = args.generations_directory.as_deref();
        let mesh = mesh::Settings {
            is_strict: args.strict,
            trust: secure.as_ref().map(|secure| secure.trust.clone()),
            machine: args.state.clone(),
            generations: directory.map(|path| Store::open(path, args.keep_generations)).transpose()?,
        };
        Ok(ControlPlane { paths, mesh, xds, admin, secure, proxies, metrics, reports, printer })
    }

    /// Where certificates and xDS are served over TLS, with the real port; `None` without a certificate authority.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn secure_address(&self) -> io::Result<Option<SocketAddr>> {
        self.secure.as_ref().map(|secure| secure.listener.local_addr()).transpose()
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
        let (orders, taken) = Orders::channel();
        let machine = self.mesh.machine.clone().into();
        let inlets = Inlets { batches, orders: taken };
        let mesh = task::spawn("mesh", mesh::run(inlets, Mesh::new(self.mesh), outlets));
        let service = Service::new(Arc::clone(&self.proxies), signal.clone());
        let secure = self.secure.map(|secure| secure.serve(service.clone())).transpose()?;
        let secure = task::spawn("secure server", async move {
            match secure {
                Some(serving) => serving.await,
                None => std::future::pending().await,
            }
        });
        let xds = task::spawn(
            "xds server",
            serve_xds(self.xds, service, Arc::clone(&self.proxies), signal.clone()),
        );
        let subject = Subject { proxies: self.proxies, metrics: self.metrics, orders, machine };
        let admin = task::spawn("admin server", serve_admin(self.admin, subject, signal));
        let mut servers =
            Box::pin(async { tokio::try_join!(flat(xds), flat(admin), flat(secure)).map(drop) });
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
    service: Service<Proxies>,
    proxies: Arc<Proxies>,
    mut drain: drain::Signal,
) -> anyhow::Result<()> {
    tokio::select! {
        () = proxies.loaded() => {}
        () = drain.started() => return Ok(()),
    }
    meltemi_xds::server::serve(listener, service).await.context("serve xDS")
}

impl Secure {
    async fn bind(args: &ControlPlaneArgs, directory: &Path) -> anyhow::Result<Secure> {
        let (args, trust) = (&args.identity, trust(args)?);
        let ca = Arc::new(Ca::open(args, &trust, directory, SystemTime::now())?);
        let address = args.secure_address;
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("bind the secure address {address}"))?;
        Ok(Secure { listener, ca, trust, args: args.clone() })
    }

    /// Certificates at once; a proxy that comes before the mesh is loaded waits for its configuration.
    fn serve(
        self,
        xds: Service<Proxies>,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let address = self.listener.local_addr().context("the secure address")?;
        let settings = Settings::new(self.ca.authority(), address)?;
        let routes = Routes::new(ca::service(Arc::clone(&self.ca), &self.args)?);
        let acceptor = Acceptor::new(self.listener, settings.subscribe(), self.ca.trust_domains());
        tracing::info!(secure = %address, trust_domain = %self.trust.domain, "certificate authority starts");
        Ok(async move {
            let _kept = task::spawn("serving certificate", settings.keep());
            let _watched = task::spawn("certificate authority", self.ca.watch());
            meltemi_xds::server::serve_on(acceptor.connections(), xds, routes).await.context("serve TLS")
        })
    }
}

async fn serve_admin(
    listener: TcpListener,
    subject: Subject,
    mut drain: drain::Signal,
) -> anyhow::Result<()> {
    let service = admin::router(subject).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
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
